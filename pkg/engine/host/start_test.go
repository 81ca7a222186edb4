package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	testSize  = 1000 // of the component, in sectors
	testChunk = 16
)

// device is a candidate whose superblock has the number and the event count
// given, and the roles of all numbers.
func device(number int, events uint64, roles ...raid.Role) candidate {
	return candidate{
		dev: &member.Device{Path: fmt.Sprintf("/dev/sd%c", 'a'+number), Serial: fmt.Sprintf("S%d", number), Block: 512},
		sb: &metadata.Superblock{
			Geometry: raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: testChunk, Size: testSize},
			Number:   number, Events: events, Roles: roles, DataSize: testSize,
			ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
		},
	}
}

func (c candidate) asSlot(slot int) candidate {
	c.asked.Slot = &slot

	return c
}

func (c candidate) recovered(offset raid.Sectors) candidate {
	c.sb.RecoveryOffset = offset

	return c
}

func (c candidate) sized(size raid.Sectors) candidate {
	c.sb.DataSize = size

	return c
}

func (c candidate) using(size raid.Sectors) candidate {
	c.sb.Size = size

	return c
}

const (
	spare  = raid.RoleSpare
	faulty = raid.RoleFaulty
)

// TestPlace gives one device its place. The freshest superblock is that of
// device 0, at event 9.
func TestPlace(t *testing.T) {
	table := []raid.Role{0, 1, faulty, spare, 7, 2}

	for _, tt := range []struct {
		name  string
		c     candidate
		chunk raid.Sectors // on top of testChunk
		want  string       // of an error
		slot  raid.Slot
		got   engine.Member // of slot
	}{
		{name: "in sync", c: device(1, 9, table...).asSlot(1), slot: 1, got: engine.Member{Device: 4, State: raid.InSync}},
		{
			name: "one behind: it missed the last round",
			c:    device(1, 8, 0, 1, 2).asSlot(1), slot: 1, got: engine.Member{Device: 4, State: raid.InSync},
		},
		{name: "two behind", c: device(1, 7, 0, 1, 2).asSlot(1), want: "is stale: event count 7, the freshest has 9"},
		{name: "faulty, sure of its slot", c: device(2, 8, 0, 1, 2).asSlot(2), want: "is faulty by the freshest"},
		{name: "faulty, asked for as a spare", c: device(2, 8, 0, 1, 2), want: "is faulty by the freshest"},
		{name: "another slot asked for", c: device(1, 9, table...).asSlot(2), want: "is slot 1 by the freshest"},
		{name: "asked for as a spare", c: device(1, 9, table...), want: "is slot 1 by the freshest"},
		{name: "a spare asked for in a slot", c: device(3, 9, table...).asSlot(2), want: "is spare by the freshest"},
		{name: "beyond the table", c: device(40, 9, table...).asSlot(0), want: "is spare by the freshest"},
		{
			// It was made a member in the last round and did not hear of it: what
			// it holds is a spare's.
			name: "a spare by its own word", c: device(1, 8, 0, spare, faulty, spare).asSlot(1),
			want: "is spare by its own superblock and slot 1 by the freshest",
		},
		{
			name: "another slot by its own word", c: device(1, 8, 0, 2, faulty, spare).asSlot(1),
			want: "is slot 2 by its own superblock and slot 1 by the freshest",
		},
		{
			name: "too small", c: device(1, 9, table...).asSlot(1).sized(testSize - 1),
			want: "has room for 999 sectors, the array uses 1000",
		},
		{
			name: "a spare that is too small", c: device(3, 9, table...).sized(testSize - 1),
			want: "has room for 999 sectors, the array uses 1000",
		},
		{
			name: "one behind: it has not heard that the array grew",
			c:    device(1, 8, 0, 1, 2).asSlot(1).sized(testSize - 1).using(testSize / 2), slot: 1,
			got: engine.Member{Device: 4, State: raid.InSync},
		},
		{
			name: "one behind, and too small by its own word", c: device(1, 8, 0, 1, 2).asSlot(1).sized(testSize - 1),
			want: "has room for 999 sectors, the array uses 1000",
		},
		{
			name: "too small for what the array grew to", c: device(1, 9, table...).asSlot(1).sized(testSize - 1).using(testSize / 2),
			want: "has room for 999 sectors, the array uses 1000",
		},
		{name: "no such slot", c: device(4, 9, table...).asSlot(7), want: "claims slot 7 of 3"},
		{name: "the slot is taken", c: device(0, 9, table...).asSlot(0), want: "claims slot 0, as another device does"},
		{
			name: "being filled",
			c:    device(1, 9, table...).asSlot(1).recovered(5*testChunk + 7),
			slot: 1, got: engine.Member{Device: 4, State: raid.Recovering, Recovered: 5 * testChunk},
		},
		{
			name: "being filled, with no chunks to round to",
			c:    device(1, 9, table...).asSlot(1).recovered(13), chunk: -testChunk,
			slot: 1, got: engine.Member{Device: 4, State: raid.Recovering, Recovered: 8},
		},
		{
			name: "filled",
			c:    device(1, 9, table...).asSlot(1).recovered(testSize), slot: 1, got: engine.Member{Device: 4, State: raid.InSync},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			best := device(0, 9, table...).sb
			best.Chunk += tt.chunk
			setup := newSetup(best)
			setup.Members[0] = engine.Member{Device: 0, State: raid.InSync}

			err := place(&setup, best, tt.c, 4)
			checkRefused(t, err, tt.want)

			if err == nil {
				if diff := cmp.Diff(tt.got, setup.Members[tt.slot]); diff != "" {
					t.Errorf("slot %d (-want +got):\n%s", tt.slot, diff)
				}
			}
		})
	}
}

