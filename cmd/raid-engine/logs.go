package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/raid"
)

// logPrefix tells crash logs from what else systemd holds for the guardian.
const logPrefix = "crash-"

// numberMark is between the name of a log and its number.
const numberMark = "."

// shelf has the crash logs of the arrays, by their UUIDs: for the next engine, and at
// systemd for the next guardian.
type shelf struct {
	mu    sync.Mutex
	files map[string]shelved
}

// shelved is a log on a shelf. The next of its array gets another number, so that
// systemd has both for a moment: never neither.
type shelved struct {
	*os.File

	number uint64
}

// newShelf returns a shelf with what systemd held. Of two logs of an array, the one
// that was kept last is the one to be believed.
func newShelf(held []*os.File) *shelf {
	s := &shelf{files: make(map[string]shelved)}

	for _, file := range held {
		uuid, number, ours := parseStoreName(file.Name())
		if !ours {
			continue
		}

		old, log := s.files[uuid.String()], shelved{file, number}
		if old.File != nil && old.number > number {
			old, log = log, old
		}

		s.files[uuid.String()] = log
		old.drop(uuid)
	}

	return s
}

// drop gives up a log, if there is one.
func (l shelved) drop(uuid raid.UUID) {
	if l.File != nil {
		unstore(uuid, l.number)
		_ = l.Close() // of what was only read
	}
}

// Keep implements [crashlog.Shelf].
func (s *shelf) Keep(name string, file *os.File) error {
	uuid, err := raid.ParseUUID(name)
	if err != nil {
		return errors.Join(err, file.Close())
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	old := s.files[uuid.String()]
	log := shelved{file, old.number + 1}
	s.files[uuid.String()] = log

	store(uuid, log)
	old.drop(uuid)

	return nil
}

// Drop implements [crashlog.Shelf].
func (s *shelf) Drop(name string) error {
	uuid, err := raid.ParseUUID(name)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.files[uuid.String()].drop(uuid)
	delete(s.files, uuid.String())

	return nil
}

// all returns the names of all logs, and the logs.
func (s *shelf) all() (names []string, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		names = append(names, name)
		files = append(files, s.files[name].File)
	}

	return names, files
}

// store has systemd hold a log, which it gives to the next guardian. Without systemd
// the logs end with this one.
func store(uuid raid.UUID, log shelved) {
	notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+storeName(uuid, log.number), syscall.UnixRights(int(log.Fd())))
}

func unstore(uuid raid.UUID, number uint64) {
	notify("FDSTOREREMOVE=1\nFDNAME="+storeName(uuid, number), nil)
}

// storeName is what systemd takes for a name: it uses colons itself. The first log of an
// array has no number, as those of older guardians have none.
func storeName(uuid raid.UUID, number uint64) string {
	name := logPrefix + strings.ReplaceAll(uuid.String(), ":", "")
	if number > 0 {
		name += numberMark + strconv.FormatUint(number, 10)
	}

	return name
}

// parseStoreName is the reverse of storeName.
func parseStoreName(name string) (uuid raid.UUID, number uint64, ours bool) {
	text, ours := strings.CutPrefix(name, logPrefix)
	text, digits, numbered := strings.Cut(text, numberMark)

	uuid, err := raid.ParseUUID(text)
	if numbered && err == nil {
		number, err = strconv.ParseUint(digits, 10, 64)
	}

	return uuid, number, ours && err == nil
}

// notify tells systemd something, if it listens. The usual library sends no files.
func notify(state string, rights []byte) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}

	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Sendmsg(fd, []byte(state), rights, &syscall.SockaddrUnix{Name: path}, 0)
		_ = syscall.Close(fd)
	}

	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: crash logs do not outlive the guardian: %v\n", err)
	}
}

// inheritedLogs returns what engines that died have left, of which names came with the
// files from first on.
func inheritedLogs(names []string, first uintptr) map[raid.UUID]*crashlog.Left {
	all := make(map[raid.UUID]*crashlog.Left)

	for i, name := range names {
		file := os.NewFile(first+uintptr(i), name)

		uuid, err := raid.ParseUUID(name)
		if err != nil {
			continue
		}

		left, err := crashlog.Read(file)
		if err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "raid-engine: what array %s was doing is not known: %v\n", name, err)

			continue
		}

		all[uuid] = left
	}

	return all
}
