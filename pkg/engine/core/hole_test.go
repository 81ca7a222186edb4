package core

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestDistrust is of a RAID5 whose parity was made right by logs: of what is being
// filled nobody knows what it missed of the writes that were under way, nor is its
// own log of any use to the parity on it.
func TestDistrust(t *testing.T) {
	setup := engine.Setup{
		Members: []engine.Member{
			{Device: 0, State: raid.InSync}, {Device: 1, State: raid.Recovering, Recovered: 64}, {Device: 2, State: raid.InSync},
		},
		Successor: engine.Member{Device: 3, State: raid.InSync}, Heir: 2, HasSuccessor: true,
	}
	want := setup
	want.Members = []engine.Member{
		{Device: 0, State: raid.InSync}, {Device: 1, State: raid.Recovering}, {Device: 2, State: raid.InSync},
	}
	want.Successor = engine.Member{Device: 3, State: raid.Recovering}

	if distrust(&setup); !cmp.Equal(setup, want) {
		t.Errorf("setup: %s", cmp.Diff(want, setup))
	}
}

const (
	holeDisks = 4
	holeChunk = 8
	holeRows  = 8
	holeData  = 16  // sector that data begins at
	holeLog   = 128 // that the log does
	holeSize  = 64  // sectors of a log
)

var errCut = errors.New("there is no power")

// plate is a device in memory.
type plate struct {
	content []byte
	sick    bool // its log cannot be read until it is written
	left    *int // writes until the power fails; nil for ever
	writes  int
}

func (p *plate) ReadAt(b []byte, off int64) (int, error) {
	if p.sick && off >= holeLog*raid.SectorSize {
		return 0, errors.New("a medium error")
	}

	return copy(b, p.content[off:]), nil
}

// Write writes all, or some sectors if the power fails, and nothing then.
func (p *plate) Write(b []byte, at raid.Sectors) error {
	if p.writes++; p.left != nil {
		if *p.left--; *p.left < 0 {
			n := 0
			if *p.left == -1 {
				n = len(b) / raid.SectorSize / 2 * raid.SectorSize
			}

			copy(p.content[at.Bytes():], b[:n])

			return errCut
		}
	}

	copy(p.content[at.Bytes():], b)
	p.sick = p.sick && at < holeLog

	return nil
}

// Flush implements [Storage].
func (p *plate) Flush() error { return nil }

// holed is a RAID5 that was not stopped right.
type holed struct {
	m        *geometry.Map
	plates   []*plate
	before   [][]byte      // what the members had
	writing  map[chunk]any // what was being written
	resynced raid.Sectors
	lost     raid.Slot
}

type chunk struct {
	row  int64
	slot raid.Slot
}

// newHoled returns one of which nothing was being written, and whose logs are in
// use.
func newHoled(t *testing.T) *holed {
	t.Helper()

	m, err := geometry.New(raid.Geometry{
		Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: holeDisks, Chunk: holeChunk, Size: holeRows * holeChunk,
	})
	if err != nil {
		t.Fatal(err)
	}

	a := &holed{m: m, writing: make(map[chunk]any), lost: raid.NoSlot}
	noise := rand.NewChaCha8([32]byte{9})

	for range holeDisks {
		p := &plate{content: make([]byte, (holeLog+holeSize)*raid.SectorSize)}
		noise.Read(p.content[:holeLog*raid.SectorSize])
		a.plates = append(a.plates, p)
	}

	for row := range m.Rows() {
		a.fix(row)
	}

	for slot, p := range a.plates {
		a.setLog(raid.Slot(slot), intent.PPLHeader{Generation: intent.PPLFirst}, nil)
		a.before = append(a.before, bytes.Clone(p.content))
	}

	return a
}

// at returns the chunk of a member in a row.
func (a *holed) at(row int64, slot raid.Slot) []byte {
	return a.plates[slot].content[raid.Sectors(holeData+row*holeChunk).Bytes():][:raid.Sectors(holeChunk).Bytes()]
}

// rest returns the sum of all chunks of a row but that of a member.
func (a *holed) rest(row int64, but raid.Slot) []byte {
	sum := make([]byte, raid.Sectors(holeChunk).Bytes())

	for slot := range raid.Slot(holeDisks) {
		if slot != but {
			for i, b := range a.at(row, slot) {
				sum[i] ^= b
			}
		}
	}

	return sum
}

// fix makes the parity of a row right.
func (a *holed) fix(row int64) {
	copy(a.at(row, a.m.ParitySlot(row)), a.rest(row, a.m.ParitySlot(row)))
}

