package core

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
)

var (
	crashSeed  = flag.Uint64("crash.seed", 0, "the first seed of TestCrash")
	crashSeeds = flag.Uint64("crash.seeds", 150, "how many seeds TestCrash takes for each kind of array")
)

// cell is what may be in one sector of the array.
type cell struct {
	versions []uint64 // written to it, oldest first
	floor    int      // the oldest that may be there: what came before was flushed over
	acked    int      // the newest that was acknowledged
	exact    bool     // it holds the newest, for certain
}

// content is what version id of a sector holds; at first that is nothing.
func content(id uint64, s raid.Sectors) *block {
	var b block

	if id == 0 {
		return &b
	}

	x := id<<20 ^ uint64(s)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}

	return &b
}

// world is an array through several lives, each of which ends when the power
// is cut.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	geo    raid.Geometry
	g      *geometry.Map
	drives []*drive
	cells  []cell

	m        *machine
	degraded bool // at some time in this life
	failed   bool // something did, just now
	last     uint64
	uuids    byte
	flushed  [crashDepth][]int // by tag: what was acknowledged when the flush began
}

func newWorld(t *testing.T, geo raid.Geometry, seed uint64) *world {
	t.Helper()

	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 11)), geo: geo}

	var err error
	if w.g, err = geometry.New(geo); err != nil {
		t.Fatal(err)
	}

	w.cells = make([]cell, w.g.ArraySectors())
	for s := range w.cells {
		w.cells[s] = cell{versions: []uint64{0}, exact: true}
	}

	minor := w.rng.IntN(3)
	size := geo.Size + 100

	if minor != 0 {
		size += 2048
	}

	var members []md1.NewMember

	for range geo.Disks + w.rng.IntN(2) {
		members = append(members, md1.NewMember{Source: w.blank(size).source(), Device: w.uuid()})
	}

	stages, err := md1.Create(md1.Params{
		Minor: minor, Array: raid.UUID{1}, Name: "crash", Geometry: geo,
		AssumeClean: w.rng.IntN(2) == 0, Now: time.Unix(1e9, 0),
	}, members)
	if err != nil {
		t.Fatal(err)
	}

	for _, stage := range stages {
		for _, wr := range stage {
			w.drives[wr.Member].write(wr.Sector, wr.Data, true)
		}
	}

	return w
}

func (w *world) blank(size raid.Sectors) *drive {
	d := newDrive(len(w.drives), size)
	w.drives = append(w.drives, d)

	return d
}

func (w *world) uuid() raid.UUID {
	w.uuids++

	return raid.UUID{0xdd, w.uuids}
}

// found is a drive with a superblock.
type found struct {
	*drive
	*metadata.Superblock
}

func (f found) holds() (raid.Slot, bool) { return f.Role(f.Number).Slot() }

// scan returns the drives that hold superblocks, the freshest first, of those
// that hold a slot.
func (w *world) scan() []found {
	var all []found

	for _, d := range w.drives {
		sb, err := md1.Format{}.Probe(d.source())
		if errors.Is(err, metadata.ErrNotFound) || d.dead {
			continue
		}

		if err != nil {
			w.t.Fatalf("drive %d: %v", d.name, err)
		}

		all = append(all, found{d, sb})
	}

	slices.SortStableFunc(all, func(a, b found) int {
		_, first := a.holds()
		_, second := b.holds()

		switch {
		case first != second && first:
			return -1
		case first != second:
			return 1
		default:
			return cmp.Compare(b.Events, a.Events)
		}
	})

	return all
}

// choose gives each drive the place that the freshest superblock gives it.
func (w *world) choose(all []found) (use []found, setup engine.Setup) {
	best := all[0]
	setup = engine.Setup{Level: best.Level, Size: best.Size, Resynced: best.ResyncOffset}

	if best.Level.HasParity() {
		setup.Size -= setup.Size % best.Chunk
	}

	for range best.Disks {
		setup.Members = append(setup.Members, engine.Member{Device: engine.None, State: raid.Missing})
	}

	use = usable(all)

	for i, f := range use {
		id := engine.DeviceID(i)

		slot, slotted := f.holds()
		if !slotted {
			setup.Spares = append(setup.Spares, id)

			continue
		}

		if other := setup.Members[slot].Device; other != engine.None {
			w.t.Fatalf("drives %d and %d are both in slot %d", use[other].name, f.name, slot)
		}

		setup.Members[slot] = engine.Member{Device: id, State: raid.InSync}
		if f.recovering() {
			setup.Members[slot] = engine.Member{Device: id, State: raid.Recovering, Recovered: f.RecoveryOffset}
		}
	}

	return use, setup
}

