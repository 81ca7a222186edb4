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
	// Successor is being filled to take over the slot Heir; its Device is None
	// if there is none.
	Successor engine.Member
	Heir      raid.Slot
	Spares    []engine.DeviceID
	Sync      Progress
	Events    uint64
	Busy      bool // somebody reads or writes it, or did a moment ago
}

// Status returns the array as it is now.
func (c *Core) Status() Status {
	heir, successor := c.array.Successor()

	return Status{
		Successor: successor, Heir: heir,
		State: c.array.State(), Degraded: c.array.Degraded(),
		Members: append([]engine.Member(nil), c.array.Members()...),
		Spares:  c.array.Spares(), Sync: c.progress(), Events: c.cfg.Keeper.Events(),
		Busy: c.writing+c.reading+len(c.held) > 0 || c.now.Sub(c.lastAny) < stillBusy,
	}
}

// Fail takes a device out as faulty, as an I/O error would. Returns an error if
// the array cannot do without it.
func (c *Core) Fail(id engine.DeviceID, cause string) error {
	if err := c.array.MayFail(id); err != nil {
		return err
	}

	c.cause[id] = cause
	c.step(engine.MemberFailed{Device: id})

	return nil
}

// Sync begins a check or a repair of a range, in the unit of a resync, or ends
// one. Returns an error if that cannot be now.
func (c *Core) Sync(action raid.SyncAction, r raid.Range) error {
	if err := c.array.MaySync(action); err != nil {
		return err
	}

	grain := max(c.cfg.Chunk, minGrain)
	r.From -= r.From % grain

	if r.To < raid.MaxSectors-grain {
		r.To = (r.To + grain - 1) / grain * grain
	}

	if r.From < 0 || r.Empty() {
		return fmt.Errorf("core: nothing to %s from sector %d to %d", action, r.From, r.To)
	}

	c.step(engine.SyncRequested{Action: action, Range: r})

	return nil
}

// Replace has a spare filled with what is in slot, and then take it over; None
// is any spare. Returns an error if that cannot be now.
func (c *Core) Replace(slot raid.Slot, spare engine.DeviceID) error {
	if err := c.array.MayReplace(slot, spare); err != nil {
		return err
	}

	c.step(engine.ReplaceRequested{Slot: slot, Spare: spare})

	return nil
}

// SetReadOnly has nothing written from now on, or lets it begin again. Returns
// an error while writes are in flight.
func (c *Core) SetReadOnly(on bool) error {
	if on && c.writing+len(c.held) > 0 {
		return fmt.Errorf("core: %d writes are in flight", c.writing+len(c.held))
	}

	c.step(engine.ReadOnlySet{On: on})

	return nil
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

	if err := c.attach(Device{ID: id, Offset: offset}); err != nil {
		return engine.None, err
	}

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

	if _, m := c.array.Successor(); m.Device == id {
		return fmt.Errorf("core: it is being filled")
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
