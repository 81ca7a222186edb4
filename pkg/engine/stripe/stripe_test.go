package stripe

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/raid"
)

const (
	component = 509 // sectors of each member: a multiple of nothing
	depth     = 8
	pieceSize = 8192
)

// bench is a Path on disks in memory, and the model of what the array holds.
type bench struct {
	t     *testing.T
	rng   *rand.Rand
	p     *Path
	geo   *geometry.Map
	level raid.Level
	size  raid.Sectors // of the component that is synced
	disks [][]byte     // by device number
	dead  map[int]bool
	bad   map[int]raid.Sectors // one unreadable sector of a device, until written

	queue []Transfer
	model []byte
	reqs  [depth]*Request
	next  int // device number
	count map[Op]int
}

func newBench(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64) *bench {
	t.Helper()

	g := raid.Geometry{Level: level, Layout: raid.LeftSymmetric, Disks: disks, Chunk: chunk, Size: component}

	if level == raid.Level0 {
		g.Layout = 1
		for slot := range raid.Sectors(disks) {
			g.Sizes = append(g.Sizes, component-100*slot)
		}
	}

	geo, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	scratch := make([][]byte, disks+2)
	for i := range scratch {
		scratch[i] = make([]byte, pieceSize)
	}

	p, err := New(Config{Geometry: geo, Level: level, Disks: disks, Chunk: chunk, Depth: depth, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}

	b := &bench{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), p: p, geo: geo, level: level, size: geo.ComponentSectors(),
		dead: map[int]bool{}, bad: map[int]raid.Sectors{}, count: map[Op]int{},
		model: make([]byte, geo.ArraySectors().Bytes()),
	}

	for slot := range disks {
		p.SetMember(raid.Slot(slot), Member{Device: b.addDisk(), State: raid.InSync})
	}

	return b
}

// addDisk adds a device full of noise that is the same on each mirror and sums
// to zero with parity only when it is all zero; so the first ones are zero.
func (b *bench) addDisk() int {
	disk := make([]byte, component*raid.SectorSize)
	if b.next >= b.geo.Disks() {
		for i := range disk {
			disk[i] = byte(b.rng.Uint32())
		}
	}

	b.disks = append(b.disks, disk)
	b.next++

	return b.next - 1
}

// submit begins a random request that overlaps no other.
func (b *bench) submit() {
	tag := b.rng.IntN(depth)
	if b.reqs[tag] != nil {
		return
	}

	total := int(b.geo.ArraySectors())
	n := 1 + b.rng.IntN(min(total, []int{1, 8, 40, 200}[b.rng.IntN(4)]))
	at := b.rng.IntN(total - n + 1)
	op := Op(b.rng.IntN(2))

	if b.rng.IntN(20) == 0 {
		op, at, n = Flush, 0, 0
	}

	for _, r := range b.reqs {
		if r != nil && op != Flush && r.Op != Flush &&
			int(r.Sector) < at+n && at < int(r.Sector)+len(r.Data)/raid.SectorSize {
			return
		}
	}

	r := &Request{Tag: tag, Op: op, Sector: raid.Sectors(at), Data: make([]byte, n*raid.SectorSize)}
	if op == Write {
		for i := range r.Data {
			r.Data[i] = byte(b.rng.Uint32())
		}
	}

	b.reqs[tag] = r
	b.p.Submit(*r)
	b.collect()
}

// step carries out one transfer, chosen at random among those asked for.
func (b *bench) step() bool {
	b.collect()

	if len(b.queue) == 0 {
		return false
	}

	i := b.rng.IntN(len(b.queue))
	tr := b.queue[i]
	b.queue[i] = b.queue[len(b.queue)-1]
	b.queue = b.queue[:len(b.queue)-1]
	b.p.Complete(tr.ID, b.carryOut(tr))
	b.collect()

	return true
}

func (b *bench) carryOut(tr Transfer) Fault {
	if b.dead[tr.Device] {
		return Gone
	}

	end := tr.Sector + raid.Sectors(len(tr.Data)/raid.SectorSize)
	sector, bad := b.bad[tr.Device]
	hit := bad && sector >= tr.Sector && sector < end
	part := b.disks[tr.Device][tr.Sector.Bytes():end.Bytes()]

	switch tr.Op {
	case Read:
		if hit {
			return Medium
		}

		copy(tr.Data, part)
	case Write:
		if hit {
			delete(b.bad, tr.Device)
		}

		copy(part, tr.Data)
	case Flush:
	}

	return None
}

