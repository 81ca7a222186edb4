package stripe

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/raid"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "the first seed of TestHistories")
	modelSeeds = flag.Uint64("model.seeds", 25, "how many seeds TestHistories takes for each kind of array")
	modelTrace = flag.Bool("model.trace", false, "print what happens in TestHistories")
)

// disk is a member in memory.
type disk struct {
	data []byte
	soft map[raid.Sectors]bool // cannot be read until written
	hard map[raid.Sectors]bool // can neither be read nor written
	dead bool
	log  *intent.BadBlocks
}

// wish is what a client is waiting for.
type wish struct {
	Request

	data []byte // what a write writes
}

// history is one random life of an array on disks in memory.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	p     *Path
	g     raid.Geometry
	geo   *geometry.Map
	disks []*disk
	logs  int // room of the bad block logs; 0: there are none

	model   []byte
	unknown []bool // by sector: a write to it failed
	over    []bool // by sector: it was beyond redundancy at some time
	weak    []bool // by sector: it was, but for members that were being filled
	reqs    [depth]*wish
	queue   []Transfer
	quiet   bool // no more faults
	most    int  // steps
	strict  bool // members that are being filled do not count as copies
	failed  bool // a write did, so that redundancy may be wrong
	counts  map[string]int
}

func newHistory(t *testing.T, g raid.Geometry, seed uint64, counts map[string]int) *history {
	t.Helper()

	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 77)), g: g, counts: counts}

	var err error
	if h.geo, err = geometry.New(g); err != nil {
		t.Fatal(err)
	}

	scratch := make([][]byte, g.Disks+2+h.rng.IntN(3))
	piece := 4096 * (1 + h.rng.IntN(2))
	for i := range scratch {
		scratch[i] = make([]byte, piece)
	}

	h.p, err = New(Config{
		Geometry: h.geo, Level: g.Level, Disks: g.Disks, Chunk: g.Chunk, Depth: depth, Scratch: scratch,
		Linger: h.rng.IntN(2) == 0,
	})
	if err != nil {
		t.Fatal(err)
	}

	h.logs = []int{0, 2, 64}[h.rng.IntN(3)]
	n := h.geo.ArraySectors()
	h.model, h.unknown, h.over, h.weak = make([]byte, n.Bytes()), make([]bool, n), make([]bool, n), make([]bool, n)

	for slot := range g.Disks {
		h.p.SetMember(raid.Slot(slot), h.member(h.newDisk(false), raid.InSync))
	}

	return h
}

func (h *history) newDisk(noise bool) int {
	size := h.g.Size
	for _, s := range h.g.Sizes {
		size = max(size, s)
	}

	d := &disk{
		data: make([]byte, size.Bytes()), soft: make(map[raid.Sectors]bool), hard: make(map[raid.Sectors]bool),
	}
	if h.logs > 0 {
		d.log = intent.NewBadBlocks(h.logs)
	}

	for i := 0; noise && i < len(d.data); i += 8 {
		d.data[i] = byte(h.rng.Uint32())
	}

	h.disks = append(h.disks, d)

	return len(h.disks) - 1
}

func (h *history) member(device int, state raid.MemberState) Member {
	return Member{
		Device: device, State: state, Bad: h.disks[device].log,
		WriteMostly: h.rng.IntN(8) == 0, Slow: h.rng.IntN(8) == 0,
	}
}

// broken is why a history ended before its time.
type broken string

// fatalf ends the history.
func (h *history) fatalf(format string, args ...any) { panic(broken(fmt.Sprintf(format, args...))) }

// count notes that something happened.
func (h *history) count(what string) { h.counts[what]++ }

// trace prints what happens, for a history that fails.
func (h *history) trace(format string, args ...any) {
	if *modelTrace {
		fmt.Printf(format+"\n", args...)
	}
}

