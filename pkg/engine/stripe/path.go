// Package stripe is the data path of one array: it turns requests on the array
// into transfers on its members, keeps redundancy right while it does, and
// survives members that fail on the way.
//
// It does no I/O itself. Requests go in by [Path.Submit], transfers come out by
// [Path.Transfers], what became of them goes in by [Path.Complete], and
// finished requests come out by [Path.Results]. The queue thread of an array
// joins it to the rings; tests join it to disks in memory that fail, lose power
// and reorder as told. It allocates nothing after [New].
//
// A request becomes jobs, and a job is cut into bands. A write to a level with
// parity is a job for the whole rows of chunks in it and one for what it has of
// a row at each end, which may be put together with what other requests have of
// that row. Every other request is one job, and so is the slab that is being
// synced. A band is a range of component sectors within one row of chunks over
// which each chunk is either wholly written or not touched, so that one rule
// makes its parity; where there are copies instead of parity it is a range of
// array sectors that is contiguous in each copy. Bands take what they need
// (memory, transfers) before they start, and never wait for each other; jobs
// wait for bands. So a job that has begun always ends.
//
// What cannot be read is found out by whole bands. The job is then done again
// in bands of a grain, each of which reads, computes and mends by itself: two
// members with bad sectors in one row harm only the grains that they share.
//
// Invariants, checked by [Path.check] in tests after every call:
//
//   - no two jobs that write redundancy or read it, the slab that is being
//     synced included, hold overlapping ranges
//   - a band in flight belongs to a job that is in flight, and that holds its
//     range if the band reads or writes redundancy
//   - the members that count as just fine are
//   - scratch memory is either free or held by one band
//   - a member below whose recovery position a write lands is written too, a
//     mirror that is being filled in any case; and so is the successor
//   - a part of a row that waits for the rest holds nothing, and no other part
//     that waits overlaps it
//   - a request has ended when all its jobs have
package stripe