// collect takes what the Path wants and has done, and checks reads.
func (b *bench) collect() {
	for tr := range b.p.Transfers {
		b.count[tr.Op]++
		b.queue = append(b.queue, *tr)
	}

	for _, res := range b.p.Results() {
		r := b.reqs[res.Tag]
		b.reqs[res.Tag] = nil

		if !res.OK {
			b.t.Fatalf("%v of %d bytes at sector %d was given up", r.Op, len(r.Data), r.Sector)
		}

		part := b.model[r.Sector.Bytes() : r.Sector.Bytes()+int64(len(r.Data))]

		switch r.Op {
		case Read:
			if !bytes.Equal(part, r.Data) {
				b.t.Fatalf("read of %d bytes at sector %d differs from what was written", len(r.Data), r.Sector)
			}
		case Write:
			copy(part, r.Data)
		case Flush:
		}
	}

	b.p.check()
}

func (b *bench) drain() {
	for b.step() {
	}

	for tag, r := range b.reqs {
		if r != nil {
			b.t.Fatalf("request %d (%v at %d) never ended", tag, r.Op, r.Sector)
		}
	}
}

// verify reads the array from every set of members that should be enough, by
// the definition of the level and not by the Path.
func (b *bench) verify() {
	b.t.Helper()

	for lost := range b.geo.Disks() {
		if got := b.assembled(lost); !bytes.Equal(got, b.model) {
			b.t.Fatalf("without the member of slot %d the content is wrong from byte %d", lost, firstDiff(got, b.model))
		}

		if !b.level.HasRedundancy() {
			return
		}
	}
}

func firstDiff(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}

	return -1
}

// assembled is a slow second implementation of the levels.
func (b *bench) assembled(lost int) []byte {
	out := make([]byte, len(b.model))

	for s := raid.Sectors(0); s < b.geo.ArraySectors(); s++ {
		slot, at, _ := b.geo.Locate(s)
		dst := out[s.Bytes():(s + 1).Bytes()]
		disk := func(slot int) []byte {
			return b.disks[b.p.Member(raid.Slot(slot)).Device][at.Bytes():(at + 1).Bytes()]
		}

		switch {
		case b.level == raid.Level1:
			copy(dst, disk((lost+1)%b.geo.Disks()))
		case int(slot) != lost || b.level == raid.Level0:
			copy(dst, disk(int(slot)))
		default:
			for other := range b.geo.Disks() {
				for i := range dst {
					if other != lost {
						dst[i] ^= disk(other)[i]
					}
				}
			}
		}
	}

	return out
}

var shapes = []struct {
	level raid.Level
	disks int
	chunk raid.Sectors
}{
	{raid.Level0, 3, 8},
	{raid.Level1, 2, 0},
	{raid.Level1, 3, 0},
	{raid.Level5, 3, 8},
	{raid.Level5, 4, 8},
	{raid.Level5, 4, 32},
	{raid.Level5, 6, 16},
	{raid.Level5, 2, 8},
}

func forShapes(t *testing.T, test func(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64)) {
	t.Helper()

	for _, shape := range shapes {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%v of %d, chunk %d, seed %d", shape.level, shape.disks, shape.chunk, seed),
				func(t *testing.T) { test(t, shape.level, shape.disks, shape.chunk, seed) })
		}
	}
}

func TestRandomRequests(t *testing.T) {
	forShapes(t, func(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64) {
		b := newBench(t, level, disks, chunk, seed)

		for range 400 {
			b.submit()

			for b.rng.IntN(2) == 0 && b.step() {
			}
		}

		b.drain()
		b.verify()
	})
}

