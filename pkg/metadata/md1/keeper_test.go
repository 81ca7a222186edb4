package md1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 999, time.UTC)

// describe says in one line what the superblocks of an array say: events and
// resync offset, then each device's role table and recovery offset. A device
// whose superblock was not written keeps its old events.
func describe(supers []*metadata.Superblock) string {
	offset := func(s raid.Sectors) string {
		if s == raid.MaxSectors {
			return "all"
		}

		return fmt.Sprint(s)
	}

	var lines []string

	for _, sb := range supers {
		var roles []byte
		for _, role := range sb.Roles[:5] {
			roles = append(roles, roleChar(role))
		}

		line := fmt.Sprintf("%d: %d %s %s", sb.Number, sb.Events, offset(sb.ResyncOffset), roles)
		if sb.RecoveryOffset != raid.MaxSectors {
			line += " recovered " + offset(sb.RecoveryOffset)
		}

		lines = append(lines, line)
	}

	return strings.Join(lines, "\n")
}

func roleChar(role raid.Role) byte {
	slot, ok := role.Slot()

	switch {
	case ok:
		return byte('0' + slot)
	case role == raid.RoleFaulty:
		return 'F'
	default:
		return '-'
	}
}

// TestRecord walks an array of three and a spare through its life. Each line
// of a result is a device: number, events, resync offset, role table.
func TestRecord(t *testing.T) {
	d := newDisks(array(4)...)
	k := d.keep(t)

	for _, tt := range []struct {
		name    string
		resync  raid.Sectors
		members []metadata.MemberRecord
		want    string
	}{
		{"dirty", 0, []metadata.MemberRecord{inSync(0), inSync(1), inSync(2), spare()}, `
0: 43 0 012--
1: 43 0 012--
2: 43 0 012--
3: 43 0 012--`},
		{"clean", raid.MaxSectors, []metadata.MemberRecord{inSync(0), inSync(1), inSync(2), spare()}, `
0: 44 all 012--
1: 44 all 012--
2: 44 all 012--
3: 44 all 012--`},
		{"checkpoint of a resync", 1024, []metadata.MemberRecord{inSync(0), inSync(1), inSync(2), spare()}, `
0: 45 1024 012--
1: 45 1024 012--
2: 45 1024 012--
3: 45 1024 012--`},
		{"failed", 0, []metadata.MemberRecord{inSync(0), faulty(1), inSync(2), spare()}, `
0: 46 0 0F2--
1: 45 1024 012--
2: 46 0 0F2--
3: 46 0 0F2--`},
		{"recovery starts", 0, []metadata.MemberRecord{inSync(0), faulty(1), inSync(2), recovering(1, 0)}, `
0: 47 0 0F21-
1: 45 1024 012--
2: 47 0 0F21-
3: 47 0 0F21- recovered 0`},
		{"removed", 0, []metadata.MemberRecord{inSync(0), gone(), inSync(2), recovering(1, 512)}, `
0: 48 0 0-21-
1: 45 1024 012--
2: 48 0 0-21-
3: 48 0 0-21- recovered 512`},
		{"recovered", raid.MaxSectors, []metadata.MemberRecord{inSync(0), gone(), inSync(2), inSync(1)}, `
0: 49 all 0-21-
1: 45 1024 012--
2: 49 all 0-21-
3: 49 all 0-21-`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := k.Events()
			d.apply(t, k.Record(metadata.State{ResyncOffset: tt.resync, Members: records(tt.members...), Now: now}))

			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), describe(d.probe(t))); diff != "" {
				t.Errorf("superblocks (-want +got):\n%s", diff)
			}

			if k.Events() != before+1 {
				t.Errorf("Events() = %d after %d", k.Events(), before)
			}
		})
	}

	if got := mustProbe(t, source(d[0])).Updated; !got.Equal(now.Truncate(time.Second)) {
		t.Errorf("Updated = %v, want %v", got, now)
	}
}

