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
// A request is cut into bands. A band is a range of component sectors within
// one row of chunks over which each chunk is either wholly written or not
// touched, so that one rule makes its parity. Bands take what they need
// (memory, transfers) before they start, and never wait for each other;
// requests wait for bands. So a request that has begun always ends.
//
// Invariants, checked by [Path.check] in tests after every call:
//
//   - no two requests that write parity or mirrors, and no such request and the
//     slab that is being synced, hold overlapping component ranges
//   - a band in flight belongs to a request that is in flight, and that holds
//     its component range if the band reads or writes redundancy
//   - scratch memory is either free or held by one band
//   - a member below whose recovery position a write lands is written too
package stripe

import (
	"errors"
	"fmt"
	"math/bits"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/raid"
)

// MaxDisks is the largest number of slots that the data path serves.
const MaxDisks = 64

// Op is what a request or a transfer does.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Flush
	Discard     // what was there need not be kept
	WriteZeroes // as a Write of zeroes, without the data
)

func (o Op) String() string {
	return [...]string{"read", "write", "flush", "discard", "write-zeroes"}[o]
}

// Request is an operation on the array.
type Request struct {
	Tag    int // below Config.Depth; in use until its Result
	Op     Op
	Sector raid.Sectors // of the array
	Data   []byte       // of a Read or a Write: whole sectors
	// Sectors is the length of a Discard or of WriteZeroes.
	Sectors raid.Sectors
	FUA     bool // what is written is to be on stable storage when it ends
}

// Result says that a request has ended.
type Result struct {
	Tag int
	Op  Op
	OK  bool // all of it was done; if not, the client is owed an I/O error
}

// Transfer is an operation on one member.
type Transfer struct {
	ID     int // to be given to Complete
	Device int // as given to SetMember
	Slot   raid.Slot
	Op     Op
	Sector raid.Sectors // of the component, from the start of its data area
	Data   []byte       // of a Read or a Write: whole sectors
	// Sectors is the length; 0 for a Flush, which is for all of the member.
	Sectors raid.Sectors
	FUA     bool
}

// Fault is how a transfer went wrong.
type Fault uint8

// The faults.
const (
	None   Fault = iota
	Medium       // these sectors could not be read; the member may be fine
	Gone         // the member does not answer any more
)

// Failure says that a member was given up on. The Path has stopped using it;
// no write that it missed may be acknowledged before that is recorded.
type Failure struct {
	Device int
	Slot   raid.Slot
	Op     Op
	Sector raid.Sectors
}

// BadBlock says that sectors of a member became bad, or that they are no longer.
// [Member.Bad] says so already; no result that bears on it may be acknowledged
// before it is recorded. That they are good again may be recorded later.
type BadBlock struct {
	Device  int
	Slot    raid.Slot
	Range   raid.Range // of the component
	Cleared bool
}

// Member is what holds a slot.
type Member struct {
	Device int
	State  raid.MemberState // InSync, Recovering, Faulty or Missing
	// Recovered is the component offset below which a Recovering member is
	// right.
	Recovered raid.Sectors
	// WriteMostly and Slow members are read only where the others do not do.
	WriteMostly, Slow bool
	// Bad is where the member holds no valid data, or nil if there is no log
	// to keep that in. The Path changes it.
	Bad *intent.BadBlocks
}

// Config sizes a Path.
type Config struct {
	Geometry *geometry.Map
	Level    raid.Level
	Disks    int
	Chunk    raid.Sectors // 0 where the level has none
	Depth    int          // requests at a time
	// Scratch holds the pieces of memory that parity is computed in, all of
	// one length, a multiple of 4096. There must be more than Disks of them.
	Scratch [][]byte
}

// bandsPerRequest bounds the memory of bands, not correctness: a request that
// needs more takes them as others end.
const bandsPerRequest = 4

// grain is how much is computed in place of what cannot be read, where parity
// may be wrong: the least that any device reads.
const grain raid.Sectors = 8

// ErrConfig says that a Path cannot be made as asked.
var ErrConfig = errors.New("unusable configuration")

// Path is the data path of one array. It is not safe for concurrent use.
type Path struct {
	geo     *geometry.Map
	level   raid.Level
	disks   int
	chunk   raid.Sectors
	piece   raid.Sectors // the most that one band of parity covers
	members []Member     // by slot

	heir      raid.Slot // the successor's
	successor Member
	badBlocks []BadBlock

	resynced raid.Sectors // component offset below which redundancy is right

	requests []request // by tag; the last is the slab that is being synced
	bands    []band
	free     []int32 // bands
	scratch  [][]byte
	views    [][]byte // of scratch, while parity is compared
	unsent   []Transfer
	results  []Result
	failures []Failure

	held    []*request // that hold a component range
	waiting []*request // for a component range, in order of arrival
	starved []*request // for bands or memory, in order of arrival

	sync  syncState
	total int // pieces of scratch memory
}

