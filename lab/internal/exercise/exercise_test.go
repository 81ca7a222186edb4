package exercise

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const sectors = 4096

// disk is a device whose cache is lost with the power.
type disk struct {
	data    []byte
	pattern uint64
}

func newDisk(pattern uint64) *disk {
	d := &disk{make([]byte, sectors*SectorSize), pattern}
	Fill(d.data, 0, First, pattern)

	return d
}

func (d *disk) do(op Op, g Gen) {
	p := d.data[op.First*SectorSize : (op.First+op.Count)*SectorSize]

	switch op.Kind {
	case Write:
		Fill(p, op.First, g, 0)
	case Zero, Discard:
		clear(p)
	case Read, Flush:
	}
}

// crash runs a workload for n operations, of which those before flushed are
// durable and some of the others done, and judges what harm made of the disk, where
// rows of that many sectors may be lost.
func crash(t *testing.T, mix string, n, flushed int, row int64, harm func(*disk)) (Outcome, error) {
	t.Helper()

	const seed = 5

	m, err := NewModel(sectors, 77)
	if err != nil {
		t.Fatal(err)
	}

	d := newDisk(77)

	s, err := NewStream(mix, seed, sectors, 1)
	if err != nil {
		t.Fatal(err)
	}

	p := Promise{Flushed: First + 1 + Gen(flushed), Durable: make(map[Gen]bool)}
	rng := rand.New(rand.NewPCG(9, 9))

	for i := range n {
		op, g := s.Next(), First+1+Gen(i)
		if op.Durable {
			p.Durable[g] = true
		}

		if i < flushed || op.Durable || rng.IntN(2) == 0 {
			d.do(op, g)
		}
	}

	harm(d)

	if s, err = NewStream(mix, seed, sectors, 1); err != nil {
		t.Fatal(err)
	}

	c := NewCrash(m, row)
	c.See(d.data[:SectorSize*100])
	c.See(d.data[SectorSize*100:])

	out, err := c.Judge(s, p)
	if err == nil {
		if err := m.Check(d.data, 0); err != nil {
			t.Errorf("the model that was found is not what is there: %v", err)
		}
	}

	return out, err
}

// TestCrash judges disks that lost what they may.
func TestCrash(t *testing.T) {
	for _, mix := range Mixes() {
		out, err := crash(t, mix, 300, 200, 0, func(*disk) {})
		if err != nil {
			t.Errorf("%s: %v", mix, err)
		}

		if out.Kept == 0 {
			t.Errorf("%s: nothing was there that had not been flushed: %+v", mix, out)
		}
	}
}

// TestCrashFindsHarm judges disks that lost what they may not.
func TestCrashFindsHarm(t *testing.T) {
	sector := func(d *disk, i int) []byte { return d.data[i*SectorSize:][:SectorSize] }
	harms := map[string]func(*disk){
		"generation 1 (":        func(d *disk) { fillSector(sector(d, 0), 0, First, 77) },
		"as of sector 8":        func(d *disk) { copy(sector(d, 0), sector(d, 8)) },
		"zeros":                 func(d *disk) { clear(sector(d, 0)) },
		"holds ":                func(d *disk) { sector(d, 3)[400]++ },
		"want generation 1 (ze": func(d *disk) { fillSector(sector(d, sectors-1), sectors-1, 3, 77) },
	}

	for want, harm := range harms {
		// All sectors at the beginning are written before the flush, and nothing
		// after it is done at all.
		_, err := crash(t, "sequential", 9, 9, 0, harm)
		if err == nil || !strings.Contains(err.Error(), want) && want != "zeros" {
			t.Errorf("Judge() = %v, want an error with %q", err, want)
		}
	}
}

// TestCrashLosesRows judges disks that lost a sector of a row that was being
// written, or of another.
func TestCrashLosesRows(t *testing.T) {
	const (
		row        = 8
		n, flushed = 40, 30
	)

	s, err := NewStream("random", 5, sectors, 1)
	if err != nil {
		t.Fatal(err)
	}

	var inFlight []int64

	quiet := make(map[int64]bool)

	for i := range int64(sectors / row) {
		quiet[i] = true
	}

	// What came after all that is there may have been in flight as well.
	for i := range n + 256 {
		if op := s.Next(); op.Kind == Write && i >= flushed {
			inFlight = append(inFlight, op.First)
			delete(quiet, op.First/row)
		}
	}

	still := slices.Min(slices.Collect(maps.Keys(quiet))) * row

	for sector, wrong := range map[int64]int{inFlight[0]: 0, still: 1} {
		out, err := crash(t, "random", n, flushed, row, func(d *disk) { d.data[sector*SectorSize+9]++ })
		if (err != nil) != (wrong > 0) || out.Wrong != wrong || out.Lost != 1-wrong {
			t.Errorf("with sector %d lost, Judge() = %+v, %v, want %d wrong", sector, out, err, wrong)
		}
	}
}

// TestCheck compares a disk that lost nothing with its model.
func TestCheck(t *testing.T) {
	for _, mix := range Mixes() {
		m, err := NewModel(sectors, 0)
		if err != nil {
			t.Fatal(err)
		}

		d := newDisk(0)

		s, err := NewStream(mix, 3, sectors, 8)
		if err != nil {
			t.Fatal(err)
		}

		for range 500 {
			op := s.Next()
			if op.First%8 != 0 || op.Count%8 != 0 || op.First+op.Count > sectors {
				t.Fatalf("%s: %+v on a device of %d sectors in units of 8", mix, op, sectors)
			}

			m.Apply(op, m.Last+1)
			d.do(op, m.Last)
		}

		var saved bytes.Buffer
		if err := m.Write(&saved); err != nil {
			t.Fatal(err)
		}

		if m, err = ReadModel(&saved); err != nil {
			t.Fatal(err)
		}

		if err := m.Check(d.data, 0); err != nil {
			t.Errorf("%s: %v", mix, err)
		}

		d.data[200*SectorSize+77] ^= 4
		if err := m.Check(d.data[100*SectorSize:], 100); m.Sectors[200] != Unknown && err == nil {
			t.Errorf("%s: a bit that flipped was not seen", mix)
		}
	}
}
