package core

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
)

// cell is what may be in one sector of the array.
type cell struct {
	versions []uint64 // written to it, oldest first
	floor    int      // the oldest that may be there: what came before was flushed over
	acked    int      // the newest that was acknowledged
	exact    bool     // it holds the newest, for certain
}

// zeroes marks the versions that are zeroes.
const zeroes = 1 << 40

// content is what version id of a sector holds; at first that is nothing.
func content(id uint64, s raid.Sectors) *block {
	var b block

	if id == 0 || id&zeroes != 0 {
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
	seed  uint64
	event int // number of the event that happens
	skip  map[int]bool
	seen  events
	trace func(string)
	src   *rand.PCG
	rng   *rand.Rand

	geo     raid.Geometry
	ignored rules
	g       *geometry.Map
	drives  []*drive
	cells   []cell

	m        *machine
	left     *crashlog.Left // by a process that was killed; nil if the power failed
	logs     logs
	growth   growth
	stopped  bool // as it should be, after the last life
	degraded bool // at some time in this life
	failed   bool // something did, just now
	lost     bool // some content is nowhere any more, and that is known
	last     uint64
	uuids    byte
	flushed  [crashDepth][]int // by tag: what was acknowledged when the flush began
}

// fail ends the history as one that is not as it should be.
func (w *world) wrong(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// saw counts an event.
func (w *world) saw(what string) { w.seen[what]++ }

// happens begins the next event, and reports whether it is one that happens.
func (w *world) happens() bool {
	w.event++
	w.src.Seed(w.seed, uint64(w.event)<<8|11)

	return !w.skip[w.event]
}

// say adds to the trace of a history.
func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%5d: ", w.event) + fmt.Sprintf(format, args...))
	}
}

// run is a history.
func (w *world) run() {
	for range 4 {
		if !w.boot() {
			w.saw("not-started")

			return
		}

		w.live()

		if w.lost {
			w.saw("lost")

			return
		}
	}

	if !w.boot() {
		w.saw("not-started")

		return
	}

	w.settle()
	w.verify()
	w.checked()
	w.stop()
	w.stopped = true

	if !w.boot() {
		w.wrong("not started again after it was stopped")
	}

	if w.m.array.Degraded() == 0 && w.m.array.Syncing().Action == raid.Resync {
		w.wrong("%v after it was stopped", w.m)
	}

	w.settle()
	w.verify()
}

func (w *world) create() {
	w.happens()

	minor := w.rng.IntN(3)
	spares := w.rng.IntN(3)
	params := metadata.NewArray{
		Version: fmt.Sprintf("1.%d", minor), Array: raid.UUID{1}, Name: "crash", Geometry: w.geo,
		AssumeClean: w.rng.IntN(2) == 0, Now: time.Unix(1e9, 0), Bitmap: metadata.BitmapNone,
	}

	w.withIntent(&params)

	size := w.geo.Size + 100
	if minor != 0 {
		size += 2048
	}

	if params.PPL {
		size += 2048
	}

	if !w.geo.Level.HasRedundancy() {
		size, spares = 2048+200, 0
	}

	var members []metadata.NewMember

	for range w.geo.Disks + spares {
		members = append(members, metadata.NewMember{Source: w.blank(size).source(), Device: w.uuid()})
	}
	w.say("bitmap of %d sectors, logs %v, clean %v, 1.%d, %d spares",
		params.BitmapChunk, params.PPL, params.AssumeClean, minor, spares)

	stages, err := md1.Create(params, members)
	if err != nil {
		w.wrong("%v", err)
	}

	for _, stage := range stages {
		for _, wr := range stage {
			w.drives[wr.Member].write(wr.Sector, wr.Data, true)
		}
	}

	for _, f := range w.scan() {
		if slot, ok := f.holds(); ok && !w.geo.Level.HasRedundancy() {
			w.geo.Sizes = append(w.geo.Sizes, 0)[:max(len(w.geo.Sizes), int(slot)+1)]
			w.geo.Sizes[slot] = f.DataSize
		}
	}

	if w.g, err = geometry.New(w.geo); err != nil {
		w.wrong("%v", err)
	}

	w.cells = make([]cell, w.g.ArraySectors())
	for s := range w.cells {
		w.cells[s] = cell{versions: []uint64{0}, exact: true}
	}
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

func (f found) recovering() bool { return f.RecoveryOffset < f.Size }

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
			w.wrong("drive %d: %v", d.name, err)
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
	setup = engine.Setup{
		Level: best.Level, Layout: best.Layout, Size: w.used(best.Size), Resynced: best.ResyncOffset,
	}

	for range best.Disks {
		setup.Members = append(setup.Members, engine.Member{Device: engine.None, State: raid.Missing})
	}

	for _, f := range all {
		// Its own word and the freshest superblock must agree.
		_, slotted := f.holds()
		current := slotted && f.Events+1 >= best.Events || !slotted && f.Holds(best.Superblock)

		if best.Role(f.Number) == f.Role(f.Number) && current {
			w.place(&setup, best, f, engine.DeviceID(len(use)))
			use = append(use, f)
		}
	}

	// One that was to take over a slot has it if nobody else does.
	if heir := setup.Heir; setup.HasSuccessor && setup.Members[heir].Device == engine.None {
		setup.Members[heir], setup.HasSuccessor = setup.Successor, false
	}

	return use, setup
}