// usable returns those whose own word and the freshest superblock agree. Of
// several that are being filled all but one have their turn later; one that is,
// and has not heard of it, looks like that.
func usable(all []found) []found {
	best := all[0]
	furthest := -1

	var use []found

	for _, f := range all {
		_, slotted := f.holds()
		if best.Role(f.Number) != f.Role(f.Number) || slotted && f.Events+1 < best.Events {
			continue
		}

		if !slotted || !f.recovering() {
			use = append(use, f)
		} else if furthest < 0 {
			furthest = len(use)
			use = append(use, f)
		} else if f.RecoveryOffset > use[furthest].RecoveryOffset {
			use[furthest] = f
		}
	}

	return use
}

func (f found) recovering() bool { return f.RecoveryOffset < f.Size }

// forget has those come back blank, if ever, that are away now and fresher than
// what is here: the array goes on without them, and they without it.
func (w *world) forget(events uint64) {
	for _, d := range w.drives {
		if !d.dead {
			continue
		}

		d.dead = false
		sb, err := md1.Format{}.Probe(d.source())
		d.dead = true

		if err == nil && sb.Events > events {
			clear(d.media)
		}
	}
}

// boot starts the array from what the drives hold. Reports whether it could be
// started; that it could not is checked to be right.
func (w *world) boot() bool {
	all := w.scan()
	use, setup := w.choose(all)

	lost := 0

	for _, member := range setup.Members {
		if member.State != raid.InSync {
			lost++
		}
	}

	gone, survives := w.gone(), w.geo.Level.Redundancy(w.geo.Disks)
	degradedBefore := w.degraded || gone > 0
	w.degraded = lost > 0

	switch {
	case lost > 0 && !degradedBefore:
		w.t.Fatalf("%d members are not in sync, of an array that was whole", lost)
	case lost > survives && gone <= survives:
		w.t.Fatalf("%d members are not in sync, and %d should not be: %v", lost, gone, w.m)
	case lost > survives:
		return false
	case lost > 0 && w.geo.Level.HasParity() && setup.Resynced != raid.MaxSectors:
		return false // the write hole
	}

	attachments := make([]metadata.Attachment, 0, len(use))
	drives := make(map[engine.DeviceID]*drive)
	cfg := Config{Geometry: w.g, Setup: setup, Chunk: w.geo.Chunk}

	for id, f := range use {
		if w.m != nil && w.m.recorded[f.drive] {
			if slot, ok := f.holds(); ok {
				w.t.Fatalf("drive %d, which failed, is back in slot %d", f.name, slot)
			}
		}

		attachments = append(attachments, metadata.Attachment{Superblock: f.Superblock, Source: f.source()})
		drives[engine.DeviceID(id)] = f.drive
		cfg.Devices = append(cfg.Devices, Device{ID: engine.DeviceID(id), Offset: f.DataOffset})
	}

	var err error
	if cfg.Keeper, err = (md1.Format{}).Keep(attachments); err != nil {
		w.t.Fatal(err)
	}

	w.forget(use[0].Events)

	w.m = newMachine(w.t, w.rng, cfg, drives)
	w.m.answered = w.answered

	for _, f := range use {
		w.m.behind[f.drive] = f.Events < use[0].Events
	}

	return true
}

// gone returns how many members of the last life cannot be expected to be in
// sync now: those that were not, by the last record that was durable, or failed
// since, or are not here. If the array broke because one failed that had missed
// the last record of the life before, and could not be brought level, that one
// is as stale as it looks.
func (w *world) gone() int {
	if w.m == nil {
		return 0
	}

	n := w.geo.Disks
	broken := w.m.array.State() == raid.Broken

	for d := range w.m.sound {
		if stale := broken && w.m.behind[d]; !d.dead && !w.m.failed[d] && !stale {
			n--
		}
	}

	return n
}

