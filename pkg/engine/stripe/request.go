package stripe

import (
	"slices"

	"raid-assembler/pkg/raid"
)

// request is a Request in flight, or the slab that is being synced.
type request struct {
	Request

	active bool
	bands  int // in flight
	failed bool

	// next is the array sector up to which the request has been cut, for
	// levels without parity and for reads; column is the same within a row of
	// chunks, for writes with parity and for slabs (then in component sectors).
	next   raid.Sectors
	column raid.Sectors
	row    int64

	// avoid are members that a read of this request found unreadable, so
	// that it is done again from the others.
	avoid slots
	again bool
	// fine is a slab that is done again in bands of a grain, so that what can
	// be read of a member is not computed.
	fine bool

	locked  bool
	queued  bool         // in Path.starved
	lo, hi  raid.Sectors // component range, while locked or waiting
	syncing bool         // the slab
}

func (r *request) end() raid.Sectors {
	return r.Sector + r.Sectors + raid.Sectors(len(r.Data)/raid.SectorSize)
}

// Submit begins a request. Preconditions: its tag is free, it lies within the
// array, and its data is whole sectors.
func (p *Path) Submit(req Request) {
	r := &p.requests[req.Tag]
	if r.active {
		panic("stripe: tag in use")
	}

	*r = request{Request: req, active: true}
	p.begin(r)
}

// begin starts a request, or starts it again without the members to avoid.
func (p *Path) begin(r *request) {
	r.next, r.column, r.again = r.Sector, -1, false
	if r.syncing {
		r.next = r.lo
	}

	if p.needsLock(r) && !r.locked {
		r.lo, r.hi = p.componentRange(r)
		if !p.lock(r) {
			return // begins when the range is free
		}
	}

	p.cut(r)
}

// needsLock reports whether r must be alone in its component range. Reads of
// whole members need not: what they race with is the client's own write.
func (p *Path) needsLock(r *request) bool {
	if !p.level.HasRedundancy() || r.Op == Flush {
		return false
	}

	if r.Op == Write {
		return true
	}

	if !p.level.HasParity() {
		return r.avoid != 0 // it may mend, and must not mend over a write
	}

	return p.unreadable(raid.MaxSectors, r.avoid) != 0
}

// componentRange returns the component sectors whose redundancy r touches.
func (p *Path) componentRange(r *request) (lo, hi raid.Sectors) {
	if !p.level.HasParity() {
		return r.Sector, r.end()
	}

	perRow := p.geo.RowSectors()
	first, last := int64(r.Sector/perRow), int64((r.end()-1)/perRow)

	if first == last {
		a, b := r.Sector%perRow, (r.end()-1)%perRow+1
		if a/p.chunk == (b-1)/p.chunk {
			start := raid.Sectors(first) * p.chunk

			return start + a%p.chunk, start + (b-1)%p.chunk + 1
		}
	}

	return raid.Sectors(first) * p.chunk, raid.Sectors(last+1) * p.chunk
}

// lock takes r's component range, or puts r in line for it. Those in line keep
// their order, so that none starves.
func (p *Path) lock(r *request) bool {
	if conflicts(p.held, r) || conflicts(p.waiting, r) {
		p.waiting = append(p.waiting, r)

		return false
	}

	r.locked = true
	p.held = append(p.held, r)

	return true
}

func conflicts(others []*request, r *request) bool {
	for _, o := range others {
		if o.lo < r.hi && r.lo < o.hi {
			return true
		}
	}

	return false
}

// unlock lets go of r's component range and starts those that waited for it.
func (p *Path) unlock(r *request) {
	r.locked = false
	p.held = remove(p.held, r)

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

func remove(list []*request, r *request) []*request {
	i := slices.Index(list, r)

	return slices.Delete(list, i, i+1)
}

// cut makes bands of r until it is all in flight, or until bands or memory run
// out, in which case r goes on when some are free again.
//
// What needs memory goes behind those that wait for some: else the one that
// needs most, which is the slab, would never find as much free at once.
func (p *Path) cut(r *request) {
	behind := len(p.starved) > 0 && r.locked && p.level.HasParity()

	for !p.whole(r) {
		if behind || !p.cutOne(r) {
			if !r.queued {
				r.queued = true
				p.starved = append(p.starved, r)
			}

			return
		}
	}

	if r.bands == 0 {
		p.finish(r)
	}
}

// whole reports whether all of r has been cut.
func (p *Path) whole(r *request) bool {
	if r.failed {
		return true // what is in flight ends, and no more is begun
	}

	if r.syncing {
		return r.next >= r.hi
	}

	if r.Op == Flush {
		return r.next > r.Sector
	}

	return r.next >= r.end()
}

// cutOne makes the next band of r, and reports whether there was room for it.
func (p *Path) cutOne(r *request) bool {
	switch {
	case r.syncing:
		return p.cutSync(r)
	case r.Op == Flush:
		return p.cutFlush(r)
	case r.Op == Read:
		return p.cutRead(r)
	case p.level.HasParity():
		return p.cutParity(r)
	case p.level == raid.Level1:
		return p.cutMirror(r)
	default:
		return p.cutPlain(r)
	}
}

// feed lets the requests that lacked bands or memory go on.
func (p *Path) feed() {
	for len(p.starved) > 0 {
		r := p.starved[0]
		if !p.whole(r) && !p.cutOne(r) {
			return
		}

		if !p.whole(r) {
			continue
		}

		p.starved = slices.Delete(p.starved, 0, 1)
		r.queued = false

		if r.bands == 0 {
			p.finish(r)
		}
	}
}

// finish ends a request of which nothing is in flight, or begins it again.
func (p *Path) finish(r *request) {
	if r.queued || !r.active {
		return // ends when its turn comes
	}

	if r.again && !r.failed {
		p.begin(r)

		return
	}

	r.active = false

	if r.syncing {
		p.slabDone(r)
	} else {
		p.results = append(p.results, Result{Tag: r.Tag, Op: r.Op, OK: !r.failed})
	}

	if r.locked {
		p.unlock(r)
	}
}

// bytes returns the part of r's data for n array sectors from s.
func (r *request) bytes(s, n raid.Sectors) []byte {
	from := (s - r.Sector).Bytes()

	return r.Data[from : from+n.Bytes() : from+n.Bytes()]
}