// TestFailureAndRecovery fails a member at a random moment under load, puts a
// spare full of noise in its place and fills it under load.
func TestFailureAndRecovery(t *testing.T) {
	forShapes(t, func(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64) {
		if !level.HasRedundancy() {
			return
		}

		b := newBench(t, level, disks, chunk, seed)
		victim := b.rng.IntN(disks)
		slot := raid.Slot(victim)

		for i := range 600 {
			b.submit()

			if i == 100 {
				b.dead[victim] = true
			}

			if i == 300 {
				b.p.SetMember(slot, Member{Device: b.addDisk(), State: raid.Recovering})
			}

			if m := b.p.Member(slot); m.State == raid.Recovering && m.Recovered < b.size && !b.p.Syncing() {
				b.p.SyncSlab(raid.Recover, slot, m.Recovered, min(b.size, m.Recovered+64))
			}

			for b.rng.IntN(3) != 0 && b.step() {
			}
		}

		b.drain()

		for m := b.p.Member(slot); m.Recovered < b.size; m = b.p.Member(slot) {
			b.p.SyncSlab(raid.Recover, slot, m.Recovered, min(b.size, m.Recovered+64))
			b.drain()
		}

		if f := b.p.Failures(); len(f) != 1 || f[0].Slot != slot || f[0].Device != victim {
			t.Fatalf("Failures() = %+v, want device %d of slot %d alone", f, victim, victim)
		}

		b.p.SetMember(slot, Member{Device: b.p.Member(slot).Device, State: raid.InSync})
		b.verify()
	})
}

// TestResync starts from redundancy that is wrong everywhere. Reads must be
// steady and writes must not build on it; after the resync all is right.
func TestResync(t *testing.T) {
	forShapes(t, func(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64) {
		if !level.HasRedundancy() {
			return
		}

		b := newBench(t, level, disks, chunk, seed)
		b.p.SetResynced(0)

		for slot := range b.disks {
			for i := range b.disks[slot] {
				b.disks[slot][i] = byte(b.rng.Uint32())
			}
		}

		copy(b.model, b.assembledFirst())

		for pos := raid.Sectors(0); pos < b.size; {
			b.submit()

			if slab, ok := b.p.TakeSlab(); ok {
				if !slab.OK {
					t.Fatalf("slab %+v was given up", slab)
				}

				pos = slab.To
			}

			if pos < b.size && !b.p.Syncing() && b.rng.IntN(10) == 0 {
				b.p.SyncSlab(raid.Resync, raid.NoSlot, pos, min(b.size, pos+64))
			}

			for b.rng.IntN(3) != 0 && b.step() {
			}
		}

		b.drain()
		b.p.SetResynced(raid.MaxSectors)
		b.verify()
	})
}

// assembledFirst is the content that counts while redundancy is wrong: data
// chunks, and the first mirror.
func (b *bench) assembledFirst() []byte {
	out := make([]byte, len(b.model))

	for s := raid.Sectors(0); s < b.geo.ArraySectors(); s++ {
		slot, at, _ := b.geo.Locate(s)
		if b.level == raid.Level1 {
			slot = 0
		}

		copy(out[s.Bytes():(s+1).Bytes()], b.disks[slot][at.Bytes():])
	}

	return out
}

// TestUnreadableSector reads over bad sectors: data is right, the sector is
// written anew and the member kept.
func TestUnreadableSector(t *testing.T) {
	forShapes(t, func(t *testing.T, level raid.Level, disks int, chunk raid.Sectors, seed uint64) {
		if !level.HasRedundancy() {
			return
		}

		b := newBench(t, level, disks, chunk, seed)
		for range 100 {
			b.submit()
			b.drain()
		}

		for range 20 {
			b.bad[b.rng.IntN(disks)] = raid.Sectors(b.rng.IntN(component))
			if len(b.bad) > 1 && level != raid.Level1 {
				clear(b.bad) // never two in one row
			}

			if len(b.bad) == disks {
				clear(b.bad)
			}

			for range 20 {
				b.submit()
				b.drain()
			}
		}

		if f := b.p.Failures(); len(f) != 0 {
			t.Fatalf("Failures() = %+v, want none for unreadable sectors", f)
		}

		b.verify()
	})
}

