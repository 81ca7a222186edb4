package daemon

import (
	"fmt"
	"strings"

	"raid-assembler/pkg/raid"
)

// holds are the arrays that the operator stopped. They are written down, so that the
// daemon can be restarted without starting them.
type holds struct {
	notes  notes
	arrays map[raid.UUID]map[uint64]bool // the disks that were there then, by sequence number
}

func loadHolds(dir string) (holds, error) {
	h := holds{notes: notes{dir}, arrays: make(map[raid.UUID]map[uint64]bool)}

	all, err := h.notes.read()
	if err != nil {
		return h, err
	}

	for name, text := range all {
		uuid, err := raid.ParseUUID(name)
		if err != nil {
			continue // not ours
		}

		h.arrays[uuid] = make(map[uint64]bool)

		for field := range strings.FieldsSeq(text) {
			var seq uint64
			if _, err := fmt.Sscan(field, &seq); err == nil {
				h.arrays[uuid][seq] = true
			}
		}
	}

	return h, nil
}

// holdName is what the file of an array is called. A UUID's own separators are not for
// file names.
func holdName(uuid raid.UUID) string { return strings.ReplaceAll(uuid.String(), ":", "") }

// hold notes that an array is to stay stopped, as long as it consists of the
// disks with the sequence numbers given.
func (h *holds) hold(uuid raid.UUID, seqs []uint64) error {
	disks, text := make(map[uint64]bool), ""

	for _, seq := range seqs {
		disks[seq] = true
		text += fmt.Sprintln(seq)
	}

	if err := h.notes.write(holdName(uuid), text); err != nil {
		return err
	}

	h.arrays[uuid] = disks

	return nil
}

// release forgets that an array is to stay stopped.
func (h *holds) release(uuid raid.UUID) {
	delete(h.arrays, uuid)
	h.notes.erase(holdName(uuid))
}

// released releases arrays whose disks are all gone, or that have got one that
// was not there when the array was stopped.
func (d *Daemon) released() {
	for uuid, then := range d.held.arrays {
		if d.pluggedAnew(uuid, then) {
			d.held.release(uuid)
		}
	}
}

// pluggedAnew reports whether the disks of an array are not those that were
// there then. What has not been read yet may be any.
func (d *Daemon) pluggedAnew(uuid raid.UUID, then map[uint64]bool) bool {
	gone := true

	for _, dk := range d.disks {
		switch {
		case dk.Ignored != "":
		case !dk.probed || dk.found.Unreadable != "":
			gone = false
		case dk.of(uuid) == nil:
		case !then[dk.Seq]:
			return true
		default:
			gone = false
		}
	}

	return gone
}

// seqsOf returns the sequence numbers of the disks of an array.
func (d *Daemon) seqsOf(uuid raid.UUID) []uint64 {
	var seqs []uint64

	for _, dk := range d.sortedDisks() {
		attached := strings.Contains(dk.attached, uuid.String()+" ")
		if attached || dk.of(uuid) != nil {
			seqs = append(seqs, dk.Seq)
		}
	}

	return seqs
}