func (a *holed) setLog(slot raid.Slot, h intent.PPLHeader, partial []byte) {
	h.Signature = 7
	log := a.plates[slot].content[holeLog*raid.SectorSize:]
	h.Encode(log)
	copy(log[intent.PPLHeaderSize:], partial)
}

// write cuts the write of one chunk of a row off: half of its data is there, and
// the parity is anything.
func (a *holed) write(row int64, index int) {
	parity, slot := a.m.ParitySlot(row), a.m.DataSlot(row, index)
	partial := bytes.Clone(a.at(row, parity))

	for i, b := range a.at(row, slot) {
		partial[i] ^= b
	}

	a.setLog(parity, intent.PPLHeader{Generation: 5, Entries: []intent.PPLEntry{{
		Sector:  (raid.Sectors(row)*raid.Sectors(a.m.DataDisks()) + raid.Sectors(index)) * holeChunk,
		Partial: uint32(len(partial)), Data: uint32(len(partial)), Parity: parity, Checksum: intent.PPLChecksum(partial),
	}}}, partial)

	for i, half := 0, len(partial)/2; i < half; i++ {
		a.at(row, slot)[i] ^= 0x5a
		a.at(row, parity)[i] ^= byte(i)
	}

	a.writing[chunk{row, slot}] = nil
}

// unlogged changes a row without a word in any log.
func (a *holed) unlogged(row int64) { a.at(row, a.m.ParitySlot(row))[0] ^= 1 }

// tear cuts the write of a log off.
func (a *holed) tear(slot raid.Slot) { a.plates[slot].content[(holeLog+1)*raid.SectorSize+40] ^= 1 }

// unused leaves logs that are not in use.
func (a *holed) unused() {
	for _, p := range a.plates {
		copy(p.content[holeLog*raid.SectorSize:], a.log().Empty())
	}
}

func (a *holed) log() *metadata.PPL {
	return &metadata.PPL{Sector: holeLog, Size: holeSize, Ring: true, Signature: 7}
}

// clone returns a copy, of which the power fails after some writes; never if that
// is negative.
func (a *holed) clone(writes int) *holed {
	c := *a
	c.plates = nil

	for _, p := range a.plates {
		q := &plate{content: bytes.Clone(p.content), sick: p.sick}
		if writes >= 0 {
			q.left = &writes
		}

		c.plates = append(c.plates, q)
	}

	return &c
}

// close closes the hole, without the member that is lost.
func (a *holed) close(edit func(*Hole)) (engine.Setup, error) {
	setup := engine.Setup{Level: raid.Level5, Resynced: a.resynced}
	h := &Hole{Geometry: a.m, Setup: &setup, Resynced: a.resynced}

	for slot, p := range a.plates {
		m := engine.Member{Device: engine.DeviceID(slot), State: raid.InSync}
		d := LoggedDevice{Storage: p, Offset: holeData, Log: a.log()}

		if raid.Slot(slot) == a.lost {
			m, d = engine.Member{Device: engine.None, State: raid.Missing}, LoggedDevice{}
		}

		setup.Members = append(setup.Members, m)
		h.Devices = append(h.Devices, d)
	}

	if edit != nil {
		edit(h)
	}

	err := h.Close()

	return setup, err
}

func (a *holed) writes() (n int) {
	for _, p := range a.plates {
		n += p.writes
	}

	return n
}

// wrong says what is another chunk than it was, of those that were not being
// written, and whether parity is wrong.
func (a *holed) wrong() error {
	for row := range a.m.Rows() {
		parity := a.m.ParitySlot(row)

		if a.lost == raid.NoSlot && !bytes.Equal(a.rest(row, parity), a.at(row, parity)) {
			return fmt.Errorf("the parity of row %d is wrong", row)
		}

		for d := range a.m.DataDisks() {
			slot := a.m.DataSlot(row, d)
			if _, writing := a.writing[chunk{row, slot}]; writing {
				continue
			}

			is := a.at(row, slot)
			if slot == a.lost {
				is = a.rest(row, slot)
			}

			if !bytes.Equal(is, a.before[slot][raid.Sectors(holeData+row*holeChunk).Bytes():][:len(is)]) {
				return fmt.Errorf("row %d of member %d, which nobody was writing, is another", row, slot)
			}
		}
	}

	return nil
}

