package rescue

import (
	"errors"
	"fmt"
	"io"

	"raid-assembler/pkg/raid"
)

// readMax is how much is read from a member at once.
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

// readRun reads what of p lies together on each of the members. If that fails
// it tries again in small pieces: each of two members may have bad sectors, as
// long as they are not in the same place. Preconditions: at is within the
// array.
func (a *Array) readRun(p []byte, at int64) (int, error) {
	p = p[:min(int64(len(p)), readMax, a.run(at))]

	err := a.readSomehow(p, at)
	if err == nil {
		return len(p), nil
	}

	for done := 0; done < len(p); {
		n := min(len(p)-done, retrySize-int((at+int64(done))%retrySize))

		if err := a.readSomehow(p[done:done+n], at+int64(done)); err != nil {
			return 0, err
		}

		done += n
	}

	return len(p), nil
}

// run returns for how many bytes from at on the content lies together, and no
// member turns from good to bad or back, by its own word.
func (a *Array) run(at int64) int64 {
	within := at % raid.SectorSize
	sector := raid.Sectors(at / raid.SectorSize)
	_, component, run := a.layout.Locate(sector)

	if a.Superblock.Level.HasParity() {
		for _, c := range a.slots { // to reconstruct from
			run = min(run, c.same(component))
		}

		return run.Bytes() - within
	}

	for i := range a.layout.Copies() {
		slot, component, _ := a.layout.Copy(sector, i)
		run = min(run, a.slots[slot].same(component))
	}

	return run.Bytes() - within
}

// readSomehow reads one run of the array from wherever it can be had.
func (a *Array) readSomehow(p []byte, at int64) error {
	var errs []error

	within := at % raid.SectorSize
	sector := raid.Sectors(at / raid.SectorSize)

	for i := range a.layout.Copies() {
		slot, component, _ := a.layout.Copy(sector, i)

		err := a.readMember(p, slot, component.Bytes()+within)
		if err == nil {
			return nil
		}

		errs = append(errs, err)
	}

	if a.Superblock.Level.HasParity() {
		slot, component, _ := a.layout.Locate(sector)

		err := a.reconstruct(p, slot, component.Bytes()+within)
		if err == nil {
			return nil
		}

		errs = append(errs, err)
	}

	return errors.Join(errs...)
}

// readMember reads from the member in slot itself.
func (a *Array) readMember(p []byte, slot raid.Slot, offset int64) error {
	c := a.slots[slot]

	switch end := offset + int64(len(p)); {
	case !c.present():
		return fmt.Errorf("slot %d has no member", slot)
	case c.below != raid.MaxSectors && end > c.below.Bytes():
		return fmt.Errorf("%s in slot %d was recovered only below byte %d, not %d", c.name, slot, c.below.Bytes(), end)
	case c.badWithin(offset, end):
		return fmt.Errorf("%s in slot %d has no valid data at byte %d: its bad block log says so", c.name, slot, offset)
	}

	n, err := c.source.ReadAt(p, c.start.Bytes()+offset)
	if n == len(p) {
		a.mend(p, slot, offset)

		return nil
	}

	return fmt.Errorf("%s in slot %d, byte %d of the device: %w", c.name, slot, c.start.Bytes()+offset+int64(n), err)
}