func newSetup(best *metadata.Superblock) engine.Setup {
	s := engine.Setup{Level: best.Level, Size: best.Size, Resynced: best.ResyncOffset}
	for range best.Disks {
		s.Members = append(s.Members, engine.Member{Device: engine.None, State: raid.Missing})
	}

	return s
}

// checkRefused checks that err is a refusal with a piece of text, or none if
// the piece is empty.
func checkRefused(t *testing.T, err error, piece string) {
	t.Helper()

	switch {
	case piece == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case piece != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), piece)):
		t.Errorf("error %v, want a refusal with %q", err, piece)
	}
}

func TestPlaceSpare(t *testing.T) {
	best := device(0, 9, 0, 1, 2, spare).sb
	setup := newSetup(best)

	// The event count of a spare need not keep up.
	for number, events := range map[int]uint64{3: 2} {
		if err := place(&setup, best, device(number, events, 0, 1, 2, spare), engine.DeviceID(number)); err != nil {
			t.Fatal(err)
		}
	}

	if diff := cmp.Diff([]engine.DeviceID{3}, setup.Spares); diff != "" {
		t.Errorf("spares (-want +got):\n%s", diff)
	}
}

// TestSucceed places a device that is to replace the member of slot 1, with it
// or without.
func TestSucceed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		with      bool // the other is here
		degraded  bool // it may start so
		recovered raid.Sectors
		want      string
		in        engine.Member // slot 1
		successor bool
	}{
		{
			name: "being filled", with: true, recovered: 5 * testChunk,
			in: engine.Member{Device: 1, State: raid.InSync}, successor: true,
		},
		{
			name: "filled", with: true, recovered: raid.MaxSectors,
			in: engine.Member{Device: 1, State: raid.InSync}, successor: true,
		},
		{name: "filled and alone", recovered: raid.MaxSectors, in: engine.Member{Device: 2, State: raid.InSync}},
		{name: "being filled and alone", recovered: testChunk, want: "is here, without that"},
		{
			name: "being filled and alone, degraded", recovered: testChunk, degraded: true,
			in: engine.Member{Device: 2, State: raid.Recovering, Recovered: testChunk},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := []raid.Role{0, 1, 1}
			best := device(0, 9, table...).sb
			setup := newSetup(best)

			c := device(2, 9, table...).asSlot(1).recovered(tt.recovered)
			c.sb.Replacement = true

			if err := place(&setup, best, c, 2); err != nil {
				t.Fatal(err)
			}

			if tt.with {
				if err := place(&setup, best, device(1, 9, table...).asSlot(1), 1); err != nil {
					t.Fatal(err)
				}
			}

			err := succeed(&setup, tt.degraded)
			checkRefused(t, err, tt.want)

			if err == nil && (setup.Members[1] != tt.in || setup.HasSuccessor != tt.successor) {
				t.Errorf("slot 1 has %+v, a successor %v, want %+v, %v",
					setup.Members[1], setup.HasSuccessor, tt.in, tt.successor)
			}

			if tt.successor {
				checkRefused(t, place(&setup, best, c, 3), "as another device is")
			}
		})
	}
}

