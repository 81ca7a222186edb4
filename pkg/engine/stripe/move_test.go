package stripe

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/raid"
)

// remembers returns the fields of v, but for those to skip, that hold a part of
// memory.
func remembers(v reflect.Value, name string, memory []byte, skip []string) (found []string) {
	if slices.Contains(skip, name) {
		return nil
	}

	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			found = append(found, remembers(v.Field(i), name+"."+v.Type().Field(i).Name, memory, skip)...)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				found = append(found, remembers(v.Index(i), name, memory, skip)...)
			}
		} else if v.Kind() == reflect.Slice && v.Len() > 0 {
			first := reflect.ValueOf(memory).Pointer()
			if at := v.Pointer(); at >= first && at < first+uintptr(len(memory)) {
				found = append(found, name)
			}
		}
	default: // what is pointed to is in one of the slices as well, or has no such memory
	}

	return found
}

// TestMove takes memory away from under operations, at any time, and looks for
// it in all that the data path knows: whoever is given memory that was not given
// back by everybody shares it with the disk.
func TestMove(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 5))
		g := raid.Geometry{Level: raid.Level6, Disks: 5, Size: 128, Chunk: 16, Layout: raid.LeftSymmetric}

		if seed%2 == 1 {
			g = raid.Geometry{Level: raid.Level1, Disks: 3, Size: 128}
		}

		geo, err := geometry.New(g)
		if err != nil {
			t.Fatal(err)
		}

		const pieces = 10

		known := make([][]byte, pieces+depth) // then the memory of requests, by tag
		for i := range pieces {
			known[i] = make([]byte, 4096)
		}

		p, err := New(Config{
			Geometry: geo, Level: g.Level, Disks: g.Disks, Chunk: g.Chunk, Depth: depth,
			Scratch: slices.Clone(known[:pieces]),
		})
		if err != nil {
			t.Fatal(err)
		}

		for slot := range g.Disks {
			p.SetMember(raid.Slot(slot), Member{Device: slot, State: raid.InSync})
		}

		var (
			flying []Transfer
			busy   [depth]bool
			moves  int
		)

		for range 1000 {
			tag := rng.IntN(depth)

			switch n := 1 + rng.IntN(60); {
			case rng.IntN(3) > 0 && !busy[tag]:
				busy[tag] = true
				memory := make([]byte, 64*raid.SectorSize)
				known[pieces+tag] = memory
				r := Request{
					Tag: tag, Op: []Op{Read, Write, WriteZeroes}[rng.IntN(3)],
					Sector: raid.Sectors(rng.Int64N(int64(geo.ArraySectors()) - int64(n))),
				}

				if r.Op == WriteZeroes {
					r.Sectors = raid.Sectors(n)
				} else {
					r.Data = memory[:n*raid.SectorSize]
				}

				p.Submit(r)
			case len(flying) > 0 && rng.IntN(4) == 0:
				if len(flying[0].Data) > 0 {
					moves++
					known = moved(t, p, known, flying)
				}
			case len(flying) > 0:
				i := rng.IntN(len(flying))
				id := flying[i].ID
				flying = slices.Delete(flying, i, i+1)

				fault := None
				if rng.IntN(20) == 0 {
					fault = Medium
				}

				p.Complete(id, fault)
			}

			if !p.Syncing() && rng.IntN(20) == 0 {
				p.SyncSlab(raid.Check, raid.NoSlot, 0, 64)
			}

			if rng.IntN(3) > 0 {
				flying = append(flying, p.transfers()...)
			}

			for _, r := range p.Results() {
				busy[r.Tag] = false
			}

			p.TakeSlab()
			p.Failures()
			p.BadBlocks()

			for slot := range g.Disks {
				p.SetMember(raid.Slot(slot), Member{Device: slot, State: raid.InSync})
			}
		}

		if moves < 30 {
			t.Errorf("seed %d: memory was moved %d times only", seed, moves)
		}
	}
}

// moved moves the memory of the first operation in flight, of all those in
// flight, and checks that it is known nowhere.
func moved(t *testing.T, p *Path, known [][]byte, flying []Transfer) [][]byte {
	t.Helper()

	i := slices.IndexFunc(known, func(memory []byte) bool { return Within(memory, flying[0].Data) >= 0 })
	if i < 0 {
		t.Fatal("an operation in nobody's memory")
	}

	old := known[i]
	known[i] = make([]byte, len(old))
	p.Move(old, known[i])

	for f := range flying {
		rebase(&flying[f].Data, old, known[i])
	}

	// What is filled in anew before it is used may point anywhere.
	skip := []string{".fresh", ".views", ".parts", ".geo", ".code"}
	if found := remembers(reflect.ValueOf(p).Elem(), "", old, skip); len(found) > 0 {
		t.Fatalf("memory that was moved is known to %v", found)
	}

	return known
}