// damaged reports whether the member of slot lacks a component sector.
func (h *history) damaged(slot raid.Slot, at raid.Sectors) bool {
	m := h.p.Member(slot)
	if m.Device < 0 || !m.holds(at/8*8+8) || h.disks[m.Device].dead || h.strict && m.State != raid.InSync {
		return true
	}

	d := h.disks[m.Device]
	for s := at / 8 * 8; s < at/8*8+8; s++ {
		if d.soft[s] || d.hard[s] || m.bad(s, s+1) {
			return true
		}
	}

	return false
}

// lost reports whether an array sector is beyond redundancy, by the definition
// of the level.
func (h *history) lost(s raid.Sectors) bool {
	n := 0

	if h.g.Level.HasParity() {
		_, at, _ := h.geo.Locate(s)
		for slot := range raid.Slot(h.g.Disks) {
			if h.damaged(slot, at) {
				n++
			}
		}

		return n > h.g.Level.Redundancy(h.g.Disks)
	}

	for i := range h.geo.Copies() {
		if slot, at, _ := h.geo.Copy(s, i); !h.damaged(slot, at) {
			return false
		}
	}

	return true
}

// look notes what is beyond redundancy now, and reports whether anything is.
func (h *history) look() bool {
	any := false

	for s := range h.over {
		if h.lost(raid.Sectors(s)) {
			h.over[s], any = true, true
		}

		// A write may be refused that only members have that are being filled.
		h.strict = true
		h.weak[s] = h.weak[s] || h.lost(raid.Sectors(s))
		h.strict = false
	}

	return any
}

// submit begins a random request that overlaps no other.
func (h *history) submit() {
	tag := h.rng.IntN(depth)
	if h.reqs[tag] != nil {
		return
	}

	total := int(h.geo.ArraySectors())
	n := 1 + h.rng.IntN(min(total, []int{1, 8, 40, 100}[h.rng.IntN(4)]))
	at := h.rng.IntN(total - n + 1)
	r := &wish{Request: Request{Tag: tag, Op: Op(h.rng.IntN(2)), Sector: raid.Sectors(at)}}

	switch h.rng.IntN(20) {
	case 0:
		r.Op, r.Sector, n = Flush, 0, 0
	case 1:
		r.Op = WriteZeroes
	case 2:
		if !h.g.Level.HasParity() {
			r.Op = Discard
		}
	case 3, 4: // one that goes on where another one ends
		for _, other := range h.reqs {
			if other != nil && other.Op == Write && other.end() < raid.Sectors(total) {
				r.Op, r.Sector = Write, other.end()
				n = min(n, total-int(r.Sector))
			}
		}
	}

	end := r.Sector + raid.Sectors(n)
	for _, other := range h.reqs {
		if other != nil && r.Sector < other.end() && other.Sector < end {
			return
		}
	}

	switch r.data = make([]byte, n*raid.SectorSize); r.Op {
	case Read:
		r.Data = make([]byte, len(r.data))
	case Write:
		for i := 0; i < len(r.data); i += 8 {
			r.data[i] = byte(h.rng.Uint32())
		}

		r.Data = r.data
		r.FUA = h.rng.IntN(8) == 0
	case Flush:
	case Discard, WriteZeroes:
		r.Sectors = raid.Sectors(n)
	}

	h.count(r.Op.String())
	h.reqs[tag] = r
	h.trace("submit %d %v %d+%d", tag, r.Op, r.Sector, n)
	h.p.Submit(r.Request)
	h.settle()
}

// settle takes what the Path has done.
func (h *history) settle() {
	h.p.check()

	for _, f := range h.p.Failures() {
		h.count("member given up")
		h.look()

		if slot, _ := h.p.Successor(); slot == f.Slot && f.Device != h.p.Member(slot).Device {
			h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		}
	}

	for _, b := range h.p.BadBlocks() {
		if b.Cleared {
			h.count("bad block cleared")
		} else {
			h.count("bad block recorded")
			h.look()
		}
	}

	for _, res := range h.p.Results() {
		h.ended(h.reqs[res.Tag], res.OK)
		h.trace("end %d %v", res.Tag, res.OK)
		h.reqs[res.Tag] = nil
	}
}

