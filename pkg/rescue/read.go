package rescue

import (
	"errors"
	"fmt"
	"io"

	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// readMax is how much is read from a member at once. It bounds the memory for
// reconstruction, since the chunk size comes from the disk.
const readMax = 1 << 20

// retrySize is the unit in which disks lose data: the largest sector.
const retrySize = 4096

// ReadAt implements [io.ReaderAt] over the content of the array.
func (a *Array) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("rescue: offset %d", off)
	}

	done := 0

	for done < len(p) {
		at := off + int64(done)
		if at >= a.Size() {
			return done, io.EOF
		}

		n, err := a.readRun(p[done:], at)
		if err != nil {
			return done, fmt.Errorf("rescue: array offset %d: %w", at, err)
		}

		done += n
	}

	return done, nil
}

// readRun reads what of p lies together on one member. Preconditions: at is
// within the array.
func (a *Array) readRun(p []byte, at int64) (int, error) {
	within := at % raid.SectorSize
	slot, sector, run := a.layout.Locate(raid.Sectors(at / raid.SectorSize))

	n := min(int64(len(p)), run.Bytes()-within, readMax)
	offset := sector.Bytes() + within

	// A recovering member is right only so far.
	if c := a.slots[slot]; c.below != raid.MaxSectors && offset < c.below.Bytes() {
		n = min(n, c.below.Bytes()-offset)
	}

	return int(n), a.readComponent(p[:n], slot, offset)
}

// readComponent reads from the component in slot. If that fails it tries again
// in small pieces: each of two members may have bad sectors, as long as they
// are not in the same place.
func (a *Array) readComponent(p []byte, slot raid.Slot, offset int64) error {
	err := a.readSomehow(p, slot, offset)
	if err == nil {
		return nil
	}

	for done := 0; done < len(p); {
		at := offset + int64(done)
		n := min(len(p)-done, retrySize-int(at%retrySize))

		if err := a.readSomehow(p[done:done+n], slot, at); err != nil {
			return err
		}

		done += n
	}

	return nil
}

// readSomehow reads from the component in slot, or makes its content from the
// others if the member is missing or has a bad sector there.
func (a *Array) readSomehow(p []byte, slot raid.Slot, offset int64) error {
	err := a.readMember(p, slot, offset)
	if err == nil {
		return nil
	}

	var again error

	switch level := a.Superblock.Level; {
	case level == raid.Level1:
		again = a.readMirrors(p, slot, offset)
	case level.HasParity():
		again = a.reconstruct(p, slot, offset)
	default:
		return err
	}

	if again != nil {
		return errors.Join(err, again)
	}

	return nil
}

// readMember reads from the member in slot itself.
func (a *Array) readMember(p []byte, slot raid.Slot, offset int64) error {
	c := a.slots[slot]

	switch end := offset + int64(len(p)); {
	case !c.present():
		return fmt.Errorf("slot %d has no member", slot)
	case c.below != raid.MaxSectors && end > c.below.Bytes():
		return fmt.Errorf("%s in slot %d was recovered only below byte %d, not %d", c.name, slot, c.below.Bytes(), end)
	}

	n, err := c.source.ReadAt(p, c.start.Bytes()+offset)
	if n == len(p) {
		return nil
	}

	return fmt.Errorf("%s in slot %d, byte %d of the device: %w", c.name, slot, c.start.Bytes()+offset+int64(n), err)
}

// readMirrors reads from the first of the slots but except that has it.
func (a *Array) readMirrors(p []byte, except raid.Slot, offset int64) error {
	var errs []error

	for slot := range raid.Slot(len(a.slots)) {
		if slot == except {
			continue
		}

		err := a.readMember(p, slot, offset)
		if err == nil {
			return nil
		}

		errs = append(errs, err)
	}

	return errors.Join(errs...)
}

// reconstruct makes the content of slot from that of all the others, parity or
// data alike.
func (a *Array) reconstruct(p []byte, slot raid.Slot, offset int64) error {
	clear(p)

	other := make([]byte, len(p))

	for s := range raid.Slot(len(a.slots)) {
		if s == slot {
			continue
		}

		if err := a.readMember(other, s, offset); err != nil {
			return err
		}

		parity.XORInto(p, other)
	}

	return nil
}