func (w *world) place(setup *engine.Setup, best, f found, id engine.DeviceID) {
	if !f.Holds(best.Superblock) {
		w.wrong("drive %d has room for %d sectors, the array uses %d", f.name, f.DataSize, best.Size)
	}

	slot, slotted := f.holds()
	if !slotted {
		setup.Spares = append(setup.Spares, id)

		return
	}

	m := engine.Member{Device: id, State: raid.InSync}
	if f.recovering() {
		m = engine.Member{Device: id, State: raid.Recovering, Recovered: f.RecoveryOffset, ByBitmap: f.ByBitmap}
	}

	// One that has the slot to itself by now has not heard of it.
	shared := 0

	for _, role := range best.Roles {
		if held, ok := role.Slot(); ok && held == slot {
			shared++
		}
	}

	replacement := f.Replacement && shared > 1

	switch {
	case replacement && !setup.HasSuccessor:
		setup.Successor, setup.Heir, setup.HasSuccessor = m, slot, true
	case replacement || setup.Members[slot].Device != engine.None:
		w.wrong("drive %d and another one are both in slot %d", f.name, slot)
	default:
		setup.Members[slot] = m
	}
}

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

// startable reports whether there is enough of the array to be started; that there is
// not is checked to be right.
func (w *world) startable(setup engine.Setup, told bool) bool {
	inSync := func(slot raid.Slot) bool { return setup.Members[slot].State == raid.InSync }
	lost := 0

	for slot := range setup.Members {
		if !inSync(raid.Slot(slot)) {
			lost++
		}
	}

	degradedBefore := w.degraded || w.m != nil && !w.geo.Survives(w.expected) || w.lostAny()
	w.degraded = lost > 0

	switch {
	case lost > 0 && !degradedBefore:
		w.wrong("%d members are not in sync, of an array that was whole", lost)
	case !w.geo.Survives(inSync) && (w.m == nil || w.geo.Survives(w.expected)):
		w.wrong("%d members are not in sync, and some should be: %v", lost, w.m)
	case !w.geo.Survives(inSync):
		return false
	case lost > 0 && w.geo.Level.HasParity() && setup.Resynced != raid.MaxSectors:
		return w.logs.on || told // else it is the write hole
	}

	return true
}

