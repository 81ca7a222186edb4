package uevent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pilebones/go-udev/netlink"
	"golang.org/x/sys/unix"
)

// The tests of this file describe the version of go-udev in use: what this
// package works around. One that breaks after an upgrade is good news, and a
// workaround to look at again.

const someDevice = "ACTION=add\x00DEVPATH=/a\x00"

func TestGoUdevDropsEventsWithASecondEqualsSign(t *testing.T) {
	pairs := someDevice + "ID_FS_LABEL=a=b\x00"

	for form, msg := range map[string][]byte{
		"udevd's":      udevMessage([]byte(pairs)),
		"the kernel's": []byte("add@/a\x00" + pairs),
	} {
		if _, err := netlink.ParseUEvent(msg); err == nil {
			t.Errorf("go-udev reads a value with = in %s form now", form)
		}
	}

	if ev, err := ParseUdev(udevMessage([]byte(pairs))); err != nil || ev.Env["ID_FS_LABEL"] != "a=b" {
		t.Errorf("ParseUdev() = %+v, %v, want the label a=b", ev, err)
	}
}

func TestGoUdevDropsEventsWithAnAtInThePath(t *testing.T) {
	msg := []byte("add@/soc@0/a\x00ACTION=add\x00DEVPATH=/soc@0/a\x00")

	if _, err := netlink.ParseUEvent(msg); err == nil {
		t.Error("go-udev reads a path with @ now")
	}

	if ev, err := ParseKernel(msg); err != nil || ev.Path != "/soc@0/a" {
		t.Errorf("ParseKernel() = %+v, %v, want the path /soc@0/a", ev, err)
	}
}

func TestGoUdevPanicsWithoutANUL(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("go-udev survives a message without a NUL now")
		}
	}()

	_, _ = netlink.ParseUEvent([]byte("add@/a"))
}

// goUdev connects the library as it is.
func goUdev(t *testing.T) *netlink.UEventConn {
	t.Helper()

	conn := new(netlink.UEventConn)
	if err := conn.Connect(netlink.UdevEvent); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close() })

	return conn
}

func TestGoUdevLeaksItsSocketAndBlocksAThread(t *testing.T) {
	inNewNetwork(t)

	conn := goUdev(t)

	if flags, err := unix.FcntlInt(uintptr(conn.Fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
		t.Errorf("F_GETFD = %#x, %v: go-udev's socket is closed on exec now", flags, err)
	}

	if flags, err := unix.FcntlInt(uintptr(conn.Fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("F_GETFL = %#x, %v: go-udev's socket is non-blocking now", flags, err)
	}
}

func TestGoUdevBelievesAnySender(t *testing.T) {
	inNewNetwork(t)

	conn, s := goUdev(t), newSender(t)
	s.send(udevMessage([]byte(someDevice)), uint32(netlink.UdevEvent), 0, 1000)

	if ev, err := conn.ReadUEvent(); err != nil || ev.KObj != "/a" {
		t.Errorf("ReadUEvent() = %v, %v: go-udev checks its sender now", ev, err)
	}
}

func TestGoUdevsBufferHoldsLessThanAShelf(t *testing.T) {
	inNewNetwork(t)

	conn, s := goUdev(t), newSender(t)

	for range 500 {
		s.udev(add(1) + "PADDING=" + strings.Repeat("x", 1000) + "\n")
	}

	if err := unix.SetNonblock(conn.Fd, true); err != nil {
		t.Fatal(err)
	}

	if _, err := conn.ReadUEvent(); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("ReadUEvent() after 500 events = %v: go-udev's buffer holds them now", err)
	}
}

// After one overrun Monitor has gone, without a word on its queue, and what is
// sent then stays in the socket.
func TestGoUdevsMonitorEndsAtTheFirstOverrun(t *testing.T) {
	inNewNetwork(t)

	conn, s := goUdev(t), newSender(t)
	queue, errs := make(chan netlink.UEvent), make(chan error, 1)

	for range 2000 {
		s.udev(add(1))
	}

	conn.Monitor(queue, errs, nil)

	select {
	case err := <-errs:
		if !errors.Is(err, unix.ENOBUFS) {
			t.Fatalf("Monitor() = %v, want ENOBUFS", err)
		}
	case <-time.After(patience):
		t.Fatal("Monitor() survives an overrun now")
	}

	if err := unix.SetNonblock(conn.Fd, true); err != nil {
		t.Fatal(err)
	}

	for n := 0; ; n++ {
		_, err := conn.ReadUEvent()
		if errors.Is(err, unix.EAGAIN) && n > 0 {
			return // everything that was queued was left for us
		}

		if err != nil {
			t.Fatalf("ReadUEvent() = %v after %d events that Monitor left", err, n)
		}
	}
}
