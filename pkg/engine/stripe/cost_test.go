package stripe

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/raid"
)

// costs is a Path on members that hold nothing, and what it asks of them.
type costs struct {
	p             *Path
	queue         []Transfer
	reads, writes int
	bytes         raid.Sectors // written
}

func newCosts(t testing.TB, g raid.Geometry, depth, piece int) *costs {
	t.Helper()

	geo, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	scratch := make([][]byte, max(48, g.Disks+2))
	for i := range scratch {
		scratch[i] = make([]byte, piece)
	}

	p, err := New(Config{
		Geometry: geo, Level: g.Level, Disks: g.Disks, Chunk: g.Chunk, Depth: depth, Scratch: scratch, Linger: true,
	})
	if err != nil {
		t.Fatal(err)
	}

	for slot := range g.Disks {
		p.SetMember(raid.Slot(slot), Member{Device: slot, State: raid.InSync})
	}

	return &costs{p: p, queue: make([]Transfer, 0, 4096)}
}

// collect takes what is asked for now.
func (c *costs) collect() {
	for tr := range c.p.Transfers {
		c.queue = append(c.queue, *tr)

		switch tr.Op {
		case Read:
			c.reads++
		case Write:
			c.writes++
			c.bytes += tr.Sectors
		case Flush, Discard, WriteZeroes:
		}
	}
}

// all carries out what is asked for, until nothing is.
func (c *costs) all() {
	for c.collect(); len(c.queue) > 0 || c.p.Lingering(); c.collect() {
		if len(c.queue) == 0 {
			c.p.Tick()
		}

		for _, tr := range c.queue {
			c.p.Complete(tr.ID, None)
		}

		c.queue = c.queue[:0]
	}

	c.p.Results()
}

// TestTransfers pins what single requests cost at the sizes that are usual: 64
// KiB in a chunk of 512 KiB, and a row.
func TestTransfers(t *testing.T) {
	const chunk = 1024

	for _, tt := range []struct {
		name          string
		level         raid.Level
		layout        raid.Layout
		disks         int
		op            Op
		at, n         raid.Sectors
		reads, writes int
		gone          []raid.Slot
		slow          bool // the member of slot 0 is
	}{
		{"raid5, 64 KiB of 4", raid.Level5, 2, 4, Write, 128, 128, 2, 2, nil, false},
		{"raid5, 64 KiB of 8", raid.Level5, 2, 8, Write, 128, 128, 2, 2, nil, false},
		{"raid5, 64 KiB of 3", raid.Level5, 2, 3, Write, 128, 128, 1, 2, nil, false},
		{"raid4, 64 KiB of 8", raid.Level4, 0, 8, Write, 128, 128, 2, 2, nil, false},
		{"raid5, a row of 64 KiB chunks", raid.Level5, 2, 5, Write, 0, 4 * chunk, 0, 20, nil, false},
		{"raid6, 64 KiB of 8", raid.Level6, 2, 8, Write, 128, 128, 3, 3, nil, false},
		{"raid6, 64 KiB of 5", raid.Level6, 2, 5, Write, 128, 128, 2, 3, nil, false},
		{"raid6, a row", raid.Level6, 2, 5, Write, 0, 3 * chunk, 0, 20, nil, false},
		{"raid6, a written chunk gone", raid.Level6, 2, 8, Write, 0, 128, 5, 2, []raid.Slot{1}, false},
		{"raid6, a kept chunk gone", raid.Level6, 2, 8, Write, 0, 128, 3, 3, []raid.Slot{2}, false},
		{"raid6, P gone", raid.Level6, 2, 8, Write, 0, 128, 2, 2, []raid.Slot{7}, false},
		{"raid6, P and Q gone", raid.Level6, 2, 8, Write, 0, 128, 0, 1, []raid.Slot{7, 0}, false},
		{"raid6, a written and a kept chunk gone", raid.Level6, 2, 8, Write, 0, 128, 6, 2, []raid.Slot{1, 2}, false},
		{"raid6, read of one gone", raid.Level6, 2, 8, Read, 0, 128, 6, 0, []raid.Slot{1}, false},
		{"raid6, read of two gone", raid.Level6, 2, 8, Read, 0, 128, 6, 0, []raid.Slot{1, 2}, false},
		{"raid6, read with P gone too", raid.Level6, 2, 8, Read, 0, 128, 6, 0, []raid.Slot{1, 7}, false},
		{"raid5, read past a slow member", raid.Level5, 2, 4, Read, 0, 128, 3, 0, nil, true},
		{"raid1 of 3, 64 KiB", raid.Level1, 0, 3, Write, 128, 128, 0, 3, nil, false},
		{"raid10 n2, 64 KiB", raid.Level10, 0x102, 4, Write, 128, 128, 0, 2, nil, false},
		{"raid10 f3, 64 KiB", raid.Level10, 0x301, 4, Write, 128, 128, 0, 3, nil, false},
		{"raid10 n2, read", raid.Level10, 0x102, 4, Read, 128, 128, 1, 0, nil, false},
		{"raid0, 64 KiB", raid.Level0, 1, 3, Write, 128, 128, 0, 1, nil, false},
		{"linear, 64 KiB", raid.LevelLinear, 0, 3, Write, 128, 128, 0, 1, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := raid.Geometry{Level: tt.level, Layout: tt.layout, Disks: tt.disks, Chunk: chunk, Size: 8 * chunk}

			if !tt.level.HasRedundancy() {
				for range tt.disks {
					g.Sizes = append(g.Sizes, g.Size)
				}
			}

			c := newCosts(t, g, 1, 128<<10)
			for _, slot := range tt.gone {
				c.p.SetMember(slot, Member{Device: -1, State: raid.Missing})
			}

			if tt.slow {
				c.p.SetMember(0, Member{Device: 0, State: raid.InSync, Slow: true})
			}

			c.p.Submit(Request{Op: tt.op, Sector: tt.at, Data: make([]byte, tt.n.Bytes())})
			c.all()

			if c.reads != tt.reads || c.writes != tt.writes {
				t.Errorf("%d reads and %d writes, want %d and %d", c.reads, c.writes, tt.reads, tt.writes)
			}
		})
	}
}