// boot starts the array from what the drives hold. Reports whether it could be
// started; that it could not is checked to be right.
func (w *world) boot() bool {
	w.happens()

	use, setup := w.choose(w.scan())
	told := w.left != nil && w.left.Tells(use[0].Events)
	if !w.startable(setup, told) {
		return false
	}

	w.resize(use[0])

	if told {
		w.restore(use, &setup)
	}

	grows := w.mayGrow(use[0], setup)

	if w.logs.on {
		if ok, again := w.closeHole(use, &setup, grows); !ok {
			return again && w.boot()
		}
	}

	drives := make(map[engine.DeviceID]*drive)
	cfg := Config{Geometry: w.g, Setup: setup, Chunk: w.geo.Chunk}

	if told && w.rng.IntN(2) == 0 {
		cfg.SyncAfter = time.Second
	}

	attachments := make([]metadata.Attachment, 0, len(use))

	for id, f := range use {
		if w.m != nil && w.m.recorded[f.drive] {
			if slot, ok := f.holds(); ok {
				w.wrong("drive %d, which failed, is back in slot %d", f.name, slot)
			}
		}

		attachments = append(attachments, metadata.Attachment{Superblock: f.Superblock, Source: f.source()})
		drives[engine.DeviceID(id)] = f.drive
		cfg.Devices = append(cfg.Devices, Device{
			ID: engine.DeviceID(id), Offset: f.DataOffset, BadBlocks: f.BadBlocks,
		})
	}

	var err error
	if cfg.Keeper, err = (md1.Format{}).Keep(attachments); err != nil {
		w.wrong("%v", err)
	}

	if grows {
		w.grow(&cfg, use)
	}

	w.forget(use[0].Events)
	w.say("boot: %d members here, redundant below %d", len(use), setup.Resynced)
	w.m = newMachine(w, cfg, drives)

	w.logs.begin(w.m)

	for _, f := range use {
		w.m.behind[f.drive] = f.Events < use[0].Events
	}

	return true
}

// expected reports whether the member of slot in the last life can be expected
// to be in sync now: it was, by the last record that was durable, has not failed
// since, and is here. If the array broke because one failed that had missed
// the last record of the life before, and could not be brought level, that one
// is as stale as it looks.
func (w *world) expected(slot raid.Slot) bool {
	broken := w.m.array.State() == raid.Broken

	for d, at := range w.m.sound {
		if stale := broken && w.m.behind[d]; at == slot && !d.dead && !w.m.failed[d] && !stale {
			return true
		}
	}

	return false
}

// lostAny reports whether some slot cannot be expected to be in sync.
func (w *world) lostAny() bool {
	for slot := range raid.Slot(w.geo.Disks) {
		if w.m != nil && !w.expected(slot) {
			return true
		}
	}

	return false
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

	if r.Op == stripe.Write && w.rng.IntN(6) == 0 {
		w.zero(r, raid.Sectors(n))

		return
	}

	r.Data = w.m.hangs.buffers[tag][:n*raid.SectorSize]

	if r.Op == stripe.Write {
		w.last++

		for i := range n {
			s := r.Sector + raid.Sectors(i)
			copy(r.Data[i*raid.SectorSize:], content(w.last, s)[:])
			w.cells[s].versions = append(w.cells[s].versions, w.last)
			w.cells[s].exact = false
		}

		if r.FUA {
			w.saw("fua")
		}
	}

	w.saw(r.Op.String())
	w.say("%v of %d sectors at %d, fua %v, tag %d, version %d", r.Op, n, r.Sector, r.FUA, tag, w.last)
	w.m.submit(r)
}

// zero begins a request that makes zeroes of what is there.
func (w *world) zero(r stripe.Request, n raid.Sectors) {
	r.Op, r.Sectors = stripe.WriteZeroes, n

	if !w.geo.Level.HasParity() && w.rng.IntN(3) == 0 {
		r.Op = stripe.Discard // the drives read as zeroes then
	}

	w.last++

	for s := r.Sector; s < r.Sector+n; s++ {
		w.cells[s].versions = append(w.cells[s].versions, w.last|zeroes)
		w.cells[s].exact = false
	}

	w.saw(r.Op.String())
	w.say("%v of %d sectors at %d, fua %v, tag %d, version %d", r.Op, n, r.Sector, r.FUA, r.Tag, w.last)
	w.m.submit(r)
}

func sectors(r *stripe.Request) raid.Sectors {
	return r.Sectors + raid.Sectors(len(r.Data)/raid.SectorSize)
}

