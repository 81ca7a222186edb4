package daemon

import (
	"fmt"
	"strconv"
)

// shuns are the disks that are not used though an array could: the operator took them
// out, or they did too much wrong. They are known by their sequence numbers, for what
// is plugged in anew is another disk, and written down.
type shuns struct {
	notes   notes
	reasons map[uint64]string
}

func loadShuns(dir string) (shuns, error) {
	s := shuns{notes: notes{dir}, reasons: make(map[uint64]string)}

	all, err := s.notes.read()
	if err != nil {
		return s, err
	}

	for name, reason := range all {
		if seq, err := strconv.ParseUint(name, 10, 64); err == nil {
			s.reasons[seq] = reason
		}
	}

	return s, nil
}

// shun has a disk not be used any more.
func (d *Daemon) shun(dk *disk, reason string) {
	d.shuns.reasons[dk.Seq] = reason

	if err := d.shuns.notes.write(strconv.FormatUint(dk.Seq, 10), reason); err != nil {
		d.cfg.Warn(fmt.Sprintf("that %s is left out is forgotten at the next start: %v", diskName(dk.Disk), err))
	}
}

// forget has it be used again.
func (s *shuns) forget(seq uint64) {
	if _, known := s.reasons[seq]; known {
		delete(s.reasons, seq)
		s.notes.erase(strconv.FormatUint(seq, 10))
	}
}

// keep forgets the disks that are not there any more.
func (s *shuns) keep(disks []Disk) {
	here := make(map[uint64]bool, len(disks))
	for _, dk := range disks {
		here[dk.Seq] = true
	}

	for seq := range s.reasons {
		if !here[seq] {
			s.forget(seq)
		}
	}
}
