package stripe

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/raid"
)

// filled returns a history of an array that is full of noise and whole.
func filled(t *testing.T, g raid.Geometry, seed uint64) *history {
	t.Helper()

	h := newHistory(t, g, seed, make(map[string]int))
	h.quiet = true

	for slot := range raid.Slot(g.Disks) {
		m := h.p.Member(slot)
		m.WriteMostly, m.Slow = false, false
		h.p.SetMember(slot, m)
	}

	h.write(0, h.geo.ArraySectors())

	return h
}

// write writes noise.
func (h *history) write(at, n raid.Sectors) {
	r := &wish{Request: Request{Op: Write, Sector: at}, data: make([]byte, n.Bytes())}
	for i := range r.data {
		r.data[i] = byte(h.rng.Uint32())
	}

	r.Data = r.data
	h.reqs[0] = r
	h.p.Submit(r.Request)
	h.drain()
}

// slabOf syncs all of the array and returns what came of it.
func (h *history) slabOf(action raid.SyncAction) Slab {
	h.p.SyncSlab(action, raid.NoSlot, 0, h.geo.SyncSectors())
	h.drain()

	slab, _ := h.p.TakeSlab()

	return slab
}

// disk returns what the member of slot holds from a component sector on.
func (h *history) disk(slot raid.Slot, at raid.Sectors) []byte {
	return h.disks[h.p.Member(slot).Device].data[at.Bytes():]
}

// TestSilentCorruption changes what one member holds, and has it found and
// repaired. Where it can be known which block is wrong, that one is; data is
// never replaced by what disagrees with it otherwise.
func TestSilentCorruption(t *testing.T) {
	type report struct {
		Mismatched raid.Sectors
		Where      []raid.Range
		Wrong      []raid.Slot
	}

	raid6 := raid.Geometry{Level: raid.Level6, Layout: 2, Disks: 5, Chunk: 16, Size: 64}
	raid5 := raid.Geometry{Level: raid.Level5, Layout: 2, Disks: 4, Chunk: 16, Size: 64}
	mirrors := raid.Geometry{Level: raid.Level1, Disks: 3, Size: 70}
	pair := raid.Geometry{Level: raid.Level1, Disks: 2, Size: 70}
	near := raid.Geometry{Level: raid.Level10, Layout: 0x102, Disks: 4, Chunk: 8, Size: 64}

	for _, tt := range []struct {
		name     string
		g        raid.Geometry
		slot     raid.Slot
		at       raid.Sectors
		want     raid.Range
		wrong    raid.Slot
		restored bool // by a repair
	}{
		{"raid6 data", raid6, 3, 5, raid.Range{From: 0, To: 8}, 3, true}, // P in slot 4, Q in slot 0
		{"raid6 P", raid6, 4, 9, raid.Range{From: 8, To: 16}, 4, true},
		{"raid6 Q", raid6, 0, 9, raid.Range{From: 8, To: 16}, 0, true},
		{"raid5 parity", raid5, 3, 9, raid.Range{From: 8, To: 16}, raid.NoSlot, true},
		{"raid5 data", raid5, 1, 9, raid.Range{From: 8, To: 16}, raid.NoSlot, false},
		{"one mirror of three", mirrors, 2, 69, raid.Range{From: 64, To: 70}, 2, true},
		{"the first of three mirrors", mirrors, 0, 69, raid.Range{From: 64, To: 70}, 0, true},
		{"the second of two mirrors", pair, 1, 9, raid.Range{From: 8, To: 16}, raid.NoSlot, true},
		{"a second near copy", near, 1, 9, raid.Range{From: 16, To: 24}, raid.NoSlot, true}, // chunk 2 of the array
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := filled(t, tt.g, 3)
			before := bytes.Clone(h.disk(tt.slot, 0))
			h.disk(tt.slot, tt.at)[7] ^= 0x55

			for _, action := range []raid.SyncAction{raid.Check, raid.Check, raid.Repair} {
				slab := h.slabOf(action)
				got := report{slab.Mismatched, slab.Where, slab.Wrong}
				want := report{tt.want.Len(), []raid.Range{tt.want}, []raid.Slot{tt.wrong}}

				if diff := cmp.Diff(want, got); diff != "" || !slab.OK {
					t.Errorf("%s, OK %v (-want +got):\n%s", action, slab.OK, diff)
				}

				if action == raid.Check && bytes.Equal(before, h.disk(tt.slot, 0)) {
					t.Error("a check wrote something")
				}
			}

			if restored := bytes.Equal(before, h.disk(tt.slot, 0)); restored != tt.restored {
				t.Errorf("restored: %v, want %v", restored, tt.restored)
			}

			if slab := h.slabOf(raid.Check); slab.Mismatched != 0 {
				t.Errorf("after the repair %d sectors differ", slab.Mismatched)
			}
		})
	}
}

