package core

import (
	"fmt"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// stillBusy is how long after its last request an array counts as in use.
const stillBusy = 250 * time.Millisecond

// Status is an array as it is now.
type Status struct {
	State    raid.ArrayState
	Degraded int
	Members  []engine.Member
	Spares   []engine.DeviceID
	Sync     Progress
	Events   uint64
	Busy     bool // somebody reads or writes it, or did a moment ago
}

// Status returns the array as it is now.
func (c *Core) Status() Status {
	return Status{
		State: c.array.State(), Degraded: c.array.Degraded(),
		Members: append([]engine.Member(nil), c.array.Members()...),
		Spares:  c.array.Spares(), Sync: c.progress(), Events: c.cfg.Keeper.Events(),
		Busy: c.writing+c.reading+len(c.held) > 0 || c.now.Sub(c.lastAny) < stillBusy,
	}
}

// Fail takes a device out as faulty, as an I/O error would.
func (c *Core) Fail(id engine.DeviceID, cause string) {
	c.cause[id] = cause
	c.step(engine.MemberFailed{Device: id})
}

// Add gives the array a device as a spare, after open has made it fit for
// operations under its number. Its superblock is written before anything is
// copied to it.
func (c *Core) Add(src metadata.Source, uuid raid.UUID, open func(engine.DeviceID) error) (engine.DeviceID, error) {
	member, offset, size, err := c.cfg.Keeper.Add(src, uuid)
	if err != nil {
		return engine.None, err
	}

	id := engine.DeviceID(member)

	switch {
	case size < c.cfg.Setup.Size:
		err = fmt.Errorf("core: it holds %d sectors of data, want %d", size, c.cfg.Setup.Size)
	case id > DeviceMax:
		err = fmt.Errorf("core: it would be device %d, at most %d is served", id, DeviceMax)
	default:
		err = open(id)
	}

	if err != nil {
		c.cfg.Keeper.Forget(member)

		return engine.None, err
	}

	c.disks[id] = Device{ID: id, Offset: offset}
	c.step(engine.SpareAdded{Device: id})

	return id, nil
}

// Remove lets go of a faulty device or a spare. Operations on it that have not
// been taken yet are to fail.
func (c *Core) Remove(id engine.DeviceID) error {
	if _, ok := c.disks[id]; !ok {
		return fmt.Errorf("core: no device %d", id)
	}

	c.step(engine.DeviceRemoved{Device: id})

	for slot, m := range c.array.Members() {
		if m.Device == id {
			return fmt.Errorf("core: it is in use in slot %d: %s", slot, m.State)
		}
	}

	delete(c.disks, id)
	c.forget(id)

	return nil
}

// forget has the keeper forget a device, but not before a record that names it
// is written: that would say that its slot is free, and nothing of what has
// happened since.
func (c *Core) forget(id engine.DeviceID) {
	if c.recorder.active {
		c.recorder.parting = append(c.recorder.parting, id)
	} else {
		c.cfg.Keeper.Forget(metadata.MemberID(id))
	}
}