// TestRecordChangesOnly checks byte for byte that Record leaves alone what it
// has no business with.
func TestRecordChangesOnly(t *testing.T) {
	supers := array(1, func(r *Raw) {
		r.tail = bytes.Repeat([]byte{0x5a}, blockSize-512)
		r.CntCorrectedRead, r.Devflags, r.LogicalBlockSize = 7, 3, 512
		r.FeatureMap = FeatureRecoveryBitmap // ends with our first write
	})
	d := newDisks(supers...)
	before := bytes.Clone(d[0])

	k := d.keep(t)
	d.apply(t, k.Record(metadata.State{ResyncOffset: 77, Members: records(recovering(1, 88)), Now: now}))

	le := binary.LittleEndian
	want := before[4096:8192]
	le.PutUint32(want[8:], uint32(FeatureRecoveryOffset))
	le.PutUint64(want[152:], 88)
	le.PutUint64(want[192:], uint64(now.Unix()))
	le.PutUint64(want[200:], 43)
	le.PutUint64(want[208:], 77)
	copy(want[256:], []byte{1, 0, 0xff, 0xff, 0xff, 0xff})
	putChecksum(want[:512])

	if !bytes.Equal(d[0], before) {
		t.Error("the device differs from what was expected")
	}
}

// TestKeepStale gives Keep members that missed what happened, and that were
// given numbers by different hosts.
func TestKeepStale(t *testing.T) {
	supers := array(5)
	fresh := supers[0]
	fresh.SetName = SetName([]byte("new" + string(make([]byte, 29))))
	fresh.LogicalBlockSize = 4096
	copy(fresh.DevRoles, DevRoles{0, raid.RoleFaulty, raid.RoleSpare, raid.RoleSpare, 2}) // 4 is not here

	stale := supers[1] // thinks that it is in slot 1
	stale.Events, stale.Devflags = 40, 1

	double := supers[2] // has a number that is taken
	double.DevNumber = 0

	beyond := supers[3] // has a number that the freshest has no role for
	beyond.MaxDev, beyond.DevRoles = 384, slices.Grow(beyond.DevRoles, 256)[:384]
	for number := range beyond.DevRoles {
		beyond.DevRoles[number] = raid.RoleSpare
	}

	beyond.DevNumber = 200

	ahead := supers[4] // ran alone
	ahead.Events, ahead.DevNumber = 50, 2

	d := newDisks(supers...)
	k := d.keep(t)
	d.apply(t, k.Record(metadata.State{
		Members: records(inSync(0), spare(), recovering(1, 8), spare(), spare()), Now: now,
	}))

	// 1 is the stale member's own; 3 is the lowest that nobody has or had.
	const want = `0: 43 0 0--1-
1: 43 0 0--1-
3: 43 0 0--1- recovered 8
5: 43 0 0--1-
2: 43 0 0--1-`

	got := d.probe(t)
	if diff := cmp.Diff(want, describe(got)); diff != "" {
		t.Errorf("superblocks (-want +got):\n%s", diff)
	}

	for i, sb := range got {
		raw := sb.Raw.(*Raw)
		if sb.Name != "new" || raw.MaxDev != 128 || raw.LogicalBlockSize != 4096 {
			t.Errorf("member %d: %+v", i, raw.Header)
		}

		if i == 1 && raw.Devflags != stale.Devflags {
			t.Errorf("member %d: devflags %d, want its own", i, raw.Devflags)
		}
	}
}

