//go:build vm

package ublk

// These tests run as root where the driver is: in the guest of the VM lab. Without /dev/ublk-control they fail. The
// test binary is guardian and client; it starts itself again as the server, so that the server can be killed.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

const blockSize = 4096

// TestFeaturesAreNegotiated asks for more than there is and must be told so.
func TestFeaturesAreNegotiated(t *testing.T) {
	ctl := newController(t)
	features, err := ctl.Features(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("features of this kernel: %#x", uint64(features))
	want := UserRecovery | UserRecoveryReissue | CmdIoctlEncode
	if !features.Has(want) {
		t.Fatalf("features %#x, want %#x at least", uint64(features), uint64(want))
	}
	const unknown Features = 1 << 62
	info := addDevice(t, ctl, DevInfo{
		ID: AnyDevice, Queues: 4000, Depth: 16, MaxIO: 64<<10 + 1,
		Features: UserRecovery | UserRecoveryReissue | unknown, ServerFlags: 0xfeed,
	})
	if !info.Features.Has(want) || info.Features&unknown != 0 {
		t.Errorf("granted %#x, want %#x and not %#x", uint64(info.Features), uint64(want), uint64(unknown))
	}
	if info.ID < 0 || info.Queues >= 4000 || info.Depth != 16 || info.MaxIO%4096 != 0 || info.ServerFlags != 0xfeed {
		t.Errorf("granted %+v", info)
	}
	got, err := ctl.DevInfo(t.Context(), info.ID)
	if err != nil || got != info {
		t.Errorf("DevInfo() = %+v, %v, want %+v", got, err, info)
	}
	if _, err := ctl.DevInfo(t.Context(), info.ID+1); !errors.Is(err, unix.ENODEV) {
		t.Errorf("DevInfo of a device that is not there: %v, want %v", err, unix.ENODEV)
	}
	if _, err := ctl.AddDev(t.Context(), info); !errors.Is(err, unix.EEXIST) {
		t.Errorf("AddDev of a number in use: %v, want %v", err, unix.EEXIST)
	}
}

// TestReadsReturnWhatWasWritten compares random requests of all sizes with a model, and the model with the backing
// file in the end.
func TestReadsReturnWhatWasWritten(t *testing.T) {
	for _, queues := range []int{1, 2} {
		r := newRig(t, serverSpec{Queues: queues, Depth: 16})
		fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
		buf := newBlock(t, 1<<20)
		model := make([]byte, r.size)
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		for off := 0; off < r.size; off += len(buf) { // beyond MaxIO: the kernel splits
			fill(buf, rnd)
			copy(model[off:], buf)
			pwrite(t, fd, buf, off)
		}
		for range 600 {
			n := (1 + rnd.IntN(300)) * 512
			off := rnd.IntN((r.size-n)/512) * 512
			if rnd.IntN(2) == 0 {
				fill(buf[:n], rnd)
				copy(model[off:], buf[:n])
				pwrite(t, fd, buf[:n], off)
				continue
			}
			if got, err := unix.Pread(fd, buf[:n], int64(off)); got != n || err != nil {
				t.Fatalf("read of %d bytes at %d: %d, %v", n, off, got, err)
			}
			if !bytes.Equal(buf[:n], model[off:off+n]) {
				t.Fatalf("%d bytes at %d are not what was written", n, off)
			}
		}
		if !bytes.Equal(r.backing[:r.size], model) {
			t.Error("the backing file is not what was written")
		}
		r.stop(t)
	}
}

// TestFlushAndFUAArrive checks that what clients ask of durability reaches the server.
func TestFlushAndFUAArrive(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 1, Depth: 8})
	fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	buf := newBlock(t, blockSize)
	if n := r.count(cntFlush); n != 0 {
		t.Fatalf("%d flushes before the first", n)
	}
	pwrite(t, fd, buf, 0)
	if n := r.count(cntFUA); n != 0 {
		t.Errorf("%d FUA writes after a plain one", n)
	}
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	if n := r.count(cntFlush); n != 1 {
		t.Errorf("%d flushes after fsync, want 1", n)
	}
	if n, err := unix.Pwritev2(fd, [][]byte{buf}, 0, unix.RWF_DSYNC); n != len(buf) || err != nil {
		t.Fatalf("pwritev2: %d, %v", n, err)
	}
	if n := r.count(cntFUA); n != 1 {
		t.Errorf("%d FUA writes after RWF_DSYNC, want 1", n)
	}
	r.stop(t)
}