// New returns a Path whose slots are all missing.
func New(cfg Config) (*Path, error) {
	if cfg.Disks < 1 || cfg.Disks > MaxDisks {
		return nil, fmt.Errorf("stripe: %d slots, of 1 to %d: %w", cfg.Disks, MaxDisks, ErrConfig)
	}

	if len(cfg.Scratch) <= cfg.Disks || len(cfg.Scratch[0])%4096 != 0 || len(cfg.Scratch[0]) == 0 {
		return nil, fmt.Errorf("stripe: %d pieces of scratch memory for %d slots: %w",
			len(cfg.Scratch), cfg.Disks, ErrConfig)
	}

	p := &Path{
		geo: cfg.Geometry, level: cfg.Level, disks: cfg.Disks, chunk: cfg.Chunk,
		piece:    raid.Sectors(len(cfg.Scratch[0]) / raid.SectorSize),
		members:  make([]Member, cfg.Disks),
		resynced: raid.MaxSectors,
		requests: make([]request, cfg.Depth+1),
		bands:    make([]band, cfg.Depth*bandsPerRequest),
		scratch:  append([][]byte(nil), cfg.Scratch...),
		total:    len(cfg.Scratch),
		views:    make([][]byte, 0, cfg.Disks),
		results:  make([]Result, 0, cfg.Depth),
		failures: make([]Failure, 0, cfg.Disks),
		held:     make([]*request, 0, cfg.Depth+1),
		waiting:  make([]*request, 0, cfg.Depth+1),
		starved:  make([]*request, 0, cfg.Depth+1),
	}
	p.unsent = make([]Transfer, 0, len(p.bands)*cfg.Disks)

	for i := range p.bands {
		p.bands[i].id = int32(i)
		p.bands[i].bufs = make([][]byte, cfg.Disks)
		p.bands[i].ios = make([]transfer, cfg.Disks)
		p.free = append(p.free, int32(i))
	}

	for i := range p.members {
		p.members[i] = Member{Device: -1, State: raid.Missing}
	}

	p.heir, p.successor = raid.NoSlot, Member{Device: -1, State: raid.Missing}

	return p, nil
}

// SetMember says what holds slot from now on.
func (p *Path) SetMember(slot raid.Slot, m Member) { p.members[slot] = m }

// SetSuccessor says what is to take the place of the member of slot: a
// Recovering member that Replace fills. A Device of -1 ends it. There is one at
// a time.
func (p *Path) SetSuccessor(slot raid.Slot, m Member) { p.heir, p.successor = slot, m }

// Successor returns what is to take the place of a member, and of which.
func (p *Path) Successor() (raid.Slot, Member) { return p.heir, p.successor }

// BadBlocks returns what became bad or good since the last call, valid until
// the next call of any method. They come before the Results that they bear on.
func (p *Path) BadBlocks() []BadBlock {
	bad := p.badBlocks
	p.badBlocks = p.badBlocks[:0]

	return bad
}

// Footprint returns which part of what a sync covers a request bears on, in the
// unit of geometry.Map's SyncSectors: what must be marked in a write-intent
// bitmap before the request is submitted.
func (p *Path) Footprint(req Request) raid.Range {
	r := request{Request: req}
	if req.Op == Flush {
		return raid.Range{}
	}

	lo, hi := p.componentRange(&r)

	return raid.Range{From: lo, To: hi}
}

// Member returns what holds slot.
func (p *Path) Member(slot raid.Slot) Member { return p.members[slot] }

// SetResynced says below which component offset redundancy is right.
func (p *Path) SetResynced(upTo raid.Sectors) { p.resynced = upTo }

// Transfers returns what is to be submitted now, valid until the next call of
// any method. Each must be completed once, in any order.
func (p *Path) Transfers() []Transfer {
	unsent := p.unsent
	p.unsent = p.unsent[:0]

	return unsent
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

// giveUp stops using the member of slot, if it still is the device that
// failed.
func (p *Path) giveUp(slot raid.Slot, t *transfer, op Op) {
	m := &p.members[slot]
	if m.Device != int(t.device) || (m.State != raid.InSync && m.State != raid.Recovering) {
		return
	}

	m.State = raid.Faulty
	p.failures = append(p.failures, Failure{Device: m.Device, Slot: slot, Op: op, Sector: t.sector})
}

// slots is a set of slots.
type slots uint64

func (s slots) has(slot raid.Slot) bool { return s&(1<<uint(slot)) != 0 }
func (s slots) count() int              { return bits.OnesCount64(uint64(s)) }
func (s *slots) add(slot raid.Slot)     { *s |= 1 << uint(slot) }

// unreadable returns the slots whose members cannot be trusted for component
// sectors up to end, those that avoid names included.
func (p *Path) unreadable(end raid.Sectors, avoid slots) slots {
	set := avoid

	for i := range p.members {
		m := &p.members[i]
		if m.State == raid.InSync || (m.State == raid.Recovering && end <= m.Recovered) {
			continue
		}

		set.add(raid.Slot(i))
	}

	return set
}

// writable reports whether a write that ends at component sector end must go
// to the member of slot. A mirror being filled takes every write: the copy
// comes over it later, with the same data or newer. Parity levels could not
// say what belongs there without more reads, and leave it to the recovery.
func (p *Path) writable(slot raid.Slot, end raid.Sectors) bool {
	m := &p.members[slot]

	return m.State == raid.InSync ||
		(m.State == raid.Recovering && (p.level == raid.Level1 || end <= m.Recovered))
}

// Pending reports whether there is something to take: transfers, results or
// failures.
func (p *Path) Pending() bool {
	return len(p.unsent) > 0 || len(p.results) > 0 || len(p.failures) > 0 || p.sync.ended
}
