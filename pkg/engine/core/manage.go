package core

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
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
	Slow      []engine.DeviceID // members that others are read in place of
	Health    map[engine.DeviceID]Health
	Sync      Progress
	Speed     Speed // between which it is synced
	Wrong     Wrong
	Marks     *Marks // nil if it has no bitmap
	// BadBlocks are the component sectors that a device has no valid data of, if
	// there are any.
	BadBlocks map[engine.DeviceID][]raid.Range
	Events    uint64 // of the newest record
	// Recorded is the event count that all members in sync have, and none that this
	// engine had and has not any more; 0 while it has recorded none, or records one.
	Recorded uint64
	Busy     bool // somebody reads or writes it, or did a moment ago
}

// Marks is how much of what a resync covers its bitmap marks.
type Marks struct {
	Chunk         raid.Sectors // that a mark stands for
	Marked, Total int          // in chunks
}

// Status returns the array as it is now.
func (c *Core) Status() Status {
	heir, successor := c.array.Successor()

	return Status{
		Speed: c.throttle.limits, Wrong: c.wrong(), Marks: c.marks(), BadBlocks: c.badBlocks(),
		Successor: successor, Heir: heir,
		State: c.array.State(), Degraded: c.array.Degraded(),
		Members: append([]engine.Member(nil), c.array.Members()...),
		Spares:  c.array.Spares(), Slow: c.slowMembers(), Health: c.healths(),
		Sync: c.progress(), Events: c.cfg.Keeper.Events(), Recorded: c.settled(),
		Busy: c.writing+c.reading+len(c.held)+len(c.marker.waiting) > 0 || c.now.Sub(c.lastAny) < stillBusy,
	}
}

// settled returns [Status.Recorded].
func (c *Core) settled() uint64 {
	if !c.array.Settled() {
		return 0
	}

	return c.recorder.events
}

// wrong returns what was found last, for another thread.
func (c *Core) wrong() Wrong {
	w := c.last
	w.Where, w.Slots = slices.Clone(w.Where), slices.Clone(w.Slots)
	w.Action = cmp.Or(w.Action, raid.Idle)

	return w
}

func (c *Core) marks() *Marks {
	if c.bits == nil {
		return nil
	}

	marked, total := c.bits.Count()

	return &Marks{Chunk: c.bits.Chunk(), Marked: marked, Total: total}
}

func (c *Core) badBlocks() map[engine.DeviceID][]raid.Range {
	bad := make(map[engine.DeviceID][]raid.Range)

	for id, d := range c.disks {
		if d.bad != nil && !d.bad.Empty() {
			bad[id] = slices.Clone(d.bad.Ranges())
		}
	}

	return bad
}

// tellBad has it told that sectors of a member hold no valid data.
func (c *Core) tellBad(b stripe.BadBlock) {
	if c.cfg.Notify != nil {
		c.cfg.Notify(Notice{
			Report: engine.Report{Note: engine.NoteBadBlocks, Device: engine.DeviceID(b.Device), Slot: b.Slot},
			Offset: b.Range.From, Mismatched: b.Range.Len(),
		})
	}
}

// Fail takes a device out as faulty, as an I/O error would. Returns an error if
// the array cannot do without it.
func (c *Core) Fail(id engine.DeviceID, cause string) error {
	if err := c.array.MayFail(id); err != nil {
		return err
	}

	c.Lost(id, cause)

	return nil
}

// Lost says that a device is not there any more, whether the array can do
// without it or not.
func (c *Core) Lost(id engine.DeviceID, cause string) {
	c.cause[id] = cause
	c.step(engine.MemberFailed{Device: id})
}

// Blame says why an operation that has not ended shows that its device is gone.
func (c *Core) Blame(id int, reason string) {
	f := &c.flights[id]
	if _, known := c.cause[f.Device]; !known {
		c.cause[f.Device] = fmt.Sprintf("%v: %s", f.Op, reason)
	}
}