// TestDiscardAndZero checks the operations that carry no data.
func TestDiscardAndZero(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 1, Depth: 8})
	fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	buf := newBlock(t, 64<<10)
	for i := range buf {
		buf[i] = 0xaa
	}
	pwrite(t, fd, buf, 0)
	const blkDiscard, blkZeroOut = 0x1277, 0x127f
	ioctlRange(t, fd, blkDiscard, [2]uint64{8192, 4096})
	ioctlRange(t, fd, blkZeroOut, [2]uint64{16384, 8192})
	for _, b := range []struct {
		at   int
		want byte
	}{{4096, 0xaa}, {8192, 0}, {12287, 0}, {12288, 0xaa}, {16383, 0xaa}, {16384, 0}, {24575, 0}, {24576, 0xaa}} {
		if got := r.backing[b.at]; got != b.want {
			t.Errorf("byte %d is %#x, want %#x", b.at, got, b.want)
		}
	}
	if d, z := r.count(cntDiscard), r.count(cntZero); d != 1 || z != 1 {
		t.Errorf("%d discards, %d write-zeroes, want 1 of each", d, z)
	}
	r.stop(t)
}

// TestServerErrorsReachClients commits errors and expects the errno that clients know them by.
func TestServerErrorsReachClients(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 1, Depth: 8})
	fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	buf := newBlock(t, blockSize)
	for fail, want := range map[unix.Errno]unix.Errno{
		unix.ENODATA: unix.ENODATA, unix.EIO: unix.EIO, unix.EAGAIN: unix.EIO, unix.ENOSPC: unix.ENOSPC,
	} {
		r.set(cntFail, uint64(fail))
		if _, err := unix.Pread(fd, buf, 0); !errors.Is(err, want) {
			t.Errorf("read of a request that failed with %v: %v, want %v", fail, err, want)
		}
	}
	r.set(cntFail, 0)
	if _, err := unix.Pread(fd, buf, 0); err != nil {
		t.Errorf("read after the errors: %v", err)
	}
	r.stop(t)
}

// TestStopWithIOInFlight stops a device under writers. The server must get every tag back and end by itself.
func TestStopWithIOInFlight(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 2, Depth: 16})
	writers := startWriters(t, r, writersMayFail)
	waitFor(t, "writes", func() bool { return r.count(cntWrite) > 200 })
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.ctl.StopDev(ctx, r.info.ID); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(begin))
	writers.wait(t)
	r.waitServer(t)
	if info, err := r.ctl.DevInfo(ctx, r.info.ID); err != nil || info.State != Dead {
		t.Errorf("after the stop: %v, %v, want %v", info.State, err, Dead)
	}
	r.delete(t)
}

// TestKilledServerLosesNothing kills the server again and again under writers that verify what they wrote: no error,
// no lost write.
func TestKilledServerLosesNothing(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 2, Depth: 32})
	writers := startWriters(t, r, writersMustNotFail)
	for round := range 8 {
		before := r.count(cntWrite)
		waitFor(t, "writes", func() bool { return r.count(cntWrite) > before+200 })
		begin := time.Now()
		r.kill(t)
		r.recover(t)
		t.Logf("round %d: live again after %v", round, time.Since(begin))
	}
	writers.wait(t)
	if !bytes.Equal(r.backing[:r.size], writers.model) {
		t.Error("the backing file is not what the writers wrote")
	}
	t.Logf("%d writes", r.count(cntWrite))
	r.stop(t)
}

