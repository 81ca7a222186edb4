package core

import (
	"errors"
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// crashLog is how much of a partial parity log is used, in sectors, at most.
const crashLog = 32

// anything marks the version of a sector that may hold anything until it is
// written: that was being written as its member was lost, or never has been.
const anything = 1 << 41

// logs is what is known of the partial parity logs of an array.
type logs struct {
	on        bool            // it has some
	used      map[*drive]bool // whose log is in use
	torn      map[*drive]bool // whose log was being written when the power was cut
	redundant bool            // the array was, where nothing was being written
	power     int             // how many writes until the power fails; never if negative
}

// withLogs completes a configuration by memory for the logs.
func (l *logs) withLogs(cfg *Config, event int) {
	if !l.on {
		return
	}

	disks := len(cfg.Setup.Members)
	cfg.Logs, cfg.Spares.Logs = memory(disks, crashLog*raid.SectorSize), memory(disks, crashLog*raid.SectorSize)
	cfg.Generation = intent.PPLFirst + uint64(event)<<32 // no life writes that many

	// One that lacks a member in the end reads all of what the others have, and is
	// to be stopped all the same when one of those hangs.
	cfg.Spares.Scratch = memory(len(cfg.Scratch), crashPiece)

	for _, list := range []*[][]byte{&cfg.Records, &cfg.Spares.Records} {
		*list = memory(len(*list), 2*intent.PPLHeaderSize) // an empty log is among what is recorded
	}
}

// begin takes how the logs are as an array begins to run.
func (l *logs) begin(m *machine) {
	l.used = make(map[*drive]bool)

	for _, member := range m.array.Members() {
		if member.State == raid.InSync && m.array.Resynced() == raid.MaxSectors {
			l.used[m.drives[member.Device]] = true
		}
	}
}

// isLog reports whether an operation writes a log.
func (m *machine) isLog(o op) bool {
	at := m.areas[o.Device].log

	return at > 0 && o.Op == stripe.Write && !o.Record && o.Sector >= at && o.Sector < at+crashLog
}

// end takes how the logs are as the power is cut.
func (l *logs) end(m *machine) {
	l.torn = make(map[*drive]bool)
	l.redundant = m.array.Resynced() == raid.MaxSectors && m.array.State() != raid.Broken

	for _, o := range m.flying {
		if o.drive != nil && m.isLog(o) {
			l.torn[o.drive] = true
		}
	}
}

// tell reports whether the logs of the members that are here tell all that was
// being written: the array was redundant, and one of them at least is whole and
// was in use.
func (l *logs) tell(use []found, setup *engine.Setup) bool {
	return l.redundant && slices.ContainsFunc(setup.Members, func(m engine.Member) bool {
		return m.State == raid.InSync && l.used[use[m.Device].drive] && !l.torn[use[m.Device].drive]
	})
}

// supplied is a drive while an array is about to be started.
type supplied struct {
	*drive

	w *world
}

// Write implements [Storage]. When the power fails some of it is written.
func (s supplied) Write(p []byte, at raid.Sectors) error {
	if s.w.logs.power == 0 {
		p = p[:s.w.rng.IntN(len(p)/raid.SectorSize)*raid.SectorSize]
		s.write(at, p, true)

		return errCut
	}

	s.w.logs.power--
	s.write(at, p, false)

	return nil
}

// Flush implements [Storage].
func (s supplied) Flush() error {
	s.flush(s.seq)

	return nil
}

// closeHole closes the write hole before an array is started, which may be cut off
// as well. Reports whether it can be started, and if not, whether it has to be tried
// again with what is there then.
func (w *world) closeHole(use []found, setup *engine.Setup, grows bool) (ok, again bool) {
	best := use[0]
	h := &Hole{Geometry: w.g, Setup: setup, Resynced: setup.Resynced, Growing: grows}

	for _, f := range use {
		log := *f.PPL
		log.Size = 2 * crashLog // there never was more in it
		h.Devices = append(h.Devices, LoggedDevice{Storage: supplied{f.drive, w}, Offset: f.DataOffset, Log: &log})
	}

	w.logs.power = w.rng.IntN(30) - 20
	err := h.Close()
	lost := slices.ContainsFunc(setup.Members, func(m engine.Member) bool { return m.State != raid.InSync })

	switch {
	case errors.Is(err, errCut):
		w.saw("cut-in-closing")
		w.say("the power is cut while the hole is closed")

		for _, d := range w.drives {
			d.cut(w.rng, 50)
		}

		w.left = nil
		w.forgetUnflushed()

		return false, true
	case errors.Is(err, ErrUntold) && w.logs.tell(use, setup):
		w.wrong("not started, although the logs tell what was being written: %v", w.m)
	case errors.Is(err, ErrUntold):
		w.saw("logs-untold")

		return false, false
	case err != nil:
		w.wrong("%v", err)
	case best.Clean():
	case lost:
		w.saw("logs-degraded")
		w.unknown(setup)
	case setup.Resynced == raid.MaxSectors:
		w.saw("logs-whole")
	default:
		w.saw("logs-resync")
	}

	return true, false
}

// unknown is for when the logs have been redone without members that are not in
// sync: what was being written of theirs may be anything, and what was not is what
// it was.
func (w *world) unknown(setup *engine.Setup) {
	for s := range w.cells {
		slot, _, _ := w.g.Locate(raid.Sectors(s))
		if c := &w.cells[s]; setup.Members[slot].State != raid.InSync && !c.exact {
			*c = cell{versions: []uint64{anything}, exact: true}
		}
	}
}

// loseOne has a member of an array with logs be lost in the cut, whose others are
// all there.
func (w *world) loseOne() {
	if !w.logs.on || w.rng.IntN(4) != 0 {
		return
	}

	for _, m := range w.m.array.Members() {
		if d := w.m.drives[m.Device]; m.State != raid.InSync || d == nil || d.dead || !w.clean(m.Device) {
			return
		}
	}

	d := w.m.drives[w.m.array.Members()[w.rng.IntN(w.geo.Disks)].Device]
	d.dead = true

	w.saw("lost-in-cut")
	w.say("drive %d is lost in the cut", d.name)
}

// withIntent chooses how the array remembers what was being written.
func (w *world) withIntent(params *metadata.NewArray) {
	if !w.geo.Level.HasRedundancy() {
		return
	}

	switch n := w.rng.IntN(3); {
	case n > 0 && w.geo.Level == raid.Level5 && w.rng.IntN(2) == 0:
		params.PPL, w.logs.on = true, true
		w.saw("with-logs")
	case n > 0:
		params.Bitmap, params.BitmapChunk = metadata.BitmapInternal, raid.Sectors(8)<<w.rng.IntN(3)
		w.saw("with-bitmap")
	}
}
