package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pilebones/go-udev/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// inNewNetwork moves the test to a network namespace of its own, where nobody
// but the test sends in udevd's name. The thread is not given back: it ends
// with the test.
func inNewNetwork(t *testing.T) {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}

	runtime.LockOSThread()

	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
}

// sender speaks uevent netlink as some process other than the kernel.
type sender struct {
	t  *testing.T
	fd int
}

func newSender(t *testing.T) sender {
	t.Helper()

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = unix.Close(fd) })

	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}

	return sender{t: t, fd: fd}
}

// send multicasts msg to group, or unicasts it to port if group is 0, as uid.
func (s sender) send(msg []byte, group, port, uid uint32) {
	s.t.Helper()

	oob := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uid, Gid: uid})
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group, Pid: port}

	if err := unix.Sendmsg(s.fd, msg, oob, to, 0); err != nil {
		s.t.Fatalf("send to group %d port %d: %v", group, port, err)
	}
}

// udev multicasts pairs as udevd would.
func (s sender) udev(pairs string) {
	s.t.Helper()
	s.send(udevMessage([]byte(strings.ReplaceAll(pairs, "\n", "\x00"))), uint32(netlink.UdevEvent), 0, 0)
}

func add(i int) string {
	return fmt.Sprintf("ACTION=add\nDEVPATH=/devices/%d\nSUBSYSTEM=block\nDEVNAME=/dev/sd%d\n", i, i)
}

