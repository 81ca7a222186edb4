//go:build vm

package ublk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

// roleEnv makes the test binary a server; it holds a serverSpec in JSON.
const roleEnv = "UBLK_TEST_SERVER"

// A queue thread must not be the main thread: that keeps the main goroutine on it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	spec := os.Getenv(roleEnv)
	if spec == "" {
		os.Exit(m.Run())
	}
	if err := serveSpec(spec); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serverSpec is what a server serves.
type serverSpec struct {
	Queues  int
	Depth   int
	Backing string  // a file that holds the data and then the counters
	Size    int     // of the data
	Member  string  // block device to keep the data on instead, with I/O through the ring
	Stray   bool    // write to Member through another ring, which does not have the device; it must be killed
	Info    DevInfo // as granted
	Recover bool    // take over from a dead server
	NoScan  bool    // see QueueConfig
	Die     death   // end early
}

// death is when a server ends.
type death int

const (
	_           death = iota // when it is told to
	beforeFetch              // when its queues are made, with a write on its way to Member
	beforeStart              // when every tag is fetched
)

// Counters at the end of the backing file, one word each. The test process writes those that steer the server.
const (
	cntRead = iota
	cntWrite
	cntFlush
	cntFUA
	cntDiscard
	cntZero
	cntHeld // requests that the server holds back
	cntHold // steers: holdAll, holdOn or 0
	cntFail // steers: fail every request with this errno
	cntEnd
)

// What becomes of writes, by cntHold. At 0 those are served that were held back.
const (
	holdAll = 1 // they are held back
	holdOn  = 2 // they are served, while those that were held back stay so
)

// backing is the file of a serverSpec, mapped.
type backing []byte

func mapBacking(path string, size int) (backing, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	a, err := uring.NewArena(uring.ArenaConfig{Size: size + 8*cntEnd, File: f})
	if err != nil {
		return nil, err
	}
	return a.Bytes()[:size+8*cntEnd], f.Close()
}

func (b backing) counter(n int) *uint64 {
	return (*uint64)(unsafe.Pointer(&b[len(b)-8*cntEnd+8*n]))
}

// rig is a device, its server and the guardian of both.
type rig struct {
	ctl     Control
	info    DevInfo
	spec    serverSpec
	size    int
	backing backing
	server  *exec.Cmd
	served  chan error // ServeControl's result
	clients []int      // descriptors of the block device
	deleted bool
}

func newController(t *testing.T) Control {
	t.Helper()
	c, err := NewController()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return Control{c}
}

// addDevice adds a device and deletes it with the test.
func addDevice(t *testing.T, ctl Control, info DevInfo) DevInfo {
	t.Helper()
	info, err := ctl.AddDev(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteDevice(t, ctl, info.ID) })
	return info
}

func deleteDevice(t *testing.T, ctl Control, id DeviceID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := ctl.DelDev(ctx, id); err != nil {
		t.Error(err)
	}
}

func testParams(size int, info DevInfo) Params {
	return Params{
		Sectors: uint64(size >> sectorShift), LogicalBlock: 512, PhysicalBlock: 4096, MinimumIO: 4096, OptimalIO: 65536,
		MaxSectors: uint32(info.MaxIO >> sectorShift), ChunkSectors: 192,
		Discard: &DiscardParams{Granularity: 4096, MaxSectors: 1 << 20, MaxWriteZeroesSectors: 1 << 20},
	}
}