// submit begins a random request that overlaps no other.
func (w *world) submit() {
	tag := w.rng.IntN(crashDepth)
	if w.m.reqs[tag] != nil {
		return
	}

	total := len(w.cells)
	n := 1 + w.rng.IntN(min(total, []int{1, 8, 30, 60}[w.rng.IntN(4)]))
	r := stripe.Request{
		Tag: tag, Op: stripe.Op(w.rng.IntN(2)), Sector: raid.Sectors(w.rng.IntN(total - n + 1)), FUA: w.rng.IntN(3) == 0,
	}

	if w.rng.IntN(8) == 0 {
		w.flush(tag)

		return
	}

	for _, other := range w.m.reqs {
		if other != nil && r.Sector < other.Sector+sectors(other) && other.Sector < r.Sector+raid.Sectors(n) {
			return
		}
	}

	r.Data = make([]byte, n*raid.SectorSize)

	if r.Op == stripe.Write {
		w.last++

		for i := range n {
			s := r.Sector + raid.Sectors(i)
			copy(r.Data[i*raid.SectorSize:], content(w.last, s)[:])
			w.cells[s].versions = append(w.cells[s].versions, w.last)
			w.cells[s].exact = false
		}
	}

	w.m.submit(r)
}

func sectors(r *stripe.Request) raid.Sectors { return raid.Sectors(len(r.Data) / raid.SectorSize) }

func (w *world) flush(tag int) {
	acked := make([]int, len(w.cells))
	for s := range w.cells {
		acked[s] = w.cells[s].acked
	}

	w.flushed[tag] = acked
	w.m.submit(stripe.Request{Tag: tag, Op: stripe.Flush})
}

// answered takes the answer to a request.
func (w *world) answered(r *stripe.Request, ok bool) {
	if !ok {
		if w.m.array.State() != raid.Broken {
			w.t.Fatalf("%v at sector %d was given up: %v", r.Op, r.Sector, w.m)
		}

		return
	}

	if r.Op == stripe.Flush {
		for s, acked := range w.flushed[r.Tag] {
			w.cells[s].floor = max(w.cells[s].floor, acked)
		}

		return
	}

	for i := range sectors(r) {
		s := r.Sector + i
		c := &w.cells[s]

		if r.Op == stripe.Read {
			w.check("read", s, r.Data[i.Bytes():][:raid.SectorSize])

			continue
		}

		c.acked, c.exact = len(c.versions)-1, true
		if r.FUA {
			c.floor = c.acked
		}
	}
}

// check checks that data may be in a sector.
func (w *world) check(who string, s raid.Sectors, data []byte) {
	c := &w.cells[s]

	may := c.versions[c.floor:]
	if c.exact {
		may = c.versions[len(c.versions)-1:]
	}

	for _, id := range may {
		if *content(id, s) == block(data) {
			return
		}
	}

	for i, id := range c.versions {
		if *content(id, s) == block(data) {
			w.t.Fatalf("%s: sector %d holds version %d of %d, want one of the last %d: %v",
				who, s, i, len(c.versions), len(may), w.m)
		}
	}

	w.t.Fatalf("%s: sector %d holds what was never written to it: %v", who, s, w.m)
}

// live is one life: random events until the power is cut, which it likes to be
// soon after a failure, and while a record is under way.
func (w *world) live() {
	for n := w.rng.IntN(600); n > 0; n-- {
		w.event()

		if w.failed && w.rng.IntN(3) > 0 {
			n = min(n, w.rng.IntN(60))
		}

		w.failed = false
	}

	for n := w.rng.IntN(2) * 60; n > 0 && !w.m.recorder.active; n-- {
		w.event()
	}

	w.m.cut(w.drives)

	for _, d := range w.drives {
		// Those that died come back, perhaps, as they were: with old data.
		d.dead = d.dead && w.rng.IntN(4) == 0
	}

	w.reviveCurrent()

	for s := range w.cells {
		c := &w.cells[s]
		c.acked, c.exact = c.floor, c.floor == len(c.versions)-1
	}
}

// reviveCurrent brings one of those back that are in sync, if all have died:
// what is left would be taken for the array as it was before, and nothing could
// tell. Of a broken array all come back that it does not know to have failed.
func (w *world) reviveCurrent() {
	broken := w.m.array.State() == raid.Broken
	alive := false

	var dead []*drive

	for _, member := range w.m.array.Members() {
		d := w.m.drives[member.Device]

		switch {
		case d == nil || w.m.recorded[d] || !broken && member.State != raid.InSync:
		case broken:
			d.dead = false
		case d.dead:
			dead = append(dead, d)
		default:
			alive = true
		}
	}

	if len(dead) > 0 && !alive {
		dead[0].dead = false
	}
}