// TestSucceeded places a device that has the slot to itself, by the freshest
// superblock, and does not know that by its own.
func TestSucceeded(t *testing.T) {
	best := device(0, 9, 0, raid.RoleFaulty, 1).sb
	setup := newSetup(best)

	c := device(2, 9, 0, 1, 1).asSlot(1).recovered(5 * testChunk)
	c.sb.Replacement = true

	if err := place(&setup, best, c, 2); err != nil {
		t.Fatal(err)
	}

	want := engine.Member{Device: 2, State: raid.Recovering, Recovered: 5 * testChunk}
	if setup.Members[1] != want || setup.HasSuccessor {
		t.Errorf("slot 1 has %+v, a successor %v, want %+v, false", setup.Members[1], setup.HasSuccessor, want)
	}
}

// TestStartable draws the members of an array by slot: I in sync, R recovering,
// - missing.
func TestStartable(t *testing.T) {
	for _, tt := range []struct {
		level    raid.Level
		members  string
		dirty    bool
		degraded bool // asked for
		want     string
	}{
		{raid.Level5, "III", false, false, ""},
		{raid.Level5, "III", true, false, ""},
		{raid.Level5, "II-", false, true, ""},
		{raid.Level5, "II-", false, false, "1 of 3 members are missing, and a degraded start was not asked for"},
		{raid.Level5, "II-", true, true, "dirty and degraded"},
		{raid.Level5, "IIR", false, false, ""},
		{raid.Level5, "IIR", true, false, "dirty and degraded"},
		{raid.Level5, "I-R", false, true, "2 of 3 members are missing or not in sync, which a raid5 does not survive"},
		{raid.Level5, "I--", false, true, "2 of 3 members are missing or not in sync, which a raid5 does not survive"},
		{raid.Level4, "II-", true, true, "dirty and degraded"},
		{raid.Level1, "II-", true, true, ""},
		{raid.Level1, "I-R", true, true, ""},
		{raid.Level1, "I-R", true, false, "a degraded start was not asked for"},
		{raid.Level1, "IRR", false, false, ""},
		{raid.Level1, "RR", false, false, "2 of 2 members are missing or not in sync, which a raid1 does not survive"},
		{raid.Level6, "II--", false, true, ""},
		{raid.Level6, "III-", true, true, "dirty and degraded"},
		{raid.Level6, "IIRR", false, false, ""},
		{raid.Level6, "I---", false, true, "which a raid6 does not survive"},
		{raid.Level10, "I-I-", true, true, ""},
		{raid.Level10, "I-I-", true, false, "2 of 4 members are missing, and a degraded start was not asked for"},
		{raid.Level10, "IRIR", true, false, ""},
		{raid.Level10, "--II", false, true, "which a raid10 does not survive"},
		{raid.Level0, "II", true, false, ""},
		{raid.Level0, "I-", false, true, "1 of 2 members are missing or not in sync, which a raid0 does not survive"},
		{raid.Level1, strings.Repeat("I", 64), false, false, ""},
		{raid.Level1, strings.Repeat("I", 65), false, false, "65 slots, at most 64 are served"},
	} {
		best := &metadata.Superblock{
			Geometry: raid.Geometry{Level: tt.level, Disks: len(tt.members)}, ResyncOffset: raid.MaxSectors,
		}
		if tt.dirty {
			best.ResyncOffset = 0
		}

		if tt.level == raid.Level10 {
			best.Layout = 0x102
		}

		setup := newSetup(best)

		for slot, c := range tt.members {
			switch c {
			case 'I':
				setup.Members[slot] = engine.Member{Device: engine.DeviceID(slot), State: raid.InSync}
			case 'R':
				setup.Members[slot] = engine.Member{Device: engine.DeviceID(slot), State: raid.Recovering}
			}
		}

		t.Run(fmt.Sprintf("%v %s dirty=%v", tt.level, tt.members, tt.dirty), func(t *testing.T) {
			checkRefused(t, startable(setup, best, api.StartParameters{Degraded: tt.degraded}, false), tt.want)
		})
	}
}