// TestTwoBadInOneBand has two members of a RAID5 with bad sectors in one band.
// Only what they share is lost, and what is written to it is there again.
func TestTwoBadInOneBand(t *testing.T) {
	g := raid.Geometry{Level: raid.Level5, Layout: 2, Disks: 4, Chunk: 64, Size: 128}

	for _, tt := range []struct {
		name string
		a, b raid.Sectors
		lost bool
	}{
		{"in different grains", 3, 40, false},
		{"in one grain", 17, 22, true},
	} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s, seed %d", tt.name, seed), func(t *testing.T) {
				h := filled(t, g, seed)
				h.disks[0].soft[tt.a], h.disks[1].soft[tt.b] = true, true
				h.look()

				if h.over[16] != tt.lost || h.over[15] || h.over[24] {
					t.Fatal("the test is wrong about what is lost")
				}

				var refused []int

				for s := 0; s < 64*3; s += 8 {
					r := &wish{Request: Request{Sector: raid.Sectors(s), Data: make([]byte, 4096)}, data: make([]byte, 4096)}
					h.reqs[0] = r
					h.p.Submit(r.Request)
					before := h.counts["error read"]
					h.drain()

					if h.counts["error read"] > before {
						refused = append(refused, s)
					}
				}

				want := []int(nil)
				if tt.lost {
					want = []int{16, 64 + 16}
				}

				if diff := cmp.Diff(want, refused); diff != "" {
					t.Errorf("sectors that cannot be read (-want +got):\n%s", diff)
				}

				h.over = make([]bool, len(h.over)) // from here on all that is written is there
				h.write(0, 64*3)

				r := &wish{Request: Request{Data: make([]byte, 64*3*512)}, data: make([]byte, 64*3*512)}
				h.reqs[0] = r
				h.p.Submit(r.Request)
				h.drain()
			})
		}
	}
}

// TestUnclean starts from redundancy that is wrong everywhere. Reads must be
// steady and writes must not build on it; after the resync all is right.
func TestUnclean(t *testing.T) {
	for _, g := range kinds() {
		if !g.Level.HasRedundancy() {
			continue
		}

		t.Run(fmt.Sprintf("%v %s of %d, chunk %d", g.Level, g.Layout.Name(g.Level), g.Disks, g.Chunk), func(t *testing.T) {
			for seed := range uint64(20) {
				h := newHistory(t, g, seed, make(map[string]int))
				h.quiet = true
				h.p.SetResynced(0)

				for _, d := range h.disks {
					for i := range d.data {
						d.data[i] = byte(h.rng.Uint32())
					}
				}

				for s := range h.geo.ArraySectors() {
					slot, at, _ := h.geo.Copy(s, 0)
					copy(h.model[s.Bytes():(s+1).Bytes()], h.disk(slot, at))
				}

				h.resync()
				h.drain()
				h.verify()
			}
		})
	}
}

// resync makes redundancy right under load.
func (h *history) resync() {
	chunk := max(h.g.Chunk, 8)

	for pos := raid.Sectors(0); pos < h.geo.SyncSectors(); {
		h.submit()

		if slab, ok := h.p.TakeSlab(); ok {
			if !slab.OK {
				h.fatalf("slab %+v was given up", slab)
			}

			pos = slab.To
		}

		if pos < h.geo.SyncSectors() && !h.p.Syncing() && h.rng.IntN(10) == 0 {
			h.p.SyncSlab(raid.Resync, raid.NoSlot, pos, min(h.geo.SyncSectors(), pos+chunk*2))
		}

		for h.rng.IntN(3) != 0 && h.step() {
		}
	}

	h.p.SetResynced(raid.MaxSectors)
}