// inUse returns which logs are in use.
func (a *holed) inUse() (all []bool) {
	for slot, p := range a.plates {
		found := intent.RecoverPPL(a.m, raid.Slot(slot), intent.PPLArea{
			Bytes: p.content[holeLog*raid.SectorSize:], Signature: 7, Ring: true,
		}, func(raid.Slot) bool { return true })
		all = append(all, found.InUse && found.Mismatches == 0)
	}

	return all
}

// holes are arrays that were not stopped right. Rows 0 to 3 have their parity on
// members 3, 2, 1 and 0.
var holes = []struct {
	name      string
	change    func(a *holed)
	edit      func(*Hole)
	whole     raid.Sectors // up to where it is redundant, without a resync
	degraded  bool         // it can be started without any of its members
	without   []raid.Slot  // or without these
	lossy     bool         // what nobody was writing may have changed
	unwritten bool         // nothing is to be written
	only      bool         // this happens to a whole array only
}{
	{name: "in use, nothing written", whole: raid.MaxSectors, degraded: true, unwritten: true},
	{name: "one row", change: func(a *holed) { a.write(0, 1) }, whole: raid.MaxSectors, degraded: true},
	{
		name:   "two rows",
		change: func(a *holed) { a.write(1, 0); a.write(2, 2) }, whole: raid.MaxSectors, degraded: true,
	},
	{
		// Its rows are as they were.
		name:   "a torn log",
		change: func(a *holed) { a.write(1, 0); a.write(6, 1); a.tear(3) }, whole: 0, degraded: true,
	},
	{
		name:   "a torn log, and no entries",
		change: func(a *holed) { a.tear(3) }, whole: 0, degraded: true,
	},
	{
		name: "all torn",
		change: func(a *holed) {
			for slot := range raid.Slot(holeDisks) {
				a.tear(slot)
			}
		}, whole: 0,
	},
	{name: "not in use", change: func(a *holed) { a.unused(); a.unlogged(4) }, whole: 0},
	{
		name:   "an unreadable log",
		change: func(a *holed) { a.write(0, 1); a.write(1, 1); a.plates[3].sick = true }, whole: 0, without: []raid.Slot{3},
	},
	{
		name:   "a device without a log",
		change: func(a *holed) { a.write(0, 1) }, edit: func(h *Hole) { h.Devices[3].Log = nil }, whole: 0, without: []raid.Slot{3},
	},
	{
		// As md may leave it: what is above was never redundant.
		name:   "entries, and resynced in part",
		change: func(a *holed) { a.write(0, 1); a.fix(0); a.resynced = 32; a.unlogged(6) }, whole: 32,
	},
	{name: "stopped right", change: func(a *holed) { a.resynced = raid.MaxSectors }, whole: raid.MaxSectors, degraded: true},
	{
		name:   "stopped right, not in use",
		change: func(a *holed) { a.unused(); a.resynced = raid.MaxSectors }, whole: raid.MaxSectors, degraded: true,
	},
	{
		name:   "read-only",
		change: func(a *holed) { a.unused(); a.resynced = raid.MaxSectors },
		edit:   func(h *Hole) { h.Setup.ReadOnly = true }, whole: raid.MaxSectors, degraded: true, unwritten: true,
	},
	{
		name: "growing", change: func(a *holed) { a.write(0, 1) },
		edit: func(h *Hole) { h.Growing = true }, whole: raid.MaxSectors, only: true,
	},
	{
		name: "accepted", change: func(a *holed) { a.unused(); a.unlogged(4) },
		edit: func(h *Hole) { h.AcceptLoss = true }, whole: 0, degraded: true, lossy: true,
	},
	{
		name:   "accepted, an unreadable log",
		change: func(a *holed) { a.write(0, 1); a.write(1, 1); a.plates[3].sick = true },
		edit:   func(h *Hole) { h.AcceptLoss = true }, whole: 0, degraded: true, without: []raid.Slot{3}, lossy: true,
	},
}

// TestHole closes the write hole of arrays that are whole, and of those that lack
// a member, each of them.
func TestHole(t *testing.T) {
	for _, tt := range holes {
		for lost := raid.NoSlot; lost < holeDisks && (!tt.only || lost == raid.NoSlot); lost++ {
			t.Run(fmt.Sprintf("%s, without %d", tt.name, lost), func(t *testing.T) {
				a := newHoled(t)
				if a.lost = lost; tt.change != nil {
					tt.change(a)
				}

				want := tt.whole
				startable := tt.degraded || lost == raid.NoSlot || slices.Contains(tt.without, lost)

				if lost != raid.NoSlot {
					want = raid.MaxSectors // there is nothing that could be resynced
				}

				setup, err := a.close(tt.edit)

				switch {
				case !startable && !errors.Is(err, ErrUntold):
					t.Fatalf("error %v, want %v", err, ErrUntold)
				case !startable && a.writes() > 0, tt.unwritten && a.writes() > 0:
					t.Fatalf("%d writes", a.writes())
				case !startable:
					return
				case err != nil:
					t.Fatal(err)
				case setup.Resynced != want:
					t.Fatalf("redundant up to %d, want %d", setup.Resynced, want)
				}

				if setup.Resynced == raid.MaxSectors && !tt.lossy {
					if err := a.wrong(); err != nil {
						t.Error(err)
					}
				}

				a.checkLogs(t, setup, tt.edit, slices.Contains(tt.without, lost))
			})
		}
	}
}

