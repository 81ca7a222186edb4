package uring

import (
	"sync/atomic"
	"unsafe"
)

// submission is the application's side of the submission ring. It is arithmetic on memory that it is given, so that
// tests bring a slice of the heap.
//
// Invariants: 0 <= tail - head <= entries, in arithmetic modulo 2^32; entries before *ktail belong to the kernel,
// those from *ktail to tail are prepared, the rest is free.
type submission struct {
	khead   *uint32 // advanced by the kernel as it takes entries
	ktail   *uint32 // published to the kernel
	kflags  *uint32
	entries uint32 // a power of two
	shift   uint   // log2 of the size of an entry
	sqes    []byte
	tail    uint32 // prepared, not yet published
}

// newSubmission lays a submission ring over its two mappings. The index array is the identity for good: entries are
// always submitted in the order in which they were prepared.
func newSubmission(ring []byte, off sqOffsets, sqes []byte, shift uint) submission {
	s := submission{
		khead:   word(ring, off.Head),
		ktail:   word(ring, off.Tail),
		kflags:  word(ring, off.Flags),
		entries: *word(ring, off.Entries),
		shift:   shift,
		sqes:    sqes,
	}
	s.tail = atomic.LoadUint32(s.ktail)
	for i := range s.entries {
		*word(ring, off.Array+4*i) = i
	}
	return s
}

// next returns the next free entry, cleared, or nil if there is none.
func (s *submission) next() *SQE {
	if s.tail-atomic.LoadUint32(s.khead) == s.entries {
		return nil
	}
	at := s.tail & (s.entries - 1) << s.shift
	entry := s.sqes[at : at+1<<s.shift]
	clear(entry)
	s.tail++
	return (*SQE)(unsafe.Pointer(unsafe.SliceData(entry)))
}

// publish hands the prepared entries to the kernel and returns how many it has not taken yet.
func (s *submission) publish() uint32 {
	atomic.StoreUint32(s.ktail, s.tail)
	return s.tail - atomic.LoadUint32(s.khead)
}

// overflown reports whether the kernel holds completions back for which the completion ring had no room.
func (s *submission) overflown() bool { return atomic.LoadUint32(s.kflags)&sqCQOverflow != 0 }

// completion is the application's side of the completion ring, on memory that it is given.
type completion struct {
	khead *uint32 // published to the kernel
	ktail *uint32 // advanced by the kernel
	cqes  []CQE   // a power of two
}

func newCompletion(ring []byte, off cqOffsets) completion {
	entries := *word(ring, off.Entries)
	_ = ring[off.CQEs+entries*uint32(unsafe.Sizeof(CQE{}))-1]
	return completion{
		khead: word(ring, off.Head),
		ktail: word(ring, off.Tail),
		cqes:  unsafe.Slice((*CQE)(unsafe.Pointer(&ring[off.CQEs])), entries),
	}
}

// ready is how many completions wait to be reaped.
func (c *completion) ready() uint32 { return atomic.LoadUint32(c.ktail) - atomic.LoadUint32(c.khead) }

// reap copies the oldest completions into batch, gives their room back to the kernel and returns their number.
func (c *completion) reap(batch []CQE) int {
	head := atomic.LoadUint32(c.khead)
	n := min(int(atomic.LoadUint32(c.ktail)-head), len(batch))
	mask := uint32(len(c.cqes) - 1)
	for i := range n {
		batch[i] = c.cqes[(head+uint32(i))&mask]
	}
	atomic.StoreUint32(c.khead, head+uint32(n))
	return n
}

func word(mem []byte, off uint32) *uint32 {
	_ = mem[off+3]
	return (*uint32)(unsafe.Pointer(&mem[off]))
}