// TestFreshness orders devices: only those that hold a slot by their own word
// have a say, however far ahead a stray spare is.
func TestFreshness(t *testing.T) {
	all := []candidate{
		device(3, 99, 0, 1, 2, spare),
		device(0, 7, 0, 1, 2),
		device(4, 98, 0, 1, 2, spare, faulty),
		device(1, 9, 0, 1, 2),
		device(2, 8, 0, 1, 2),
	}

	slices.SortStableFunc(all, byFreshness)

	var got []int
	for _, c := range all {
		got = append(got, c.sb.Number)
	}

	if diff := cmp.Diff([]int{1, 2, 0, 3, 4}, got); diff != "" {
		t.Errorf("numbers, the freshest first (-want +got):\n%s", diff)
	}
}

func TestReserve(t *testing.T) {
	h := New(Config{})

	if _, err := h.reserve(raid.UUID{1}, api.StartParameters{Name: "data"}); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		uuid raid.UUID
		name string
		want string
	}{
		{raid.UUID{1}, "other", "runs already, or is being started"},
		{raid.UUID{2}, "data", `another array is called "data"`},
		{raid.UUID{2}, "../data", "cannot be the name"},
		{raid.UUID{2}, "other", ""},
	} {
		_, err := h.reserve(tt.uuid, api.StartParameters{Name: tt.name})
		checkRefused(t, err, tt.want)
	}
}

// format is a metadata module that keeps nothing.
type format struct {
	metadata.Format

	name string
}

func (f format) Name() string { return f.name }

func (f format) Keep([]metadata.Attachment, ...metadata.Keeper) (metadata.Keeper, error) {
	return nil, nil
}

// candidates returns three members and a spare.
func candidates() []candidate {
	var all []candidate

	for number := range 4 {
		c := device(number, 9, 0, 1, 2, spare)
		c.format = format{name: "md1"}
		c.sb.DataOffset = raid.Sectors(64 + 8*number)

		if number < 3 {
			c = c.asSlot(number)
		}

		all = append(all, c)
	}

	return all
}

