package stripe

import (
	"slices"

	"raid-assembler/pkg/raid"
)

// client is a Request in flight.
type client struct {
	Request

	active  bool
	failed  bool
	flying  bool // it counts in its stream: no part of it waits for the rest of its row
	jobs    int  // in flight
	waiting int  // of these, those that wait for the rest of their row
	stream  int  // that it belongs to, or -1
}

// job is the part of a request that is done at once, or the slab that is being
// synced.
type job struct {
	id     int32 // its place in Path.jobs
	client *client
	op     Op
	fua    bool
	from   raid.Sectors // of the array
	to     raid.Sectors

	next   *job // another part of the same row, done with this one
	linger int  // ticks that it waits for its neighbours while none is in flight
	age    int  // ticks that it has waited

	active  bool
	syncing bool // the slab
	locked  bool
	queued  bool // in Path.starved
	failed  bool
	again   bool
	fine    bool // in bands of a grain
	cut     bool // a flush: all of it is in flight
	bands   int  // in flight

	// pos is the array sector up to which the job has been cut, or the position
	// of a slab; where a write with parity is, row and column say.
	pos    raid.Sectors
	row    int64
	column raid.Sectors

	lo, hi raid.Sectors // the range that is held, in the unit of SyncSectors
}

// Submit begins a request. Preconditions: its tag is free, it lies within the
// array, and its data is whole sectors.
func (p *Path) Submit(req Request) {
	c := &p.clients[req.Tag]
	if c.active {
		panic("stripe: tag in use")
	}

	*c = client{Request: req, active: true, stream: -1}

	if !p.level.HasParity() || req.Op == Read || req.Op == Flush {
		p.begin(p.newJob(c, req.Sector, req.end()))

		return
	}

	if req.Op == Discard {
		c.failed = true
		p.ended(c)

		return
	}

	p.submitRows(c)
}

// newJob returns a free job for a part of a request.
func (p *Path) newJob(c *client, from, to raid.Sectors) *job {
	id := int32(c.Tag*p.perRequest + c.jobs)
	c.jobs++

	j := &p.jobs[id]
	*j = job{id: id, client: c, op: c.Op, fua: c.FUA, from: from, to: to, active: true}

	return j
}

// slabJob is the job of the slab that is being synced.
func (p *Path) slabJob() *job { return &p.jobs[len(p.jobs)-1] }

// begin starts a job, or starts it again.
func (p *Path) begin(j *job) {
	j.again, j.cut, j.pos, j.column = false, false, j.from, -1

	if j.syncing {
		p.beginSlab(j)
	}

	if !j.locked && p.needsLock(j) {
		if !j.syncing {
			j.lo, j.hi = p.rangeOfChain(j)
		}

		if !p.lock(j) {
			return // begins when the range is free
		}
	}

	p.cut(j)
}

// needsLock reports whether j must be alone in its range. Reads where the data
// lies need not: what they race with is the client's own write.
func (p *Path) needsLock(j *job) bool {
	switch {
	case !p.level.HasRedundancy() || j.op == Flush && !j.syncing:
		return false
	case j.syncing || j.op != Read || j.fine:
		return true
	default:
		return p.level.HasParity() && !p.sound()
	}
}

// rangeOfChain returns the range whose redundancy j and what is done with it
// touch.
func (p *Path) rangeOfChain(j *job) (lo, hi raid.Sectors) {
	lo, hi = p.rangeOf(j.from, j.to)

	for part := j.next; part != nil; part = part.next {
		l, h := p.rangeOf(part.from, part.to)
		lo, hi = min(lo, l), max(hi, h)
	}

	return lo, hi
}

// rangeOf returns the range whose redundancy array sectors from from to to
// touch, in the unit of SyncSectors.
func (p *Path) rangeOf(from, to raid.Sectors) (lo, hi raid.Sectors) {
	if !p.level.HasParity() {
		return from, to
	}

	perRow := p.geo.RowSectors()
	first, last := from/perRow, (to-1)/perRow

	if first == last {
		a, b := from%perRow, (to-1)%perRow+1
		if a/p.chunk == (b-1)/p.chunk {
			start := first * p.chunk

			return start + a%p.chunk, start + (b-1)%p.chunk + 1
		}
	}

	return first * p.chunk, (last + 1) * p.chunk
}

// lock takes j's range, or puts j in line for it. Those in line keep their
// order, so that none starves.
func (p *Path) lock(j *job) bool {
	if conflicts(p.held, j) || conflicts(p.waiting, j) {
		p.waiting = append(p.waiting, j)

		return false
	}

	j.locked = true
	p.held = append(p.held, j)

	return true
}