// TestRecordRecovered records that a member is in sync in the same round in
// which another one fails. Only its own superblock says how much of it is right,
// so that has to be first: the others' would call nobody else in sync.
func TestRecordRecovered(t *testing.T) {
	for _, from := range []string{"spare", "recovering", "recovering when the array was started"} {
		t.Run(from, func(t *testing.T) {
			supers := array(4)
			if from == "recovering when the array was started" {
				supers[2].FeatureMap, supers[2].RecoveryOffset = FeatureRecoveryOffset, 256
			}

			d := newDisks(supers...)
			k := d.keep(t)
			st := metadata.State{ResyncOffset: 0, Now: now, Members: records(inSync(0), inSync(1), recovering(2, 256), spare())}

			switch from {
			case "spare":
				st.Members = records(inSync(0), inSync(1), faulty(2), spare())
				d.apply(t, k.Record(st))
				st.Members = records(inSync(0), faulty(1), gone(), inSync(2))
			case "recovering":
				d.apply(t, k.Record(st))

				fallthrough
			default:
				st.Members = records(inSync(0), faulty(1), inSync(2), recovering(1, 0))
			}

			stages := k.Record(st)
			if len(stages) != 2 || len(stages[0]) != 1 {
				t.Fatalf("%d stages, want 2, the first with one write", len(stages))
			}

			d.apply(t, stages[:1])

			sb := d.probe(t)[stages[0][0].Member]
			if sb.Events != k.Events() || sb.Role(sb.Number) != 2 || sb.RecoveryOffset != raid.MaxSectors {
				t.Errorf("member %d first, at event %d of %d in %v, right below %d",
					sb.Number, sb.Events, k.Events(), sb.Role(sb.Number), sb.RecoveryOffset)
			}

			d.apply(t, stages[1:])

			if stages := k.Record(st); len(stages) != 1 {
				t.Errorf("Record() again wrote %d stages, want 1", len(stages))
			}
		})
	}
}

// TestKeepCatchesUp keeps members of which power had failed in the midst of a
// record. Cut off at any moment, the first Record leaves nobody two behind who
// holds a slot.
func TestKeepCatchesUp(t *testing.T) {
	withBitmap := func(r *Raw) { r.FeatureMap, r.BitmapOffset, r.BblogOffset = FeatureBitmapOffset, 8, 16 }

	for _, tt := range []struct {
		name string
		edit func(supers []*Raw)
		want string // before the last stage
	}{
		{"none is behind", func([]*Raw) {}, `
0: 42 all 012--
1: 42 all 012--
2: 42 all 012--
3: 42 all 012--`},
		{"one is behind", func(supers []*Raw) {
			supers[0].ResyncOffset = 77
			supers[1].Events = 41
		}, `
0: 42 77 012--
1: 42 77 012--
2: 42 all 012--
3: 42 all 012--`},
		{"the one that was recovered is behind", func(supers []*Raw) {
			supers[2].Events, supers[2].FeatureMap, supers[2].RecoveryOffset = 41, FeatureRecoveryOffset, 256
			supers[2].DevRoles[1] = raid.RoleFaulty
		}, `
0: 42 all 012--
1: 42 all 012--
2: 42 all 012-- recovered 256
3: 42 all 012--`},
		{"a spare is ahead, and another one behind", func(supers []*Raw) {
			supers[3].Events = 43
			supers[3].DevRoles[0] = raid.RoleFaulty
			supers[4].Events = 7
		}, `
0: 42 all 012--
1: 42 all 012--
2: 42 all 012--
3: 42 all 012--
4: 42 all 012--`},
		{"a spare was put to work and does not know", func(supers []*Raw) {
			copy(supers[0].DevRoles, DevRoles{0, 1, raid.RoleFaulty, 2})
			supers[3].Events = 41
		}, `
0: 42 all 01F2-
1: 42 all 012--
2: 42 all 012--
3: 41 all 012--`},
		{"the bitmap is ahead", func(supers []*Raw) {
			for _, raw := range supers {
				withBitmap(raw)
			}
		}, `
0: 43 all 012--
1: 43 all 012--
2: 43 all 012--
3: 43 all 012--`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			supers := array(4 + strings.Count(tt.want, "4: "))
			tt.edit(supers)
			d := newDisks(supers...)

			for i, raw := range supers {
				if raw.FeatureMap&FeatureBitmapOffset != 0 {
					putBitmap(d[i], raw, 4, 43)
				}
			}

			third := inSync(2)
			if supers[2].FeatureMap&FeatureRecoveryOffset != 0 {
				third = recovering(2, 256)
			}

			k := d.keep(t)
			st := metadata.State{ResyncOffset: 0, Now: now, Members: records(inSync(0), inSync(1), third, spare(), spare())}
			stages := k.Record(st)
			last := len(stages) - 1

			d.apply(t, stages[:last])

			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), describe(d.probe(t))); diff != "" {
				t.Errorf("superblocks before the last stage (-want +got):\n%s", diff)
			}

			before := d.probe(t)[0].Events
			d.apply(t, stages[last:])

			for i, sb := range d.probe(t) {
				if sb.Events != before+1 {
					t.Errorf("member %d: %d events after the last stage, want %d", i, sb.Events, before+1)
				}
			}

			if stages := k.Record(st); len(stages) != 1 {
				t.Errorf("Record() again wrote %d stages, want 1", len(stages))
			}
		})
	}
}