// describe shows what there is for a request.
func (h *history) describe(r *wish) string {
	text := fmt.Sprintf("successor %v\n", h.p.successor.Device)

	for slot, m := range h.p.members {
		text += fmt.Sprintf("slot %d: device %d %s %d slow %v", slot, m.Device, m.State, m.Recovered, m.Slow)

		if m.Device >= 0 {
			d := h.disks[m.Device]
			text += fmt.Sprintf(" dead %v soft %v hard %v", d.dead, d.soft, d.hard)

			if m.Bad != nil {
				text += fmt.Sprint(" known ", m.Bad.Ranges())
			}
		}

		text += "\n"
	}

	return text
}

// ended checks a result.
func (h *history) ended(r *wish, ok bool) {
	excused := false
	from, to := int(r.Sector), int(r.end())

	for s := from; s < to; s++ {
		excused = excused || h.over[s]
	}

	if r.Op == Flush || r.Op == Discard || h.rowsOver(r) {
		excused = true
	}

	if !ok {
		h.count("error " + r.Op.String())
		h.failed = h.failed || r.Op != Read

		if !excused {
			h.fatalf("%v of %d sectors at %d was given up\n%s", r.Op, to-from, from, h.describe(r))
		}
	}

	for s := from; s < to; s++ {
		part := h.model[s*raid.SectorSize : (s+1)*raid.SectorSize]
		data := r.data[(s-from)*raid.SectorSize : (s-from+1)*raid.SectorSize]

		switch {
		case r.Op == Read:
			got := r.Data[(s-from)*raid.SectorSize : (s-from+1)*raid.SectorSize]
			if ok && !h.unknown[s] && !bytes.Equal(part, got) {
				h.fatalf("read of %d sectors at %d differs at sector %d", to-from, from, s)
			}
		case ok:
			copy(part, data)
			h.unknown[s] = false
		default:
			h.unknown[s] = true
		}
	}
}

// rowsOver reports whether some of the rows that a request writes was beyond
// redundancy.
func (h *history) rowsOver(r *wish) bool {
	if r.Op == Read {
		return false
	}

	perRow := raid.Sectors(1)
	if h.g.Level.HasParity() {
		perRow = h.geo.RowSectors()
	}

	for s := r.Sector / perRow * perRow; s < min((r.end()+perRow-1)/perRow*perRow, h.geo.ArraySectors()); s++ {
		if h.over[s] || h.weak[s] {
			return true
		}
	}

	return false
}

// step carries out one transfer, chosen at random among those asked for.
func (h *history) step() bool {
	h.queue = append(h.queue, h.p.Transfers()...)

	h.settle()

	if len(h.queue) == 0 {
		if h.p.Lingering() {
			h.count("lingered")
			h.p.Tick()
			h.settle()

			return true
		}

		return false
	}

	i := h.rng.IntN(len(h.queue))
	tr := h.queue[i]
	h.queue[i] = h.queue[len(h.queue)-1]
	h.queue = h.queue[:len(h.queue)-1]

	op, n := h.p.Expected(tr.ID)
	if op != tr.Op || n != len(tr.Data) || n > 0 && tr.Sectors.Bytes() != int64(n) {
		h.fatalf("Expected() = %v of %d bytes, want %v of %d", op, n, tr.Op, len(tr.Data))
	}

	f := h.carryOut(tr)
	b := &h.p.bands[tr.ID/h.p.places()]
	h.trace("  slot %d device %d %v %d+%d: fault %d (band %d kind %d stage %d fine %v)",
		tr.Slot, tr.Device, tr.Op, tr.Sector, tr.Sectors, f, b.id, b.kind, b.stage, b.fine)
	h.p.Complete(tr.ID, f)
	h.settle()

	return true
}

