package host

// Hold has the arrays that are in use hold all their memory: those that the host swaps
// to, and those that what it writes back goes to. It is called again and again while the
// host swaps to a disk, and by one at a time.
func (h *Host) Hold() {
	for _, r := range h.running() {
		if !r.holds && inUse(r.loop.Device()) != "" {
			r.holds = r.loop.Hold() == nil
		}
	}
}

// Rest has arrays that nobody uses, and that are at rest, give the memory back that they have
// used: raid-assembler and udev read of every array that comes. It is called now and then.
func (h *Host) Rest() {
	for _, r := range h.running() {
		if r.loop.Rests() && inUse(r.loop.Device()) == "" {
			_ = r.loop.Release() // one that has ended has none
		}
	}
}

// Used reports whether anybody uses an array.
func (h *Host) Used() bool {
	for _, r := range h.running() {
		if inUse(r.loop.Device()) != "" {
			return true
		}
	}

	return false
}
