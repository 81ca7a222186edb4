package uring

import (
	"math"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// heapRing is the memory of a ring of which the test plays the kernel's part.
type heapRing struct {
	mem  []byte
	sqes []byte
	sq   submission
	cq   completion
}

// newHeapRing makes a ring of n entries each way, with all counters at start.
func newHeapRing(n, start uint32, shift uint) *heapRing {
	words := make([]uint64, 16+n+2*n) // aligned, unlike bytes
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	sqOff := sqOffsets{Head: 0, Tail: 4, Mask: 8, Entries: 12, Flags: 16, Array: 128}
	cqOff := cqOffsets{Head: 64, Tail: 68, Mask: 72, Entries: 76, CQEs: 128 + 8*n}
	for _, off := range []uint32{sqOff.Head, sqOff.Tail, cqOff.Head, cqOff.Tail} {
		*word(mem, off) = start
	}
	*word(mem, sqOff.Entries) = n
	*word(mem, cqOff.Entries) = n
	sqes := make([]uint64, n<<shift/8)
	r := &heapRing{mem: mem, sqes: unsafe.Slice((*byte)(unsafe.Pointer(&sqes[0])), n<<shift)}
	r.sq = newSubmission(mem, sqOff, r.sqes, shift)
	r.cq = newCompletion(mem, cqOff)
	return r
}

// take plays the kernel: it consumes one entry.
func (r *heapRing) take() uint64 {
	head := *r.sq.khead
	index := *word(r.mem, 128+4*(head&(r.sq.entries-1)))
	*r.sq.khead++
	return *(*uint64)(unsafe.Pointer(&r.sqes[index<<r.sq.shift+32]))
}

// post plays the kernel: it completes one operation.
func (r *heapRing) post(userData uint64) {
	tail := *r.cq.ktail
	r.cq.cqes[tail&uint32(len(r.cq.cqes)-1)] = CQE{UserData: userData, Res: int32(userData)}
	*r.cq.ktail++
}

// starts are where counters begin: at 0, and where they are about to wrap round.
var starts = []uint32{0, 5, math.MaxUint32 - 1}

func TestSubmissionIsFIFOAndBounded(t *testing.T) {
	for _, shift := range []uint{6, 7} {
		for _, start := range starts {
			r := newHeapRing(4, start, shift)
			var sent, taken uint64
			for round := range 10 {
				for r.sq.next() != nil {
					// The entry is the one before tail; next returned it cleared.
					at := (r.sq.tail - 1) & 3 << shift
					*(*uint64)(unsafe.Pointer(&r.sqes[at+32])) = sent
					sent++
				}
				if sent-taken != 4 {
					t.Fatalf("start %d: %d entries at once, want 4", start, sent-taken)
				}
				if n := r.sq.publish(); n != 4 {
					t.Fatalf("start %d: publish() = %d, want 4", start, n)
				}
				for range 1 + round%4 {
					if got := r.take(); got != taken {
						t.Fatalf("start %d: kernel takes %d, want %d", start, got, taken)
					}
					taken++
				}
			}
		}
	}
}

func TestSubmissionClearsEntries(t *testing.T) {
	r := newHeapRing(2, 0, 7)
	for i := range r.sqes {
		r.sqes[i] = 0xff
	}
	sqe := r.sq.next()
	if diff := cmp.Diff(&SQE{}, sqe, cmp.AllowUnexported(SQE{}), cmpopts.IgnoreFields(SQE{}, "_")); diff != "" {
		t.Errorf("next() (-want +got):\n%s", diff)
	}
	for i, b := range r.sqes[64:128] {
		if b != 0 {
			t.Fatalf("byte %d of the entry is %#x, want 0", 64+i, b)
		}
	}
	if r.sqes[128] != 0xff {
		t.Error("next() cleared the entry after its own")
	}
}

func TestPublishCountsWhatTheKernelHasNotTaken(t *testing.T) {
	r := newHeapRing(4, math.MaxUint32, 6)
	r.sq.next()
	r.sq.next()
	if *r.sq.ktail != math.MaxUint32 {
		t.Errorf("tail moved to %d before publish", *r.sq.ktail)
	}
	if n := r.sq.publish(); n != 2 {
		t.Errorf("publish() = %d, want 2", n)
	}
	r.take()
	if n := r.sq.publish(); n != 1 {
		t.Errorf("publish() = %d after the kernel took one, want 1", n)
	}
}

func TestReapKeepsOrderAndGivesRoomBack(t *testing.T) {
	for _, start := range starts {
		r := newHeapRing(4, start, 6)
		var posted, reaped uint64
		for round := range 12 {
			for r.cq.ready() < 4 {
				r.post(posted)
				posted++
			}
			batch := make([]CQE, 1+round%6)
			n := r.cq.reap(batch)
			if want := min(4, len(batch)); n != want {
				t.Fatalf("start %d: reap of %d = %d, want %d", start, len(batch), n, want)
			}
			for _, cqe := range batch[:n] {
				if cqe.UserData != reaped || cqe.Res != int32(reaped) {
					t.Fatalf("start %d: reaped {%d, %d}, want %d", start, cqe.UserData, cqe.Res, reaped)
				}
				reaped++
			}
		}
		for r.cq.reap(make([]CQE, 3)) > 0 {
		}
		if n := r.cq.reap(make([]CQE, 3)); n != 0 || r.cq.ready() != 0 {
			t.Errorf("start %d: an empty ring yields %d, ready() = %d", start, n, r.cq.ready())
		}
	}
}
