package stripe

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/raid"
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
		scratch[i] = bytes.Repeat([]byte{0x5a}, piece) // as an engine before has left it
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

	h.begin(r)
}

// begin gives a request to the array.
func (h *history) begin(r *wish) {
	h.count(r.Op.String())
	h.reqs[r.Tag] = r
	h.trace("submit %d %v %d+%d", r.Tag, r.Op, r.Sector, len(r.data)/raid.SectorSize)
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
	h.queue = append(h.queue, h.p.transfers()...)

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
		h.p.slotOf(tr), tr.Device, tr.Op, tr.Sector, tr.Sectors, f, b.id, b.kind, b.stage, b.fine)
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
