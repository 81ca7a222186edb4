package intent

import (
	"fmt"
	"math/bits"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Map is the write-intent bitmap of a running array: for each chunk, whether
// its redundancy may be wrong or an absent member may have missed a write.
//
// The order that its caller keeps, each with the crash that its absence loses
// to:
//
//  1. Begin comes before a write is submitted to members, and the write waits
//     until its range is Durable. Else a crash leaves redundancy wrong where
//     no resync looks.
//  2. Before Tick the members are flushed. A bit is cleared a pass after its
//     last write has ended, and so what was written is on disk by then. Else a
//     member that loses power as it fails lacks what no bit tells of.
//  3. MemberLeft comes before the next Tick. Else the same is lost if the member
//     was brought up to date by the bits in between.
//  4. No two writes of a block are in flight, those of a record among them.
//
// Invariants, which check in its tests holds it to:
//   - A chunk with a write in flight is marked.
//   - A chunk is needed or aged only if it is marked, and never both.
//   - What is on disk was marked when it was written, and is marked still.
//   - A marked chunk that is not on disk is in a block that is due or being
//     written.
//
// It allocates nothing after NewMap. It is not safe for concurrent use.
type Map struct {
	bitmap  metadata.Bitmap
	chunk   raid.Sectors
	sectors raid.Sectors
	chunks  int
	size    int // of a block in bytes
	skip    int // bytes of block 0 before the bits

	marked []byte   // the bits, which are the keeper's memory
	disk   []byte   // those of them that are known to be on disk
	sent   []byte   // those that were in the writes of blocks in flight
	needed []byte   // a sync has to pass it before it is cleared
	aged   []byte   // nothing was written to it since the last pass
	writes []uint16 // in flight, by chunk

	blocks []block
	synced int // chunks below it were passed by the sync under way

	cleared     uint64 // the event count that block 0 is to say
	sentCleared uint64 // and that of its write in flight
	diskCleared uint64 // and that on disk
	agedEvents  uint64 // when the newest of the aged became it
}

// block is one block of the bitmap on disk.
type block struct {
	due     bool // it has marks that are not on disk
	lazy    bool // it has changes that nobody waits for
	writing bool
	idle    bool // it may have chunks to age or to clear
}

// NewMap returns the map of a bitmap, of which the bits set stand for chunks
// that a sync has to pass if they end above start, and else for writes that
// have ended. start is 0 if the bits tell of what absent members missed: if
// the array is degraded and it is not so that every bit was set since; else it
// is the resync offset.
func NewMap(b metadata.Bitmap, start raid.Sectors) *Map {
	info := b.Info()
	m := &Map{
		bitmap: b, chunk: info.Chunk, sectors: info.Sectors,
		chunks: int((info.Sectors + info.Chunk - 1) / info.Chunk),
		marked: b.Bits(), cleared: info.Cleared, diskCleared: info.Cleared,
	}
	m.size, m.skip = b.Blocks()

	n := (m.chunks + 7) / 8
	if len(m.marked) < n {
		panic(fmt.Sprintf("intent: %d bytes for %d bits", len(m.marked), m.chunks))
	}

	m.marked = m.marked[:n]
	m.sent, m.needed, m.aged = make([]byte, n), make([]byte, n), make([]byte, n)
	m.writes = make([]uint16, m.chunks)
	m.blocks = make([]block, m.block(m.chunks-1)+1)

	// Those behind the last chunk mean nothing.
	if rest := m.chunks % 8; rest > 0 {
		m.marked[n-1] &= 1<<rest - 1
	}

	m.disk = append(make([]byte, 0, n), m.marked...)

	for c := range m.chunks {
		if !has(m.marked, c) {
			continue
		}

		if m.end(c) > start {
			set(m.needed, c)
		} else {
			m.blocks[m.block(c)].idle = true
		}
	}

	return m
}

func has(b []byte, c int) bool { return b[c/8]&(1<<(c%8)) != 0 }
func set(b []byte, c int)      { b[c/8] |= 1 << (c % 8) }
func unset(b []byte, c int)    { b[c/8] &^= 1 << (c % 8) }

// block returns the block that the bit of a chunk is in.
func (m *Map) block(c int) int { return (m.skip + c/8) / m.size }

// span returns the chunks whose bits are in block b: those in [from, to).
func (m *Map) span(b int) (from, to int) {
	return max(0, (b*m.size-m.skip)*8), min(m.chunks, ((b+1)*m.size-m.skip)*8)
}

// end returns the sector that chunk c ends before.
func (m *Map) end(c int) raid.Sectors { return min(raid.Sectors(c+1)*m.chunk, m.sectors) }

// chunksOf returns the chunks that r touches: those in [from, to).
func (m *Map) chunksOf(r raid.Range) (from, to int) {
	if r.From >= r.To {
		return 0, 0
	}

	return int(r.From / m.chunk), min(int((r.To-1)/m.chunk)+1, m.chunks)
}

// Begin marks r for a write that is about to be submitted, until End. It
// reports whether the marks are on disk; if not, the write waits until they
// are Durable. Preconditions: r lies in what the bitmap covers.
func (m *Map) Begin(r raid.Range) (durable bool) {
	from, to := m.chunksOf(r)
	durable = true

	for c := from; c < to; c++ {
		m.writes[c]++
		if m.writes[c] == 0 {
			panic(fmt.Sprintf("intent: 65536 writes in chunk %d", c))
		}

		unset(m.aged, c)

		if !has(m.marked, c) {
			set(m.marked, c)
			m.blocks[m.block(c)].due = true
		}

		durable = durable && has(m.disk, c)
	}

	return durable
}

// Durable reports whether all of r is marked on disk.
func (m *Map) Durable(r raid.Range) bool {
	from, to := m.chunksOf(r)
	for c := from; c < to; c++ {
		if !has(m.disk, c) {
			return false
		}
	}

	return true
}

// End ends a write that was begun. missed says that some member of the array
// did not get it, or may not have: it is absent or failed, or is being
// recovered. The mark then stays until a sync has passed it.
func (m *Map) End(r raid.Range, missed bool) {
	from, to := m.chunksOf(r)
	for c := from; c < to; c++ {
		if m.writes[c] == 0 {
			panic(fmt.Sprintf("intent: a write ends in chunk %d that was not begun", c))
		}

		m.writes[c]--

		if missed {
			set(m.needed, c)
		}

		m.blocks[m.block(c)].idle = true
	}
}

// MemberLeft says that a member in sync has failed or was taken out. What the
// last pass found idle may have been in its cache and nowhere else, so that it
// counts as missed until the next pass has found it idle again.
func (m *Map) MemberLeft() { clear(m.aged) }

// Tick is a pass that clears marks: those that the last pass found idle, with
// no write since. Nothing is cleared while the array is degraded: the marks
// are what its absent members missed. events is the array's event count; no
// mark is cleared before block 0 says on disk that members which are older
// than that can not be brought up to date by the bits that are left.
func (m *Map) Tick(events uint64, degraded bool) {
	if degraded {
		return
	}

	ready := m.diskCleared >= m.agedEvents
	anyAged := false

	for b := range m.blocks {
		if m.blocks[b].idle {
			anyAged = m.tickBlock(b, ready) || anyAged
		}
	}

	if !anyAged {
		return
	}

	m.agedEvents = max(m.agedEvents, events)
	if m.cleared < m.agedEvents {
		m.cleared = m.agedEvents
		m.blocks[0].lazy = true
	}
}

// tickBlock clears the aged chunks of block b if that may be, ages those that
// are idle, and reports whether there are any that are aged.
func (m *Map) tickBlock(b int, ready bool) (anyAged bool) {
	m.blocks[b].idle = false

	from, to := m.span(b)
	for c := from; c < to; c++ {
		// Most of them are not marked at all.
		if c%8 == 0 && m.marked[c/8] == 0 {
			c += 7

			continue
		}

		if !has(m.marked, c) || has(m.needed, c) || m.writes[c] > 0 {
			continue
		}

		if ready && has(m.aged, c) {
			unset(m.aged, c)
			unset(m.marked, c)
			// A record may write it at any time from now on.
			unset(m.disk, c)
			m.blocks[b].lazy = true

			continue
		}

		set(m.aged, c)
		m.blocks[b].idle, anyAged = true, true
	}

	return anyAged
}

// Due returns a block that has marks which writes wait for, or false if there
// is none that is not being written already.
func (m *Map) Due() (block int, ok bool) {
	for i := range m.blocks {
		if b := &m.blocks[i]; b.due && !b.writing {
			return i, true
		}
	}

	return 0, false
}

// Lazy returns a block that is to be written when there is nothing better to
// do, or false if there is none.
func (m *Map) Lazy() (block int, ok bool) {
	for i := range m.blocks {
		if b := &m.blocks[i]; b.lazy && !b.writing {
			return i, true
		}
	}

	return 0, false
}

// Idle reports whether nothing is left to be cleared or written but what is
// needed: Tick has nothing to do until another write has ended.
func (m *Map) Idle() bool {
	for _, b := range m.blocks {
		if b.due || b.lazy || b.writing || b.idle {
			return false
		}
	}

	return true
}

// Write returns the writes of a block to all members that have a slot. They
// hold the bits as they are when they are copied, at once. Written says that
// they are durable, on every member that was not failed for it.
// Preconditions: no write of the block is in flight.
func (m *Map) Write(block int) []metadata.Write {
	b := &m.blocks[block]
	if b.writing {
		panic(fmt.Sprintf("intent: block %d is being written", block))
	}

	b.due, b.lazy, b.writing = false, false, true

	from, to := m.bytes(block)
	copy(m.sent[from:to], m.marked[from:to])

	if block == 0 {
		m.sentCleared = m.cleared
		m.bitmap.SetCleared(m.cleared)
	}

	return m.bitmap.Write(block)
}

// Written ends the write of a block. What was cleared since is not on disk
// for long.
func (m *Map) Written(block int) {
	m.blocks[block].writing = false

	from, to := m.bytes(block)
	for i := from; i < to; i++ {
		m.disk[i] = m.sent[i] & m.marked[i]
	}

	if block == 0 {
		m.diskCleared = m.sentCleared
	}
}

// bytes returns which bytes of the bits are in a block: those in [from, to).
func (m *Map) bytes(block int) (from, to int) {
	return max(0, block*m.size-m.skip), min(len(m.marked), (block+1)*m.size-m.skip)
}

// Needed returns the first run of chunks from sector from on that a resync has
// to pass, or false if there is none.
func (m *Map) Needed(from raid.Sectors) (raid.Range, bool) { return m.next(m.needed, from) }

// Marked returns the first run of marked chunks from sector from on, or false
// if there is none. It is what a member that comes back is to be given: not
// only what it missed, but also what it may have lost from its cache.
func (m *Map) Marked(from raid.Sectors) (raid.Range, bool) { return m.next(m.marked, from) }

func (m *Map) next(in []byte, from raid.Sectors) (raid.Range, bool) {
	first := int(min(from, m.sectors) / m.chunk)
	for first < m.chunks && !has(in, first) {
		if first%8 == 0 && in[first/8] == 0 {
			first += 8
		} else {
			first++
		}
	}

	if first >= m.chunks || from >= m.sectors {
		return raid.Range{}, false
	}

	last := first
	for last+1 < m.chunks && has(in, last+1) {
		last++
	}

	return raid.Range{From: max(from, raid.Sectors(first)*m.chunk), To: m.end(last)}, true
}

// BeginSync starts a sync that covers all of the map, from its beginning or
// from where all below is right.
func (m *Map) BeginSync() { m.synced = 0 }

// Synced says that the sync under way has passed, or was right to skip, all
// that is below to, and that it was durable on members of which none is absent
// then. Its chunks are no longer needed.
func (m *Map) Synced(to raid.Sectors) {
	for m.synced < m.chunks && m.end(m.synced) <= to {
		c := m.synced
		if has(m.needed, c) {
			unset(m.needed, c)
			m.blocks[m.block(c)].idle = true
		}

		m.synced++
	}
}

// Need makes sure that a sync passes r: its redundancy was found wrong, or is
// not known. The marks are due.
func (m *Map) Need(r raid.Range) {
	from, to := m.chunksOf(r)
	for c := from; c < to; c++ {
		unset(m.aged, c)
		set(m.needed, c)

		if !has(m.marked, c) {
			set(m.marked, c)
			m.blocks[m.block(c)].due = true
		}
	}
}

// Chunk returns how many sectors a mark stands for.
func (m *Map) Chunk() raid.Sectors { return m.chunk }

// Count returns how many chunks are marked, and how many there are.
func (m *Map) Count() (marked, chunks int) {
	for _, b := range m.marked {
		marked += bits.OnesCount8(b)
	}

	return marked, m.chunks
}