// TestPlan describes arrays from devices that agree.
func TestPlan(t *testing.T) {
	h := New(Config{})
	all := candidates()

	cfg, err := h.plan(all, api.StartParameters{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	want := engine.Setup{
		Level: raid.Level5, Size: testSize / testChunk * testChunk, Resynced: raid.MaxSectors, Spares: []engine.DeviceID{3},
		Members: []engine.Member{
			{Device: 0, State: raid.InSync}, {Device: 1, State: raid.InSync}, {Device: 2, State: raid.InSync},
		},
	}
	if diff := cmp.Diff(want, cfg.Setup); diff != "" {
		t.Errorf("setup (-want +got):\n%s", diff)
	}

	if got := cfg.Devices[2].Offset; got != 80 {
		t.Errorf("data of device 2 at %d, want 80", got)
	}

	all[3].format = format{name: "imsm"}
	_, err = h.plan(all, api.StartParameters{}, nil)
	checkRefused(t, err, "metadata and /dev/sdd has")
}

// TestPlanBlocks describes arrays with a member whose blocks are of 4 KiB: what
// is not a multiple of that cannot be written to it, and each attempt would cost
// a member.
func TestPlanBlocks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(all []candidate)
		want   string
		size   raid.Sectors // of what is synced
		from   raid.Sectors // where a resync begins
	}{
		{"parity", func([]candidate) {}, "", 992, raid.MaxSectors},
		{"parity, resync from the midst of a chunk", func(all []candidate) { all[0].sb.ResyncOffset = 75 }, "", 992, 64},
		{"mirror", func(all []candidate) { mirror(all, 1003) }, "", 1000, raid.MaxSectors},
		{"mirror, resync from an odd sector", func(all []candidate) {
			mirror(all, 1003)
			all[0].sb.ResyncOffset = 75
		}, "", 1000, 72},
		{"far copies of an odd number of chunks", func(all []candidate) {
			for _, c := range all {
				c.sb.Level, c.sb.Layout, c.sb.Size = raid.Level10, 0x201, 5*testChunk+3
			}
		}, "", 4 * testChunk, raid.MaxSectors},
		{"chunk", func(all []candidate) { all[0].sb.Chunk = 4 }, "chunks of 4 sectors on blocks of 4096 bytes", 0, 0},
		{"data", func(all []candidate) { all[2].sb.DataOffset = 90 }, "/dev/sdc has its data at sector 90", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := candidates()
			all[1].dev.Block = 4096
			tt.change(all)

			cfg, err := New(Config{}).plan(all, api.StartParameters{}, nil)
			checkRefused(t, err, tt.want)

			if err == nil && (cfg.Setup.Size != tt.size || cfg.Setup.Resynced != tt.from || cfg.Block != 4096) {
				t.Errorf("size %d, resync from %d, blocks of %d, want %d, %d, 4096",
					cfg.Setup.Size, cfg.Setup.Resynced, cfg.Block, tt.size, tt.from)
			}
		})
	}
}

// growing is a keeper that lets an array grow to a size.
type growing struct {
	metadata.Keeper

	to raid.Sectors
}

func (g growing) Grow(size raid.Sectors) (raid.Sectors, error) {
	if size > g.to {
		return 0, errors.New("there is no room")
	}

	return g.to, nil
}

type growingFormat struct{ format }

func (f growingFormat) Keep([]metadata.Attachment, ...metadata.Keeper) (metadata.Keeper, error) {
	return growing{to: 3 * testSize / testChunk * testChunk}, nil
}

// TestGrown has an array use more of its members: what is new is to be synced.
func TestGrown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(all []candidate)
		bytes  int64
		want   string
		from   raid.Sectors
	}{
		{"clean", func([]candidate) {}, 0, "", testSize / testChunk * testChunk},
		{"being synced", func(all []candidate) { all[0].sb.ResyncOffset = 64 }, 0, "", 64},
		{"too much", func([]candidate) {}, 1 << 30, "there is no room", 0},
		{"recovering", func(all []candidate) { all[2] = all[2].recovered(64) }, 0, "only with all its members in sync", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := candidates()
			for i := range all {
				all[i].format = growingFormat{format{name: "md1"}}
			}

			tt.change(all)

			cfg, err := New(Config{}).plan(all, api.StartParameters{GrowTo: &tt.bytes}, nil)
			checkRefused(t, err, tt.want)

			size := raid.Sectors(3 * testSize / testChunk * testChunk)
			if err == nil && (cfg.Setup.Size != size || cfg.Setup.Resynced != tt.from ||
				cfg.Geometry.ArraySectors() != 2*size) {
				t.Errorf("size %d, array %d, resync from %d, want %d, %d, %d",
					cfg.Setup.Size, cfg.Geometry.ArraySectors(), cfg.Setup.Resynced, size, 2*size, tt.from)
			}
		})
	}
}