func listen(t *testing.T, opts Options) *Listener {
	t.Helper()

	l, err := Listen(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(l.Close)

	return l
}

// next returns the next event, which must come.
func next(t *testing.T, l *Listener) Event {
	t.Helper()

	select {
	case ev, ok := <-l.Events():
		if !ok {
			t.Fatalf("the listener ended: %v", l.Err())
		}

		return ev
	case <-time.After(patience):
		t.Fatalf("no event within %v; %+v", patience, l.Stats())
	}

	panic("unreachable")
}

func TestListenerDeliversUdevsEvents(t *testing.T) {
	inNewNetwork(t)

	l, s := listen(t, Options{}), newSender(t)
	s.udev("ACTION=change\nDEVPATH=/devices/soc@0/sda\nSUBSYSTEM=block\nDEVNAME=/dev/sda\nID_FS_LABEL=a=b=c\n")

	want := Event{
		Action: "change", Path: "/devices/soc@0/sda", Subsystem: "block", Name: "sda",
		Env: map[string]string{
			"ACTION": "change", "DEVPATH": "/devices/soc@0/sda", "SUBSYSTEM": "block",
			"DEVNAME": "/dev/sda", "ID_FS_LABEL": "a=b=c",
		},
	}
	if diff := cmp.Diff(want, next(t, l)); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestListenerDeliversTheKernelsEvents(t *testing.T) {
	inNewNetwork(t)

	entries, err := os.ReadDir("/sys/class/block")
	if err != nil || len(entries) == 0 {
		t.Skipf("no block device to send an event: %v", err)
	}

	l := listen(t, Options{Kernel: true, Subsystem: "block"})

	// The kernel broadcasts the events of block devices to every network
	// namespace of the initial user namespace.
	const note = "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed"

	file := "/sys/class/block/" + entries[0].Name() + "/uevent"
	if err := os.WriteFile(file, []byte("change "+note+" BY=test"), 0); err != nil {
		t.Fatal(err)
	}

	for {
		ev := next(t, l)
		if ev.Env["SYNTH_UUID"] != note {
			continue // of something else that happens on this host
		}

		if ev.Action != "change" || ev.Subsystem != "block" || ev.Name != entries[0].Name() {
			t.Errorf("event = %+v, want a change of %s", ev, entries[0].Name())
		}

		return
	}
}

// Each message in turn is followed by a good one, so that its absence is seen
// and not waited for.
func TestListenerIgnoresWhatUdevDidNotSend(t *testing.T) {
	inNewNetwork(t)

	l, s := listen(t, Options{Subsystem: "block"}), newSender(t)
	good := udevMessage([]byte("ACTION=add\x00DEVPATH=/a\x00SUBSYSTEM=block\x00"))
	udev, port := uint32(netlink.UdevEvent), uint32(os.Getpid())

	for i, c := range []struct {
		what string
		send func()
		want Stats
	}{
		{"multicast by another user", func() { s.send(good, udev, 0, 1000) }, Stats{Untrusted: 1}},
		{"unicast by root", func() { s.send(good, 0, port, 0) }, Stats{Untrusted: 2}},
		{"not a uevent", func() { s.send([]byte("x"), udev, 0, 0) }, Stats{Untrusted: 2, Malformed: 1}},
		{"in the kernel's form", func() {
			s.send([]byte("add@/a\x00ACTION=add\x00DEVPATH=/a\x00SUBSYSTEM=block\x00"), udev, 0, 0)
		}, Stats{Untrusted: 2, Malformed: 2}},
		{
			"of the network", func() { s.udev("ACTION=add\nDEVPATH=/n\nSUBSYSTEM=net\n") },
			Stats{Untrusted: 2, Malformed: 2, Filtered: 1},
		},
	} {
		c.send()
		s.udev(add(i))

		if ev := next(t, l); ev.Path != fmt.Sprintf("/devices/%d", i) {
			t.Errorf("%s: delivered as %+v", c.what, ev)
		}

		got := l.Stats()
		got.BufferBytes, got.Delivered = 0, 0

		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: Stats() (-want +got):\n%s", c.what, diff)
		}
	}
}

func TestKernelListenerIgnoresWhatTheKernelDidNotSend(t *testing.T) {
	inNewNetwork(t)

	l, s := listen(t, Options{Kernel: true}), newSender(t)
	s.send([]byte("add@/a\x00ACTION=add\x00DEVPATH=/a\x00"), uint32(netlink.KernelEvent), 0, 0)

	// What the kernel itself may announce meanwhile does not matter.
	for l.Stats().Untrusted == 0 {
		select {
		case ev := <-l.Events():
			if ev.Path == "/a" {
				t.Fatalf("delivered: %+v", ev)
			}
		case <-time.After(time.Millisecond):
		}
	}
}

// A rack of disks appears while the reader is busy.
func TestListenerLosesNothingOfABurst(t *testing.T) {
	inNewNetwork(t)

	const burst = 5000

	l, s := listen(t, Options{}), newSender(t)
	padding := "PADDING=" + strings.Repeat("x", 1000) + "\n"

	for i := range burst {
		s.udev(add(i) + padding)
	}

	for i := range burst {
		if ev := next(t, l); ev.Name != fmt.Sprintf("sd%d", i) {
			t.Fatalf("event %d is %s %s", i, ev.Action, ev.Name)
		}
	}

	if st := l.Stats(); st.Overruns != 0 || st.BufferShort || st.BufferBytes < receiveBufferBytes {
		t.Errorf("Stats() = %+v, want the whole buffer and no overrun", st)
	}
}

// Whatever is lost, a rescan comes before the next event that is not: a gap
// without one would hide a disk.
func TestListenerAnswersAnOverrunByARescanAndGoesOn(t *testing.T) {
	inNewNetwork(t)

	const burst = 5000

	l, s := listen(t, Options{BufferBytes: 32 << 10}), newSender(t)

	// Nobody reads: the channel fills, then the buffer, then it overflows.
	for i := range burst {
		s.udev(add(i))
	}

	rescans := 0

	for want := 0; want < burst; {
		ev := next(t, l)
		if ev.Rescan() {
			rescans++
			// Covers what was sent before. The next event says where it goes on.
			s.udev(add(burst))

			ev = next(t, l)
			for ev.Rescan() {
				ev = next(t, l)
			}
		} else if ev.Path != fmt.Sprintf("/devices/%d", want) {
			t.Fatalf("event %s, want %d or a rescan before it", ev.Path, want)
		}

		if _, err := fmt.Sscanf(ev.Path, "/devices/%d", &want); err != nil {
			t.Fatal(err)
		}

		want++
	}

	if st := l.Stats(); st.Overruns == 0 || rescans == 0 {
		t.Errorf("%d rescans, Stats() = %+v, want an overrun", rescans, st)
	}
}

func TestListenerAnswersATruncatedMessageByARescan(t *testing.T) {
	inNewNetwork(t)

	l, s := listen(t, Options{}), newSender(t)
	s.udev(add(1) + "X=" + strings.Repeat("x", messageBytesMax) + "\n")

	if ev := next(t, l); !ev.Rescan() || l.Stats().Overruns != 1 {
		t.Errorf("event = %+v, Stats() = %+v, want a rescan", ev, l.Stats())
	}
}

func TestListenerEndsAtOnce(t *testing.T) {
	inNewNetwork(t)

	for name, c := range map[string]struct {
		events int // sent before the end, with nobody to read them
		end    func(*Listener, context.CancelFunc)
	}{
		"idle, by its context": {0, func(_ *Listener, cancel context.CancelFunc) { cancel() }},
		"idle, by Close":       {0, func(l *Listener, _ context.CancelFunc) { l.Close() }},
		"full, by its context": {2 * queueLen, func(_ *Listener, cancel context.CancelFunc) { cancel() }},
		"full, by Close":       {2 * queueLen, func(l *Listener, _ context.CancelFunc) { l.Close() }},
	} {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		l, err := Listen(ctx, Options{})
		if err != nil {
			t.Fatal(err)
		}

		s := newSender(t)
		for i := range c.events {
			s.udev(add(i))
		}

		c.end(l, cancel)

		deadline := time.After(patience)

		for open := true; open; {
			select {
			case _, open = <-l.Events():
			case <-deadline:
				t.Fatalf("%s: still open after %v", name, patience)
			}
		}

		l.Close()

		if err := l.Err(); err != nil {
			t.Errorf("%s: Err() = %v, want nil", name, err)
		}
	}
}

func TestListenersSocketIsFitForADaemon(t *testing.T) {
	inNewNetwork(t)

	file, granted, err := open(Options{BufferBytes: receiveBufferBytes})
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = file.Close() }()

	if err := file.SetReadDeadline(time.Now()); err != nil {
		t.Errorf("SetReadDeadline() = %v, want a file that the runtime polls", err)
	}

	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}

	err = raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("F_GETFD = %#x, %v, want FD_CLOEXEC", flags, err)
		}
	})
	if err != nil || granted < receiveBufferBytes {
		t.Errorf("granted = %d, %v, want at least %d", granted, err, receiveBufferBytes)
	}
}

