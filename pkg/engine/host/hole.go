package host

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// pplLog is the partial parity log of one member.
type pplLog struct {
	candidate

	slot  raid.Slot
	found intent.PPLRecovery
}

// closeHole makes the parity of a RAID5 that was not stopped right by its
// partial parity logs, and says in cfg that it is. Returns an error wrapping
// [ErrRefused], with nothing written, if the logs do not tell and the array is
// degraded: then nothing else does.
//
// What it writes it would write again, until the logs are used anew.
func closeHole(all []candidate, cfg *loop.Config, acceptLoss bool) error {
	best := all[0].sb
	if best.Level != raid.Level5 || best.PPL == nil {
		return nil
	}

	logs, whole := readLogs(all, cfg)
	entries := 0

	for _, l := range logs {
		entries += l.found.Entries
		whole = whole && l.found.Mismatches == 0
	}

	degraded := slices.ContainsFunc(cfg.Setup.Members, notInSync)

	switch {
	case best.Clean():
	case whole && entries > 0:
		for _, l := range logs {
			if err := redo(all, cfg, l); err != nil {
				return err
			}
		}

		cfg.Setup.Resynced = raid.MaxSectors
	case degraded && !acceptLoss:
		return fmt.Errorf("dirty and degraded, and the partial parity logs do not tell what was being written: "+
			"bring the missing member back, or accept the loss: %w", ErrRefused)
	}

	// Where nothing is logged for the time being, or nothing valid is, what is
	// in a log must not be found after the next crash.
	for i, c := range all {
		if l := logs[i]; l != nil && l.found.Mismatches == 0 && cfg.Setup.Resynced == raid.MaxSectors {
			continue
		}

		if err := emptyLog(c); err != nil {
			return err
		}
	}

	return nil
}

// readLogs reads the logs of the members that are in sync, by their place in
// all; not whole if one cannot be read.
func readLogs(all []candidate, cfg *loop.Config) (logs map[int]*pplLog, whole bool) {
	logs, whole = make(map[int]*pplLog), true
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
			whole = false

			continue
		}

		logs[int(m.Device)] = &pplLog{candidate: c, slot: raid.Slot(slot), found: intent.RecoverPPL(
			cfg.Geometry, raid.Slot(slot),
			intent.PPLArea{Bytes: area, Signature: c.sb.PPL.Signature, Ring: c.sb.PPL.Ring}, here)}
	}

	return logs, whole
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

		if err := writeDurably(l.dev, l.sb.DataOffset+r.Component.From, sum); err != nil {
			return err
		}
	}

	return nil
}

// emptyLog leaves a log without entries on a member.
func emptyLog(c candidate) error {
	log := c.sb.PPL
	if log == nil {
		return nil
	}

	// Then nothing that could be taken for the next log of a ring.
	buf := make([]byte, 2*intent.PPLHeaderSize)
	(&intent.PPLHeader{Signature: log.Signature}).Encode(buf)

	return writeDurably(c.dev, log.Sector, buf)
}

func writeDurably(d *member.Device, at raid.Sectors, data []byte) error {
	if _, err := (member.Direct{FD: d.FD(), Size: d.Size.Bytes()}).WriteAt(data, at.Bytes()); err != nil {
		return fmt.Errorf("%s: %w", d.Path, err)
	}

	if err := unix.Fdatasync(d.FD()); err != nil {
		return fmt.Errorf("%s: flush: %w", d.Path, err)
	}

	return nil
}
