package uring

import (
	"bytes"
	"errors"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newTestRing(t *testing.T, cfg Config) *Ring {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// collect waits for n completions.
func collect(t *testing.T, r *Ring, n int) []CQE {
	t.Helper()
	var all []CQE
	batch := make([]CQE, 7)
	for len(all) < n {
		if err := r.SubmitAndWait(1); err != nil {
			t.Fatal(err)
		}
		for got := r.Reap(batch); got > 0; got = r.Reap(batch) {
			all = append(all, batch[:got]...)
		}
	}
	return all
}

// next returns an entry of a ring that must have one.
func next(t *testing.T, r *Ring) *SQE {
	t.Helper()
	s := r.SQE()
	if s == nil {
		t.Fatal("SQE() = nil")
	}
	return s
}

func TestNopsInEveryMode(t *testing.T) {
	for _, sqe128 := range []bool{false, true} {
		for _, mode := range modes {
			runtime.LockOSThread()
			r, err := newRing(Config{Entries: 8, SQE128: sqe128}, []uint32{mode})
			if err != nil {
				t.Fatalf("mode %#x: %v", mode, err)
			}
			for round := range 5 {
				for i := range 8 {
					s := next(t, r)
					s.PrepNop()
					s.UserData = uint64(100*round + i)
				}
				seen := map[uint64]bool{}
				for _, cqe := range collect(t, r, 8) {
					if cqe.Res != 0 || cqe.UserData/100 != uint64(round) || seen[cqe.UserData] {
						t.Errorf("mode %#x, round %d: unexpected %+v", mode, round, cqe)
					}
					seen[cqe.UserData] = true
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			runtime.UnlockOSThread()
		}
	}
}

func TestNewFallsBackToAModeThatTheKernelKnows(t *testing.T) {
	const unknown = 1 << 31
	r, err := newRing(Config{Entries: 1}, []uint32{unknown, setupCoopTaskrun, 0})
	if err != nil {
		t.Fatal(err)
	}
	if want := uint32(setupCoopTaskrun | setupCQSize); r.flags != want {
		t.Errorf("flags = %#x, want %#x", r.flags, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := newRing(Config{Entries: 1}, []uint32{unknown}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("newRing with unknown modes only: %v, want %v", err, unix.EINVAL)
	}
}

func TestFullSubmissionRing(t *testing.T) {
	r := newTestRing(t, Config{Entries: 4})
	for range 4 {
		next(t, r).PrepNop()
	}
	if s := r.SQE(); s != nil {
		t.Error("SQE() of a full ring is not nil")
	}
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		next(t, r).PrepNop()
	}
	if got := collect(t, r, 8); len(got) != 8 {
		t.Errorf("%d completions, want 8", len(got))
	}
}

func TestCompletionOverflowLosesNothing(t *testing.T) {
	r := newTestRing(t, Config{Entries: 8, CQEntries: 8})
	const total = 64
	for i := range total {
		s := r.SQE()
		if s == nil {
			// Waiting for all of them, not only for the completions that fit, would never end.
			if err := r.SubmitAndWait(0); err != nil {
				t.Fatal(err)
			}
			s = next(t, r)
		}
		s.PrepNop()
		s.UserData = uint64(i)
	}
	if err := r.SubmitAndWait(0); err != nil {
		t.Fatal(err)
	}
	if !r.sq.overflown() {
		t.Fatal("the completion ring has not overflown: the test does not test what it says")
	}
	batch := make([]CQE, total)
	var seen [total]bool
	for done := 0; done < total; {
		n := r.Reap(batch)
		if n == 0 {
			t.Fatalf("Reap() = 0 after %d of %d", done, total)
		}
		for _, cqe := range batch[:n] {
			if seen[cqe.UserData] {
				t.Errorf("completion %d twice", cqe.UserData)
			}
			seen[cqe.UserData] = true
		}
		done += n
	}
}

func newTestArena(t *testing.T, cfg ArenaConfig) *Arena {
	t.Helper()
	a, err := NewArena(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func block(t *testing.T, a *Arena, n int) []byte {
	t.Helper()
	b, err := a.Block(n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDirectIO writes and reads back a file by its slot, with and without registered buffers. Where the file system
// of the test's directory cannot do O_DIRECT (older tmpfs), buffered I/O takes the same path through the ring.
func TestDirectIO(t *testing.T) {
	a := newTestArena(t, ArenaConfig{Size: 1 << 20, Populate: true})
	r := newTestRing(t, Config{Entries: 16})
	path := filepath.Join(t.TempDir(), "member")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EINVAL) {
		t.Log("no O_DIRECT here")
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.RegisterFiles(4), r.UpdateFile(2, fd), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterBuffers([][]byte{a.Bytes()}); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 10
	for _, tc := range []struct {
		name        string
		write, read func(s *SQE, buf []byte, off uint64)
	}{
		{
			"plain",
			func(s *SQE, buf []byte, off uint64) { s.PrepWrite(Slot(2), buf, off, unix.RWF_DSYNC) },
			func(s *SQE, buf []byte, off uint64) { s.PrepRead(Slot(2), buf, off) },
		},
		{
			"fixed",
			func(s *SQE, buf []byte, off uint64) { s.PrepWriteFixed(Slot(2), buf, off, 0) },
			func(s *SQE, buf []byte, off uint64) { s.PrepReadFixed(Slot(2), buf, off, 0) },
		},
	} {
		out, in := block(t, a, size), block(t, a, size)
		for i := range out {
			out[i] = byte(i*7 + i>>9 + len(tc.name))
		}
		for off := 0; off < size; off += size / 4 {
			tc.write(next(t, r), out[off:off+size/4], uint64(off))
		}
		for _, cqe := range collect(t, r, 4) {
			if cqe.Res != size/4 {
				t.Fatalf("%s: write: %+v", tc.name, cqe)
			}
		}
		next(t, r).PrepFsync(Slot(2))
		if cqe := collect(t, r, 1)[0]; cqe.Res != 0 {
			t.Fatalf("%s: fsync: %+v", tc.name, cqe)
		}
		tc.read(next(t, r), in, 0)
		if cqe := collect(t, r, 1)[0]; cqe.Res != size {
			t.Fatalf("%s: read: %+v", tc.name, cqe)
		}
		if !bytes.Equal(in, out) {
			t.Errorf("%s: what was read is not what was written", tc.name)
		}
	}
	if err := errors.Join(r.UnregisterBuffers(), r.UpdateFile(2, -1)); err != nil {
		t.Fatal(err)
	}
	next(t, r).PrepFsync(Slot(2))
	if cqe := collect(t, r, 1)[0]; cqe.Res != -int32(unix.EBADF) {
		t.Errorf("fsync of a cleared slot: %+v, want %d", cqe, -int32(unix.EBADF))
	}
	if err := r.UnregisterFiles(); err != nil {
		t.Error(err)
	}
}

func TestTimeout(t *testing.T) {
	a := newTestArena(t, ArenaConfig{Size: 2 * 4096})
	r := newTestRing(t, Config{Entries: 4})
	relative, err := a.Timespec()
	if err != nil {
		t.Fatal(err)
	}
	absolute, err := a.Timespec()
	if err != nil {
		t.Fatal(err)
	}
	const wait = 20 * time.Millisecond
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	relative.Nsec = wait.Nanoseconds()
	later := now.Nano() + 2*wait.Nanoseconds()
	absolute.Sec, absolute.Nsec = later/1e9, later%1e9
	s := next(t, r)
	s.PrepTimeout(absolute, TimeoutAbsolute)
	s.UserData = 2
	s = next(t, r)
	s.PrepTimeout(relative, 0)
	s.UserData = 1
	for i, cqe := range collect(t, r, 2) {
		if cqe.UserData != uint64(i+1) || cqe.Res != -int32(unix.ETIME) {
			t.Errorf("completion %d: %+v, want user data %d, result %d", i, cqe, i+1, -int32(unix.ETIME))
		}
	}
	if d := time.Since(begin); d < 2*wait {
		t.Errorf("both timeouts after %v, want at least %v", d, 2*wait)
	}
}

func TestCancel(t *testing.T) {
	w, err := NewWake()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := newTestRing(t, Config{Entries: 4})
	s := next(t, r)
	w.Arm(s)
	s.UserData = 1
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	s = next(t, r)
	s.PrepCancel(1)
	s.UserData = 2
	want := map[uint64]int32{1: -int32(unix.ECANCELED), 2: 0}
	for _, cqe := range collect(t, r, 2) {
		if res, ok := want[cqe.UserData]; !ok || res != cqe.Res {
			t.Errorf("completion %+v, want %v", cqe, want)
		}
	}
}

func TestWakeFromAnotherGoroutine(t *testing.T) {
	r := newTestRing(t, Config{Entries: 4})
	w, err := NewWake()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	const rounds = 50
	ack := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		for range rounds {
			if err := w.Signal(); err != nil {
				failed <- err
				return
			}
			<-ack
		}
		failed <- nil
	}()
	for range rounds {
		s := next(t, r)
		w.Arm(s)
		s.UserData = 5
		if cqe := collect(t, r, 1)[0]; cqe.UserData != 5 || cqe.Res != 8 {
			t.Fatalf("wake-up: %+v", cqe)
		}
		ack <- struct{}{}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}

	// Signals before the read is armed are kept, as one.
	if err := errors.Join(w.Signal(), w.Signal()); err != nil {
		t.Fatal(err)
	}
	w.Arm(next(t, r))
	if cqe := collect(t, r, 1)[0]; cqe.Res != 8 {
		t.Errorf("kept wake-up: %+v", cqe)
	}
}

func TestPoll(t *testing.T) {
	r := newTestRing(t, Config{Entries: 4})
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(unix.Close(p[0]), unix.Close(p[1])) }()
	next(t, r).PrepPollAdd(FD(p[0]), unix.POLLIN)
	if err := r.SubmitAndWait(0); err != nil {
		t.Fatal(err)
	}
	if n := r.Reap(make([]CQE, 1)); n != 0 {
		t.Fatal("poll of an empty pipe has completed")
	}
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if cqe := collect(t, r, 1)[0]; cqe.Res&unix.POLLIN == 0 {
		t.Errorf("poll: %+v", cqe)
	}
}

// TestMessage hands a completion to the ring of another thread.
func TestMessage(t *testing.T) {
	rings := make(chan *Ring)
	got := make(chan CQE)
	go func() {
		runtime.LockOSThread()
		r, err := New(Config{Entries: 4})
		if err != nil {
			t.Error(err)
			close(rings)
			return
		}
		rings <- r
		batch := make([]CQE, 1)
		if err := r.SubmitAndWait(1); err != nil {
			t.Error(err)
		}
		r.Reap(batch)
		got <- batch[0]
		<-rings
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		close(got)
	}()
	r := newTestRing(t, Config{Entries: 4})
	to, ok := <-rings
	if !ok {
		t.FailNow()
	}
	next(t, r).PrepMessage(to, 0xfeed, 12)
	if cqe := collect(t, r, 1)[0]; cqe.Res != 0 {
		t.Errorf("sender: %+v", cqe)
	}
	if cqe := <-got; cqe.UserData != 0xfeed || cqe.Res != 12 {
		t.Errorf("receiver: %+v", cqe)
	}
	rings <- nil
	<-got
}

func TestMaxWorkers(t *testing.T) {
	r := newTestRing(t, Config{Entries: 4})
	before, err := r.RegisterMaxWorkers(Workers{Bounded: 3, Unbounded: 2})
	if err != nil {
		t.Fatal(err)
	}
	now, err := r.RegisterMaxWorkers(Workers{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Workers{Bounded: 3, Unbounded: 2}); now != want || before == want {
		t.Errorf("limits %+v, before %+v, want %+v", now, before, want)
	}
}

func TestWarmUp(t *testing.T) {
	r := newTestRing(t, Config{Entries: 64})
	if err := r.WarmUp(1000); err != nil {
		t.Fatal(err)
	}
	if n := r.Reap(make([]CQE, 1)); n != 0 || r.sq.publish() != 0 {
		t.Errorf("%d completions and %d entries left", n, r.sq.publish())
	}
	next(t, r).PrepNop()
	if err := r.WarmUp(64); err == nil {
		t.Error("WarmUp of a ring in use: no error")
	}
}

func TestOperationsAllocateNothing(t *testing.T) {
	a := newTestArena(t, ArenaConfig{Size: 3 * 4096})
	r := newTestRing(t, Config{Entries: 16})
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(null) }()
	if err := errors.Join(r.RegisterFiles(1), r.UpdateFile(0, null)); err != nil {
		t.Fatal(err)
	}
	buf := block(t, a, 4096)
	ts, err := a.Timespec()
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]CQE, 16)
	failed := false
	allocs := testing.AllocsPerRun(100, func() {
		r.SQE().PrepNop()
		r.SQE().PrepRead(Slot(0), buf, 0)
		r.SQE().PrepWrite(Slot(0), buf, 0, unix.RWF_DSYNC)
		r.SQE().PrepTimeout(ts, 0)
		s := r.SQE()
		s.PrepCommand(Slot(0), 1)
		clear(r.Payload(s))
		failed = failed || r.Submit() != nil
		for n := 0; n < 5; {
			failed = failed || r.SubmitAndWait(5-n) != nil
			n += r.Reap(batch)
		}
	})
	if failed {
		t.Error("submission failed")
	}
	if allocs != 0 {
		t.Errorf("%v allocations per round, want 0", allocs)
	}
}

func TestPayload(t *testing.T) {
	for _, sqe128 := range []bool{false, true} {
		r := newTestRing(t, Config{Entries: 2, SQE128: sqe128})
		want := 16
		if sqe128 {
			want = 80
		}
		if got := len(r.Payload(next(t, r))); got != want {
			t.Errorf("payload with SQE128 %v is %d bytes, want %d", sqe128, got, want)
		}
	}
}