// TestKillWithEveryTagHeld kills a server that holds all tags of its queue. Up to 6.14 only the block layer's timeout
// notices, so this is also the test of SetQueue.
func TestKillWithEveryTagHeld(t *testing.T) {
	const depth = 4
	r := newRig(t, serverSpec{Queues: 1, Depth: depth})
	fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	r.set(cntHold, holdAll)
	var clients sync.WaitGroup
	for i := range depth {
		clients.Go(func() {
			if _, err := unix.Pwrite(fd, newBlock(t, blockSize), int64(i*blockSize)); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	waitFor(t, "held writes", func() bool { return r.count(cntHeld) == depth })
	r.kill(t)
	r.set(cntHold, 0)
	begin := time.Now()
	r.recover(t)
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("recovery took %v, want less than the default timeout of 30 s", d)
	}
	clients.Wait()
	r.stop(t)
}

// TestNoSuccessorBeforeTheLastMemberWrite is the fence: an array on a slow member is killed with a write on its way
// to the member. No server may take over until that write has landed. Where one may, since the write is in a ring that
// does not have the device, the write lands on top of a later one.
func TestNoSuccessorBeforeTheLastMemberWrite(t *testing.T) {
	for _, stray := range []bool{false, true} {
		t.Run(fmt.Sprintf("stray=%v", stray), func(t *testing.T) {
			member := newRig(t, serverSpec{Queues: 1, Depth: 8})
			array := newRig(t, serverSpec{Queues: 1, Depth: 8, Member: member.info.ID.BlockPath(), Stray: stray})
			fd := array.open(t, unix.O_WRONLY|unix.O_DIRECT)
			write := func(b byte) {
				buf := newBlock(t, blockSize)
				buf[0] = b
				if _, err := unix.Pwrite(fd, buf, 0); err != nil {
					t.Errorf("write: %v", err)
				}
			}
			member.set(cntHold, holdAll)
			var client sync.WaitGroup
			client.Go(func() { write('A') })
			waitFor(t, "a held member write", func() bool { return member.count(cntHeld) == 1 })
			array.kill(t)
			array.spec.Stray = false
			if stray {
				member.set(cntHold, holdOn)
				array.recover(t)
			} else {
				array.mustNotRecover(t, 2*time.Second)
				member.set(cntHold, 0)
				array.recover(t)
			}
			client.Wait()
			write('B')
			last := byte('B')
			if stray {
				last = 'A'
				before := member.count(cntWrite)
				member.set(cntHold, 0)
				waitFor(t, "the stray write", func() bool { return member.count(cntWrite) > before })
			}
			if got := member.backing[0]; got != last {
				t.Errorf("the member has %q, want %q", got, last)
			}
			array.stop(t)
			member.stop(t)
		})
	}
}

// TestNoSuccessorBeforeTheLastWriteOfOneThatNeverServed is the same fence for a server that died in the midst of a
// recovery, before it had fetched a tag.
func TestNoSuccessorBeforeTheLastWriteOfOneThatNeverServed(t *testing.T) {
	member := newRig(t, serverSpec{Queues: 1, Depth: 8})
	array := newRig(t, serverSpec{Queues: 1, Depth: 8, Member: member.info.ID.BlockPath()})
	array.kill(t)
	array.startRecovery(t)
	member.set(cntHold, holdAll)
	array.spec.Recover, array.spec.Die = true, beforeFetch
	array.spawn(t)
	array.waitServer(t)
	array.spec.Die = 0
	waitFor(t, "a held member write", func() bool { return member.count(cntHeld) == 1 })
	before := member.count(cntWrite)
	time.AfterFunc(time.Second, func() { member.set(cntHold, 0) })
	array.recover(t)
	if member.count(cntWrite) == before {
		t.Error("a server took over with a write of the dead one in flight")
	}
	array.stop(t)
	member.stop(t)
}

// TestStartWithoutServerCanBeGivenUp starts a device that nobody serves, and gives up.
func TestStartWithoutServerCanBeGivenUp(t *testing.T) {
	ctl := newController(t)
	info := addDevice(t, ctl, DevInfo{ID: AnyDevice, Queues: 1, Depth: 4, MaxIO: 64 << 10, Features: UserRecovery})
	if err := ctl.SetParams(t.Context(), info.ID, testParams(1<<20, info)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := ctl.StartDev(ctx, info.ID, os.Getpid())
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrPending) {
		t.Errorf("StartDev without a server: %v, want %v, no longer pending", err, context.DeadlineExceeded)
	}
	t.Log(err)
}

// TestServerDiesDuringRecovery kills a server, lets successors die before their first fetch, and between their last and
// the end of the recovery, and one more take over.
func TestServerDiesDuringRecovery(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 2, Depth: 16})
	writers := startWriters(t, r, writersMustNotFail)
	waitFor(t, "writes", func() bool { return r.count(cntWrite) > 100 })
	r.kill(t)
	r.spec.Recover = true
	for _, r.spec.Die = range []death{beforeStart, beforeFetch, beforeFetch, beforeStart, beforeStart, beforeFetch} {
		r.startRecovery(t)
		r.spawn(t)
		r.waitServer(t)
	}
	r.spec.Die = 0
	r.recover(t)
	before := r.count(cntWrite)
	waitFor(t, "writes after the recovery", func() bool { return r.count(cntWrite) > before+100 })
	writers.wait(t)
	r.stop(t)
}

