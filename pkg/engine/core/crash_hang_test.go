package core

import (
	"math/rand/v2"
	"strings"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// crashDeadline is how long a drive that hangs may take; the others have for
// ever, as they take long only because nobody lets them go on.
const crashDeadline = 2 * time.Second

// crashBuffer is the memory of a tag.
const crashBuffer = 64 * raid.SectorSize

// hangs is what is known of drives that do not answer.
type hangs struct {
	drives  map[*drive]bool
	broken  bool     // the array is
	buffers [][]byte // by tag, as the driver of the block device knows them
}

// withSpares completes a configuration by what it takes to do without a drive
// that hangs: not much, so that what comes back is soon used again.
func (h *hangs) withSpares(cfg *Config, rng *rand.Rand) {
	h.drives = make(map[*drive]bool)
	h.buffers = memory(crashDepth, crashBuffer)
	cfg.Spares = Spares{
		Requests: memory(1+rng.IntN(3), crashBuffer), Scratch: memory(1+rng.IntN(3), crashPiece),
		Records: memory(1+rng.IntN(3), crashPiece),
	}
	cfg.Deadlines = Deadlines{Usual: 1000 * time.Hour, FailFast: crashDeadline}
}

// hang has one drive answer no more, for a while or until the power is cut.
func (w *world) hang() {
	slot := raid.Slot(w.rng.IntN(w.geo.Disks))
	member := w.m.array.Members()[slot]

	if heir, s := w.m.array.Successor(); s.Device != engine.None && w.rng.IntN(3) == 0 {
		slot, member = heir, s
	}

	d := w.m.drives[member.Device]
	if d == nil || d.dead || w.m.hangs.drives[d] || w.m.hurt || !w.trusted() {
		return
	}

	if member.State == raid.InSync && !w.whole(slot) && (w.rotten() || w.rng.IntN(5) != 0) {
		return // now and then it is one without which the array would be broken
	}

	w.saw("hang")
	w.say("device %d, drive %d, hangs", member.Device, d.name)

	w.m.hangs.drives[d] = true
	known := w.m.disks[member.Device]
	known.FailFast = true
	w.m.disks[member.Device] = known
}

// wake has drives answer again, all that was asked of them.
func (w *world) wake() {
	for id, d := range w.m.drives {
		if known, ok := w.m.disks[id]; ok && w.m.hangs.drives[d] {
			known.FailFast = false
			w.m.disks[id] = known
		}
	}

	if len(w.m.hangs.drives) > 0 {
		w.saw("wake")
		w.say("all drives answer")
		clear(w.m.hangs.drives)
	}
}

// hanging has the kernel do with the memory of operations what it may do at any
// time before they end, and reports whether o is one that does not end now.
func (m *machine) hanging(o op) bool {
	if o.Op == stripe.Read && m.rng.IntN(4) == 0 {
		for i := range o.Data {
			o.Data[i] = 0xee
		}
	}

	return m.hangs.drives[o.drive]
}

// ends reports whether an operation that ends was given up, and counts it.
func (m *machine) ends(o op) (late bool) {
	if late = m.flights[o.ID].late; late {
		m.w.saw("late-" + o.Op.String())
	}

	return late
}

// brokenBy checks that no array is broken because drives do not answer, unless it
// is being stopped.
func (m *machine) brokenBy(n Notice) {
	if n.Note != engine.NoteBroken {
		return
	}

	if strings.HasPrefix(n.Cause, "no answer") && !m.hangs.broken && !m.closed {
		m.w.wrong("broken by giving up on device %d", n.Device)
	}

	m.hangs.broken = true
}

// stopHanging stops the array with a drive that does not answer, which must not
// keep it from that.
func (w *world) stopHanging() {
	w.happens()

	if w.rng.IntN(2) == 0 || !w.geo.Level.HasRedundancy() {
		return
	}

	w.hang()
	w.submit()
	w.m.Leave(true)
	w.m.Close()

	for range 20000 {
		if w.m.Stopped() {
			w.saw("stopped-hanging")
			w.wake()

			return
		}

		w.happens()
		w.m.complete()
	}

	w.wrong("not stopped, as a drive hangs: %v", w.m)
}
