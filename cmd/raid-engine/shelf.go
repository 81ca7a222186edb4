package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// storePrefix tells what is kept from what else systemd holds for the guardian.
const storePrefix = "crash-"

// numberMark is between a name and its number.
const numberMark = "."

// shelf has what engines leave to the next one, by name: the crash logs of arrays, whose
// names are their UUIDs, and what the host calls otherwise. At systemd it is kept for the
// next guardian.
type shelf struct {
	mu    sync.Mutex
	files map[string]shelved
}

// shelved is a file on a shelf. The next of its name gets another number, so that
// systemd has both for a moment: never neither.
type shelved struct {
	*os.File

	number uint64
}

// nameOK reports whether a name is made of what names are: systemd uses colons itself.
func nameOK(name string) bool {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz-"

	return name != "" && len(name) <= 64 && strings.Trim(name, letters) == ""
}

// newShelf returns a shelf with what systemd held. Of two files of a name, the one
// that was kept last is the one to be believed.
func newShelf(held []*os.File) *shelf {
	s := &shelf{files: make(map[string]shelved)}

	for _, file := range held {
		name, number, ours := parseStoreName(file.Name())
		if !ours {
			continue
		}

		old, next := s.files[name], shelved{file, number}
		if old.File != nil && old.number > number {
			old, next = next, old
		}

		s.files[name] = next
		old.drop(name)
	}

	return s
}

// drop gives up a file, if there is one.
func (f shelved) drop(name string) {
	if f.File != nil {
		notify("FDSTOREREMOVE=1\nFDNAME="+storeName(name, f.number), nil)
		_ = f.Close() // of what was only read
	}
}

// Keep implements [crashlog.Shelf].
func (s *shelf) Keep(name string, file *os.File) error {
	name = strings.ReplaceAll(name, ":", "")
	if !nameOK(name) {
		return errors.Join(fmt.Errorf("%q cannot be the name of a file that is kept", name), file.Close())
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	old := s.files[name]
	next := shelved{file, old.number + 1}
	s.files[name] = next

	// Without systemd what is kept ends with this guardian.
	notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+storeName(name, next.number), syscall.UnixRights(int(file.Fd())))
	old.drop(name)

	return nil
}

// Drop implements [crashlog.Shelf].
func (s *shelf) Drop(name string) error {
	name = strings.ReplaceAll(name, ":", "")

	s.mu.Lock()
	defer s.mu.Unlock()

	s.files[name].drop(name)
	delete(s.files, name)

	return nil
}

// All implements [crashlog.Shelf].
func (s *shelf) All() map[string]*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := make(map[string]*os.File, len(s.files))
	for name, f := range s.files {
		all[name] = f.File
	}

	return all
}

// storeName is what systemd is told. The first of a name has no number, as those of
// older guardians have none.
func storeName(name string, number uint64) string {
	name = storePrefix + name
	if number > 0 {
		name += numberMark + strconv.FormatUint(number, 10)
	}

	return name
}

// parseStoreName is the reverse of storeName.
func parseStoreName(text string) (name string, number uint64, ours bool) {
	text, ours = strings.CutPrefix(text, storePrefix)
	name, digits, numbered := strings.Cut(text, numberMark)

	var err error
	if numbered {
		number, err = strconv.ParseUint(digits, 10, 64)
	}

	return name, number, ours && err == nil && nameOK(name)
}

// notify tells systemd something, if it listens: of what is kept, that does not outlive
// the guardian otherwise. The usual library sends no files.
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
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: systemd was not told %q: %v\n", state, err)
	}
}