// TestServerDiesBeforeStart lets a server end between its last fetch and the start of its device. The driver then
// neither fails the start nor lets anybody recover the device, but it must be possible to get rid of it. If the start
// read partition tables, it never ended.
func TestServerDiesBeforeStart(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 2, Depth: 4, NoScan: true, Die: beforeStart})
	r.spawn(t)
	r.waitServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// Newer drivers look whether the server is there.
	err := r.ctl.StartDev(ctx, r.info.ID, os.Getpid())
	refused := errors.Is(err, unix.EINVAL)
	if err != nil && !refused {
		t.Error(err)
	}
	if err := r.ctl.StartUserRecovery(ctx, r.info.ID); !refused && !errors.Is(err, unix.EBUSY) {
		t.Errorf("recovery of a device that never had a server: %v, want %v", err, unix.EBUSY)
	}
	if err := r.ctl.StopDev(ctx, r.info.ID); err != nil {
		t.Error(err)
	}
	r.delete(t)
}

// TestStartWithoutScan starts a device whose server reads nothing, adds a partition from outside, and expects it to
// work and to outlive the server.
func TestStartWithoutScan(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 2, Depth: 4, NoScan: true})
	if n := r.count(cntRead); n != 0 {
		t.Errorf("%d reads at the start, want 0", n)
	}
	disk := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	const start, length = 1 << 20, 2 << 20
	addPartition(t, disk, start, length)
	r.kill(t)
	r.recover(t)
	fd, err := unix.Open(r.info.ID.BlockPath()+"p1", unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := newBlock(t, blockSize)
	buf[9] = 99
	pwrite(t, fd, buf, blockSize)
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
	if got := r.backing[start+blockSize+9]; got != 99 {
		t.Errorf("the partition's write is not where it belongs: %d, want 99", got)
	}
	r.stop(t)
}

// TestStopOfAHungServerSaysThatItIsPending stops a device whose server does not answer, then kills the server: the
// stop ends.
func TestStopOfAHungServerSaysThatItIsPending(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 1, Depth: 4})
	fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
	r.set(cntHold, holdAll)
	var client sync.WaitGroup
	client.Go(func() { _, _ = unix.Pwrite(fd, newBlock(t, blockSize), 0) }) // what becomes of it is not our business
	waitFor(t, "a held write", func() bool { return r.count(cntHeld) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.ctl.StopDev(ctx, r.info.ID); !errors.Is(err, ErrPending) {
		t.Errorf("StopDev of a hung server: %v, want %v", err, ErrPending)
	}
	r.kill(t)
	client.Wait()
	waitFor(t, "the end of the stop", func() bool {
		info, err := r.ctl.DevInfo(t.Context(), r.info.ID)
		return err == nil && info.State == Dead
	})
	r.delete(t)
}

// TestSecondServerIsRefused opens the server side while another process has it.
func TestSecondServerIsRefused(t *testing.T) {
	r := newRig(t, serverSpec{Queues: 1, Depth: 4})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := OpenDevice(ctx, r.info); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second OpenDevice: %v, want %v", err, unix.EBUSY)
	}
	r.stop(t)
	if _, err := OpenDevice(ctx, r.info); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OpenDevice of a deleted device: %v, want %v", err, context.DeadlineExceeded)
	}
}