func TestKeepRefuses(t *testing.T) {
	attach := func(supers ...*Raw) []metadata.Attachment { return newDisks(supers...).attachments(t) }
	other := attach(sample())
	other[0].Superblock.Raw = "of another format"

	for _, tt := range []struct {
		name    string
		members []metadata.Attachment
		msg     string
	}{
		{"none", nil, "no members to keep"},
		{"another format", other, "is of another format"},
		{"another format later", append(attach(sample()), other...), "member 1: superblock 1.2"},
		{"another array", attach(sample(), sample(func(r *Raw) { r.SetUUID[0]++ })), "of array ab000000:"},
		{"another minor", attach(sample(), sample(at1v1)), "superblock 1.1 of array aa000000"},
		{"a reshape", attach(sample(func(r *Raw) { r.FeatureMap = FeatureReshapeActive })), "a reshape is active"},
		{"events at their end", attach(sample(func(r *Raw) { r.Events = all })), "leaves no room above"},
		{
			"no room", attach(sample(func(r *Raw) {
				r.MaxDev, r.DevRoles, r.BblogOffset = 129, append(r.DevRoles, raid.RoleSpare), 1
			})), "room for 128 roles, the array has 129",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := Format{}.Keep(tt.members)
			if err == nil || !strings.Contains(err.Error(), tt.msg) || !strings.HasPrefix(err.Error(), "md1: ") {
				t.Fatalf("Keep() error = %v, want ...%s...", err, tt.msg)
			}

			if k != nil {
				t.Error("Keep() returns a Keeper beside an error")
			}
		})
	}
}

// TestRecordLevel0 checks that an array without redundancy is never dirty, and
// keeps the feature that its layout needs.
func TestRecordLevel0(t *testing.T) {
	d := newDisks(array(3, func(r *Raw) { r.Level, r.Layout, r.FeatureMap = 0, 1, FeatureRAID0Layout })...)
	d.apply(t, d.keep(t).Record(metadata.State{Members: records(inSync(0), inSync(1), inSync(2)), Now: now}))

	for i, sb := range d.probe(t) {
		if raw := sb.Raw.(*Raw); !sb.Clean() || raw.FeatureMap != FeatureRAID0Layout || sb.Events != 43 {
			t.Errorf("member %d: resync offset %d, feature map %#x", i, sb.ResyncOffset, uint32(raw.FeatureMap))
		}
	}
}

