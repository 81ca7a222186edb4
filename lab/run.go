package lab

import (
	"errors"
	"fmt"
	"io"
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

// newRun waits until there is room for another guest and makes a directory for
// it. Closing slot makes room again.
func newRun(name string, log io.Writer) (dir string, slot *os.File, err error) {
	cache, err := image.CacheDir()
	if err != nil {
		return "", nil, err
	}

	runs := filepath.Join(cache, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return "", nil, fmt.Errorf("lab: %w", err)
	}

	if slot, err = takeSlot(log); err != nil {
		return "", nil, err
	}

	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t:,'\"", r) {
			return '_' // QEMU and the shell would take these for syntax
		}

		return r
	}, name)

	dir, err = os.MkdirTemp(runs, clean+"-")
	if err != nil {
		slot.Close()

		return "", nil, fmt.Errorf("lab: %w", err)
	}

	return dir, slot, nil
}

// takeSlot waits for one of the machine's slots, which are locks that end with
// the process that has them.
func takeSlot(log io.Writer) (*os.File, error) {
	dir := filepath.Join(os.TempDir(), "raid-assembler-lab")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}

	for waited := false; ; waited = true {
		for i := range maxGuests {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("slot%d", i)), os.O_CREATE|os.O_RDWR, 0o666)
			if err != nil {
				return nil, fmt.Errorf("lab: %w", err)
			}

			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
			if err == nil {
				return f, nil
			}

			f.Close()

			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("lab: lock: %w", err)
			}
		}

		if !waited {
			fmt.Fprintf(log, "lab: %d guests are running on this machine; waiting\n", maxGuests)
		}

		time.Sleep(100 * time.Millisecond)
	}
}
