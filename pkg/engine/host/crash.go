package host

import (
	"os"
	"slices"

	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// leftOf returns what an engine that died was writing to an array that has a
// superblock, or nil if nobody knows, or the array was stopped since. Where arrays of a
// container count their records together, those since neighbour was started, a running
// array of the same one, are of this engine: the count that was found then is what the
// log has to know.
func (h *Host) leftOf(uuid raid.UUID, best *metadata.Superblock, neighbour *running) *crashlog.Left {
	h.mu.Lock()
	defer h.mu.Unlock()

	l := h.cfg.Left[uuid]
	if l == nil || best.Clean() {
		return nil
	}

	events := best.Events
	if best.EventsShared && neighbour != nil {
		events = neighbour.first.Events
	}

	if l.Tells(events) {
		return l
	}

	return nil
}

// leftBy returns what an engine that died has left of an array, be it of any use or not;
// nil if nothing.
func (h *Host) leftBy(uuid raid.UUID) *crashlog.Left {
	h.mu.Lock()
	defer h.mu.Unlock()

	return h.cfg.Left[uuid]
}

// readAgain reads what an engine that died has left anew: it may have been changed by an
// attempt to start the array.
func (h *Host) readAgain(uuid raid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if l := h.cfg.Left[uuid]; l != nil {
		if again, err := l.Again(); err == nil {
			h.cfg.Left[uuid] = again
		}
	}
}

// forgetLeft gives up what an engine that died has left of an array that runs again.
func (h *Host) forgetLeft(uuid raid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if l := h.cfg.Left[uuid]; l != nil {
		delete(h.cfg.Left, uuid)
		_ = l.Close() // of what was only read
	}
}

// Told returns the arrays that do not run, and of which it is known what an engine
// that died was writing to them.
func (h *Host) Told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()

	told := []string{}

	for uuid, l := range h.cfg.Left {
		if l.Trusted() {
			told = append(told, uuid.String())
		}
	}

	slices.Sort(told)

	return told
}

// keepLog returns what has the crash log of an array be kept; nil if nobody does.
func (h *Host) keepLog(uuid raid.UUID) func(*os.File) error {
	if h.cfg.Logs == nil {
		return nil
	}

	return func(f *os.File) error { return h.cfg.Logs.Keep(uuid.String(), f) }
}

// dropLog gives up the crash log of an array that was stopped.
func (h *Host) dropLog(uuid raid.UUID) {
	if h.cfg.Logs != nil {
		_ = h.cfg.Logs.Drop(uuid.String()) // it tells of superblocks that are no more
	}
}