// newRig adds a device, starts its server, which starts it in turn, and sets its queue up. A server that is to die
// before that is left to the test.
func newRig(t *testing.T, spec serverSpec) *rig {
	t.Helper()
	r := &rig{ctl: newController(t), size: 8 << 20}
	file, err := os.CreateTemp(t.TempDir(), "backing")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(int64(r.size+8*cntEnd)), file.Close()); err != nil {
		t.Fatal(err)
	}
	if r.backing, err = mapBacking(file.Name(), r.size); err != nil {
		t.Fatal(err)
	}
	r.info, err = r.ctl.AddDev(t.Context(), DevInfo{
		ID: AnyDevice, Queues: spec.Queues, Depth: spec.Depth, MaxIO: 128 << 10,
		Features: UserRecovery | UserRecoveryReissue,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cleanup(t) })
	r.spec = spec
	r.spec.Backing, r.spec.Size, r.spec.Info = file.Name(), r.size, r.info
	if err := r.ctl.SetParams(t.Context(), r.info.ID, testParams(r.size, r.info)); err != nil {
		t.Fatal(err)
	}
	if spec.Die != 0 {
		return r
	}
	r.startServer(t)
	attrs := QueueAttributes{Scheduler: "none", IOTimeout: time.Second}
	if err := r.ctl.SetQueue(t.Context(), r.info.ID, attrs); err != nil {
		t.Fatal(err)
	}
	return r
}

// startServer runs the server and waits until it says that the device is live.
func (r *rig) startServer(t *testing.T) {
	t.Helper()
	out := r.spawn(t)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "live\n" {
		t.Fatalf("server says %q, %v", line, err)
	}
}

// spawn runs the server. Control commands that it asks for are carried out here.
func (r *rig) spawn(t *testing.T) io.Reader {
	t.Helper()
	spec, err := json.Marshal(r.spec)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "guardian"), os.NewFile(uintptr(fds[1]), "engine")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	r.server = exec.Command("/proc/self/exe")
	r.server.Env = append(os.Environ(), roleEnv+"="+string(spec))
	r.server.Stderr = os.Stderr
	r.server.ExtraFiles = []*os.File{theirs}
	out, err := r.server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.Start(); err != nil {
		t.Fatal(err)
	}
	r.served = make(chan error, 1)
	go func() { r.served <- ServeControl(context.Background(), conn, r.ctl) }()
	if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

// waitServer waits for the server to end by itself, as it does when its device was stopped.
func (r *rig) waitServer(t *testing.T) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.server.Wait() }()
	select {
	case err := <-ended:
		r.server = nil
		if err := errors.Join(err, <-r.served); err != nil {
			t.Fatalf("server: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server of a stopped device has not ended after 30 s")
	}
}

// kill kills the server and waits until it is reaped.
func (r *rig) kill(t *testing.T) {
	t.Helper()
	if err := r.server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.server.Wait() // says that it was killed
	r.server = nil
	if err := <-r.served; err != nil {
		t.Errorf("ServeControl of a killed server: %v", err)
	}
}

