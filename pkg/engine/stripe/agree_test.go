package stripe

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/raid"
)

// agreeSectors is the size of each array that TestLevelsAgree compares.
const agreeSectors = 960

// agreeing returns arrays of different levels, layouts and chunks that are all of
// one size.
func agreeing() map[string]raid.Geometry {
	third := []raid.Sectors{agreeSectors / 3, agreeSectors / 3, agreeSectors / 3}

	return map[string]raid.Geometry{
		"linear":   {Level: raid.LevelLinear, Disks: 3, Sizes: third},
		"0":        {Level: raid.Level0, Disks: 3, Chunk: 8, Sizes: third},
		"0, zones": {Level: raid.Level0, Layout: 1, Disks: 2, Chunk: 24, Sizes: []raid.Sectors{192, 768}},
		"1":        {Level: raid.Level1, Disks: 3, Size: agreeSectors},
		"4":        {Level: raid.Level4, Disks: 4, Chunk: 16, Size: agreeSectors / 3},
		"5 ls":     {Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 4, Chunk: 8, Size: agreeSectors / 3},
		"5 ra":     {Level: raid.Level5, Layout: 1, Disks: 5, Chunk: 8, Size: agreeSectors / 4},
		"6 ls":     {Level: raid.Level6, Layout: raid.LeftSymmetric, Disks: 5, Chunk: 32, Size: agreeSectors / 3},
		"6 ddf":    {Level: raid.Level6, Layout: 10, Disks: 6, Chunk: 8, Size: agreeSectors / 4},
		"10 near":  {Level: raid.Level10, Layout: 0x102, Disks: 4, Chunk: 8, Size: agreeSectors / 2},
		"10 far":   {Level: raid.Level10, Layout: 0x201, Disks: 2, Chunk: 8, Size: agreeSectors},
	}
}

// TestLevelsAgree has arrays of all levels do the same operations, each in an
// order of its own where they do not overlap, with members that die and are
// filled anew meanwhile: in the end all hold the same bytes.
func TestLevelsAgree(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)

	for round := range uint64(10) {
		var (
			first string
			want  []byte
		)

		for name, g := range agreeing() {
			got := sameLife(t, g, seed+round)

			if want == nil {
				first, want = name, got
			} else if !bytes.Equal(got, want) {
				t.Fatalf("seed %#x: %s and %s differ from byte %d on", seed+round, name, first, differs(got, want))
			}
		}

		if bytes.Count(want, []byte{0}) == len(want) {
			t.Fatal("nothing was written")
		}
	}
}

func differs(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}

	return len(a)
}

// sameLife does to an array what the seed says, and returns what it holds then.
func sameLife(t *testing.T, g raid.Geometry, seed uint64) []byte {
	t.Helper()

	h := newHistory(t, g, rand.Uint64(), make(map[string]int))
	if n := h.geo.ArraySectors(); n != agreeSectors {
		t.Fatalf("%v of %d sectors, want %d", g.Level, n, agreeSectors)
	}

	h.quiet, h.logs = true, 0
	dying := false
	same := rand.New(rand.NewPCG(seed, 1)) // what all levels do alike

	for range 60 {
		r := &wish{Request: Request{Op: Write}}
		n := 1 + same.IntN(64)
		r.Sector = raid.Sectors(same.IntN(agreeSectors - n + 1))
		r.data = make([]byte, n*raid.SectorSize)

		if same.IntN(6) == 0 {
			r.Op, r.Sectors = WriteZeroes, raid.Sectors(n)
		} else {
			for i := 0; i < len(r.data); i += 8 {
				r.data[i] = byte(same.Uint32())
			}

			r.Data = r.data
		}

		h.await(r)
		h.begin(r)

		switch {
		case g.Redundancy() == 0:
		case dying && h.rng.IntN(6) == 0:
			h.mourn()

			dying = false
		case !dying && h.rng.IntN(12) == 0:
			dying = true
			h.disks[h.p.Member(raid.Slot(h.rng.IntN(g.Disks))).Device].dead = true
		}
	}

	h.drain()

	all := &wish{Request: Request{Op: Read, Data: make([]byte, agreeSectors*raid.SectorSize)}}
	all.data = make([]byte, len(all.Data))
	h.begin(all)
	h.drain()

	return all.Data
}

// await carries on until no request overlaps r, and one has no tag that r could
// have, which it is given.
func (h *history) await(r *wish) {
	for {
		free, overlaps := -1, false

		for tag, other := range h.reqs {
			if other == nil {
				free = tag
			} else if r.Sector < other.end() && other.Sector < r.end() {
				overlaps = true
			}
		}

		if r.Tag = free; free >= 0 && !overlaps {
			return
		}

		if !h.step() {
			h.fatalf("requests never end")
		}
	}
}

// mourn has the array find out who died, and fills another member in its place.
func (h *history) mourn() {
	h.drain()
	h.begin(&wish{Request: Request{Op: Flush}})
	h.drain()

	if !h.fill() {
		h.fatalf("slots %b lack a member in sync", h.p.lacking())
	}
}