func (h *history) carryOut(tr Transfer) Fault {
	if tr.Device < 0 || tr.Device >= len(h.disks) {
		h.fatalf("%v of device %d", tr.Op, tr.Device)
	}

	d := h.disks[tr.Device]
	if d.dead {
		h.count("gone on " + tr.Op.String())

		return Gone
	}

	for s := tr.Sector; s < tr.Sector+tr.Sectors; s++ {
		if d.hard[s] || tr.Op == Read && d.soft[s] {
			h.count("medium on " + tr.Op.String())

			return Medium
		}
	}

	part := d.data[tr.Sector.Bytes():(tr.Sector + tr.Sectors).Bytes()]

	switch tr.Op {
	case Read:
		copy(tr.Data, part)
	case Write:
		copy(part, tr.Data)
	case Discard, WriteZeroes:
		clear(part)
	case Flush:
		return None
	}

	if tr.Op != Read {
		for s := tr.Sector; s < tr.Sector+tr.Sectors; s++ {
			if d.soft[s] {
				h.count("sector mended")
				delete(d.soft, s)
			}
		}
	}

	return None
}

func (h *history) drain() {
	for h.step() {
	}

	for tag, r := range h.reqs {
		if r != nil {
			h.fatalf("request %d (%v at %d) never ended", tag, r.Op, r.Sector)
		}
	}
}

// tolerates reports whether the array survives what undo undoes. If the history
// is one that goes beyond redundancy, it may.
func (h *history) tolerates(beyond bool, undo func()) bool {
	for s := range h.over {
		if h.lost(raid.Sectors(s)) && !h.over[s] && !beyond {
			undo()

			return false
		}
	}

	h.look()

	return true
}

// break does some harm.
func (h *history) harm() {
	slot := raid.Slot(h.rng.IntN(h.g.Disks))
	m := h.p.Member(slot)

	if m.Device < 0 || h.disks[m.Device].dead || h.quiet {
		return
	}

	d := h.disks[m.Device]
	size := raid.Sectors(len(d.data) / raid.SectorSize)
	if h.g.Size != 0 {
		size = h.geo.ComponentSectors()
	}

	at := raid.Sectors(h.rng.Int64N(int64(size)))
	beyond := h.rng.IntN(3) == 0

	switch what := h.rng.IntN(12); {
	case what == 0 && h.g.Level.HasRedundancy():
		d.dead = true
		if h.tolerates(false, func() { d.dead = false }) {
			h.count("device dies")
		}
	case what == 1 && h.g.Level.HasRedundancy():
		// The member may be given up for it.
		d.dead = true

		if h.tolerates(false, func() { d.dead = false }) {
			d.dead = false
			d.hard[at] = true
			h.look()
			h.doubt(slot, at)
			h.count("sector fails for good")
		}
	case what < 8:
		if !d.soft[at] {
			d.soft[at] = true
			if h.tolerates(beyond || !h.g.Level.HasRedundancy(), func() { delete(d.soft, at) }) {
				h.count("sector fails")
			}
		}
	case what == 8:
		m.Slow = !m.Slow
		h.p.SetMember(slot, m)
		h.count("speed changes")
	}
}

// doubt notes that writes to what a component sector of slot is a copy of may be
// refused: without room in a log the member has to go, and another chunk may
// not do without it.
func (h *history) doubt(slot raid.Slot, at raid.Sectors) {
	for s := range h.weak {
		for i := range h.geo.Copies() {
			if other, c, _ := h.geo.Copy(raid.Sectors(s), i); other == slot && c == at && !h.g.Level.HasParity() {
				h.weak[s] = true
			}
		}
	}
}

