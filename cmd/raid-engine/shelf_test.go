package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// systemd is what holds files for a service: it does as it is told, message by message.
type systemd struct {
	t     *testing.T
	conn  *net.UnixConn
	store map[string]*os.File
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()

	path := filepath.Join(t.TempDir(), "notify")

	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)

	return &systemd{t: t, conn: conn, store: make(map[string]*os.File)}
}

// take does what the next message says, if there is one.
func (s *systemd) take() bool {
	s.t.Helper()

	message, rights := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))

	n, oobn, _, _, err := s.conn.ReadMsgUnix(message, rights)
	if err != nil {
		return false
	}

	var name string
	for line := range strings.Lines(string(message[:n])) {
		if text, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = strings.TrimSpace(text)
		}
	}

	if strings.HasPrefix(string(message[:n]), "FDSTOREREMOVE=1\n") {
		delete(s.store, name)

		return true
	}

	parts, err := syscall.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		s.t.Fatal(err)
	}

	fds, err := syscall.ParseUnixRights(&parts[0])
	if err != nil {
		s.t.Fatal(err)
	}

	s.store[name] = os.NewFile(uintptr(fds[0]), name)

	return true
}

// held is what the next guardian is given.
func (s *systemd) held() []*os.File {
	s.t.Helper()

	var files []*os.File

	for name, file := range s.store {
		fd, err := syscall.Dup(int(file.Fd()))
		if err != nil {
			s.t.Fatal(err)
		}

		files = append(files, os.NewFile(uintptr(fd), name))
	}

	return files
}

// next is the shelf of a guardian that would be started now.
func (s *systemd) next() *shelf {
	s.t.Helper()
	s.t.Setenv("NOTIFY_SOCKET", "") // it is only looked at
	defer s.t.Setenv("NOTIFY_SOCKET", s.conn.LocalAddr().String())

	return newShelf(s.held())
}

func logFile(t *testing.T, text string) *os.File {
	t.Helper()

	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}

	return file
}

func read(t *testing.T, file *os.File) string {
	t.Helper()

	text := make([]byte, 100)

	n, err := file.ReadAt(text, 0)
	if n == 0 {
		t.Fatal(err)
	}

	return string(text[:n])
}

// TestShelf: whichever of its messages a guardian dies after, the next one has a log of
// each array, which is the last that was kept or the one before; and in the end systemd
// holds no other.
func TestShelf(t *testing.T) {
	var (
		s   = newSystemd(t)
		one = raid.UUID{1}
		two = raid.UUID{2}
		k   = newShelf(nil)
	)

	keep := func(uuid raid.UUID, text string) {
		t.Helper()

		if err := k.Keep(uuid.String(), logFile(t, text)); err != nil {
			t.Fatal(err)
		}
	}

	keep(one, "0")
	keep(two, "of another")

	for s.take() {
	}

	for round := 1; round < 5; round++ {
		if round == 3 {
			k = newShelf(s.held()) // the guardian has died
		}

		keep(one, fmt.Sprint(round))

		for more := true; more; more = s.take() {
			files := s.next().All()

			if want := []string{plain(one), plain(two)}; !slices.Equal(slices.Sorted(maps.Keys(files)), want) {
				t.Fatalf("round %d: the next guardian has logs %v, want of %v", round, files, want)
			}

			if got := read(t, files[plain(one)]); got != fmt.Sprint(round) && got != fmt.Sprint(round-1) {
				t.Errorf("round %d: the next guardian has log %s", round, got)
			}

			if got := read(t, k.All()[plain(one)]); got != fmt.Sprint(round) {
				t.Errorf("round %d: it has log %s itself", round, got)
			}
		}

		if len(s.store) != 2 {
			t.Errorf("round %d: systemd holds %v, want a log of each array", round, slices.Collect(maps.Keys(s.store)))
		}
	}

	if err := k.Drop(one.String()); err != nil {
		t.Fatal(err)
	}

	for s.take() {
	}

	if files := s.next().All(); len(files) != 1 || files[plain(two)] == nil {
		t.Errorf("logs %v, want of %v alone", files, two)
	}
}

// plain is a UUID as a shelf has it.
func plain(uuid raid.UUID) string { return strings.ReplaceAll(uuid.String(), ":", "") }

// TestStoreName: names of older guardians have no number.
func TestStoreName(t *testing.T) {
	uuid := plain(raid.UUID{0xab, 15: 0x12})
	log := "crash-ab000000000000000000000000000012"

	for text, want := range map[string]struct {
		name   string
		number uint64
		ours   bool
	}{
		log: {uuid, 0, true}, log + ".7": {uuid, 7, true}, "crash-served.2": {"served", 2, true},
		log + ".": {}, log + ".x": {}, "crash-": {}, "crash-A": {}, "varlink": {},
	} {
		name, number, ours := parseStoreName(text)
		if ours != want.ours || ours && (name != want.name || number != want.number) {
			t.Errorf("parseStoreName(%q) = %q, %d, %v", text, name, number, ours)
		}

		if ours && storeName(name, number) != text {
			t.Errorf("storeName = %q, want %q", storeName(name, number), text)
		}
	}
}

// TestShelfNames: what cannot be told to systemd is not kept.
func TestShelfNames(t *testing.T) {
	s := newShelf(nil)

	for _, name := range []string{"", "a\nFDSTOREREMOVE=1", "Ab", "a.1"} {
		if err := s.Keep(name, logFile(t, "x")); err == nil {
			t.Errorf("%q is kept", name)
		}
	}
}
