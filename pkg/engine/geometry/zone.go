package geometry

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// zone is a range of array sectors that is spread over the same members: all
// of them at first, then those that are larger than the smallest, and so on.
// The zones of a linear array have one member each.
type zone struct {
	start, end raid.Sectors // in the array, which may end before the last zone does
	component  raid.Sectors // where the zone begins on its members
	slots      []raid.Slot
}

// fromSizes finishes the map of a level that uses each member to its end.
func (m *Map) fromSizes(g raid.Geometry) error {
	if len(g.Sizes) != g.Disks {
		return fmt.Errorf("sizes of %d members for %d slots", len(g.Sizes), g.Disks)
	}

	sizes := slices.Clone(g.Sizes)
	for slot, size := range sizes {
		if m.chunk > 0 {
			sizes[slot] -= size % m.chunk
		}

		if sizes[slot] <= 0 {
			return fmt.Errorf("slot %d has %d sectors with a chunk of %d", slot, size, m.chunk)
		}

		if sizes[slot] > maxArray-m.array {
			return fmt.Errorf("slot %d has %d sectors, which makes the array too large", slot, size)
		}

		m.array += m.shown(sizes[slot])
	}

	if m.level == raid.LevelLinear {
		m.zones = linearZones(sizes)

		return nil
	}

	m.zones = stripedZones(sizes)

	return m.checkRAID0Layout()
}

// shown returns how much of a member counts when md says how large the array
// is. On a RAID0 it masks the size with a chunk less one, which drops more than
// the rest of a chunk where that is no power of two. What md does not show must
// not be used, or a partition table at the end would be out of its sight.
func (m *Map) shown(size raid.Sectors) raid.Sectors {
	if m.level != raid.Level0 {
		return size
	}

	return size &^ (m.chunk - 1)
}

// checkRAID0Layout refuses a layout that is unknown where it matters. Guessing
// would show wrong data that looks right as far as the smallest member reaches.
func (m *Map) checkRAID0Layout() error {
	if len(m.zones) == 1 || len(m.zones[1].slots) == 1 {
		return nil
	}

	if m.layout != raid.Original && m.layout != raid.Alternate {
		return fmt.Errorf("members of raid0 differ in size and the layout is %d, not %d (original) or %d (alternate)",
			m.layout, raid.Original, raid.Alternate)
	}

	return nil
}

func linearZones(sizes []raid.Sectors) []zone {
	zones := make([]zone, 0, len(sizes))

	var end raid.Sectors

	for slot, size := range sizes {
		zones = append(zones, zone{start: end, end: end + size, slots: []raid.Slot{raid.Slot(slot)}})
		end += size
	}

	return zones
}

func stripedZones(sizes []raid.Sectors) []zone {
	var (
		zones     []zone
		end, used raid.Sectors // how far the array and the members are used up
	)

	for {
		z := zone{start: end, component: used}
		smallest := raid.MaxSectors

		for slot, size := range sizes {
			if size > used {
				z.slots = append(z.slots, raid.Slot(slot))
				smallest = min(smallest, size)
			}
		}

		if len(z.slots) == 0 {
			return zones
		}

		end += (smallest - used) * raid.Sectors(len(z.slots))
		used = smallest
		z.end = end
		zones = append(zones, z)
	}
}

// locateInZone is Locate for RAID0 and linear.
func (m *Map) locateInZone(s raid.Sectors) (slot raid.Slot, component, run raid.Sectors) {
	z := &m.zones[0]
	for i := 1; s >= z.end; i++ {
		z = &m.zones[i]
	}

	within := s - z.start
	if m.level == raid.LevelLinear {
		return z.slots[0], within, z.end - s
	}

	width := raid.Sectors(len(z.slots))
	offset := within % m.chunk

	turn := within / m.chunk % width
	if m.layout != raid.Alternate {
		turn = s / m.chunk % width // of the array, not of the zone
	}

	return z.slots[turn], z.component + within/(m.chunk*width)*m.chunk + offset, min(m.chunk-offset, m.array-s)
}
