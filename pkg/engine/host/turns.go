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
	disks   map[*running]map[string]string // which whole disk each device of an array is of, by path
	syncing map[*running]bool              // those whose turn it is
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
		t.disks, t.syncing = make(map[*running]map[string]string), make(map[*running]bool)
	}

	if t.disks[r] == nil {
		t.disks[r] = make(map[string]string)
	}

	t.disks[r][path] = disk
}

// lost notes that an array has a device no more.
func (t *turnstile) lost(r *running, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()

	delete(t.disks[r], path)
}

// forget lets go of an array that has ended.
func (t *turnstile) forget(r *running) {
	t.mu.Lock()
	defer t.mu.Unlock()

	delete(t.disks, r)
	delete(t.syncing, r)
}

// share reports whether two arrays have something of one disk.
func (t *turnstile) share(a, b *running) bool {
	for _, of := range t.disks[a] {
		for _, other := range t.disks[b] {
			if of == other {
				return true
			}
		}
	}

	return false
}

// Take implements [core.Turns].
func (t turn) Take() (holder string) {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()

	for other := range t.all.syncing {
		if other != t.array && t.all.share(other, t.array) {
			return other.name
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