// pace is how the client of TestStream goes on.
type pace int

const (
	each    pace = iota // as soon as one of its requests has ended
	batch               // when all that is asked for of the members has ended
	trickle             // likewise, and with one request after the other, and some time between
)

func (p pace) String() string { return [...]string{"each", "batch", "trickle"}[p] }

// TestStream writes one sequential stream, eight requests at a time, which the
// client gives anew when they end. Nothing is read, and no more is written than
// full rows need.
func TestStream(t *testing.T) {
	for _, tt := range []struct {
		level raid.Level
		disks int
		chunk raid.Sectors
		size  raid.Sectors // of a request
		pace  pace
	}{
		{raid.Level5, 3, 128, 128, each},
		{raid.Level5, 4, 128, 128, each},
		{raid.Level5, 4, 128, 128, batch},
		{raid.Level5, 5, 128, 128, each},
		{raid.Level5, 4, 128, 96, each}, // requests that span rows
		{raid.Level5, 4, 128, 96, batch},
		{raid.Level5, 6, 16, 128, each},
		{raid.Level4, 4, 128, 128, each},
		{raid.Level6, 5, 128, 128, each},
		{raid.Level6, 6, 128, 128, batch},
		{raid.Level5, 4, 128, 128, trickle},
		{raid.Level6, 6, 128, 128, trickle},
		{raid.Level5, 4, 128, 56, each}, // no more than one row and a bit in flight
	} {
		name := fmt.Sprintf("%v of %d, chunk %d, %d at a time, %v", tt.level, tt.disks, tt.chunk, tt.size, tt.pace)
		t.Run(name, func(t *testing.T) {
			const depth = 8

			g := raid.Geometry{Level: tt.level, Layout: 2, Disks: tt.disks, Chunk: tt.chunk, Size: 1 << 14}
			c := newCosts(t, g, depth, 64<<10)
			rng := rand.New(rand.NewPCG(1, uint64(tt.size)))
			data := make([]byte, tt.size.Bytes())
			row := tt.chunk * raid.Sectors(tt.disks-tt.level.Redundancy(tt.disks))
			end := row * 40 / tt.size * tt.size
			at := raid.Sectors(0)

			for tag := range depth {
				c.p.Submit(Request{Tag: tag, Op: Write, Sector: at, Data: data})
				at += tt.size
			}

			for busy := depth; busy > 0; {
				c.collect()

				if len(c.queue) == 0 {
					c.p.Tick()

					continue
				}

				for n := len(c.queue); n > 0; n-- {
					i := rng.IntN(len(c.queue))
					tr := c.queue[i]
					c.queue[i] = c.queue[len(c.queue)-1]
					c.queue = c.queue[:len(c.queue)-1]
					c.p.Complete(tr.ID, None)

					if tt.pace == each {
						break
					}
				}

				for _, res := range c.p.Results() {
					busy--

					if at < end {
						c.p.Submit(Request{Tag: res.Tag, Op: Write, Sector: at, Data: data})
						at += tt.size
						busy++
					}

					if tt.pace == trickle {
						c.collect()
						c.p.Tick()
					}
				}

				c.p.check()
			}

			// The end of the stream may be in the midst of a row.
			ideal := end * raid.Sectors(tt.disks) / raid.Sectors(tt.disks-tt.level.Redundancy(tt.disks))
			allowed := 0

			if end%row != 0 {
				allowed = tt.disks * int((tt.chunk+63)/64)
			}

			if c.reads > allowed || float64(c.bytes) > 1.02*float64(ideal) {
				t.Errorf("%d reads, and %d sectors written, want at most %d and %.2f x %d",
					c.reads, c.bytes, allowed, 1.02, ideal)
			}
		})
	}
}

