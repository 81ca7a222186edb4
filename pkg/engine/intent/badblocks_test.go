package intent

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/raid"
)

// check tests the invariants.
func (b *BadBlocks) check(t *testing.T) {
	t.Helper()

	end, entries := raid.Sectors(-1), 0
	for _, r := range b.Ranges() {
		if r.From >= r.To || r.From <= end {
			t.Fatalf("ranges %v", b.Ranges())
		}

		end = r.To
		entries += entriesOf(r)
	}

	if entries != b.entries || entries > b.capacity {
		t.Fatalf("%d entries counted as %d, of %d", entries, b.entries, b.capacity)
	}
}

func TestBadBlocks(t *testing.T) {
	r := func(from, to raid.Sectors) raid.Range { return raid.Range{From: from, To: to} }

	for name, c := range map[string]struct {
		add, remove []raid.Range
		want        []raid.Range
	}{
		"touching ranges become one":    {add: []raid.Range{r(8, 16), r(24, 32), r(16, 24)}, want: []raid.Range{r(8, 32)}},
		"one swallows those inside":     {add: []raid.Range{r(8, 16), r(24, 32), r(0, 99)}, want: []raid.Range{r(0, 99)}},
		"one inside changes nothing":    {add: []raid.Range{r(0, 99), r(8, 16)}, want: []raid.Range{r(0, 99)}},
		"ends that overlap":             {add: []raid.Range{r(8, 16), r(12, 20)}, want: []raid.Range{r(8, 20)}},
		"order":                         {add: []raid.Range{r(30, 40), r(0, 10)}, want: []raid.Range{r(0, 10), r(30, 40)}},
		"removing the middle splits":    {add: []raid.Range{r(0, 30)}, remove: []raid.Range{r(10, 20)}, want: []raid.Range{r(0, 10), r(20, 30)}},
		"removing across several":       {add: []raid.Range{r(0, 10), r(20, 30), r(40, 50)}, remove: []raid.Range{r(5, 45)}, want: []raid.Range{r(0, 5), r(45, 50)}},
		"removing all":                  {add: []raid.Range{r(0, 10), r(20, 30)}, remove: []raid.Range{r(0, 30)}, want: []raid.Range{}},
		"removing what touches":         {add: []raid.Range{r(10, 20)}, remove: []raid.Range{r(0, 10), r(20, 30)}, want: []raid.Range{r(10, 20)}},
		"empty ranges":                  {add: []raid.Range{r(10, 20), r(15, 15), r(30, 30)}, remove: []raid.Range{r(15, 15)}, want: []raid.Range{r(10, 20)}},
		"a range larger than one entry": {add: []raid.Range{r(0, 2000)}, remove: []raid.Range{r(700, 701)}, want: []raid.Range{r(0, 700), r(701, 2000)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBadBlocks(BadBlocksMax)
			for _, a := range c.add {
				if !b.Add(a.From, a.To) {
					t.Fatalf("no room for %v", a)
				}

				b.check(t)
			}

			for _, a := range c.remove {
				if !b.Remove(a.From, a.To) {
					t.Fatalf("no room without %v", a)
				}

				b.check(t)
			}

			if diff := cmp.Diff(c.want, b.Ranges()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestBadBlocksFull fills the log, in which neither another range nor a hole in
// one has room, but what merges or goes does.
func TestBadBlocksFull(t *testing.T) {
	b := NewBadBlocks(BadBlocksMax)
	for i := range raid.Sectors(BadBlocksMax) {
		if !b.Add(i*16, i*16+8) {
			t.Fatalf("no room for range %d", i)
		}
	}

	b.check(t)

	before := append([]raid.Range{}, b.Ranges()...)
	if b.Add(1<<20, 1<<20+1) || b.Remove(2, 4) {
		t.Error("there was room in a full log")
	}

	if diff := cmp.Diff(before, b.Ranges()); diff != "" {
		t.Errorf("a refusal changed the set: %s", diff)
	}

	if !b.Add(8, 16) || !b.Add(1<<20, 1<<20+1) || !b.Remove(0, 4) {
		t.Error("no room although two ranges became one")
	}

	b.check(t)

	if NewBadBlocks(2).Add(0, 1025) {
		t.Error("1025 sectors fit into two entries")
	}
}

// TestBadBlocksWalk compares the set with one that has a flag for each sector.
func TestBadBlocksWalk(t *testing.T) {
	const sectors = 600

	rng := rand.New(rand.NewPCG(1, 2))
	b := NewBadBlocks(12)
	refused := 0

	var bad [sectors]bool

	for range 20_000 {
		from := rng.IntN(sectors)
		to := min(from+rng.IntN(60), sectors)
		add := rng.IntN(2) == 0

		change := b.Remove
		if add {
			change = b.Add
		}

		if !change(raid.Sectors(from), raid.Sectors(to)) {
			refused++

			continue
		}

		for i := from; i < to; i++ {
			bad[i] = add
		}

		b.check(t)

		from, to, want := rng.IntN(sectors), rng.IntN(sectors), raid.Range{}
		for i := from; i < to; i++ {
			if bad[i] && want.To == 0 {
				want = raid.Range{From: raid.Sectors(i), To: raid.Sectors(i) + 1}
			} else if bad[i] && want.To == raid.Sectors(i) {
				want.To++
			}
		}

		if got, ok := b.First(raid.Sectors(from), raid.Sectors(to)); got != want || ok != (want.To > 0) {
			t.Fatalf("first of [%d, %d): %v, want %v", from, to, got, want)
		}
	}

	if refused == 0 {
		t.Error("the log was never full")
	}
}

func TestBadBlocksAllocate(t *testing.T) {
	b := NewBadBlocks(BadBlocksMax)
	if n := testing.AllocsPerRun(100, func() {
		b.Add(8, 100)
		b.Add(200, 300)
		b.Remove(20, 30)
		b.Has(0, 1000)
		b.Clear()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