// upkeep does what whoever runs the array does.
func (h *history) upkeep() {
	if slab, ok := h.p.TakeSlab(); ok {
		h.slabEnded(slab)
	}

	if !h.g.Level.HasRedundancy() || h.p.Syncing() {
		return
	}

	slot := raid.Slot(h.rng.IntN(h.g.Disks))
	m := h.p.Member(slot)
	heir, successor := h.p.Successor()

	switch {
	case m.State == raid.Faulty && heir == slot:
		// The successor goes on as what is recovered.
		h.count("successor takes over")
		h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		h.p.SetMember(slot, successor)
	case m.State == raid.Faulty:
		h.count("spare put to work")
		h.p.SetMember(slot, h.member(h.newDisk(true), raid.Recovering))
	case m.State == raid.Recovering:
		h.slab(raid.Recover, slot, m.Recovered, h.geo.ComponentSectors())
	case heir != raid.NoSlot:
		if m := h.p.Member(heir); m.State == raid.InSync {
			h.slab(raid.Replace, heir, successor.Recovered, h.geo.ComponentSectors())
		}
	case h.rng.IntN(20) == 0 && m.State == raid.InSync && !h.quiet:
		h.count("successor comes")
		h.p.SetSuccessor(slot, h.member(h.newDisk(true), raid.Recovering))
	case h.rng.IntN(4) == 0 && h.p.lacking() == 0:
		action := []raid.SyncAction{raid.Check, raid.Repair, raid.Resync}[h.rng.IntN(3)]
		from := raid.Sectors(0)

		if chunk := max(h.g.Chunk, 8); h.rng.IntN(2) == 0 {
			from = raid.Sectors(h.rng.Int64N(int64(h.geo.SyncSectors()))) / chunk * chunk
		}

		h.p.SetResynced(raid.MaxSectors)
		h.slab(action, raid.NoSlot, from, h.geo.SyncSectors())
	}
}

func (h *history) slab(action raid.SyncAction, slot raid.Slot, from, size raid.Sectors) {
	chunk := max(h.g.Chunk, 8)
	h.count(string(action))
	h.trace("slab %v slot %d from %d", action, slot, from)
	h.p.SyncSlab(action, slot, from, min(size, from+chunk*raid.Sectors(1+h.rng.IntN(4))))
	h.settle()
}

// slabEnded goes on from a slab.
func (h *history) slabEnded(slab Slab) {
	h.p.SetResynced(raid.MaxSectors)

	if !slab.OK {
		h.count("slab given up")

		m := h.p.Member(max(slab.Slot, 0))
		if slab.Action == raid.Recover && m.State == raid.Recovering {
			m.State = raid.Faulty
			h.p.SetMember(slab.Slot, m)
			h.look()
		}

		if heir, _ := h.p.Successor(); slab.Action == raid.Replace && heir == slab.Slot {
			h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		}

		return
	}

	whole := slab.To >= h.geo.ComponentSectors()

	switch m := h.p.Member(max(slab.Slot, 0)); {
	case slab.Mismatched != 0:
		for i, r := range slab.Where {
			if !h.failed {
				h.fatalf("%s found a difference at %v, slot %d", slab.Action, r, slab.Wrong[i])
			}
		}
	case slab.Action == raid.Recover && whole && m.State == raid.Recovering:
		h.count("recovered")
		m.State = raid.InSync
		h.p.SetMember(slab.Slot, m)
	case slab.Action == raid.Replace && whole:
		if heir, s := h.p.Successor(); heir == slab.Slot {
			h.count("replaced")
			s.State = raid.InSync
			h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
			h.p.SetMember(slab.Slot, s)
		}
	}

	h.look()
}

// run lives the history.
func (h *history) run() {
	harms := h.rng.IntN(4)

	for range min(h.most, 60+h.rng.IntN(120)) {
		h.submit()

		if h.rng.IntN(10) < harms {
			h.harm()
		}

		h.upkeep()

		for n := h.rng.IntN(12); n > 0 && h.step(); n-- {
		}
	}

	h.quiet = true

	for _, d := range h.disks {
		clear(d.hard)

		if h.logs < 64 {
			clear(d.soft) // what nobody can give and nobody can note down ends a recovery
		}
	}

	h.drain()

	// Whoever died is found out by a flush, also a successor.
	h.reqs[0] = &wish{Request: Request{Op: Flush}}
	h.p.Submit(h.reqs[0].Request)
	h.drain()

	if !h.p.alive() {
		h.count("array broken")

		return
	}

	h.heal()
	h.verify()
}

