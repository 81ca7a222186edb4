package ublk

import (
	"errors"
	"math"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

// newFakeQueue is a queue whose descriptors are the test's, on a real ring. Its driver is an eventfd: it refuses every
// command with EOPNOTSUPP.
func newFakeQueue(t *testing.T, depth int) *Queue {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	ring, err := uring.New(uring.Config{Entries: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
	})
	driver, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	ring.Keep(driver)
	if err := errors.Join(ring.RegisterFiles(2), ring.UpdateFile(1, driver)); err != nil {
		t.Fatal(err)
	}
	q := &Queue{
		ring: ring, id: 2, fd: driver, slot: 1, userData: 7 << 56, maxIO: 8192, descs: make([]ioDesc, depth),
		sectors: make([]uint32, depth), states: make([]tagState, depth),
	}
	for range depth {
		q.buffers = append(q.buffers, make([]byte, 8192))
	}
	return q
}

func TestHandleCQEDecodes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		desc   ioDesc
		want   Request
		length int // of Buf
		state  State
	}{
		{
			"read",
			ioDesc{OpFlags: 0, Sectors: 8, StartSector: 1 << 40},
			Request{Tag: 1, Op: Read, Start: 1 << 40, Sectors: 8},
			4096, Serving,
		},
		{
			"the largest write",
			ioDesc{OpFlags: 1 | 1<<8 | 1<<11, Sectors: 16, StartSector: 8},
			Request{Tag: 1, Op: Write, Start: 8, Sectors: 16},
			8192, Serving,
		},
		{
			"write with FUA",
			ioDesc{OpFlags: 1 | 1<<13, Sectors: 1},
			Request{Tag: 1, Op: Write, FUA: true, Sectors: 1},
			512, Serving,
		},
		{
			"flush",
			ioDesc{OpFlags: 2, StartSector: math.MaxUint64},
			Request{Tag: 1, Op: Flush, Start: math.MaxUint64},
			0, Serving,
		},
		{
			"a discard larger than any buffer",
			ioDesc{OpFlags: 3, Sectors: 1 << 23},
			Request{Tag: 1, Op: Discard, Sectors: 1 << 23},
			0, Serving,
		},
		{
			"write zeroes",
			ioDesc{OpFlags: 5 | 1<<15, Sectors: 64},
			Request{Tag: 1, Op: WriteZeroes, NoUnmap: true, Sectors: 64},
			0, Serving,
		},
		{"a write larger than its buffer", ioDesc{OpFlags: 1, Sectors: 17}, Request{}, 0, Answered},
		{"a read whose length wraps", ioDesc{OpFlags: 0, Sectors: 1 << 23}, Request{}, 0, Answered},
	} {
		q := newFakeQueue(t, 3)
		q.descs[1] = tc.desc
		q.states[1] = tagFetching
		got, state := q.HandleCQE(1, 0)
		if state != tc.state || len(got.Buf) != tc.length {
			t.Errorf("%s: state %d, buffer of %d, want %d, %d", tc.name, state, len(got.Buf), tc.state, tc.length)
		}
		if tc.length > 0 && &got.Buf[0] != &q.buffers[1][0] {
			t.Errorf("%s: the buffer is not the tag's", tc.name)
		}
		got.Buf = nil
		if got.Tag != tc.want.Tag || got.Op != tc.want.Op || got.FUA != tc.want.FUA || got.NoUnmap != tc.want.NoUnmap ||
			got.Start != tc.want.Start || got.Sectors != tc.want.Sectors {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestCommitOnlyWhatIsServed(t *testing.T) {
	q := newFakeQueue(t, 2)
	if err := q.Commit(0, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Commit of a tag that was never fetched: %v, want %v", err, unix.EINVAL)
	}
	q.states[0] = tagFetching
	q.descs[0] = ioDesc{OpFlags: 1, Sectors: 8}
	if _, state := q.HandleCQE(0, 0); state != Serving {
		t.Fatalf("state %d, want %d", state, Serving)
	}
	if err := q.Commit(0, 0); err != nil {
		t.Fatal(err)
	}
	if err := q.Commit(0, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("second Commit: %v, want %v", err, unix.EINVAL)
	}
}

func TestResults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		desc  ioDesc
		errno unix.Errno
		want  int32
	}{
		{"read in full", ioDesc{OpFlags: 0, Sectors: 16}, 0, 8192},
		{"write in full", ioDesc{OpFlags: 1, Sectors: 1}, 0, 512},
		{"flush", ioDesc{OpFlags: 2}, 0, 0},
		{"discard of 4 GiB", ioDesc{OpFlags: 3, Sectors: 1 << 23}, 0, 0},
		{"medium error", ioDesc{OpFlags: 0, Sectors: 1}, unix.ENODATA, -61},
		{"nothing may ask the client to try again", ioDesc{OpFlags: 1, Sectors: 1}, unix.EAGAIN, -5},
	} {
		q := newFakeQueue(t, 1)
		q.descs[0] = tc.desc
		q.HandleCQE(0, 0)
		if got := q.result(0, tc.errno); got != tc.want {
			t.Errorf("%s: result %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestQueueStopsWhenEveryTagIsBack(t *testing.T) {
	q := newFakeQueue(t, 3)
	for tag := range uint16(3) {
		if q.Stopped() {
			t.Fatalf("stopped with tag %d out", tag)
		}
		q.HandleCQE(tag, resAbort)
		q.HandleCQE(tag, resAbort) // the same tag counts once
	}
	if !q.Stopped() || q.Err() != nil {
		t.Errorf("Stopped() = %v, Err() = %v, want true, nil", q.Stopped(), q.Err())
	}
}

// TestRefusedCommands fetches from a driver that knows no ublk: more tags than the ring has entries come back.
func TestRefusedCommands(t *testing.T) {
	q := newFakeQueue(t, 20)
	if err := q.fetch(); err != nil {
		t.Fatal(err)
	}
	batch := make([]uring.CQE, 4)
	for !q.Stopped() {
		if err := q.ring.SubmitAndWait(1); err != nil {
			t.Fatal(err)
		}
		for _, cqe := range batch[:q.ring.Reap(batch)] {
			if cqe.UserData>>16 != 7<<40 {
				t.Fatalf("user data %#x, want %#x above the tag", cqe.UserData, 7<<56)
			}
			if _, state := q.HandleCQE(uint16(cqe.UserData), cqe.Res); state != Stopped {
				t.Fatalf("tag %d: state %d, want %d", uint16(cqe.UserData), state, Stopped)
			}
		}
	}
	if !errors.Is(q.Err(), unix.EOPNOTSUPP) {
		t.Errorf("Err() = %v, want %v", q.Err(), unix.EOPNOTSUPP)
	}
}

func TestServingAllocatesNothing(t *testing.T) {
	q := newFakeQueue(t, 4)
	q.descs[2] = ioDesc{OpFlags: 1, Sectors: 8}
	batch := make([]uring.CQE, 4)
	ok := true
	allocs := testing.AllocsPerRun(100, func() {
		r, state := q.HandleCQE(2, 0)
		ok = ok && state == Serving && q.Commit(r.Tag, 0) == nil && q.ring.SubmitAndWait(1) == nil &&
			q.ring.Reap(batch) == 1
	})
	if !ok {
		t.Error("a request was not served")
	}
	if allocs != 0 {
		t.Errorf("%v allocations per request, want 0", allocs)
	}
}

func TestBufferSize(t *testing.T) {
	if got, want := BufferSize(DevInfo{Depth: 3, MaxIO: 5000}), 3*8192; got != want {
		t.Errorf("BufferSize = %d, want %d", got, want)
	}
}

func TestDropSysAdminGivesItBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	effective := func() uint32 {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			t.Fatal(err)
		}
		return sets[0].Effective
	}
	before := effective()
	restore, err := dropSysAdmin()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := effective(), before&^(1<<unix.CAP_SYS_ADMIN); got != want {
		t.Errorf("effective capabilities %#x, want %#x", got, want)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if got := effective(); got != before {
		t.Errorf("effective capabilities %#x afterwards, want %#x", got, before)
	}
}

func TestSetBuffer(t *testing.T) {
	q := newFakeQueue(t, 2)
	q.descs[1] = ioDesc{OpFlags: 0, Sectors: 8}
	q.states[1] = tagFetching
	old, _ := q.HandleCQE(1, 0)
	other := make([]byte, q.maxIO)
	q.SetBuffer(1, other)
	if cap(old.Buf) != q.maxIO {
		t.Errorf("a request tells of %d bytes of its tag's memory, want all %d", cap(old.Buf), q.maxIO)
	}
	q.states[1] = tagFetching
	if next, _ := q.HandleCQE(1, 0); &next.Buf[0] != &other[0] {
		t.Error("the next request has the memory that was replaced")
	}
}