// TestOneAtATime: a client that waits for each of its writes never waits for
// more than these.
func TestOneAtATime(t *testing.T) {
	c := newCosts(t, raid.Geometry{Level: raid.Level5, Layout: 2, Disks: 4, Chunk: 128, Size: 1 << 14}, 1, 64<<10)

	for at := range raid.Sectors(100) {
		c.p.Submit(Request{Op: Write, Sector: at * 8, Data: make([]byte, 4096)})

		for len(c.p.Results()) == 0 {
			if c.collect(); len(c.queue) == 0 {
				t.Fatal("a lone write waits")
			}

			for _, tr := range c.queue {
				c.p.Complete(tr.ID, None)
			}

			c.queue = c.queue[:0]
		}
	}
}

// TestFewerAtATime: a client that had two writes of a stream in flight and goes
// on with one waits for others once, and no longer than two ticks.
func TestFewerAtATime(t *testing.T) {
	c := newCosts(t, raid.Geometry{Level: raid.Level5, Layout: 2, Disks: 4, Chunk: 128, Size: 1 << 14}, 2, 64<<10)
	at := raid.Sectors(0)

	write := func(tag int) {
		c.p.Submit(Request{Tag: tag, Op: Write, Sector: at, Data: make([]byte, 4096)})
		at += 8
	}

	ticks := 0

	for ended := 0; ended < 20; {
		write(0)

		if at == 8 {
			write(1)
		}

		for n := 0; n == 0; ended += n {
			if c.collect(); len(c.queue) == 0 {
				ticks++
				c.p.Tick()
			}

			for _, tr := range c.queue {
				c.p.Complete(tr.ID, None)
			}

			c.queue = c.queue[:0]
			n = len(c.p.Results())
		}
	}

	if ticks == 0 || ticks > lingerMax {
		t.Errorf("waited for %d ticks, want 1 to %d", ticks, lingerMax)
	}
}

// TestSteadyStateAllocatesNothing runs requests of each kind on every level,
// whole and degraded.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, g := range kinds() {
		name := fmt.Sprintf("%v %s of %d, chunk %d", g.Level, g.Layout.Name(g.Level), g.Disks, g.Chunk)
		t.Run(name, func(t *testing.T) {
			c := newCosts(t, g, depth, 4096)
			total := c.p.geo.ArraySectors()
			data := make([]byte, total.Bytes())

			if g.Level.HasRedundancy() {
				c.p.SetSuccessor(0, Member{Device: 100, State: raid.Recovering, Recovered: 16})
			}

			run := func() {
				for i, op := range []Op{Write, Read, WriteZeroes, Flush, Write, Write} {
					r := Request{Tag: i, Op: op}

					switch op {
					case Flush:
					case WriteZeroes:
						r.Sector, r.Sectors = 3, total-5
					case Read, Write, Discard:
						r.Sector = raid.Sectors(i) * total / 8
						r.Data = data[:total.Bytes()/8/512*512]
					}

					c.p.Submit(r)
				}

				if g.Level.HasRedundancy() {
					c.p.SyncSlab(raid.Check, raid.NoSlot, 0, c.p.geo.SyncSectors())
				}

				c.all()
				c.p.TakeSlab()
			}

			run()

			if n := testing.AllocsPerRun(20, run); n != 0 {
				t.Errorf("%v allocations for six requests and a slab, want 0", n)
			}

			if g.Level.HasRedundancy() {
				c.p.SetMember(1, Member{Device: -1, State: raid.Missing})
				c.p.SetMember(0, Member{Device: 0, State: raid.InSync, Slow: true})
				run()

				if n := testing.AllocsPerRun(20, run); n != 0 {
					t.Errorf("%v allocations degraded, want 0", n)
				}
			}
		})
	}
}

// BenchmarkRandomWrites is the cost of 4 KiB writes at depth 64, but for the
// I/O.
func BenchmarkRandomWrites(b *testing.B) {
	for _, g := range []raid.Geometry{
		{Level: raid.Level1, Disks: 2, Size: 1 << 20},
		{Level: raid.Level5, Layout: 2, Disks: 4, Chunk: 1024, Size: 1 << 20},
		{Level: raid.Level6, Layout: 2, Disks: 6, Chunk: 1024, Size: 1 << 20},
		{Level: raid.Level10, Layout: 0x102, Disks: 4, Chunk: 1024, Size: 1 << 20},
	} {
		for _, depth := range []int{1, 64} {
			b.Run(fmt.Sprintf("%v depth %d", g.Level, depth), func(b *testing.B) {
				c := newCosts(b, g, depth, 128<<10)
				rng := rand.New(rand.NewPCG(1, 1))
				data := make([]byte, 4096)
				blocks := int64(c.p.geo.ArraySectors() / 8)
				next := func(tag int) {
					c.p.Submit(Request{Tag: tag, Op: Write, Sector: raid.Sectors(rng.Int64N(blocks)) * 8, Data: data})
				}

				for tag := range depth {
					next(tag)
				}

				for n := 0; n < b.N; {
					c.collect()
					tr := c.queue[0]
					c.queue[0] = c.queue[len(c.queue)-1]
					c.queue = c.queue[:len(c.queue)-1]
					c.p.Complete(tr.ID, None)

					for _, res := range c.p.Results() {
						n++
						next(res.Tag)
					}
				}
			})
		}
	}
}