// heal makes the array whole. What nobody can give any more, and nobody can note
// down as lost, has to be written first.
func (h *history) heal() {
	if !h.g.Level.HasRedundancy() {
		return
	}

	if !h.fill() {
		h.count("written anew")

		for s := range h.geo.ArraySectors() {
			r := &wish{
				Request: Request{Op: WriteZeroes, Sector: s / 64 * 64, Sectors: min(64, h.geo.ArraySectors()-s/64*64)},
			}
			r.data = make([]byte, r.Sectors.Bytes())

			if s%64 == 0 {
				h.reqs[0] = r
				h.p.Submit(r.Request)
				h.drain()
			}
		}

		if !h.fill() {
			h.fatalf("slots %b lack a member in sync", h.p.lacking())
		}
	}

	for _, action := range []raid.SyncAction{raid.Resync, raid.Check} {
		h.p.SyncSlab(action, raid.NoSlot, 0, h.geo.SyncSectors())
		h.drain()

		slab, _ := h.p.TakeSlab()
		if !slab.OK || action == raid.Check && slab.Mismatched != 0 {
			h.fatalf("at the end: %+v", slab)
		}
	}
}

// fill fills all that is to be filled. Reports whether the array is whole.
func (h *history) fill() bool {
	for range 400 {
		h.upkeep()
		h.drain()

		heir, _ := h.p.Successor()
		if h.p.lacking() == 0 && heir == raid.NoSlot && !h.p.Syncing() {
			break
		}
	}

	if slab, ok := h.p.TakeSlab(); ok {
		h.slabEnded(slab)
	}

	return h.p.lacking() == 0
}

// verify compares the disks with the model, and their redundancy with what the
// level says it is, without the Path.
func (h *history) verify() {
	h.t.Helper()

	sector := func(slot raid.Slot, at raid.Sectors) []byte {
		return h.disks[h.p.Member(slot).Device].data[at.Bytes() : at.Bytes()+raid.SectorSize]
	}

	for s := range raid.Sectors(len(h.unknown)) {
		if h.lost(s) {
			continue
		}

		for i := range h.geo.Copies() {
			slot, at, _ := h.geo.Copy(s, i)
			first, firstAt, _ := h.geo.Copy(s, 0)

			if h.damaged(slot, at) || h.damaged(first, firstAt) {
				continue
			}

			if !bytes.Equal(sector(slot, at), sector(first, firstAt)) {
				h.fatalf("copy %d of sector %d differs", i, s)
			}

			if !h.unknown[s] && !bytes.Equal(sector(slot, at), h.model[s.Bytes():s.Bytes()+raid.SectorSize]) {
				h.fatalf("copy %d of sector %d is not what was written", i, s)
			}
		}
	}

	if h.g.Level.HasParity() {
		for at := range h.geo.ComponentSectors() {
			h.verifyRow(at, sector)
		}
	}
}

// verifyRow computes the parities at a component sector slowly.
func (h *history) verifyRow(at raid.Sectors, sector func(raid.Slot, raid.Sectors) []byte) {
	row := int64(at / h.g.Chunk)
	p, q := make([]byte, raid.SectorSize), make([]byte, raid.SectorSize)

	for slot := range raid.Slot(h.g.Disks) {
		if h.damaged(slot, at) {
			return
		}

		if h.geo.DataIndex(row, slot) < 0 {
			continue
		}

		for i, c := range sector(slot, at) {
			p[i] ^= c
			q[i] ^= times2(c, h.geo.Exponent(row, slot))
		}
	}

	if !bytes.Equal(p, sector(h.geo.ParitySlot(row), at)) {
		h.fatalf("P is wrong at component sector %d", at)
	}

	if slot := h.geo.QSlot(row); slot != raid.NoSlot && !bytes.Equal(q, sector(slot, at)) {
		h.fatalf("Q is wrong at component sector %d", at)
	}
}

// times2 multiplies c by 2^e in the field of Q.
func times2(c byte, e int) byte {
	for range e {
		carry := c >> 7
		c = c<<1 ^ carry*0x1d
	}

	return c
}

