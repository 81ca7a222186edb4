package core

import (
	"errors"
	"io"
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// ErrUntold says that an array lacks a member, and that its partial parity logs
// do not tell what was being written when it was not stopped right.
var ErrUntold = errors.New("core: the partial parity logs do not tell what was being written")

// Storage is a device before the array that it is of runs.
type Storage interface {
	io.ReaderAt
	// Write writes whole sectors.
	Write(p []byte, at raid.Sectors) error
	// Flush has what was written be on stable storage.
	Flush() error
}

// LoggedDevice is a device that may have a partial parity log.
type LoggedDevice struct {
	Storage

	Offset raid.Sectors  // of the data area
	Log    *metadata.PPL // nil if it has none
}

// writeDurably writes whole sectors, which are on stable storage then.
func (d LoggedDevice) writeDurably(p []byte, at raid.Sectors) error {
	if err := d.Write(p, at); err != nil {
		return err
	}

	return d.Flush()
}

// Hole is the write hole of a RAID5 that has partial parity logs, and is about to
// be started.
type Hole struct {
	Geometry *geometry.Map
	Setup    *engine.Setup
	Devices  []LoggedDevice // by their IDs
	// Resynced is how far redundancy is right by the superblocks: 0 if the array
	// was not stopped right.
	Resynced raid.Sectors
	// AcceptLoss says that an array is to be started whatever its logs tell.
	AcceptLoss bool
	// Growing says that the array is to use more of its members than Setup says.
	Growing bool
}

// pplLog is the partial parity log of one member.
type pplLog struct {
	LoggedDevice

	id    engine.DeviceID
	found intent.PPLRecovery
	read  bool
	sound bool // it is whole, and what it tells has been done
}

// Close makes the parity right by the logs, and says in the setup that it is.
// Returns [ErrUntold], with nothing written, if the logs do not tell and the array
// is degraded: then nothing else does. If the loss is accepted, those are redone
// that do tell: without that the missing data of their rows would be computed
// wrong.
//
// A log that was being written when the power failed tells nothing, and has nothing
// to tell: its rows are changed after it is there, and what it had before was on
// disk. While no member is missing a resync is safer still than to rely on that.
//
// What it writes it would write again, until the logs are used anew.
func (h *Hole) Close() error {
	logs := h.readLogs()
	degraded := slices.ContainsFunc(h.Setup.Members, func(m engine.Member) bool { return m.State != raid.InSync })
	told := h.told(logs, degraded)

	if degraded && !told && !h.AcceptLoss {
		return ErrUntold
	}

	if h.Resynced == 0 {
		// A member that cannot be read or written is for the resync to find, if there
		// is one.
		if err := h.redoAll(logs); err != nil {
			if told = false; degraded && !h.AcceptLoss {
				return err
			}
		}
	}

	if h.Resynced != raid.MaxSectors && (told || degraded) {
		h.Setup.Resynced = raid.MaxSectors
		distrust(h.Setup)
	}

	// Where nothing is logged for the time being, as while what an array has grown
	// by is resynced, what is in a log must not be found after the next crash.
	if !told || h.Growing {
		return h.emptyAll(logs)
	}

	return h.use(logs)
}

// told reports whether it is known what was being written: nothing, or what the
// logs have. No log has what was never redundant.
func (h *Hole) told(logs []*pplLog, degraded bool) bool {
	switch {
	case h.Resynced == raid.MaxSectors:
		return true
	case h.Resynced != 0, slices.ContainsFunc(logs, func(l *pplLog) bool { return !l.read }):
		return false
	default:
		return slices.ContainsFunc(logs, func(l *pplLog) bool { return l.found.InUse }) &&
			(degraded || !slices.ContainsFunc(logs, func(l *pplLog) bool { return !l.sound }))
	}
}

// use leaves logs that say that they are in use, also where one was not whole or
// is that of a device which is no member yet. Else a member that is lost in a
// crash could not be done without before there is a first entry.
func (h *Hole) use(logs []*pplLog) error {
	if h.Setup.ReadOnly {
		return nil
	}

	for id, d := range h.Devices {
		i := slices.IndexFunc(logs, func(l *pplLog) bool { return l.id == engine.DeviceID(id) })
		if d.Log == nil || i >= 0 && logs[i].sound && logs[i].found.InUse {
			continue
		}

		empty := d.Log.Empty()
		(&intent.PPLHeader{Signature: d.Log.Signature, Generation: intent.PPLFirst}).Encode(empty)

		if err := d.writeDurably(empty, d.Log.Sector); err != nil {
			return err
		}
	}

	return nil
}

// emptyAll empties the logs of all devices, those last that are not sound: if the
// power fails in the midst of that, nobody may believe the others.
func (h *Hole) emptyAll(logs []*pplLog) error {
	var first, last []LoggedDevice

	for id, d := range h.Devices {
		i := slices.IndexFunc(logs, func(l *pplLog) bool { return l.id == engine.DeviceID(id) })

		switch {
		case d.Log == nil:
		case i >= 0 && !logs[i].sound:
			last = append(last, d)
		default:
			first = append(first, d)
		}
	}

	for _, d := range append(first, last...) {
		if err := d.writeDurably(d.Log.Empty(), d.Log.Sector); err != nil {
			return err
		}
	}

	return nil
}

// distrust has members filled anew that are being filled, and what is to replace
// one. They may have missed what was in flight, as may the parity on them, of
// which no log was read; and in other rows the parity is that of the others now.
func distrust(setup *engine.Setup) {
	for i := range setup.Members {
		if m := &setup.Members[i]; m.State == raid.Recovering {
			m.Recovered = 0
		}
	}

	if setup.HasSuccessor {
		setup.Successor.State, setup.Successor.Recovered = raid.Recovering, 0
	}
}

// readLogs reads the logs of the members that are in sync.
func (h *Hole) readLogs() []*pplLog {
	var logs []*pplLog

	here := func(s raid.Slot) bool { return h.Setup.Members[s].State == raid.InSync }

	for slot, m := range h.Setup.Members {
		if m.State != raid.InSync {
			continue
		}

		l := &pplLog{LoggedDevice: h.Devices[m.Device], id: m.Device}
		if logs = append(logs, l); l.Log == nil {
			continue
		}

		area := make([]byte, l.Log.Size.Bytes()) // 32 MiB at most: its size has 16 bits
		if _, err := l.ReadAt(area, l.Log.Sector.Bytes()); err != nil {
			continue
		}

		l.found = intent.RecoverPPL(h.Geometry, raid.Slot(slot),
			intent.PPLArea{Bytes: area, Signature: l.Log.Signature, Ring: l.Log.Ring}, here)
		l.read, l.sound = true, l.found.Mismatches == 0
	}

	return logs
}

// redoAll does what the logs tell, as far as it can be done.
func (h *Hole) redoAll(logs []*pplLog) error {
	var errs []error

	for _, l := range logs {
		if err := h.redo(l); err != nil {
			l.sound = false
			errs = append(errs, err)
		}
	}

	return errors.Join(errs...)
}

// redo writes the parity that a log and the data make.
func (h *Hole) redo(l *pplLog) error {
	for _, r := range l.found.Redo {
		sum, err := r.Sum(func(p []byte, slot raid.Slot) error {
			d := h.Devices[h.Setup.Members[slot].Device]
			_, err := d.ReadAt(p, (d.Offset + r.Component.From).Bytes())

			return err
		})
		if err != nil {
			return err
		}

		if err := l.Write(sum, l.Offset+r.Component.From); err != nil {
			return err
		}
	}

	return l.Flush()
}