func conflicts(others []*job, j *job) bool {
	for _, o := range others {
		if o.lo < j.hi && j.lo < o.hi {
			return true
		}
	}

	return false
}

// unlock lets go of j's range and starts those that waited for it.
func (p *Path) unlock(j *job) {
	j.locked = false
	p.held = remove(p.held, j)

	for i := 0; i < len(p.waiting); {
		w := p.waiting[i]
		if conflicts(p.held, w) || conflicts(p.waiting[:i], w) {
			i++

			continue
		}

		p.waiting = slices.Delete(p.waiting, i, i+1)
		w.locked = true
		p.held = append(p.held, w)
		p.cut(w)
	}
}

func remove(list []*job, j *job) []*job {
	i := slices.Index(list, j)

	return slices.Delete(list, i, i+1)
}

// cut makes bands of j until it is all in flight, or until bands or memory run
// out, in which case j goes on when some are free again.
//
// What needs memory goes behind those that wait for some: else the one that
// needs most, which is the slab, would never find as much free at once.
func (p *Path) cut(j *job) {
	behind := len(p.starved) > 0 && j.locked && (p.level.HasParity() || j.syncing || j.fine)

	for !p.whole(j) {
		if behind || !p.cutOne(j) {
			if !j.queued {
				j.queued = true
				p.starved = append(p.starved, j)
			}

			return
		}
	}

	if j.bands == 0 {
		p.finish(j)
	}
}

// whole reports whether all of j has been cut.
func (p *Path) whole(j *job) bool {
	switch {
	case j.failed || j.again:
		return true // what is in flight ends, and no more is begun
	case j.syncing:
		return j.pos >= p.sync.slab.To
	case j.op == Flush:
		return j.cut
	default:
		return j.pos >= j.to
	}
}

// cutOne makes the next band of j, and reports whether there was room for it.
func (p *Path) cutOne(j *job) bool {
	parity := p.level.HasParity()

	switch {
	case j.syncing:
		return p.cutSync(j)
	case j.op == Flush:
		return p.cutFlush(j)
	case j.op == Read && parity:
		return p.cutRowRead(j)
	case j.op == Read:
		return p.cutLeg(j)
	case parity:
		return p.cutRowWrite(j)
	default:
		return p.cutStore(j)
	}
}

// feed lets the jobs that lacked bands or memory go on.
func (p *Path) feed() {
	for len(p.starved) > 0 {
		j := p.starved[0]
		if !p.whole(j) && !p.cutOne(j) {
			return
		}

		if !p.whole(j) {
			continue
		}

		p.starved = slices.Delete(p.starved, 0, 1)
		j.queued = false

		if j.bands == 0 {
			p.finish(j)
		}
	}
}

// finish ends a job of which nothing is in flight, or begins it again.
func (p *Path) finish(j *job) {
	if j.queued || !j.active {
		return // ends when its turn comes
	}

	if j.again && !j.failed {
		p.begin(j)

		return
	}

	// The parts are unlinked first: what is unlocked below may end too.
	parts, failed := j.next, j.failed
	j.next = nil

	switch {
	case j.syncing:
		j.active = false
		p.slabDone(j)
	case failed && parts != nil:
		// Not all of the row can be stored, so that each part is by itself.
		j.failed, j.fine = false, true
		p.alone(j, parts)

		return
	default:
		p.partDone(j, failed)
	}

	for parts != nil {
		part := parts
		parts, part.next = part.next, nil
		p.partDone(part, failed)
	}

	if j.locked {
		p.unlock(j)
	}
}

// alone does the parts of a row one by one that could not be done together.
func (p *Path) alone(j, parts *job) {
	if j.locked {
		p.unlock(j)
	}

	p.begin(j)

	for parts != nil {
		part := parts
		parts, part.next = part.next, nil
		part.fine = true
		p.begin(part)
	}
}

// partDone ends a job of a request.
func (p *Path) partDone(j *job, failed bool) {
	j.active = false
	c := j.client
	c.failed = c.failed || failed
	c.jobs--

	if c.jobs == 0 {
		p.ended(c)
	}
}

// ended answers a request.
func (p *Path) ended(c *client) {
	c.active = false
	p.streams.ended(c)
	p.results = append(p.results, Result{Tag: c.Tag, Op: c.Op, OK: !c.failed})
}

// bytes returns the part of the request's data for n array sectors from s, or
// zeroes if that is what is written, of which there is a piece.
func (p *Path) bytes(j *job, s, n raid.Sectors) []byte {
	if j.op == WriteZeroes {
		return p.zeroes()[:n.Bytes()]
	}

	if j.op == Discard {
		return nil
	}

	from := (s - j.client.Sector).Bytes()

	return j.client.Data[from : from+n.Bytes() : from+n.Bytes()]
}