import (
	"fmt"
	"math/bits"
	"slices"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

const (
	// bandsPerRequest bounds the memory of bands, not correctness: a request
	// that needs more takes them as others end.
	bandsPerRequest = 2
	// bandsOfSlab is what a slab has where a request needs no more than one band.
	bandsOfSlab = 8
	// partsOfRows is how many jobs a write to parity makes: two ends and what is
	// between them.
	partsOfRows = 3
	// grain is how much is computed in place of what cannot be read: the least
	// that any device reads.
	grain raid.Sectors = 8
	// whereMax is how many differences a slab reports.
	whereMax = 64
	// badRoom is how many changes of bad blocks are kept without allocating.
	badRoom = 256
)

// Path is the data path of one array. It is not safe for concurrent use.
type Path struct {
	geo      *geometry.Map
	level    raid.Level
	disks    int
	chunk    raid.Sectors
	piece    raid.Sectors // the most that one band of parity covers
	linger   bool
	patterns []slots      // copies: which slots hold one chunk, all that there are
	members  []Member     // by slot
	odd      slots        // whose members are not just fine; see review
	rows     []row        // as they come again and again
	resynced raid.Sectors // below it redundancy is right, in the unit of SyncSectors

	heir      raid.Slot // the successor's
	successor Member

	clients    []client
	perRequest int   // jobs
	jobs       []job // by tag; the last is the slab that is being synced
	bands      []band
	free       []int32 // bands
	scratch    [][]byte
	zeros      []byte // as long as a piece; see zeroes
	zeroed     bool
	reading    []int32 // reads in flight, by slot

	code  *parity.Code
	views [][]byte // a row's data by exponent, while something is computed
	parts [][]byte // those of views that are summed, or pieces of them
	fresh [][]byte // what is written, by slot
	noted [][]byte // likewise, for the crash log; nil where nothing is

	crash CrashLog

	unsent    []*transfer
	out       Transfer // that is being handed out
	results   []Result
	failures  []Failure
	badBlocks []BadBlock

	held    []*job // that hold a range
	waiting []*job // for a range, in order of arrival
	starved []*job // for bands or memory, in order of arrival

	logs     []partialLog // by slot; nil without
	recorded bool         // see SetRecorded
	broken   bool         // the array is, and nothing will be recorded
	unlogged int          // bands that change rows without

	gathering []*job // first parts of rows, that wait for more
	streams   streams

	sync  syncState
	total int // pieces of scratch memory
}

// New returns a Path whose slots are all missing.
func New(cfg Config) (*Path, error) {
	if cfg.Disks < 1 || cfg.Disks > MaxDisks {
		return nil, fmt.Errorf("stripe: %d slots, of 1 to %d: %w", cfg.Disks, MaxDisks, ErrConfig)
	}

	if len(cfg.Scratch) < cfg.Disks+2 || len(cfg.Scratch[0])%4096 != 0 || len(cfg.Scratch[0]) == 0 {
		return nil, fmt.Errorf("stripe: %d pieces of scratch memory for %d slots: %w",
			len(cfg.Scratch), cfg.Disks, ErrConfig)
	}

	usable := len(cfg.Scratch) - 1
	perRequest := 1
	if cfg.Level.HasParity() {
		perRequest = partsOfRows
	}

	jobs := cfg.Depth*perRequest + 1

	p := &Path{
		geo: cfg.Geometry, level: cfg.Level, disks: cfg.Disks, chunk: cfg.Chunk, linger: cfg.Linger,
		piece:      logPiece(raid.Sectors(len(cfg.Scratch[0])/raid.SectorSize), cfg.Logs),
		logs:       newLogs(cfg),
		recorded:   true,
		members:    make([]Member, cfg.Disks),
		resynced:   raid.MaxSectors,
		heir:       raid.NoSlot,
		successor:  Member{Device: -1, State: raid.Missing},
		clients:    make([]client, cfg.Depth),
		perRequest: perRequest,
		jobs:       make([]job, jobs),
		bands:      make([]band, bands(cfg.Level, cfg.Depth)),
		scratch:    append([][]byte(nil), cfg.Scratch[:usable]...),
		zeros:      cfg.Scratch[usable],
		total:      usable,
		reading:    make([]int32, cfg.Disks),
		parts:      make([][]byte, 0, cfg.Disks),
		fresh:      make([][]byte, cfg.Disks),
		noted:      make([][]byte, cfg.Disks),
		crash:      cfg.CrashLog,
		results:    make([]Result, 0, cfg.Depth),
		failures:   make([]Failure, 0, cfg.Disks+1),
		badBlocks:  make([]BadBlock, 0, badRoom),
		held:       make([]*job, 0, jobs),
		waiting:    make([]*job, 0, jobs),
		starved:    make([]*job, 0, jobs),
		gathering:  make([]*job, 0, jobs),
	}
	p.unsent = make([]*transfer, 0, TransfersMax(cfg.Level, cfg.Depth, cfg.Disks))
	p.sync.where = make([]raid.Range, 0, whereMax)
	p.sync.wrong = make([]raid.Slot, 0, whereMax)
	p.makeBands()

	for i := range p.members {
		p.members[i] = Member{Device: -1, State: raid.Missing}
	}

	p.review()
	p.trust()

	if p.level.HasParity() {
		p.rows = p.rowsOf()
		p.code = parity.NewCode(p.geo.Exponents())
		p.views = make([][]byte, p.geo.Exponents())
	} else {
		p.patterns = p.patternsOf()
	}

	return p, nil
}

// makeBands makes the bands, all of them free.
func (p *Path) makeBands() {
	bufs, ios := make([][]byte, len(p.bands)*p.disks), make([]transfer, len(p.bands)*p.places())
	p.free = make([]int32, len(p.bands))

	for i := range p.bands {
		p.bands[i] = band{id: int32(i), bufs: bufs[:p.disks], ios: ios[:p.places()]}
		bufs, ios = bufs[p.disks:], ios[p.places():]
		p.free[i] = int32(i)
	}
}

// zeroes returns a piece of zeroes. Most arrays need none, so that it is not made
// before.
func (p *Path) zeroes() []byte {
	if !p.zeroed {
		clear(p.zeros)
		p.zeroed = true
	}

	return p.zeros
}

// patternsOf returns the sets of slots that hold the copies of one chunk. They
// come again after as many chunks as there are slots, at most.
func (p *Path) patternsOf() []slots {
	var patterns []slots

	if p.level != raid.Level10 {
		// Of mirrors any one will do; without copies each is needed.
		if p.level == raid.Level1 {
			return []slots{p.everyone()}
		}

		for slot := range p.disks {
			patterns = append(patterns, 1<<uint(slot))
		}

		return patterns
	}

	for n := range raid.Sectors(p.disks) {
		if s := n * p.chunk; s < p.geo.ArraySectors() {
			var set slots

			for i := range p.geo.Copies() {
				slot, _, _ := p.geo.Copy(s, i)
				set.add(slot)
			}

			patterns = append(patterns, set)
		}
	}

	return patterns
}

// SetMember says what holds slot from now on.
func (p *Path) SetMember(slot raid.Slot, m Member) {
	p.members[slot] = m
	p.review()
}

// review looks which members are not just fine, whenever that may have changed.
// Each band asks for that several times, and nearly always all are.
func (p *Path) review() { p.odd = p.oddities() }

// oddities returns the slots whose members are not in sync, slow, or bad
// somewhere.
func (p *Path) oddities() slots {
	var set slots

	for i := range p.members {
		if m := &p.members[i]; m.State != raid.InSync || m.Slow || m.Bad != nil && !m.Bad.Empty() {
			set.add(raid.Slot(i))
		}
	}

	return set
}

// Member returns what holds slot.
func (p *Path) Member(slot raid.Slot) Member { return p.members[slot] }

// SetSuccessor says what is to take the place of the member of slot: a
// Recovering member that Replace fills. A Device of -1 ends it. There is one at
// a time.
func (p *Path) SetSuccessor(slot raid.Slot, m Member) {
	if p.heir, p.successor = slot, m; m.Device < 0 {
		p.heir, p.successor.State = raid.NoSlot, raid.Missing
	}
}

// Successor returns what is to take the place of a member, and of which;
// NoSlot if there is none.
func (p *Path) Successor() (raid.Slot, Member) { return p.heir, p.successor }

// SetResynced says below which offset redundancy is right, in the unit of
// geometry.Map's SyncSectors.
func (p *Path) SetResynced(upTo raid.Sectors) {
	for i := range p.logs {
		if p.resynced != raid.MaxSectors && upTo == raid.MaxSectors {
			p.logs[i].cached = true // as is what was written without logs
		}
	}

	p.resynced = upTo
	p.trust()
}

// trust tells the crash log whether redundancy is right but for what it has: not
// while a member has missed something, be it a write that has ended, and this is not
// recorded.
func (p *Path) trust() {
	if p.crash == nil {
		return
	}

	missed := slices.ContainsFunc(p.badBlocks, func(b BadBlock) bool { return !b.Cleared })
	p.crash.Trust(p.resynced == raid.MaxSectors && p.failuresRecorded() && !missed)
}

// Writes is the number of writes to rows that there may be at a time, of a path
// for so many requests.
func Writes(depth int) int { return depth * bandsPerRequest }

// bands is the number of bands of a path for so many requests: each is all of one run on
// mirrors.
func bands(level raid.Level, depth int) int {
	if level == raid.Level1 {
		return depth + bandsOfSlab
	}

	return Writes(depth)
}

// TransfersMax is the number of transfers that there may be at a time, of a path for
// so many requests and slots.
func TransfersMax(level raid.Level, depth, disks int) int {
	return (bands(level, depth) + disks) * places(disks)
}

// SetRecorded says whether it is on the members' disks who of them has failed. While
// it is not, no rows are changed for which there are partial parity logs: after a
// crash the one that failed is back, with parity that it was not written and a log
// that does not tell.
func (p *Path) SetRecorded(recorded bool) {
	p.recorded = recorded
	p.trust()
}

// SetBroken says that it never will be. What waits for it fails.
func (p *Path) SetBroken() { p.broken = true }

// Transfers yields what is to be submitted now, and what that leads to meanwhile; none
// is valid after its turn. Each must be completed once, in any order. What was
// submitted since the last call counts as having arrived together: the caller should
// submit all that it has before.
func (p *Path) Transfers(yield func(*Transfer) bool) {
	p.release()
	p.advanceLogs()

	for i := 0; i < len(p.unsent) && yield(p.handOut(p.unsent[i])); i++ {
	}

	p.unsent, p.out.Data = p.unsent[:0], nil
}

// handOut returns what is in flight of t, until it is called again.
func (p *Path) handOut(t *transfer) *Transfer {
	o := &p.out
	o.ID, o.Device, o.Op = int(t.id), int(t.device), t.op
	o.Sector, o.Sectors, o.Data = t.at, t.end-t.at, t.data
	o.FUA, o.Log = t.fua, t.log

	if t.grains && t.data != nil {
		o.Data = t.data[(t.at - t.from).Bytes():(t.end - t.from).Bytes()]
	}

	return o
}

// Results returns the requests that ended since the last call, valid until
// the next call of any method.
func (p *Path) Results() []Result {
	results := p.results
	p.results = p.results[:0]

	return results
}

// Failures returns the members given up on since the last call, valid until
// the next call of any method. They come before the Results that they bear on.
func (p *Path) Failures() []Failure {
	failures := p.failures
	p.failures = p.failures[:0]

	return failures
}

// BadBlocks returns what became bad or good since the last call, valid until
// the next call of any method. They come before the Results that they bear on.
func (p *Path) BadBlocks() []BadBlock {
	bad := p.badBlocks
	p.badBlocks = p.badBlocks[:0]

	return bad
}

// Pending reports whether there is something to take: transfers, results,
// failures, bad blocks or a slab.
func (p *Path) Pending() bool {
	return len(p.unsent) > 0 || len(p.results) > 0 || len(p.failures) > 0 || len(p.badBlocks) > 0 ||
		p.sync.ended || p.releasable() || p.logsDue()
}

// Footprint returns which part of what a sync covers a request bears on, in the
// unit of geometry.Map's SyncSectors: what must be marked in a write-intent
// bitmap before the request is submitted.
func (p *Path) Footprint(req Request) raid.Range {
	if req.Op == Flush {
		return raid.Range{}
	}

	lo, hi := p.rangeOf(req.Sector, req.end())

	return raid.Range{From: lo, To: hi}
}

// slots is a set of slots.
type slots uint64

func (s slots) has(slot raid.Slot) bool { return slot >= 0 && s&(1<<uint(slot)) != 0 }
func (s slots) count() int              { return bits.OnesCount64(uint64(s)) }
func (s slots) first() raid.Slot        { return raid.Slot(bits.TrailingZeros64(uint64(s))) }
func (s slots) rest() slots             { return s & (s - 1) } // all but the first
func (s *slots) add(slot raid.Slot)     { *s |= 1 << uint(slot) }
func (s *slots) remove(slot raid.Slot)  { *s &^= 1 << uint(slot) }

// everyone returns the set of all slots.
func (p *Path) everyone() slots {
	return slots(1)<<uint(p.disks-1)<<1 - 1
}

// places is how many transfers a band has room for: one for each slot, and one
// for the successor, whose place is the last.
func (p *Path) places() int { return places(p.disks) }

func places(disks int) int { return disks + 1 }

// at returns what a place of a band stands for.
func (p *Path) at(place int) (*Member, raid.Slot) {
	if place == p.disks {
		return &p.successor, p.heir
	}

	return &p.members[place], raid.Slot(place)
}

// gone returns the slots whose members do not hold component sectors up to
// end.
func (p *Path) gone(end raid.Sectors) slots {
	var set slots

	for odd := p.odd; odd != 0; odd = odd.rest() {
		if slot := odd.first(); !p.members[slot].holds(end) {
			set.add(slot)
		}
	}

	return set
}

// unreadable returns the slots whose members cannot be trusted for component
// sectors from lo to hi.
func (p *Path) unreadable(lo, hi raid.Sectors) slots {
	var set slots

	for odd := p.odd; odd != 0; odd = odd.rest() {
		slot := odd.first()
		if m := &p.members[slot]; !m.holds(hi) || m.bad(lo, hi) {
			set.add(slot)
		}
	}

	return set
}

// lacking returns the slots without a member in sync.
func (p *Path) lacking() slots {
	var set slots

	for odd := p.odd; odd != 0; odd = odd.rest() {
		if slot := odd.first(); p.members[slot].State != raid.InSync {
			set.add(slot)
		}
	}

	return set
}

// survives reports whether all content is there without the slots of lack.
func (p *Path) survives(lack slots) bool {
	if p.level.HasParity() {
		return lack.count() <= p.level.Redundancy(p.disks)
	}

	for _, set := range p.patterns {
		if set&^lack == 0 {
			return false
		}
	}

	return true
}

// alive reports whether the array is not broken.
func (p *Path) alive() bool { return p.survives(p.lacking()) }

// sound reports whether every chunk can be read where it lies.
func (p *Path) sound() bool { return p.odd == 0 }

// takes reports whether a write that ends at component sector end must go to
// m. A mirror being filled takes every write: the copy comes over it later,
// with the same data or newer. Parity levels could not say what belongs there
// without more reads, and leave it to the recovery.
func (p *Path) takes(m *Member, end raid.Sectors) bool {
	return m.holds(end) || m.State == raid.Recovering && !p.level.HasParity()
}