func (w *world) event() {
	defer func() { w.degraded = w.degraded || w.m.array.Degraded() > 0 }()

	switch n := w.rng.IntN(100); {
	case n < 30:
		w.submit()
	case n < 88:
		w.m.complete()
	case n < 92:
		w.m.pass(safeMode)
		w.m.pump()
	case n < 94:
		w.m.pass(checkpointEvery)
		w.m.pump()
	case n < 96:
		w.fail()
	case n < 98:
		w.add()
	default:
		w.remove()
	}
}

// fail has one device die, or taken out by hand. Now and then that is one too
// many.
func (w *world) fail() {
	members := w.m.array.Members()
	member := members[w.rng.IntN(len(members))]
	d := w.m.drives[member.Device]

	if d == nil || d.dead {
		return
	}

	if w.geo.Level.HasParity() && w.m.array.Resynced() != raid.MaxSectors {
		return // what the crash left in flight, and a member: that is more than the level survives
	}

	left := 0

	for _, other := range members {
		if o := w.m.drives[other.Device]; other.State == raid.InSync && o != nil && !o.dead {
			left++
		}
	}

	if member.State == raid.InSync && left <= len(members)-w.geo.Level.Redundancy(len(members)) && w.rng.IntN(15) != 0 {
		return
	}

	w.failed = true

	if w.rng.IntN(3) == 0 {
		_ = w.m.Fail(member.Device, "") // refused if it is one too many
		w.m.pump()
	} else {
		d.dead = true
	}

	// Or two at once, as when their cable is pulled.
	if second := w.m.drives[members[w.rng.IntN(len(members))].Device]; second != nil && w.rng.IntN(15) == 0 {
		second.dead = true
	}
}

// add gives the array a drive that it does not have: a new one, or one that it
// had before.
func (w *world) add() {
	if len(w.m.array.Spares()) > 1 || w.m.array.State() == raid.Broken {
		return
	}

	var free []*drive

	for _, d := range w.drives {
		used := false
		for _, other := range w.m.drives {
			used = used || other == d
		}

		inFlight := slices.ContainsFunc(w.m.flying, func(o op) bool { return o.drive == d })
		if !used && !inFlight && !d.dead {
			free = append(free, d)
		}
	}

	if len(free) == 0 {
		if len(w.drives) > 8 {
			return
		}

		free = []*drive{w.blank(w.drives[0].size)}
	}

	w.m.add(free[w.rng.IntN(len(free))], w.uuid())
}

// remove lets go of a device that failed, or of a spare, and has it repaired.
func (w *world) remove() {
	var gone []engine.DeviceID

	for _, member := range w.m.array.Members() {
		if member.State == raid.Faulty {
			gone = append(gone, member.Device)
		}
	}

	if gone = append(gone, w.m.array.Spares()...); len(gone) > 0 {
		id := gone[w.rng.IntN(len(gone))]
		w.m.drives[id].dead = false
		w.m.remove(id)
	}
}

// TestCrash cuts the power at random moments, starts the array again from what
// the drives hold, and checks that all is there that was promised.
func TestCrash(t *testing.T) {
	for _, geo := range []raid.Geometry{
		{Level: raid.Level1, Disks: 2, Size: 203},
		{Level: raid.Level1, Disks: 3, Size: 203},
		{Level: raid.Level4, Disks: 3, Size: 203, Chunk: 8},
		{Level: raid.Level5, Disks: 2, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric},
		{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric},
		{Level: raid.Level5, Disks: 4, Size: 203, Chunk: 16, Layout: raid.RightAsymmetric},
	} {
		for seed := *crashSeed; seed < *crashSeed+*crashSeeds; seed++ {
			t.Run(fmt.Sprintf("%v of %d, seed %d", geo.Level, geo.Disks, seed), func(t *testing.T) {
				w := newWorld(t, geo, seed)

				for range 4 {
					if !w.boot() {
						return
					}

					w.live()
				}

				if !w.boot() {
					return
				}

				w.settle()
				w.verify()
				w.stop()

				if !w.boot() {
					t.Fatal("not started again after it was stopped")
				}

				if w.m.array.Degraded() == 0 && w.m.array.Syncing().Action != raid.Idle {
					t.Fatalf("%v after it was stopped", w.m)
				}

				w.settle()
				w.verify()
			})
		}
	}
}
