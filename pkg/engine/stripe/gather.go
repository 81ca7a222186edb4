package stripe

import "raid-assembler/pkg/raid"

// What has only a part of a row costs reads, so the parts that arrive together
// are put together, and the parts of a sequential stream wait for the rest of
// their row as long as that is on its way: while another request of the stream
// is in flight, whose end brings the next, and for a moment after that, since
// the client may not have had the time. The wait costs a client nothing that has
// one request at a time: there is none for a stream that never had two in
// flight, or in which the last wait was in vain.

const (
	// streamsMax is how many sequential streams are told apart.
	streamsMax = 16
	// agesMax is how many ticks a part waits while its stream is in flight, and
	// lingerMax how many while it is not: the first of them may be over at once.
	agesMax   = 16
	lingerMax = 2
)

// stream is a run of writes each of which began where the one before ended.
type stream struct {
	next   raid.Sectors // where the next one will begin
	length int          // so many requests
	active int          // requests in flight
	flying int          // of these, those no part of which waits for a row
	deep   bool         // more than one was in flight, and no wait has been in vain since
	used   uint64
}

// streams is what is known of sequential writes.
type streams struct {
	all   [streamsMax]stream
	clock uint64
}

// arrived finds the stream of a write, or makes it the first of another one.
func (t *streams) arrived(c *client) {
	t.clock++
	oldest := -1

	for i := range t.all {
		s := &t.all[i]
		if s.next == c.Sector && s.length > 0 {
			s.length++
			t.join(c, i)

			return
		}

		if s.active == 0 && (oldest < 0 || s.used < t.all[oldest].used) {
			oldest = i
		}
	}

	if oldest >= 0 {
		t.all[oldest] = stream{length: 1}
		t.join(c, oldest)
	}
}

func (t *streams) join(c *client, i int) {
	s := &t.all[i]
	s.next, s.used = c.end(), t.clock
	s.active++
	s.deep = s.deep || s.active > 1
	c.stream = i
}

// fly notes that nothing of a request waits for the rest of its row.
func (t *streams) fly(c *client) {
	if c.stream >= 0 && c.waiting == 0 && !c.flying {
		c.flying = true
		t.all[c.stream].flying++
	}
}

// ended notes that a request has ended.
func (t *streams) ended(c *client) {
	if c.stream < 0 {
		return
	}

	t.all[c.stream].active--

	if c.flying {
		t.all[c.stream].flying--
	}
}

// submitRows begins a write to a level with parity: what it has of a row at
// each end waits for the rest of it, and the whole rows between do not.
func (p *Path) submitRows(c *client) {
	var first, middle, last *job

	p.streams.arrived(c)
	perRow := p.geo.RowSectors()
	from, to := c.Sector, c.end()

	if from%perRow != 0 || to-from < perRow {
		end := min(to, from-from%perRow+perRow)
		first = p.newJob(c, from, end)
		from = end
	}

	if to-from >= perRow {
		end := to - to%perRow
		middle = p.newJob(c, from, end)
		from = end
	}

	if from < to {
		last = p.newJob(c, from, to)
	}

	for _, j := range [...]*job{first, last} {
		if j != nil {
			c.waiting++
		}
	}

	p.streams.fly(c)

	if middle != nil {
		p.begin(middle)
	}

	for _, j := range [...]*job{first, last} {
		if j != nil {
			p.gather(j)
		}
	}
}

// gather puts a part of a row to the others that wait, or lets it wait for
// others. A row that is whole begins.
func (p *Path) gather(j *job) {
	perRow := p.geo.RowSectors()
	c := j.client
	linger := 0
	if p.linger && c.stream >= 0 && p.streams.all[c.stream].deep {
		linger = lingerMax
	}

	for i := 0; i < len(p.gathering); i++ {
		lead := p.gathering[i]
		if lead.from/perRow != j.from/perRow {
			continue
		}

		sum, overlap := j.to-j.from, false
		for part := lead; part != nil; part = part.next {
			sum += part.to - part.from
			overlap = overlap || part.from < j.to && j.from < part.to
		}

		// An entry of a log is for chunks that follow one another.
		if overlap || p.logs != nil && !adjoins(lead, j) {
			p.start(lead) // which is before this one, in whatever order they end

			break
		}

		j.next, lead.next = lead.next, j
		lead.linger, lead.age = linger, 0
		lead.fua = lead.fua || j.fua

		if sum == perRow {
			p.start(lead)
		}

		return
	}

	j.linger = linger
	p.gathering = append(p.gathering, j)
}

// adjoins reports whether j begins or ends where the parts of lead do.
func adjoins(lead, j *job) bool {
	for part := lead; part != nil; part = part.next {
		if part.from == j.to || part.to == j.from {
			return true
		}
	}

	return false
}

// start begins a row with all the parts that have come.
func (p *Path) start(lead *job) {
	p.gathering = remove(p.gathering, lead)

	for part := lead; part != nil; part = part.next {
		part.client.waiting--
		p.streams.fly(part.client)
	}

	p.begin(lead)
}

// release begins the rows for which waiting is of no use any more.
func (p *Path) release() {
	for i := 0; i < len(p.gathering); {
		if lead := p.gathering[i]; !p.mayWait(lead) {
			p.start(lead)
			i = 0 // others may have begun with it
		} else {
			i++
		}
	}
}

// releasable reports whether release would begin anything.
func (p *Path) releasable() bool {
	for _, lead := range p.gathering {
		if !p.mayWait(lead) {
			return true
		}
	}

	return false
}

// mayWait reports whether the rest of a row may still be on its way.
func (p *Path) mayWait(lead *job) bool {
	s := p.awaited(lead)

	return s != nil && lead.age <= agesMax && (s.flying > 0 || lead.linger > 0)
}

// awaited returns the stream that goes on where what is there of a row ends, if
// there is one.
func (p *Path) awaited(lead *job) *stream {
	last := lead

	for part := lead.next; part != nil; part = part.next {
		if part.to > last.to {
			last = part
		}
	}

	if last.to%p.geo.RowSectors() == 0 || last.client.stream < 0 {
		return nil
	}

	if s := &p.streams.all[last.client.stream]; s.next == last.to && s.length > 1 {
		return s
	}

	return nil
}

// Lingering reports whether a write waits for others that nothing in flight
// will bring, so that [Path.Tick] has to end the wait.
func (p *Path) Lingering() bool {
	return len(p.gathering) > 0
}

// Tick ends the wait of writes whose neighbours have not come since the Tick
// before: the caller lets pass between two as long as a client may take between
// two requests, which is a millisecond or so.
func (p *Path) Tick() {
	for _, lead := range p.gathering {
		lead.age++

		s := p.awaited(lead)
		if s == nil || s.flying > 0 || lead.linger == 0 {
			continue
		}

		if lead.linger--; lead.linger == 0 {
			s.deep = false
		}
	}

	p.release()
}
