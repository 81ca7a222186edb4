package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/raid"
)

// logPrefix tells crash logs from what else systemd holds for the guardian.
const logPrefix = "crash-"

// shelf has the crash logs of the arrays, by their UUIDs: for the next engine, and at
// systemd for the next guardian.
type shelf struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// newShelf returns a shelf with what systemd held.
func newShelf(held []*os.File) *shelf {
	s := &shelf{files: make(map[string]*os.File)}

	for _, file := range held {
		text, ours := strings.CutPrefix(file.Name(), logPrefix)
		if uuid, err := raid.ParseUUID(text); ours && err == nil {
			s.files[uuid.String()] = file
		}
	}

	return s
}

// Keep implements [crashlog.Shelf].
func (s *shelf) Keep(name string, file *os.File) error {
	uuid, err := raid.ParseUUID(name)
	if err != nil {
		return errors.Join(err, file.Close())
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if old := s.files[uuid.String()]; old != nil {
		unstore(uuid)
		_ = old.Close()
	}

	s.files[uuid.String()] = file
	store(uuid, file)

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

	if old := s.files[uuid.String()]; old != nil {
		delete(s.files, uuid.String())
		unstore(uuid)

		return old.Close()
	}

	return nil
}

// all returns the names of all logs, and the logs.
func (s *shelf) all() (names []string, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		names = append(names, name)
		files = append(files, s.files[name])
	}

	return names, files
}

// store has systemd hold a log, which it gives to the next guardian. Without systemd
// the logs end with this one.
func store(uuid raid.UUID, file *os.File) {
	notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+storeName(uuid), syscall.UnixRights(int(file.Fd())))
}

func unstore(uuid raid.UUID) { notify("FDSTOREREMOVE=1\nFDNAME="+storeName(uuid), nil) }

// storeName is what systemd takes for a name: it uses colons itself.
func storeName(uuid raid.UUID) string {
	return logPrefix + strings.ReplaceAll(uuid.String(), ":", "")
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
