package stripe

import (
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/raid"
)

// readers runs reads and returns how many each member got.
func readers(t *testing.T, g raid.Geometry, depth int, prepare func(p *Path), next func() raid.Sectors) []int {
	t.Helper()

	c := newCosts(t, g, depth, 4096)
	if prepare != nil {
		prepare(c.p)
	}

	counts := make([]int, g.Disks)
	data := make([]byte, 4096)
	rng := rand.New(rand.NewPCG(1, 1))

	for tag := range depth {
		c.p.Submit(Request{Tag: tag, Sector: next(), Data: data})
	}

	for range 4000 {
		c.collect()
		i := rng.IntN(len(c.queue))
		tr := c.queue[i]
		c.queue[i] = c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		counts[c.p.slotOf(tr)]++
		c.p.Complete(tr.ID, None)

		for _, res := range c.p.Results() {
			c.p.Submit(Request{Tag: res.Tag, Sector: next(), Data: data})
		}
	}

	return counts
}

// TestLegs: reads are spread over the copies, those that are to be spared are,
// a stream stays with one member, and where copies may differ it is the first.
func TestLegs(t *testing.T) {
	mirrors := raid.Geometry{Level: raid.Level1, Disks: 3, Size: 1 << 20}
	far := raid.Geometry{Level: raid.Level10, Layout: 0x201, Disks: 4, Chunk: 128, Size: 1 << 19}
	random := func() func() raid.Sectors {
		rng := rand.New(rand.NewPCG(2, 2))

		return func() raid.Sectors { return raid.Sectors(rng.IntN(1<<16)) * 8 }
	}
	spared := func(change func(m *Member)) func(p *Path) {
		return func(p *Path) {
			m := p.Member(1)
			change(&m)
			p.SetMember(1, m)
		}
	}

	for _, tt := range []struct {
		name    string
		g       raid.Geometry
		depth   int
		prepare func(p *Path)
		next    func() raid.Sectors
		least   []int // of 4000
		most    []int
	}{
		{"random", mirrors, 32, nil, random(), []int{1200, 1200, 1200}, []int{1450, 1450, 1450}},
		{"random, far copies", far, 32, nil, random(), []int{900, 900, 900, 900}, []int{1100, 1100, 1100, 1100}},
		{"all in one place", mirrors, 32, nil, func() raid.Sectors { return 0 }, []int{1000, 1000, 1000}, []int{2000, 1500, 1500}},
		{"one at a time in one place", mirrors, 1, nil, func() raid.Sectors { return 0 }, []int{4000, 0, 0}, []int{4000, 0, 0}},
		{
			"write-mostly", mirrors, 32, spared(func(m *Member) { m.WriteMostly = true }), random(),
			[]int{1800, 0, 1800},
			[]int{2200, 0, 2200},
		},
		{"slow", mirrors, 32, spared(func(m *Member) { m.Slow = true }), random(), []int{1800, 0, 1800}, []int{2200, 0, 2200}},
		{"may differ", mirrors, 32, func(p *Path) { p.SetResynced(0) }, random(), []int{4000, 0, 0}, []int{4000, 0, 0}},
		{
			"may differ, the first is slow", mirrors, 32, func(p *Path) {
				p.SetResynced(0)
				p.SetMember(0, Member{Device: 0, State: raid.InSync, Slow: true})
			}, random(), []int{4000, 0, 0}, []int{4000, 0, 0},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for slot, n := range readers(t, tt.g, tt.depth, tt.prepare, tt.next) {
				if n < tt.least[slot] || n > tt.most[slot] {
					t.Errorf("slot %d: %d reads of 4000, want %d to %d", slot, n, tt.least[slot], tt.most[slot])
				}
			}
		})
	}
}
