package host

import (
	"path/filepath"
	"sync"

	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/scan/sysfs"
)

// turnstile has arrays that share a disk sync one after the other. Whose turn it
// is is asked in the threads of the arrays, which must not wait: its lock is held
// for no longer than a look.
type turnstile struct {
	mu      sync.Mutex
	disks   map[*running]map[string]bool // the whole disks that an array has something of
	syncing map[*running]bool            // those whose turn it is
}

// turn is the turnstile as one array sees it.
type turn struct {
	all   *turnstile
	array *running
}

func (h *Host) turnsOf(r *running) core.Turns { return turn{&h.turns, r} }

// has notes that an array has a device.
func (t *turnstile) has(r *running, path string) {
	disk := sysfs.Whole(sysfs.Host(), filepath.Base(path))

	t.mu.Lock()
	defer t.mu.Unlock()

	if t.disks == nil {
		t.disks, t.syncing = make(map[*running]map[string]bool), make(map[*running]bool)
	}

	if t.disks[r] == nil {
		t.disks[r] = make(map[string]bool)
	}

	t.disks[r][disk] = true
}

// forget lets go of an array that has ended.
func (t *turnstile) forget(r *running) {
	t.mu.Lock()
	defer t.mu.Unlock()

	delete(t.disks, r)
	delete(t.syncing, r)
}

// Take implements [core.Turns].
func (t turn) Take() (holder string) {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()

	for other := range t.all.syncing {
		for disk := range t.all.disks[t.array] {
			if other != t.array && t.all.disks[other][disk] {
				return other.name
			}
		}
	}

	if t.all.disks[t.array] != nil {
		t.all.syncing[t.array] = true
	}

	return ""
}

// Release implements [core.Turns].
func (t turn) Release() {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()

	delete(t.all.syncing, t.array)
}