// kinds are the arrays that histories are lived with.
func kinds() []raid.Geometry {
	var all []raid.Geometry

	add := func(level raid.Level, layout raid.Layout, disks int, chunk raid.Sectors) {
		g := raid.Geometry{Level: level, Layout: layout, Disks: disks, Chunk: chunk, Size: 70}

		if level == raid.Level0 || level == raid.LevelLinear {
			g.Size = 0
			for slot := range raid.Sectors(disks) {
				g.Sizes = append(g.Sizes, 70-20*slot)
			}
		}

		all = append(all, g)
	}

	add(raid.LevelLinear, 0, 3, 0)
	add(raid.Level0, 1, 3, 8)
	add(raid.Level0, 2, 3, 16)
	add(raid.Level0, 2, 3, 9)
	add(raid.Level1, 0, 2, 0)
	add(raid.Level1, 0, 3, 0)
	add(raid.Level1, 0, 4, 0)
	add(raid.Level4, 0, 4, 8)

	for layout := range raid.Layout(6) {
		add(raid.Level5, layout, 4, 8)
		add(raid.Level5, layout, 3, 16)
		add(raid.Level6, layout, 5, 8)
		add(raid.Level6, layout, 4, 16)
	}

	add(raid.Level5, 2, 2, 8)
	add(raid.Level5, 2, 7, 8)
	add(raid.Level6, 2, 7, 8)

	for _, layout := range []raid.Layout{8, 9, 10, 16, 17, 18, 19, 20} {
		add(raid.Level6, layout, 5, 8)
	}

	for _, layout := range []raid.Layout{0x102, 0x201, 0x10201, 0x103, 0x301, 0x202} {
		for _, disks := range []int{3, 4, 5} {
			if n := int(layout&0xff) * int(layout>>8&0xff); n <= disks {
				add(raid.Level10, layout, disks, 8)
			}
		}
	}

	add(raid.Level10, 0x102, 2, 16)
	add(raid.Level10, 0x10202, 4, 8)

	return all
}

// live lives a history of so many steps at most, and returns what was wrong.
func live(t *testing.T, g raid.Geometry, seed uint64, most int, counts map[string]int) (text string) {
	t.Helper()

	defer func() {
		if what := recover(); what != nil {
			text = fmt.Sprintf("after %d steps: %v", most, what)

			if _, ok := what.(broken); !ok {
				text += "\n" + string(debug.Stack())
			}
		}
	}()

	h := newHistory(t, g, seed, counts)
	h.most = most
	h.run()

	return ""
}

// shrunk lives a history, and returns what was wrong with it and with the
// shortest one that begins alike.
func shrunk(t *testing.T, g raid.Geometry, seed uint64, counts map[string]int) string {
	t.Helper()

	first := live(t, g, seed, math.MaxInt, counts)
	if first == "" {
		return ""
	}

	for most := 1; ; most++ {
		if text := live(t, g, seed, most, make(map[string]int)); text != "" || most > 200 {
			return fmt.Sprintf("seed %d: %s\nshortest, %s", seed, first, text)
		}
	}
}

// TestHistories lives random lives of arrays of every level and layout, and
// compares what they hold with what was written to them.
func TestHistories(t *testing.T) {
	counts := make(map[string]int)

	for _, g := range kinds() {
		name := fmt.Sprintf("%v %s of %d, chunk %d", g.Level, g.Layout.Name(g.Level), g.Disks, g.Chunk)

		t.Run(name, func(t *testing.T) {
			for seed := range *modelSeeds {
				if text := shrunk(t, g, seed+*modelSeed, counts); text != "" {
					t.Fatal(text)
				}
			}
		})
	}

	for _, what := range []string{
		"read", "write", "flush", "discard", "write-zeroes", "error read", "error write", "lingered",
		"medium on read", "medium on write", "gone on read", "gone on write", "gone on flush", "sector mended",
		"device dies", "sector fails", "sector fails for good", "speed changes", "member given up",
		"bad block recorded", "bad block cleared", "spare put to work", "recovered", "successor comes",
		"successor takes over", "replaced", "slab given up", "recover", "replace", "resync", "check", "repair",
	} {
		t.Logf("%-22s %d", what, counts[what])

		if counts[what] == 0 && *modelSeeds >= 25 {
			t.Errorf("%s: never", what)
		}
	}
}
