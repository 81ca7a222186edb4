package intent

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// fakeBitmap is a bitmap in memory, and what of it is on disk.
type fakeBitmap struct {
	info  metadata.BitmapInfo
	bits  []byte
	size  int
	skip  int
	wrote []metadata.Write
}

func newFake(chunk, sectors raid.Sectors, size, skip int) *fakeBitmap {
	n := (int(sectors/chunk) + 8) / 8

	return &fakeBitmap{
		info: metadata.BitmapInfo{Chunk: chunk, Sectors: sectors}, bits: make([]byte, n), size: size, skip: skip,
		wrote: make([]metadata.Write, 1),
	}
}

func (f *fakeBitmap) Info() metadata.BitmapInfo  { return f.info }
func (f *fakeBitmap) Bits() []byte               { return f.bits }
func (f *fakeBitmap) Blocks() (int, int)         { return f.size, f.skip }
func (f *fakeBitmap) Write(int) []metadata.Write { return f.wrote }
func (f *fakeBitmap) SetCleared(e uint64)        { f.info.Cleared = e }
func (f *fakeBitmap) Rechunk(raid.Sectors) error { return nil }
func span(from, to raid.Sectors) raid.Range      { return raid.Range{From: from, To: to} }
func (m *Map) isMarked(sector raid.Sectors) bool { return has(m.marked, int(sector/m.chunk)) }

// flush has the blocks written that are due, or all that are to be written.
func (m *Map) flush(t *testing.T, dueOnly bool) {
	t.Helper()

	for {
		b, ok := m.Due()
		if !ok && !dueOnly {
			b, ok = m.Lazy()
		}

		if !ok {
			return
		}

		m.Write(b)
		m.check(t)
		m.Written(b)
		m.check(t)
	}
}

// check tests the invariants.
func (m *Map) check(t *testing.T) {
	t.Helper()

	for c := range m.chunks {
		b := m.blocks[m.block(c)]

		switch marked := has(m.marked, c); {
		case m.writes[c] > 0 && !marked:
			t.Fatalf("chunk %d has %d writes and no mark", c, m.writes[c])
		case (has(m.needed, c) || has(m.aged, c)) && !marked, has(m.needed, c) && has(m.aged, c):
			t.Fatalf("chunk %d: marked %t, needed %t, aged %t", c, marked, has(m.needed, c), has(m.aged, c))
		case has(m.disk, c) && !marked:
			t.Fatalf("chunk %d is on disk and not marked", c)
		case marked && !has(m.disk, c) && !b.due && !b.writing:
			t.Fatalf("chunk %d is not on disk, and nobody will write it", c)
		}
	}
}

// TestMapLife follows one write from its mark to the mark's end.
func TestMapLife(t *testing.T) {
	f := newFake(8, 100, 4, 2)
	f.info.Cleared = 3
	m := NewMap(f, 0)

	if marked, chunks := m.Count(); marked != 0 || chunks != 13 || !m.Idle() {
		t.Fatalf("%d of %d marked at first", marked, chunks)
	}

	// Chunks 0 and 1 are in the byte at 2, of block 0.
	if m.Begin(span(7, 9)) || !m.isMarked(0) || !m.isMarked(8) || m.isMarked(16) {
		t.Error("a write is let through before its marks are on disk")
	}

	b, ok := m.Due()
	if b != 0 || !ok {
		t.Fatalf("Due() = %d, %t", b, ok)
	}

	m.Write(b)

	if m.Durable(span(7, 9)) || m.Begin(span(8, 16)) {
		t.Error("a mark is durable before its write has ended")
	}

	if _, ok := m.Due(); ok {
		t.Error("a block is to be written twice at a time")
	}

	m.Written(0)

	if !m.Durable(span(7, 9)) || !m.Begin(span(0, 1)) {
		t.Error("a mark that was written is not durable")
	}

	for _, r := range []raid.Range{span(7, 9), span(8, 16), span(0, 1)} {
		m.Tick(9, false)

		if !m.isMarked(0) || !m.isMarked(8) {
			t.Error("a mark is cleared under a write")
		}

		m.End(r, false)
	}

	m.Tick(9, false)

	if b, ok := m.Lazy(); b != 0 || !ok || !m.isMarked(0) {
		t.Fatalf("Lazy() = %d, %t: the event count must be on disk before a mark is cleared", b, ok)
	}

	m.Tick(9, false)

	if !m.isMarked(0) {
		t.Error("a mark is cleared before the event count is on disk")
	}

	m.flush(t, false)

	if f.info.Cleared != 9 {
		t.Errorf("cleared = %d, want 9", f.info.Cleared)
	}

	m.Tick(11, false)

	if m.isMarked(0) || m.isMarked(8) || m.Durable(span(0, 1)) {
		t.Error("idle marks are not cleared")
	}

	if b, ok := m.Lazy(); b != 0 || !ok {
		t.Error("what was cleared is not written")
	}

	if m.Begin(span(0, 1)) {
		t.Error("a mark that was cleared in memory counts as one on disk")
	}

	m.flush(t, false)
	m.End(span(0, 1), true)

	for range 5 {
		m.Tick(11, false)
		m.flush(t, false)
	}

	if r, ok := m.Needed(0); !ok || r != span(0, 8) || !m.Idle() {
		t.Errorf("Needed() = %v, %t: what a member missed stays", r, ok)
	}

	m.BeginSync()
	m.Synced(7)

	if _, ok := m.Needed(0); !ok {
		t.Error("half of a chunk was passed")
	}

	m.Synced(8)

	for range 5 {
		m.Tick(11, false)
		m.flush(t, false)
	}

	if marked, _ := m.Count(); marked != 0 {
		t.Error("the mark stays although a sync has passed it")
	}
}

