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
	// WriteDurably writes whole sectors, which are on stable storage then.
	WriteDurably(p []byte, at raid.Sectors) error
}

// LoggedDevice is a device that may have a partial parity log.
type LoggedDevice struct {
	Storage

	Offset raid.Sectors  // of the data area
	Log    *metadata.PPL // nil if it has none
}

// Hole is the write hole of a RAID5 that has partial parity logs, and is about to
// be started.
type Hole struct {
	Geometry *geometry.Map
	Setup    *engine.Setup
	Devices  []LoggedDevice // by their IDs
	Dirty    bool           // the array was not stopped right
	// AcceptLoss says that an array is to be started whatever its logs tell.
	AcceptLoss bool
	// Growing says that the array is to use more of its members than Setup says.
	Growing bool
}

// pplLog is the partial parity log of one member.
type pplLog struct {
	LoggedDevice

	found intent.PPLRecovery
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
	logs, read := h.readLogs()
	degraded := slices.ContainsFunc(h.Setup.Members, func(m engine.Member) bool { return m.State != raid.InSync })

	switch {
	case !h.Dirty:
	case read && entries(logs) > 0 && (degraded || !torn(logs)), degraded && h.AcceptLoss:
		for _, l := range logs {
			if err := h.redo(l); err != nil && !h.AcceptLoss {
				return err
			}
		}

		h.Setup.Resynced = raid.MaxSectors
		distrust(h.Setup)
	case degraded:
		return ErrUntold
	}

	// Where nothing is logged for the time being, as while what an array has grown
	// by is resynced, what is in a log must not be found after the next crash.
	if h.Setup.Resynced != raid.MaxSectors || h.Growing {
		clear(logs)
	}

	return h.emptyLogs(logs)
}

// emptyLogs empties the logs of all devices but those that are right.
func (h *Hole) emptyLogs(right map[engine.DeviceID]*pplLog) error {
	for id, d := range h.Devices {
		l := right[engine.DeviceID(id)]
		if d.Log == nil || l != nil && l.found.Mismatches == 0 {
			continue
		}

		if err := d.WriteDurably(d.Log.Empty(), d.Log.Sector); err != nil {
			return err
		}
	}

	return nil
}

// entries returns how many entries of logs are right.
func entries(logs map[engine.DeviceID]*pplLog) int {
	n := 0
	for _, l := range logs {
		n += l.found.Entries
	}

	return n
}

// torn reports whether a log is not right.
func torn(logs map[engine.DeviceID]*pplLog) bool {
	for _, l := range logs {
		if l.found.Mismatches > 0 {
			return true
		}
	}

	return false
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

// readLogs reads the logs of the members that are in sync, by their devices, and
// reports whether all could be read.
func (h *Hole) readLogs() (logs map[engine.DeviceID]*pplLog, read bool) {
	logs, read = make(map[engine.DeviceID]*pplLog), true
	here := func(s raid.Slot) bool { return h.Setup.Members[s].State == raid.InSync }

	for slot, m := range h.Setup.Members {
		if m.State != raid.InSync {
			continue
		}

		d := h.Devices[m.Device]
		if d.Log == nil {
			return logs, false
		}

		area := make([]byte, d.Log.Size.Bytes()) // 32 MiB at most: its size has 16 bits
		if _, err := d.ReadAt(area, d.Log.Sector.Bytes()); err != nil {
			read = false

			continue
		}

		found := intent.RecoverPPL(h.Geometry, raid.Slot(slot),
			intent.PPLArea{Bytes: area, Signature: d.Log.Signature, Ring: d.Log.Ring}, here)
		logs[m.Device] = &pplLog{LoggedDevice: d, found: found}
	}

	return logs, read
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

		if err := l.WriteDurably(sum, l.Offset+r.Component.From); err != nil {
			return err
		}
	}

	return nil
}