// Sync begins a check or a repair of a range, in the unit of a resync, or ends
// one. Returns an error if that cannot be now.
func (c *Core) Sync(action raid.SyncAction, r raid.Range) error {
	if err := c.array.MaySync(action); err != nil {
		return err
	}

	grain := c.grain()
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
// an error while writes are in flight, or have not been answered.
func (c *Core) SetReadOnly(on bool) error {
	if n := c.writing + len(c.held) + len(c.marker.waiting) + len(c.answers); on && n > 0 {
		return fmt.Errorf("core: %d writes are in flight", n)
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

	id, err := c.number()
	if err == nil && size < c.cfg.Setup.Size {
		err = fmt.Errorf("core: it holds %d sectors of data, want %d", size, c.cfg.Setup.Size)
	}

	if err == nil {
		err = open(id)
	}

	if err == nil {
		err = c.attach(Device{ID: id, Offset: offset}, member)
	}

	if err != nil {
		c.cfg.Keeper.Forget(member)

		return engine.None, err
	}

	c.step(engine.SpareAdded{Device: id})

	return id, nil
}

// Readd gives a device that was in sync in its slot before back that slot, to
// be filled with no more than what it missed. open makes it fit for operations
// under its number. Returns an error wrapping [ErrStale], with nothing changed,
// if nobody can know what it missed: it can be added as a spare then.
func (c *Core) Readd(m metadata.Attachment, open func(engine.DeviceID) error) (engine.DeviceID, error) {
	slot, err := c.missedLittle(m.Superblock)
	if err != nil {
		return engine.None, err
	}

	member, err := c.cfg.Keeper.Attach(m)
	if err != nil {
		return engine.None, err
	}

	id, err := c.number()
	if err == nil {
		err = open(id)
	}

	if err == nil {
		err = c.attach(Device{
			ID: id, Offset: m.Superblock.DataOffset,
			WriteMostly: m.Superblock.WriteMostly, FailFast: m.Superblock.FailFast,
			BadBlocks: m.Superblock.BadBlocks,
		}, member)
	}

	if err != nil {
		c.cfg.Keeper.Forget(member)

		return engine.None, err
	}

	c.step(engine.MemberReturned{Device: id, Slot: slot})

	return id, nil
}

// ErrStale says that it is not known what a device missed.
var ErrStale = errors.New("what it missed is not known")

// missedLittle returns the slot of a device by its own superblock, if the marks
// tell all that it missed since.
func (c *Core) missedLittle(sb *metadata.Superblock) (raid.Slot, error) {
	slot, slotted := sb.Role(sb.Number).Slot()

	switch {
	case c.bits == nil:
		return slot, fmt.Errorf("core: the array has no bitmap: %w", ErrStale)
	case !slotted || int(slot) >= len(c.array.Members()):
		return slot, fmt.Errorf("core: it is %v by its superblock: %w", sb.Role(sb.Number), ErrStale)
	case sb.Replacement || sb.RecoveryOffset < c.cfg.Setup.Size:
		return slot, fmt.Errorf("core: it was being filled: %w", ErrStale)
	case !c.array.Vacant(slot):
		return slot, fmt.Errorf("core: slot %d has another member: %w", slot, ErrStale)
	case sb.DataSize < c.cfg.Setup.Size:
		return slot, fmt.Errorf("core: it holds %d sectors, want %d: %w", sb.DataSize, c.cfg.Setup.Size, ErrStale)
	}

	info := c.cfg.Keeper.Bitmap().Info()
	info.Events = c.cfg.Keeper.Events()

	if !info.Covers(sb.Events) {
		return slot, fmt.Errorf("core: its event count is %d, the marks are of %d to %d: %w",
			sb.Events, info.Cleared, info.Events, ErrStale)
	}

	// If it was run without one of those that are here, it has content of its
	// own that no mark of theirs tells of.
	for other, m := range c.array.Members() {
		if m.State == raid.InSync && !slices.ContainsFunc(sb.Roles, func(r raid.Role) bool {
			held, ok := r.Slot()

			return ok && held == raid.Slot(other)
		}) {
			return slot, fmt.Errorf("core: it was run without slot %d: %w", other, ErrStale)
		}
	}

	return slot, nil
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