// writers write and verify blocks of their own part of a device each.
type writers struct {
	group sync.WaitGroup
	quit  atomic.Bool
	model []byte
}

// writersMayFail is whether the device is taken away under the writers on purpose.
type writersFail bool

const (
	writersMayFail     writersFail = true
	writersMustNotFail writersFail = false
)

func startWriters(t *testing.T, r *rig, mayFail writersFail) *writers {
	t.Helper()
	w := &writers{model: make([]byte, r.size)}
	copy(w.model, r.backing[:r.size])
	const number = 4
	for i := range number {
		seed := uint64(time.Now().UnixNano())
		t.Logf("writer %d: seed %d", i, seed)
		part := r.size / number
		fd := r.open(t, unix.O_RDWR|unix.O_DIRECT)
		buf := newBlock(t, 16*blockSize)
		w.group.Go(func() {
			err := w.run(fd, buf, w.model[i*part:(i+1)*part], i*part, rand.New(rand.NewPCG(seed, 0)))
			if err != nil && !bool(mayFail) {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	return w
}

func (w *writers) run(fd int, buf, model []byte, at int, rnd *rand.Rand) error {
	for !w.quit.Load() {
		n := (1 + rnd.IntN(16)) * blockSize
		off := rnd.IntN((len(model)-n)/blockSize+1) * blockSize
		if got, err := unix.Pread(fd, buf[:n], int64(at+off)); got != n || err != nil {
			return fmt.Errorf("read of %d at %d: %d, %w", n, at+off, got, err)
		}
		if !bytes.Equal(buf[:n], model[off:off+n]) {
			return fmt.Errorf("%d bytes at %d are not what was written", n, at+off)
		}
		fill(buf[:n], rnd)
		if got, err := unix.Pwrite(fd, buf[:n], int64(at+off)); got != n || err != nil {
			return fmt.Errorf("write of %d at %d: %d, %w", n, at+off, got, err)
		}
		copy(model[off:], buf[:n])
	}
	return nil
}

// wait ends the writers.
func (w *writers) wait(t *testing.T) {
	t.Helper()
	w.quit.Store(true)
	w.group.Wait()
}

func fill(buf []byte, rnd *rand.Rand) {
	x := rnd.Uint64() | 1
	for i := 0; i+8 <= len(buf); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		*(*uint64)(unsafe.Pointer(&buf[i])) = x
	}
}

func pwrite(t *testing.T, fd int, buf []byte, off int) {
	t.Helper()
	if n, err := unix.Pwrite(fd, buf, int64(off)); n != len(buf) || err != nil {
		t.Fatalf("write of %d bytes at %d: %d, %v", len(buf), off, n, err)
	}
}

func ioctlRange(t *testing.T, fd int, op uintptr, arg [2]uint64) {
	t.Helper()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatalf("ioctl %#x of %v: %v", op, arg, errno)
	}
}

// addPartition does what partx does: ioctl(BLKPG) with struct blkpg_ioctl_arg and struct blkpg_partition of
// include/uapi/linux/blkpg.h.
func addPartition(t *testing.T, fd int, start, length int64) {
	t.Helper()
	const blkPG, blkPGAddPartition = 0x1269, 1
	var partition struct {
		start, length int64
		number        int32
		names         [128]byte
	}
	partition.start, partition.length, partition.number = start, length, 1
	arg := struct {
		op, flags, size int32
		data            unsafe.Pointer
	}{op: blkPGAddPartition, size: int32(unsafe.Sizeof(partition)), data: unsafe.Pointer(&partition)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), blkPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatalf("add partition: %v", errno)
	}
}

// newBlock is aligned memory for O_DIRECT. It is not given back: I/O of a test that failed may still use it.
func newBlock(t *testing.T, n int) []byte {
	t.Helper()
	a, err := uring.NewArena(uring.ArenaConfig{Size: n})
	if err != nil {
		t.Fatal(err)
	}
	return a.Bytes()[:n]
}

// waitFor polls until something happens in another process, for at most 30 s.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begin := time.Now(); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("no %s in 30 s", what)
		}
	}
}