// TestMapDegraded checks that a degraded array keeps its marks.
func TestMapDegraded(t *testing.T) {
	m := NewMap(newFake(8, 100, 4, 2), 0)
	m.Begin(span(0, 1))
	m.flush(t, true)
	m.End(span(0, 1), false)
	m.Tick(5, false) // aged
	m.flush(t, false)
	m.MemberLeft()

	for range 5 {
		m.Tick(6, true)
		m.flush(t, false)
	}

	if !m.isMarked(0) {
		t.Error("a mark is cleared while a member is absent")
	}

	m.Tick(7, false)

	if !m.isMarked(0) {
		t.Error("a mark is cleared that was found idle before a member was absent")
	}
}

func TestNewMap(t *testing.T) {
	for _, tt := range []struct {
		start  raid.Sectors
		needed raid.Range
	}{
		{0, span(8, 24)}, {9, span(8, 24)}, {16, span(16, 24)}, {24, span(96, 100)}, {raid.MaxSectors, span(0, 0)},
	} {
		f := newFake(8, 100, 4, 2)
		f.bits[0], f.bits[1] = 0b110, 0xf0 // chunks 1, 2, 12 and three that are none

		m := NewMap(f, tt.start)
		m.check(t)

		if r, ok := m.Needed(0); r != tt.needed || ok != (r.To > 0) {
			t.Errorf("from %d on: Needed() = %v, want %v", tt.start, r, tt.needed)
		}

		if r, ok := m.Marked(10); !ok || r != span(10, 24) || !m.Durable(span(8, 9)) {
			t.Errorf("Marked() = %v", r)
		}

		if r, ok := m.Marked(30); !ok || r != span(96, 100) {
			t.Errorf("Marked() = %v", r)
		}

		if _, ok := m.Marked(100); ok {
			t.Error("there is a mark behind the end")
		}

		if marked, _ := m.Count(); marked != 3 || f.bits[1] != 0x10 {
			t.Errorf("%d are marked, %x", marked, f.bits)
		}
	}
}