func (w *world) flush(tag int) {
	acked := make([]int, len(w.cells))
	for s := range w.cells {
		acked[s] = w.cells[s].acked
	}

	w.flushed[tag] = acked
	w.saw("flush")
	w.say("flush, tag %d", tag)
	w.m.submit(stripe.Request{Tag: tag, Op: stripe.Flush})
}

// answered takes the answer to a request.
func (w *world) answered(r *stripe.Request, ok bool) {
	w.say("    %v at %d, tag %d: %v", r.Op, r.Sector, r.Tag, ok)

	if !ok {
		if w.m.array.State() != raid.Broken {
			w.wrong("%v at sector %d was given up: %v", r.Op, r.Sector, w.m)
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
		if id == anything || *content(id, s) == block(data) {
			return
		}
	}

	for i, id := range c.versions {
		if *content(id, s) == block(data) {
			w.wrong("%s: sector %d holds version %d (%d) of %d, want one of the last %d: %v",
				who, s, i, id, len(c.versions), len(may), w.m)
		}
	}

	w.wrong("%s: sector %d holds what was never written to it: %v", who, s, w.m)
}

// live is one life: random events until the power is cut, which it likes to be
// soon after a failure, and while a record is under way or has just ended.
func (w *world) live() {
	n := w.rng.IntN(600)
	if w.growth.to > 0 && !w.growth.durable && w.rng.IntN(2) == 0 {
		n /= 10
	}

	for ; n > 0; n-- {
		if !w.happens() {
			continue
		}

		w.next()

		if w.failed && w.rng.IntN(3) > 0 {
			n = min(n, w.rng.IntN(60))
		}

		w.failed = false
	}

	w.happens()

	for n := w.rng.IntN(2) * 60; n > 0 && !w.m.recorder.active; n-- {
		if w.happens() {
			w.next()
		}
	}

	// What a record says is not worth much if it is not so as it ends.
	for n := w.rng.IntN(2) * 100; n > 0 && w.m.recorder.active; n-- {
		if w.happens() {
			w.next()
		}
	}

	if w.geo.Level.HasParity() && w.rng.IntN(3) == 0 {
		w.kill()
	} else {
		w.cut()
	}
}

func (w *world) cut() {
	w.happens()
	w.saw("cut")

	if w.m.recorder.active {
		w.saw("cut-in-record")
	}

	if w.growth.to > 0 && !w.growth.durable {
		w.saw("cut-in-growth")
	}

	w.say("the power is cut: %v", w.m)
	w.logs.end(w.m)
	w.m.cut(w.drives)
	w.left = nil
	w.comeBack()
	w.forgetUnflushed()
}

// forgetUnflushed has what was acknowledged and not flushed be there, or not.
func (w *world) forgetUnflushed() {
	for s := range w.cells {
		c := &w.cells[s]
		c.acked, c.exact = c.floor, c.floor == len(c.versions)-1
	}
}

// comeBack has drives be there, or not, that an array is started from again.
func (w *world) comeBack() {
	for _, d := range w.drives {
		// Those that died come back, perhaps, as they were: with old data.
		d.dead = d.dead && w.rng.IntN(4) == 0
	}

	w.reviveCurrent()
	w.loseOne()
	w.heal()
}

// heal makes sectors good whose content is nowhere else, now that what was not
// recorded has not happened; of a stripe that was being written it cannot be
// computed.
func (w *world) heal() {
	dirty := w.m.array.Record().ResyncOffset != raid.MaxSectors || len(w.m.flying) > 0
	elsewhere := w.geo.Survives(func(slot raid.Slot) bool {
		for d, at := range w.m.sound {
			if at == slot && w.expected(slot) && w.cleanDrive(d) {
				return true
			}
		}

		return false
	})

	if elsewhere && (!dirty || !w.geo.Level.HasParity()) {
		return
	}

	for id, d := range w.m.drives {
		if _, logged := w.logged(id); logged {
			w.lost = true // by its own log
		}

		d.repair()
	}
}

// logged returns the log of bad blocks of a device, and whether there is
// anything in it.
func (w *world) logged(id engine.DeviceID) (*intent.BadBlocks, bool) {
	bad := w.m.disks[id].bad

	return bad, bad != nil && !bad.Empty()
}

// clean reports whether all that a device has to hold can be read.
func (w *world) clean(id engine.DeviceID) bool {
	_, logged := w.logged(id)

	return !logged && w.m.drives[id].sound()
}

func (w *world) cleanDrive(d *drive) bool {
	for id, other := range w.m.drives {
		if other == d {
			return w.clean(id)
		}
	}

	return d.sound()
}

// reviveCurrent brings those back that are in sync, if all have died of some
// content: what is left would be taken for the array as it was before, and
// nothing could tell. Of a broken array all come back that it does not know to
// have failed.
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

// next is one event.
func (w *world) next() {
	defer func() { w.degraded = w.degraded || w.m.array.Degraded() > 0 }()

	_, heir := w.m.array.Successor()
	lonely := heir.Device != engine.None && len(w.m.array.Spares()) == 0

	switch n := w.rng.IntN(1000); {
	case lonely && n < 50, heir.State == raid.InSync && n < 250:
		w.fail() // of two at once, one may be the other's successor
	case n < 300:
		w.submit()
	case n < 860:
		w.m.complete()
	case n < 868:
		w.wake()
	case n < 900:
		w.m.pass(safeMode)
		w.m.pump()
	case n < 920:
		w.m.pass(checkpointEvery)
		w.m.pump()
		w.m.release()
	case !w.geo.Level.HasRedundancy():
	case n < 940:
		w.fail()
	case n < 945:
		w.hang()
	case n < 957:
		w.add()
	case n < 970:
		w.remove()
	case n < 980:
		w.rot()
	case n < 987:
		w.replace()
	case n < 990:
		w.rechunk()
	default:
		w.scrub()
	}
}

// rechunk has a bit of the bitmap stand for more or for less.
func (w *world) rechunk() {
	w.m.chunk = raid.Sectors(8) << w.rng.IntN(5)
	w.m.rechunk()
	w.m.pump()
}

// whole reports whether all would be there without the member of lost, those
// that are dead already and those that have sectors that cannot be read.
func (w *world) whole(lost raid.Slot) bool {
	return w.geo.Survives(func(slot raid.Slot) bool {
		m := w.m.array.Members()[slot]
		d := w.m.drives[m.Device]

		return slot != lost && m.State == raid.InSync && d != nil && !d.dead && w.clean(m.Device) && !w.m.hangs.drives[d]
	})
}

// trusted reports whether redundancy can be used for more than making it right.
func (w *world) trusted() bool {
	return !w.geo.Level.HasParity() || w.m.array.Resynced() == raid.MaxSectors
}

// fail has one device die, or taken out by hand. Now and then that is one too
// many.
func (w *world) fail() {
	members := w.m.array.Members()
	slot := raid.Slot(w.rng.IntN(len(members)))
	member := members[slot]
	d := w.m.drives[member.Device]

	if heir, s := w.m.array.Successor(); s.Device != engine.None && w.rng.IntN(3) == 0 {
		slot, member, d = heir, s, w.m.drives[s.Device]
	}

	if d == nil || d.dead {
		return
	}

	if w.m.hurt {
		return // a request knows of sectors that cannot be read, even if they can be by now
	}

	if !w.trusted() {
		return // what the crash left in flight, and a member: that is more than the level survives
	}

	bad := w.rotten()
	relief := false

	// What a full successor has is not lost, whoever else is missing.
	if heir, s := w.m.array.Successor(); s.State == raid.InSync && w.takesOver(s.Device) && w.rng.IntN(4) != 0 {
		slot, member, relief = heir, members[heir], true
		d = w.m.drives[member.Device]
	}

	if d == nil || d.dead {
		return
	}

	if member.State == raid.InSync && !relief && !w.whole(slot) && (bad || w.rng.IntN(15) != 0) {
		return
	}

	if w.failed = true; relief && !w.whole(slot) {
		w.saw("relieved")
	}

	if w.rng.IntN(3) == 0 {
		w.saw("fail-by-hand")
		w.say("device %d, drive %d, is failed by hand: %v", member.Device, d.name, w.m)

		_ = w.m.Fail(member.Device, "") // refused if it is one too many
		w.m.pump()
	} else {
		w.saw("fail")
		w.say("device %d, drive %d, dies", member.Device, d.name)

		d.dead = true
	}

	// Or two at once, as when their cable is pulled.
	if second := w.m.drives[members[w.rng.IntN(len(members))].Device]; second != nil && !bad && w.rng.IntN(15) == 0 {
		w.saw("two-at-once")
		w.say("drive %d dies as well", second.name)

		second.dead = true
	}
}

// takesOver reports whether a successor has all that it is to have.
func (w *world) takesOver(id engine.DeviceID) bool {
	d := w.m.drives[id]

	return d != nil && !d.dead && w.clean(id) && !w.m.hangs.drives[d]
}

// rotten reports whether some drive has sectors that cannot be read.
func (w *world) rotten() bool {
	return slices.ContainsFunc(w.drives, func(d *drive) bool { return !w.cleanDrive(d) })
}

// rot makes sectors of a member unreadable, whose content the others have.
func (w *world) rot() {
	slot := raid.Slot(w.rng.IntN(w.geo.Disks))
	m := w.m.array.Members()[slot]
	d := w.m.drives[m.Device]

	if m.State != raid.InSync || d == nil || d.dead || !w.trusted() || !w.whole(slot) {
		return
	}

	sick, what := d.bad, "bad-sector"
	if w.rng.IntN(3) == 0 {
		sick, what = d.worn, "worn-sector"
	}

	w.saw(what)

	at := w.m.disks[m.Device].Offset + raid.Sectors(w.rng.Int64N(int64(w.m.cfg.Setup.Size)))
	w.say("%s: %d of drive %d", what, at, d.name)

	sick[at] = true
}

// replace has a spare take over from a member.
func (w *world) replace() {
	slot := raid.Slot(w.rng.IntN(w.geo.Disks))
	if w.m.Replace(slot, engine.None) == nil {
		w.saw("replace")
		w.say("slot %d is replaced", slot)
		w.m.pump()
	}
}

// scrub begins a check or a repair, or ends one.
func (w *world) scrub() {
	action := []raid.SyncAction{raid.Check, raid.Repair, raid.Idle}[w.rng.IntN(3)]
	if w.m.Sync(action, raid.Range{From: raid.Sectors(w.rng.IntN(50)), To: raid.MaxSectors}) == nil {
		w.saw(string(action))
		w.say("%s", action)
		w.m.pump()
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
		if len(w.drives) > w.geo.Disks+5 {
			return
		}

		free = []*drive{w.blank(w.drives[0].size)}
	}

	d := free[w.rng.IntN(len(free))]

	if sb, err := (md1.Format{}).Probe(d.source()); err == nil && w.m.readd(d, sb) {
		w.saw("readd")
		w.say("drive %d is back in its slot", d.name)

		return
	}

	w.saw("add")
	w.say("drive %d is added", d.name)
	w.m.add(d, w.uuid())
}

// remove lets go of a device that failed, or of a spare, and has it repaired.
func (w *world) remove() {
	gone := append(w.m.array.Spares(), w.m.array.Retired()...)

	for _, member := range w.m.array.Members() {
		if member.State == raid.Faulty {
			gone = append(gone, member.Device)
		}
	}

	if len(gone) > 0 {
		id := gone[w.rng.IntN(len(gone))]
		d := w.m.drives[id]
		d.dead = false
		d.repair()
		d.cut(w.rng, []int{0, 50, 100}[w.rng.IntN(3)]) // it had no power for a while
		w.m.powerless = w.m.powerless || !w.m.recorded[d]

		w.saw("remove")
		w.say("device %d, drive %d, is removed", id, d.name)
		w.m.remove(id)
	}
}