// Without CAP_NET_ADMIN the receive buffer is what the host allows anyone.
func TestShortBufferIsReported(t *testing.T) {
	inNewNetwork(t)

	var (
		header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		caps   [2]unix.CapUserData
	)

	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}

	caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN

	if err := unix.Capset(&header, &caps[0]); err != nil { // of this thread, which ends with the test
		t.Fatal(err)
	}

	l := listen(t, Options{BufferBytes: 1 << 30})
	if st := l.Stats(); !st.BufferShort || st.BufferBytes == 0 {
		t.Errorf("Stats() = %+v, want a short buffer", st)
	}
}

func TestTrusted(t *testing.T) {
	root, user := &unix.Ucred{}, &unix.Ucred{Uid: 1000}
	from := func(groups, port uint32) unix.Sockaddr { return &unix.SockaddrNetlink{Groups: groups, Pid: port} }

	for _, c := range []struct {
		what string
		mode netlink.Mode
		m    message
		want bool
	}{
		{"the kernel", netlink.KernelEvent, message{from: from(1, 0), creds: root}, true},
		{"root as the kernel", netlink.KernelEvent, message{from: from(1, 77), creds: root}, false},
		{"the kernel, to the port", netlink.KernelEvent, message{from: from(0, 0), creds: root}, false},
		{"the kernel, to udevd's group", netlink.KernelEvent, message{from: from(2, 0), creds: root}, false},
		{"the kernel, no credentials", netlink.KernelEvent, message{from: from(1, 0)}, false},
		{"udevd", netlink.UdevEvent, message{from: from(2, 77), creds: root}, true},
		{"udevd, to the port", netlink.UdevEvent, message{from: from(0, 77), creds: root}, false},
		{"udevd, to the kernel's group", netlink.UdevEvent, message{from: from(1, 77), creds: root}, false},
		{"a user", netlink.UdevEvent, message{from: from(2, 77), creds: user}, false},
		{"no credentials", netlink.UdevEvent, message{from: from(2, 77)}, false},
		{"no address", netlink.UdevEvent, message{creds: root}, false},
		{"another family", netlink.UdevEvent, message{from: &unix.SockaddrUnix{}, creds: root}, false},
	} {
		if got := c.m.trusted(c.mode); got != c.want {
			t.Errorf("%s: trusted(%d) = %v, want %v", c.what, c.mode, got, c.want)
		}
	}
}

// A socket that fails for good ends the listener, and says so.
func TestListenerReportsABrokenSocket(t *testing.T) {
	inNewNetwork(t)

	l := listen(t, Options{})
	_ = l.file.Close()

	for range l.Events() {
		t.Error("an event from a closed socket")
	}

	if err := l.Err(); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Err() = %v, want what the socket said", err)
	}
}
