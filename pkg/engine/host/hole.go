package host

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// pplLog is the partial parity log of one member.
type pplLog struct {
	candidate

	found intent.PPLRecovery
}

// closeHole makes the parity of a RAID5 that was not stopped right by its
// partial parity logs, and says in cfg that it is. Returns an error wrapping
// [ErrRefused], with nothing written, if the logs do not tell and the array is
// degraded: then nothing else does. If the loss is accepted, those are redone that
// do tell: without that the missing data of their rows would be computed wrong.
//
// A log that was being written when the power failed tells nothing, and has nothing
// to tell: its rows are changed after it is there, and what it had before was on
// disk. While no member is missing a resync is safer still than to rely on that.
//
// What it writes it would write again, until the logs are used anew.
func closeHole(all []candidate, cfg *loop.Config, p api.StartParameters) error {
	best := all[0].sb
	if best.Level != raid.Level5 || best.PPL == nil {
		return nil
	}

	logs, read := readLogs(all, cfg)
	degraded := slices.ContainsFunc(cfg.Setup.Members, notInSync)

	switch {
	case best.Clean():
	case read && entries(logs) > 0 && (degraded || !torn(logs)), degraded && p.AcceptLoss:
		for _, l := range logs {
			if err := redo(all, cfg, l); err != nil && !p.AcceptLoss {
				return err
			}
		}

		cfg.Setup.Resynced = raid.MaxSectors
		distrust(&cfg.Setup)
	case degraded:
		return fmt.Errorf("dirty and degraded, and the partial parity logs do not tell what was being written: "+
			"bring the missing member back, or accept the loss with raid-assembler assemble --accept-loss: %w",
			ErrRefused)
	}

	// Where nothing is logged for the time being, as while what an array has grown
	// by is resynced, what is in a log must not be found after the next crash.
	if cfg.Setup.Resynced != raid.MaxSectors || p.GrowTo != nil {
		clear(logs)
	}

	return emptyLogs(all, logs)
}

// emptyLogs empties the logs of members but those that are right.
func emptyLogs(all []candidate, right map[int]*pplLog) error {
	for i, c := range all {
		if l := right[i]; l != nil && l.found.Mismatches == 0 {
			continue
		}

		if err := emptyLog(c); err != nil {
			return err
		}
	}

	return nil
}

// entries returns how many entries of logs are right.
func entries(logs map[int]*pplLog) int {
	n := 0
	for _, l := range logs {
		n += l.found.Entries
	}

	return n
}

// torn reports whether a log is not right.
func torn(logs map[int]*pplLog) bool {
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

// readLogs reads the logs of the members that are in sync, by their place in
// all, and reports whether all could be read.
func readLogs(all []candidate, cfg *loop.Config) (logs map[int]*pplLog, read bool) {
	logs, read = make(map[int]*pplLog), true
	here := func(s raid.Slot) bool { return cfg.Setup.Members[s].State == raid.InSync }

	for slot, m := range cfg.Setup.Members {
		if m.State != raid.InSync {
			continue
		}

		c := all[m.Device]
		if c.sb.PPL == nil {
			return logs, false
		}

		area := make([]byte, c.sb.PPL.Size.Bytes()) // 32 MiB at most: its size has 16 bits
		if _, err := c.dev.ReadAt(area, c.sb.PPL.Sector.Bytes()); err != nil {
			read = false

			continue
		}

		found := intent.RecoverPPL(cfg.Geometry, raid.Slot(slot),
			intent.PPLArea{Bytes: area, Signature: c.sb.PPL.Signature, Ring: c.sb.PPL.Ring}, here)
		logs[int(m.Device)] = &pplLog{candidate: c, found: found}
	}

	return logs, read
}

// redo writes the parity that a log and the data make.
func redo(all []candidate, cfg *loop.Config, l *pplLog) error {
	for _, r := range l.found.Redo {
		sum := make([]byte, r.Component.Len().Bytes())
		data := make([]byte, len(sum))
		copy(sum, r.Partial)

		for _, slot := range r.Data {
			c := all[cfg.Setup.Members[slot].Device]
			if _, err := c.dev.ReadAt(data, (c.sb.DataOffset + r.Component.From).Bytes()); err != nil {
				return err
			}

			parity.XORInto(sum, data)
		}

		if err := l.dev.WriteDurably(sum, l.sb.DataOffset+r.Component.From); err != nil {
			return err
		}
	}

	return nil
}

// emptyLog leaves a log without entries on a member.
func emptyLog(c candidate) error {
	if c.sb.PPL == nil {
		return nil
	}

	return c.dev.WriteDurably(c.sb.PPL.Empty(), c.sb.PPL.Sector)
}