// checkLogs checks that the logs say that they are in use if the array will use
// them, and what nobody may believe is there no more if not.
func (a *holed) checkLogs(t *testing.T, setup engine.Setup, edit func(*Hole), told bool) {
	t.Helper()

	h := Hole{Setup: &setup, Devices: make([]LoggedDevice, holeDisks)}
	if h.Devices[3].Log = a.log(); edit != nil {
		edit(&h)
	}

	if h.Devices[3].Log == nil && a.lost != 3 || h.Setup.ReadOnly {
		return
	}

	want := setup.Resynced == raid.MaxSectors && !h.Growing && (told || !h.AcceptLoss)

	for slot, got := range a.inUse() {
		if raid.Slot(slot) != a.lost && got != want {
			t.Errorf("the log of member %d is in use: %t, want %t", slot, got, want)
		}
	}
}

// TestHoleCut has the power fail at each write of the closing, and closes again
// what is left: with all members, or without one, be that the one that was missing
// before or another that is lost with the power. Nothing may change that nobody was
// writing, and what could be started can be started again.
func TestHoleCut(t *testing.T) {
	cuts, again, untold := 0, 0, 0

	for _, tt := range holes {
		if tt.lossy {
			continue
		}

		for first := raid.NoSlot; first < holeDisks && (!tt.only || first == raid.NoSlot); first++ {
			for n := 0; ; n++ {
				a := newHoled(t)
				if a.lost = first; tt.change != nil {
					tt.change(a)
				}

				a = a.clone(n)

				_, err := a.close(tt.edit)
				if err == nil || errors.Is(err, ErrUntold) {
					break // there were no more writes
				}

				cuts++

				for then := raid.NoSlot; then < holeDisks; then++ {
					b := a.clone(-1)
					b.lost = then

					setup, err := b.close(tt.edit)

					switch {
					case errors.Is(err, ErrUntold) && (then == raid.NoSlot || then == first && tt.degraded):
						t.Fatalf("%s, without %d, cut at write %d, without %d: %v", tt.name, first, n, then, err)
					case errors.Is(err, ErrUntold):
						untold++
					case err != nil:
						t.Fatal(err)
					case setup.Resynced == raid.MaxSectors:
						if again++; b.wrong() != nil {
							t.Fatalf("%s, without %d, cut at write %d, without %d: %v", tt.name, first, n, then, b.wrong())
						}
					}
				}
			}
		}
	}

	if t.Logf("%d cuts, %d times closed again, %d times refused", cuts, again, untold); cuts == 0 || again == 0 || untold == 0 {
		t.Error("one of these never occurred")
	}
}

// TestHoleUnreadable meets data that cannot be read: an array that is whole is
// resynced, and another one is not started.
func TestHoleUnreadable(t *testing.T) {
	for _, lost := range []raid.Slot{raid.NoSlot, 0} {
		a := newHoled(t)
		a.lost = lost
		a.write(0, 1)

		slot := a.m.DataSlot(0, 1)
		setup, err := a.close(func(h *Hole) {
			h.Devices[slot].Storage = deaf{a.plates[slot]}
		})

		if lost == raid.NoSlot && (err != nil || setup.Resynced != 0 || slices.Contains(a.inUse(), true)) {
			t.Errorf("error %v, redundant up to %d, logs in use %v, want a resync", err, setup.Resynced, a.inUse())
		}

		if lost != raid.NoSlot && (err == nil || errors.Is(err, ErrUntold)) {
			t.Errorf("error %v, want that of the member", err)
		}
	}
}

// deaf is a device whose data cannot be read.
type deaf struct{ *plate }

func (d deaf) ReadAt(b []byte, off int64) (int, error) {
	if off < holeLog*raid.SectorSize {
		return 0, errors.New("a medium error")
	}

	return d.plate.ReadAt(b, off)
}
