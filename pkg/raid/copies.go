package raid

import "fmt"

// Copies says where the copies of a RAID10's chunks are.
//
// Chunks are laid down row upon row, each Near times in slots that follow one
// another. All of that is there Far times, each time with the slots moved on by
// Near: in another section of the members, or, if Offset, in the next row.
type Copies struct {
	Near, Far int
	Offset    bool

	disks int
	set   int // far copies stay within sets of so many slots
}

// Count returns the number of copies of a chunk.
func (c Copies) Count() int { return c.Near * c.Far }

// Copies returns where the copies of a RAID10's chunks are. Returns an error,
// with the numbers in it, if the layout has no copies, more of them than there
// are slots, two in one slot, or two chunks in one place, as some layouts have
// that md would serve. Preconditions: the level is RAID10.
func (g Geometry) Copies() (Copies, error) {
	c, err := g.copies()
	if err == nil {
		err = c.check()
	}

	if err != nil {
		return Copies{}, fmt.Errorf("raid: layout %#x on %d slots: %w", uint32(g.Layout), g.Disks, err)
	}

	return c, nil
}

// copies is Copies without looking at each slot. It does not allocate, since
// [Geometry.Survives] is asked while arrays run.
func (g Geometry) copies() (Copies, error) {
	c := Copies{
		Near: int(g.Layout & copiesMask), Far: int(g.Layout >> farShift & copiesMask),
		Offset: g.Layout&offsetBit != 0, disks: g.Disks, set: g.Disks,
	}

	if c.Count() < 2 || c.Count() > g.Disks {
		return Copies{}, fmt.Errorf("%d near and %d far copies", c.Near, c.Far)
	}

	switch rule := g.Layout >> setsShift; {
	case rule == setsNone:
	case rule == setsOfFar:
		c.set = g.Disks / c.Far
	case rule == setsOfAll && c.Far > 1:
		c.set = c.Count()
	case rule == setsOfAll:
	default:
		return Copies{}, fmt.Errorf("far sets of the unknown kind %d", rule)
	}

	return c, nil
}

// NextFar returns the slot of the next far copy of what has one in slot.
func (c Copies) NextFar(slot Slot) Slot {
	var (
		d         = int(slot)
		next      = d + c.Near
		lastStart = (c.disks/c.set - 1) * c.set // the last set also has the slots that make no set
		odd       = c.disks % c.set
	)

	if odd != 0 && next > lastStart {
		return Slot(lastStart + (next-lastStart)%(c.set+odd))
	}

	return Slot(d/c.set*c.set + next%c.set)
}

// check makes sure that far copies of different chunks are in different
// places, and copies of one chunk in different slots.
func (c Copies) check() error {
	// The second near copy of a chunk that begins in the last slot would be
	// one row on, where far copies of other chunks are.
	if c.Offset && c.disks%c.Near != 0 {
		return fmt.Errorf("%d near copies with offset: chunks overlap", c.Near)
	}

	from := make([]int, c.disks) // 1 + whose next far copy it is

	for d := range c.disks {
		next := c.NextFar(Slot(d))
		if from[next] != 0 {
			return fmt.Errorf("far copies of slots %d and %d are both in slot %d", from[next]-1, d, next)
		}

		from[next] = d + 1
	}

	seen := make([]int, c.disks) // 1 + the first slot of the chunk that was last seen there

	for first, chunk := 0, 0; chunk == 0 || first != 0; chunk++ {
		for near := range c.Near {
			slot := Slot((first + near) % c.disks)

			for range c.Far {
				if seen[slot] == first+1 {
					return fmt.Errorf("two copies of a chunk are in slot %d", slot)
				}

				seen[slot] = first + 1
				slot = c.NextFar(slot)
			}
		}

		first = (first + c.Near) % c.disks
	}

	return nil
}

// some reports whether one of the copies of a chunk whose first is in slot
// first works.
func (c Copies) some(first Slot, working func(Slot) bool) bool {
	for near := range Slot(c.Near) {
		slot := (first + near) % Slot(c.disks)

		for range c.Far {
			if working(slot) {
				return true
			}

			slot = c.NextFar(slot)
		}
	}

	return false
}
