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