// TestAcceptLoss starts a dirty array of which a member is missing or being
// recovered: its parity is taken for right only if somebody says so, and only
// where nothing can make it right.
func TestAcceptLoss(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(all []candidate)
		accept bool
		want   string
		from   raid.Sectors
	}{
		{"whole", func([]candidate) {}, true, "", 0},
		{"recovering", func(all []candidate) { all[2] = all[2].recovered(64) }, false, "dirty and degraded", 0},
		{"recovering, accepted", func(all []candidate) { all[2] = all[2].recovered(64) }, true, "", raid.MaxSectors},
		{"mirror", func(all []candidate) {
			mirror(all, 1000)
			all[2] = all[2].recovered(64)
		}, true, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := candidates()
			for _, c := range all {
				c.sb.ResyncOffset = 0
			}

			tt.change(all)

			cfg, err := New(Config{}).plan(all, api.StartParameters{AcceptLoss: tt.accept}, nil)
			checkRefused(t, err, tt.want)

			if err == nil && cfg.Setup.Resynced != tt.from {
				t.Errorf("resync from %d, want %d", cfg.Setup.Resynced, tt.from)
			}
		})
	}
}

// mirror makes all a mirror of three.
func mirror(all []candidate, size raid.Sectors) {
	for _, c := range all {
		c.sb.Level, c.sb.Chunk, c.sb.Size, c.sb.DataSize = raid.Level1, 0, size, size
	}
}

// saying is a format that finds what it is told, wherever it looks.
type saying struct {
	metadata.Format

	sb *metadata.Superblock
}

func (s saying) Probe(metadata.Source) (*metadata.Superblock, error) { return s.sb, nil }

// TestReadings: of a device with metadata of two formats what counts is the array that
// is to be started, whichever format comes first.
func TestReadings(t *testing.T) {
	one, two := saying{sb: &metadata.Superblock{Array: raid.UUID{1}}}, saying{sb: &metadata.Superblock{Array: raid.UUID{2}}}

	for _, formats := range [][]metadata.Format{{one, two}, {two, one}} {
		h := &Host{cfg: Config{Formats: formats}}

		for _, want := range []saying{one, two} {
			all := []candidate{{dev: &member.Device{}}}
			if err := h.read(want.sb.Array, all); err != nil || all[0].sb != want.sb || all[0].format != metadata.Format(want) {
				t.Errorf("read() = %v, found %+v, want %+v", err, all[0].sb, want.sb)
			}
		}

		if err := h.read(raid.UUID{3}, []candidate{{dev: &member.Device{}}}); !errors.Is(err, ErrRefused) {
			t.Errorf("read() of another array = %v, want a refusal", err)
		}
	}
}

// TestReleased: a device of an engine that died is waited for while the kernel has it, and
// no longer than whoever takes the array over waits.
func TestReleased(t *testing.T) {
	other := errors.New("it is broken")

	for name, tt := range map[string]struct {
		free  time.Duration // until then it is busy
		then  error
		ends  time.Duration // when whoever waits gives up; never if 0
		after time.Duration
		want  error
	}{
		"free":            {},
		"released":        {free: time.Second, after: time.Second},
		"broken":          {then: other, want: other},
		"kept":            {free: time.Hour, after: loop.TakeOverMax + releaseEvery, want: member.ErrBusy},
		"no longer asked": {free: time.Hour, ends: time.Second, after: time.Second, want: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var (
					began = time.Now()
					ctx   = t.Context()
					dev   = &member.Device{Path: "/dev/x"}
				)

				if tt.ends > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ends)
					defer cancel()
				}

				got, _, err := released(ctx, func(string, string) (*member.Device, *running, error) {
					switch {
					case time.Since(began) < tt.free:
						return nil, nil, fmt.Errorf("open: %w", member.ErrBusy)
					case tt.then != nil:
						return nil, nil, tt.then
					default:
						return dev, nil, nil
					}
				})("/dev/x", "s")

				if !errors.Is(err, tt.want) || (err == nil) != (got == dev) {
					t.Errorf("%v, error %v, want %v", got, err, tt.want)
				}

				if took := time.Since(began); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
			})
		})
	}
}