// TestRecordLarge records superblocks of two sectors. What is behind the first
// is there before it counts, and where it changes one member goes before all
// others, so that no power cut tears them all.
func TestRecordLarge(t *testing.T) {
	supers := array(4, func(r *Raw) { r.DevRoles[127] = raid.RoleFaulty })
	for number := range 127 {
		if number > 3 {
			supers[0].DevRoles[number] = raid.RoleFaulty
		}
	}

	d := newDisks(supers...)
	k := d.keep(t)
	d = append(d, make([]byte, deviceSize.Bytes()))

	if _, _, _, err := k.Add(source(d[4]), raid.UUID{9}); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name    string
		members []metadata.MemberRecord
		want    string // the stages: the sizes of their writes
	}{
		{
			"all grow",
			[]metadata.MemberRecord{inSync(0), inSync(1), inSync(2), spare(), spare()},
			"512 512 512 512 512; 1024; 1024 1024 1024 1024",
		},
		{"none of the many changes", []metadata.MemberRecord{inSync(0), inSync(1), faulty(2), spare(), spare()}, "1024 1024 1024 1024"},
		{
			"one of them",
			[]metadata.MemberRecord{inSync(0), inSync(1), faulty(2), spare(), recovering(2, 0)},
			"1024; 1024 1024 1024",
		},
		{"again", []metadata.MemberRecord{inSync(0), inSync(1), faulty(2), spare(), recovering(2, 8)}, "1024 1024 1024 1024"},
	} {
		stages := k.Record(metadata.State{Members: records(tt.members...), Now: now})

		var got []string
		for _, stage := range stages {
			var sizes []string
			for _, w := range stage {
				sizes = append(sizes, fmt.Sprint(len(w.Data)))
			}

			got = append(got, strings.Join(sizes, " "))
		}

		if got := strings.Join(got, "; "); got != tt.want {
			t.Errorf("%s: writes %s, want %s", tt.name, got, tt.want)
		}

		d.apply(t, stages)

		for _, i := range []int{0, 1, 3, 4} {
			if sb := mustProbe(t, source(d[i])); sb.Events != k.Events() || len(sb.Roles) != 384 {
				t.Errorf("%s: member %d: %d events, %d roles", tt.name, i, sb.Events, len(sb.Roles))
			}
		}
	}
}

func TestRecordBlockSize(t *testing.T) {
	for _, tt := range []struct{ maxDev, block, want int }{
		{128, 512, 512},
		{129, 512, 1024},
		{127, 512, 512},
		{128, 4096, 4096},
		{maxRoles, 512, 4096},
		{maxRoles, 4096, 4096},
	} {
		raw := sample(func(r *Raw) {
			r.MaxDev, r.DevRoles = uint32(tt.maxDev), append(r.DevRoles, make(DevRoles, maxRoles)...)[:tt.maxDev]
			for i := 128; i < tt.maxDev; i++ {
				r.DevRoles[i] = raid.RoleSpare
			}
		})
		src := source(device(raw))
		src.Block = tt.block

		k, err := Format{}.Keep([]metadata.Attachment{{Superblock: mustProbe(t, src), Source: src}})
		if err != nil {
			t.Fatal(err)
		}

		writes := k.Record(metadata.State{Members: records(inSync(1)), Now: now})
		if got := len(writes[0][0].Data); got != tt.want {
			t.Errorf("max_dev %d in blocks of %d: wrote %d bytes, want %d", tt.maxDev, tt.block, got, tt.want)
		}
	}
}

// TestRecordPanics checks that a state that no superblock can say is not
// written.
func TestRecordPanics(t *testing.T) {
	for name, members := range map[string][]metadata.MemberRecord{
		"two members in slot 1":  {inSync(1), recovering(1, 0)},
		"be recorded as missing": {{State: raid.Missing}},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, name) {
					t.Errorf("Record() panicked with %s, want ...%s...", got, name)
				}
			}()

			newDisks(array(2)...).keep(t).Record(metadata.State{Members: records(members...)})
		}()
	}
}

// TestRecordAllocates checks that the metadata of a running array is kept
// without memory, which may be what the write it waits for is to free.
func TestRecordAllocates(t *testing.T) {
	k := newDisks(array(4)...).keep(t)
	st := metadata.State{Members: records(inSync(0), faulty(1), inSync(2), recovering(1, 0)), Now: now}
	k.Record(st)

	if got := testing.AllocsPerRun(100, func() { k.Record(st) }); got != 0 {
		t.Errorf("Record() allocates %v times, want 0", got)
	}
}