// TestMapWalk has writes, passes, and members that come and go in any order. At
// every moment a crash must find a mark on disk for all that is not durable on
// every member, and for all that those who left have missed, unless the event
// count says that the marks are not for them.
func TestMapWalk(t *testing.T) {
	counts := map[string]int{}

	for seed := range uint64(200) {
		newWalk(t, seed, counts).run()
	}

	t.Log(counts)

	for _, what := range []string{"begun", "waited", "cleared", "crash", "absent", "caught up", "came too late", "new member", "written while dirty"} {
		if counts[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
}

// walk is a mirror of which one slot is lost and filled again.
type walk struct {
	t      *testing.T
	rng    *rand.Rand
	f      *fakeBitmap
	m      *Map
	counts map[string]int

	disk        []byte // the bits there
	diskCleared uint64
	flight      map[int][]byte // blocks being written: what is on its way
	flightEvent uint64

	events  uint64
	present bool
	gone    []*goner
	waiting []raid.Range
	writing []raid.Range

	loose   map[int]bool // chunks that the member may lose with its power
	flushed map[int]bool // those of them that the flush under way makes durable
}

// goner was a member until an event, and may come back.
type goner struct {
	left   uint64
	missed map[int]bool
}

func newWalk(t *testing.T, seed uint64, counts map[string]int) *walk {
	f := newFake(4, 400, 4, 2)

	return &walk{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), f: f, m: NewMap(f, 0), counts: counts,
		disk: bytes.Clone(f.bits), flight: map[int][]byte{}, events: 1, present: true,
		loose: map[int]bool{}, flushed: map[int]bool{},
	}
}

func (w *walk) run() {
	for range 400 {
		switch w.rng.IntN(20) {
		case 0, 1, 2, 3, 4:
			w.begin()
		case 5, 6, 7, 8, 9:
			w.end()
		case 10, 11, 12:
			w.write()
		case 13, 14, 15:
			w.written()
		case 16, 17, 18:
			w.tick()
		case 19:
			w.turn()
		}

		w.m.check(w.t)
		w.crash()

		if w.t.Failed() {
			return
		}
	}
}

func (w *walk) begin() {
	from := raid.Sectors(w.rng.IntN(398))
	r := span(from, min(from+1+raid.Sectors(w.rng.IntN(12)), 400))

	w.counts["begun"]++

	if w.m.Begin(r) {
		w.submit(r)
	} else {
		w.counts["waited"]++
		w.waiting = append(w.waiting, r)
	}
}

// submit has a write go to those who are there.
func (w *walk) submit(r raid.Range) {
	w.writing = append(w.writing, r)
	w.each(r, func(c int) {
		w.loose[c] = true
		delete(w.flushed, c)

		for _, g := range w.gone {
			g.missed[c] = true
		}
	})
}

func (w *walk) each(r raid.Range, do func(c int)) {
	from, to := w.m.chunksOf(r)
	for c := from; c < to; c++ {
		do(c)
	}
}

func (w *walk) end() {
	if len(w.writing) == 0 {
		return
	}

	i := w.rng.IntN(len(w.writing))
	r := w.writing[i]
	w.writing = append(w.writing[:i:i], w.writing[i+1:]...)
	w.m.End(r, !w.present)
}

func (w *walk) write() {
	block, ok := w.m.Due()
	if !ok {
		block, ok = w.m.Lazy()
	}

	if !ok {
		return
	}

	w.m.Write(block)

	from, to := w.m.bytes(block)
	w.flight[block] = bytes.Clone(w.f.bits[from:to])

	if block == 0 {
		w.flightEvent = w.f.info.Cleared
	}
}

func (w *walk) written() {
	for block, data := range w.flight {
		if w.m.blocks[block].due {
			w.counts["written while dirty"]++
		}

		from, _ := w.m.bytes(block)
		copy(w.disk[from:], data)

		if block == 0 {
			w.diskCleared = w.flightEvent
		}

		delete(w.flight, block)
		w.m.Written(block)

		break
	}

	var still []raid.Range

	for _, r := range w.waiting {
		if w.m.Durable(r) {
			w.submit(r)
		} else {
			still = append(still, r)
		}
	}

	w.waiting = still
}

// tick makes a pass after the flush that began when the last had ended.
func (w *walk) tick() {
	for c := range w.flushed {
		delete(w.loose, c)
	}

	before, _ := w.m.Count()
	w.m.Tick(w.events, !w.present)

	if after, _ := w.m.Count(); after < before {
		w.counts["cleared"]++
	}

	clear(w.flushed)

	for c := range w.loose {
		w.flushed[c] = true
	}

	for _, r := range w.writing {
		w.each(r, func(c int) { delete(w.flushed, c) })
	}
}

// turn has the member go, or a new one or one that was there before come.
func (w *walk) turn() {
	switch {
	case w.present:
		w.counts["absent"]++

		g := &goner{left: w.events, missed: map[int]bool{}}
		for c := range w.loose { // it loses its cache
			g.missed[c] = true
		}

		w.gone, w.present = append(w.gone, g), false
		w.m.MemberLeft()

		w.events++

		return
	case len(w.writing) > 0:
		return // what is in flight would have to be copied once more
	case len(w.gone) > 0 && w.rng.IntN(2) == 0:
		w.comeBack(w.rng.IntN(len(w.gone)))
	default:
		w.counts["new member"]++
	}

	w.present = true
	w.events++
	clear(w.loose)
	clear(w.flushed)
	w.m.BeginSync()
	w.m.Synced(raid.MaxSectors)
}

func (w *walk) comeBack(i int) {
	g := w.gone[i]
	w.gone = append(w.gone[:i:i], w.gone[i+1:]...)

	if g.left < w.diskCleared {
		w.counts["came too late"]++

		return
	}

	w.counts["caught up"]++

	for r, ok := span(0, 0), true; ok; {
		if r, ok = w.m.Marked(r.To); ok {
			w.each(r, func(c int) { delete(g.missed, c) })
		}
	}

	if len(g.missed) > 0 {
		w.t.Errorf("chunks %v were not brought up to date", g.missed)
	}
}

// crash looks at what is on disk, with every write in flight done or not.
func (w *walk) crash() {
	w.counts["crash"]++

	for range 2 {
		disk := bytes.Clone(w.disk)
		cleared := w.diskCleared

		for block, data := range w.flight {
			if w.rng.IntN(2) == 0 {
				from, _ := w.m.bytes(block)
				copy(disk[from:], data)

				if block == 0 {
					cleared = w.flightEvent
				}
			}
		}

		for c := range w.loose {
			if !has(disk, c) {
				w.t.Errorf("chunk %d is not durable on all members and has no mark", c)
			}
		}

		for _, g := range w.gone {
			for c := range g.missed {
				if g.left >= cleared && !has(disk, c) {
					w.t.Errorf("the member of event %d lacks chunk %d, which no mark tells (cleared %d)", g.left, c, cleared)
				}
			}
		}
	}
}

func TestMapAllocates(t *testing.T) {
	m := NewMap(newFake(8, 100000, 4096, 256), 0)
	r := span(16, 100)

	if n := testing.AllocsPerRun(100, func() {
		m.Begin(r)

		if b, ok := m.Due(); ok {
			m.Write(b)
			m.Written(b)
		}

		m.End(r, false)
		m.Tick(1, false)
		m.Needed(0)
		m.Marked(0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