// TestCost pins the transfers that single requests make.
func TestCost(t *testing.T) {
	for _, tt := range []struct {
		name            string
		level           raid.Level
		disks           int
		op              Op
		at, n           raid.Sectors
		reads, writes   int
		missing         raid.Slot
		unsynced, fresh bool
	}{
		{"raid0 read in a chunk", raid.Level0, 3, Read, 1, 4, 1, 0, -1, false, false},
		{"raid1 write", raid.Level1, 3, Write, 5, 100, 0, 3, -1, false, false},
		{"raid5 full row", raid.Level5, 4, Write, 24, 24, 0, 4, -1, false, false},
		{"raid5 one of five modified", raid.Level5, 6, Write, 0, 2, 2, 2, -1, false, false},
		{"raid5 one of three rewritten", raid.Level5, 4, Write, 0, 8, 2, 2, -1, false, false},
		{"raid5 unsynced is never modified", raid.Level5, 6, Write, 0, 2, 4, 2, -1, true, false},
		{"raid5 kept chunk missing", raid.Level5, 4, Write, 0, 8, 2, 2, 1, false, false},
		{"raid5 written chunk missing", raid.Level5, 4, Write, 0, 8, 2, 1, 0, false, false},
		{"raid5 parity missing", raid.Level5, 4, Write, 0, 8, 0, 1, 3, false, false},
		{"raid5 degraded read", raid.Level5, 4, Read, 0, 8, 3, 0, 0, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chunk := raid.Sectors(8)
			if tt.level == raid.Level1 {
				chunk = 0
			}

			b := newBench(t, tt.level, tt.disks, chunk, 1)
			if tt.missing >= 0 {
				b.p.SetMember(tt.missing, Member{Device: -1, State: raid.Missing})
			}

			if tt.unsynced {
				b.p.SetResynced(0)
			}

			b.reqs[0] = &Request{Op: tt.op, Sector: tt.at, Data: make([]byte, tt.n.Bytes())}
			b.p.Submit(*b.reqs[0])
			b.drain()

			if b.count[Read] != tt.reads || b.count[Write] != tt.writes {
				t.Errorf("%d reads and %d writes, want %d and %d", b.count[Read], b.count[Write], tt.reads, tt.writes)
			}
		})
	}
}

// TestTooManyFailures checks that what cannot be stored is refused, and that
// nothing hangs.
func TestTooManyFailures(t *testing.T) {
	b := newBench(t, raid.Level5, 4, 8, 1)
	b.dead[0], b.dead[2] = true, true

	data := make([]byte, 24*raid.SectorSize)
	b.p.Submit(Request{Tag: 1, Op: Write, Sector: 0, Data: data})

	for len(b.queue) > 0 || len(b.p.unsent) > 0 {
		b.queue = append(b.queue, b.p.transfers()...)
		tr := b.queue[0]
		b.queue = b.queue[1:]
		b.p.Complete(tr.ID, b.carryOut(tr))
	}

	if res := b.p.Results(); len(res) != 1 || res[0].OK {
		t.Errorf("Results() = %+v, want one that is not OK", res)
	}
}

// TestRecoveringMirrorFails loses the mirror that is being filled in the middle
// of a write: the one in sync has it, and that is enough.
func TestRecoveringMirrorFails(t *testing.T) {
	b := newBench(t, raid.Level1, 2, 0, 1)
	b.p.SetMember(1, Member{Device: b.addDisk(), State: raid.Recovering})
	b.dead[2] = true
	b.reqs[0] = &Request{Op: Write, Data: make([]byte, 4096)}
	b.p.Submit(*b.reqs[0])
	b.drain() // which fails the test if the write is given up

	if f := b.p.Failures(); len(f) != 1 || f[0].Device != 2 {
		t.Errorf("Failures() = %+v, want device 2", f)
	}
}

// transfers returns what is to be submitted now.
func (p *Path) transfers() (list []Transfer) {
	for tr := range p.Transfers {
		list = append(list, *tr)
	}

	return list
}

// slotOf returns the slot whose member, or whose successor, a transfer is with.
func (p *Path) slotOf(tr Transfer) raid.Slot {
	_, slot := p.at(tr.ID % p.places())

	return slot
}

func TestNothingAllocates(t *testing.T) {
	b := newBench(t, raid.Level5, 4, 8, 1)
	data := make([]byte, 100*raid.SectorSize)

	run := func(op Op) {
		b.p.Submit(Request{Tag: 0, Op: op, Sector: 5, Data: data})

		for len(b.p.Results()) == 0 {
			for tr := range b.p.Transfers {
				b.p.Complete(tr.ID, None)
			}
		}
	}

	run(Write)

	if n := testing.AllocsPerRun(100, func() { run(Write); run(Read) }); n != 0 {
		t.Errorf("%v allocations per write and read, want 0", n)
	}
}