func TestKeepBitmap(t *testing.T) {
	withBitmap := func(r *Raw) { r.FeatureMap, r.BitmapOffset, r.BblogOffset = FeatureBitmapOffset, 8, 16 }
	whole := metadata.State{ResyncOffset: 0, Members: records(inSync(0), inSync(1), inSync(2), spare()), Now: now}

	t.Run("ahead", func(t *testing.T) {
		supers := array(4, withBitmap)
		d := newDisks(supers...)

		for i, image := range d {
			putBitmap(image, supers[i], 4, 43+uint64(i)) // md wrote these and then lost power
		}

		d.apply(t, d.keep(t).Record(whole))

		for i, sb := range d.probe(t) {
			b, err := readBitmap(sb.Raw.(*Raw), source(d[i]))
			if err != nil || sb.Events <= b.events() || sb.Events <= 46 {
				t.Errorf("member %d: %d events, bitmap %v (%v)", i, sb.Events, b, err)
			}
		}
	})

	t.Run("damaged", func(t *testing.T) {
		d := newDisks(array(4, withBitmap)...)
		d.apply(t, d.keep(t).Record(whole))

		// A bitmap that nobody can read may be one ahead, and is not replaced.
		if got := d.probe(t)[0].Events; got != 44 {
			t.Errorf("events = %d, want 44", got)
		}
	})

	t.Run("copied", func(t *testing.T) {
		supers := array(4, withBitmap)
		supers[3].FeatureMap, supers[3].BitmapOffset = 0, 0 // was away when the bitmap was made
		d := newDisks(supers...)
		putBitmap(d[0], supers[0], 4, 42)

		k := d.keep(t)
		d = append(d, make([]byte, deviceSize.Bytes()))

		id, _, _, err := k.Add(source(d[4]), raid.UUID{1})
		if err != nil {
			t.Fatal(err)
		}

		st := whole
		st.Members = records(inSync(0), inSync(1), faulty(2), spare(), spare())

		first := k.Record(st)
		d.apply(t, first[:1])

		// The bitmaps that are copied, what had to catch up with them, and all.
		if len(first) != 3 || len(first[0]) != 3 || len(first[1]) != 3 || len(first[2]) != 4 {
			t.Errorf("Record() wrote %d stages, want 3, of 3, 3 and 4 writes", len(first))
		}

		// What is on disk between the two stages is no member yet.
		if _, err := (Format{}).Probe(source(d[id])); err == nil {
			t.Error("the spare has a superblock before it has a bitmap")
		}

		d.apply(t, first[1:])

		for i, sb := range d.probe(t) {
			b, err := readBitmap(sb.Raw.(*Raw), source(d[i]))
			if i == 2 { // failed before it could be written
				continue
			}

			if err != nil || b.version() != 4 || i > 0 && b.events() != 0 {
				t.Errorf("member %d: bitmap %v (%v)", i, b, err)
			}
		}

		if second := k.Record(st); len(second) != 1 {
			t.Errorf("Record() writes %d stages again", len(second))
		}
	})
}

// TestRecordOfLess has it recorded that less of a member is right than its own
// superblock says: there first, for the others may say of the array that it is clean.
func TestRecordOfLess(t *testing.T) {
	d, err := create(t, params(func(p *metadata.NewArray) { p.Size, p.AssumeClean = 1024, true }), 32768, 32768, 32768)
	if err != nil {
		t.Fatal(err)
	}

	k := d.keep(t)

	for _, tt := range []struct {
		recovered raid.Sectors
		first     bool
	}{{512, true}, {768, false}, {256, true}, {256, false}} {
		m := metadata.MemberRecord{State: raid.Recovering, Slot: 1, Recovered: tt.recovered}
		stages := k.Record(whole(inSync(0), m, inSync(2)))

		if first := len(stages) == 2 && len(stages[0]) == 1 && stages[0][0].Member == 1; first != tt.first {
			t.Errorf("%d stages to record that it is right below %d, on its own first: %v, want %v",
				len(stages), tt.recovered, first, tt.first)
		}

		d.apply(t, stages)
		k = d.keep(t)
	}
}
