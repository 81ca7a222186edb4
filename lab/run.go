package lab

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"raid-assembler/lab/internal/image"
)

// maxGuests is how many guests run at a time on one machine: each needs a
// gigabyte, and emulation keeps two CPUs busy.
const maxGuests = 2

// run is a guest's place on the host: its directory, and one of the slots.
type run struct {
	dir  string
	slot *os.File
	lock *os.File // held on the directory, to tell it from those left behind
}

// newRun waits until there is room for another guest and makes a directory for
// it.
func newRun(name string, log *log.Logger) (*run, error) {
	cache, err := image.CacheDir()
	if err != nil {
		return nil, err
	}

	runs := filepath.Join(cache, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}

	slot, err := takeSlot(log)
	if err != nil {
		return nil, err
	}

	removeAbandoned(runs, log)

	r := &run{slot: slot}
	if err := r.makeDir(runs, name); err != nil {
		return nil, errors.Join(err, slot.Close())
	}

	return r, nil
}

func (r *run) makeDir(runs, name string) error {
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t:,'\"", r) {
			return '_' // QEMU and the shell would take these for syntax
		}

		return r
	}, name)

	var err error
	if r.dir, err = os.MkdirTemp(runs, clean+"-"); err != nil {
		return fmt.Errorf("lab: %w", err)
	}

	r.lock, err = tryLock(r.dir)

	return err
}

// close gives the slot back. It deletes the directory, or moves it to where
// nothing deletes it and returns its new place.
func (r *run) close(keep bool) (dir string, err error) {
	defer func() { err = errors.Join(err, r.lock.Close(), r.slot.Close()) }()

	if !keep {
		return "", os.RemoveAll(r.dir)
	}

	dir = filepath.Join(filepath.Dir(filepath.Dir(r.dir)), "kept", filepath.Base(r.dir))

	return dir, errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.Rename(r.dir, dir))
}

// removeAbandoned deletes the directories of guests whose process was killed.
func removeAbandoned(runs string, log *log.Logger) {
	dirs, err := filepath.Glob(filepath.Join(runs, "*"))
	if err != nil {
		log.Print(err)
	}

	for _, dir := range dirs {
		// A new one is not locked yet.
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}

		lock, err := tryLock(dir)
		if err != nil {
			continue
		}

		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			log.Print(err)
		}
	}
}

// errLocked says that another process has the lock.
var errLocked = errors.New("lab: locked")

// tryLock locks a file or directory, until that is closed or the process ends.
func tryLock(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}

	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errors.Join(errLocked, f.Close())
	default:
		return nil, errors.Join(fmt.Errorf("lab: lock %s: %w", path, err), f.Close())
	}
}

// Slot waits until there is room for another guest on this machine, and takes it
// until it is closed: for guests that [New] does not make.
func Slot(w io.Writer) (io.Closer, error) { return takeSlot(logger(w)) }

// takeSlot waits for one of the machine's slots, which are locks that end with
// the process that has them.
func takeSlot(log *log.Logger) (*os.File, error) {
	var paths []string

	// Whoever comes first makes all of them, since another user could not.
	for i := range maxGuests {
		path := filepath.Join(os.TempDir(), "raid-assembler-lab", fmt.Sprintf("slot%d", i))
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}

		paths = append(paths, path)
	}

	for waited := false; ; waited = true {
		for _, path := range paths {
			slot, err := tryLock(path)
			if err == nil || !errors.Is(err, errLocked) {
				return slot, err
			}
		}

		if !waited {
			log.Printf("%d guests are running on this machine; waiting", maxGuests)
		}

		time.Sleep(100 * time.Millisecond)
	}
}