// startRecovery prepares the device for a new server, as soon as the driver lets it.
func (r *rig) startRecovery(t *testing.T) {
	t.Helper()
	waitFor(t, "end of the dead server", func() bool {
		err := r.ctl.StartUserRecovery(t.Context(), r.info.ID)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// mustNotRecover expects that no server may take over for so long.
func (r *rig) mustNotRecover(t *testing.T, period time.Duration) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < period; time.Sleep(50 * time.Millisecond) {
		if err := r.ctl.StartUserRecovery(t.Context(), r.info.ID); !errors.Is(err, unix.EBUSY) {
			t.Fatalf("recovery with a write of the dead server in flight, %v after its end: %v, want %v",
				time.Since(begin), err, unix.EBUSY)
		}
	}
}

// recover lets a new server take over.
func (r *rig) recover(t *testing.T) {
	t.Helper()
	r.startRecovery(t)
	r.spec.Recover = true
	r.startServer(t)
	info, err := r.ctl.DevInfo(t.Context(), r.info.ID)
	if err != nil || info.State != Live || info.PID != r.server.Process.Pid {
		t.Errorf("after recovery: %+v, %v, want %v, pid %d", info, err, Live, r.server.Process.Pid)
	}
}

func (r *rig) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.ctl.StopDev(ctx, r.info.ID); err != nil {
		t.Fatal(err)
	}
	r.waitServer(t)
	r.delete(t)
}

// delete closes what the test opened of the device and deletes it, which waits for just that.
func (r *rig) delete(t *testing.T) {
	t.Helper()
	r.deleted = true
	r.closeClients(t)
	deleteDevice(t, r.ctl, r.info.ID)
}

func (r *rig) closeClients(t *testing.T) {
	t.Helper()
	for _, fd := range r.clients {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	r.clients = nil
}

// cleanup is what a test that failed needs.
func (r *rig) cleanup(t *testing.T) {
	if r.server != nil {
		r.kill(t)
	}
	if r.deleted {
		return
	}
	r.closeClients(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(r.ctl.StopDev(ctx, r.info.ID), r.ctl.DelDevAsync(ctx, r.info.ID)); err != nil {
		t.Error(err)
	}
}

// open opens the block device until it is deleted.
func (r *rig) open(t *testing.T, flags int) int {
	t.Helper()
	fd, err := unix.Open(r.info.ID.BlockPath(), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", r.info.ID.BlockPath(), err)
	}
	r.clients = append(r.clients, fd)
	return fd
}

func (r *rig) count(n int) uint64      { return atomic.LoadUint64(r.backing.counter(n)) }
func (r *rig) set(n int, value uint64) { atomic.StoreUint64(r.backing.counter(n), value) }

// serveSpec is the server process: a device on shared memory or on a member.
func serveSpec(text string) error {
	var spec serverSpec
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&spec); err != nil {
		return err
	}
	conn, err := net.FileConn(os.NewFile(3, "guardian"))
	if err != nil {
		return err
	}
	ctl := Control{NewClient(conn)}
	data, err := mapBacking(spec.Backing, spec.Size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dev, err := OpenDevice(ctx, spec.Info)
	if err != nil {
		return err
	}
	ready, ended := make(chan error), make(chan error)
	for id := range spec.Info.Queues {
		go func() {
			runtime.LockOSThread()
			s := &testServer{spec: spec, data: data}
			err := s.open(dev, id)
			ready <- err
			if err == nil {
				err = s.loop()
			}
			ended <- err
			select {} // the thread must not end before the process
		}()
	}
	for range spec.Info.Queues {
		if err := <-ready; err != nil {
			return err
		}
	}
	if err := dev.Close(); err != nil {
		return err
	}
	if spec.Die != 0 {
		return nil
	}
	start := ctl.StartDev
	if spec.Recover {
		start = ctl.EndUserRecovery
	}
	if err := start(ctx, spec.Info.ID, os.Getpid()); err != nil {
		return err
	}
	fmt.Println("live")
	for range spec.Info.Queues {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// Kinds of user data in a test server's ring.
const (
	kindTag   uint64 = 1 << 56
	kindTimer uint64 = 2 << 56
	kindIO    uint64 = 3 << 56
)

// testServer serves one queue.
type testServer struct {
	spec  serverSpec
	data  backing
	ring  *uring.Ring
	queue *Queue
	pause *uring.Timespec
	held  []Request
	errs  error

	stray    *uring.Ring
	memberFD int
}

func (s *testServer) open(dev *Device, id int) error {
	var err error
	if s.ring, err = uring.New(uring.Config{Entries: uint32(2*s.spec.Info.Depth + 8)}); err != nil {
		return err
	}
	if err := s.ring.RegisterFiles(2); err != nil {
		return err
	}
	arena, err := uring.NewArena(uring.ArenaConfig{Size: BufferSize(s.spec.Info) + 4*4096})
	if err != nil {
		return err
	}
	if s.pause, err = arena.Timespec(); err != nil {
		return err
	}
	s.pause.Nsec = 5e6
	if s.spec.Member != "" {
		s.memberFD, err = unix.Open(s.spec.Member, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := s.ring.UpdateFile(1, s.memberFD); err != nil {
			return err
		}
		if s.stray, err = uring.New(uring.Config{Entries: 8}); err != nil {
			return err
		}
	}
	s.queue, err = NewQueue(dev, QueueConfig{
		ID: id, Ring: s.ring, Arena: arena, UserData: kindTag, NoScan: s.spec.NoScan,
	})
	if err != nil {
		return err
	}
	if s.spec.Die != beforeFetch {
		return s.queue.Fetch()
	}
	if s.spec.Member == "" {
		return nil
	}
	buf, err := arena.Block(4096)
	if err != nil {
		return err
	}
	s.memberIO(Request{Op: Write, Buf: buf})
	return s.ring.Submit()
}

func (s *testServer) loop() error {
	batch := make([]uring.CQE, 32)
	for !s.queue.Stopped() {
		if err := s.ring.SubmitAndWait(1); err != nil {
			return err
		}
		for _, cqe := range batch[:s.ring.Reap(batch)] {
			switch cqe.UserData &^ 0xffff {
			case kindTag:
				if r, state := s.queue.HandleCQE(uint16(cqe.UserData), cqe.Res); state == Serving {
					s.request(r)
				}
			case kindTimer:
				s.release()
			case kindIO:
				s.commit(uint16(cqe.UserData), unix.Errno(max(0, -cqe.Res)))
			}
		}
	}
	return errors.Join(s.errs, s.queue.Err(), s.queue.Close(), s.ring.Close())
}

func (s *testServer) request(r Request) {
	if fail := atomic.LoadUint64(s.data.counter(cntFail)); fail != 0 {
		s.commit(r.Tag, unix.Errno(fail))
		return
	}
	if r.Op == Write && atomic.LoadUint64(s.data.counter(cntHold)) == holdAll {
		s.held = append(s.held, r)
		atomic.StoreUint64(s.data.counter(cntHeld), uint64(len(s.held)))
		if len(s.held) == 1 {
			s.look()
		}
		return
	}
	if r.Op != Flush && r.Start+uint64(r.Sectors) > uint64(s.spec.Size>>sectorShift) {
		s.commit(r.Tag, unix.EIO)
		return
	}
	if s.spec.Member != "" && (r.Op == Read || r.Op == Write) {
		s.memberIO(r)
		return
	}
	s.memory(r)
}

// look has release be called, soon.
func (s *testServer) look() {
	sqe := s.ring.SQE()
	sqe.PrepTimeout(s.pause, 0)
	sqe.UserData = kindTimer
}

// release serves what was held back, if it may.
func (s *testServer) release() {
	if atomic.LoadUint64(s.data.counter(cntHold)) != 0 {
		s.look()
		return
	}
	held := s.held
	s.held = nil
	for _, r := range held {
		s.request(r)
	}
}

func (s *testServer) memberIO(r Request) {
	if s.spec.Stray && r.Op == Write {
		s.stray.SQE().PrepWrite(uring.FD(s.memberFD), r.Buf, r.Start<<sectorShift, 0)
		s.errs = errors.Join(s.errs, s.stray.Submit())
		return
	}
	sqe := s.ring.SQE()
	if r.Op == Read {
		sqe.PrepRead(uring.Slot(1), r.Buf, r.Start<<sectorShift)
	} else {
		sqe.PrepWrite(uring.Slot(1), r.Buf, r.Start<<sectorShift, 0)
	}
	sqe.UserData = kindIO | uint64(r.Tag)
}

func (s *testServer) memory(r Request) {
	at := r.Start << sectorShift
	var count int
	switch r.Op {
	case Read:
		copy(r.Buf, s.data[at:])
		count = cntRead
	case Write:
		copy(s.data[at:], r.Buf)
		count = cntWrite
	case Flush:
		count = cntFlush
	case Discard:
		clear(s.data[at : at+uint64(r.Sectors)<<sectorShift])
		count = cntDiscard
	case WriteZeroes:
		clear(s.data[at : at+uint64(r.Sectors)<<sectorShift])
		count = cntZero
	default:
		s.commit(r.Tag, unix.EOPNOTSUPP)
		return
	}
	atomic.AddUint64(s.data.counter(count), 1)
	if r.FUA {
		atomic.AddUint64(s.data.counter(cntFUA), 1)
	}
	s.commit(r.Tag, 0)
}

func (s *testServer) commit(tag uint16, errno unix.Errno) {
	s.errs = errors.Join(s.errs, s.queue.Commit(tag, errno))
}
