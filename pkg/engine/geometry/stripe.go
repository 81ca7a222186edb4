package geometry

import "raid-assembler/pkg/raid"

// The methods in this file are about the rows of parity levels. Their
// preconditions: the level is RAID4 or RAID5, and row is in [0, Rows).

// DataDisks returns how many chunks of a row hold data.
func (m *Map) DataDisks() int { return m.data }

// RowSectors returns how many array sectors one row holds.
func (m *Map) RowSectors() raid.Sectors { return m.row }

// Rows returns the number of rows.
func (m *Map) Rows() int64 { return int64(m.component / m.chunk) }

// ParitySlot returns the slot that holds the parity of a row.
func (m *Map) ParitySlot(row int64) raid.Slot {
	turn := raid.Slot(row % int64(m.disks))

	switch m.layout {
	case raid.LeftAsymmetric, raid.LeftSymmetric:
		return raid.Slot(m.disks-1) - turn
	case raid.RightAsymmetric, raid.RightSymmetric:
		return turn
	case raid.ParityFirst:
		return 0
	case raid.ParityLast:
		return raid.Slot(m.disks - 1)
	default:
		panic("geometry: layout was not checked")
	}
}

// DataSlot returns the slot that holds the chunk with data index d of a row.
// Preconditions: d is in [0, DataDisks).
func (m *Map) DataSlot(row int64, d int) raid.Slot {
	parity := int(m.ParitySlot(row))

	if m.symmetric() {
		return raid.Slot((parity + 1 + d) % m.disks)
	}

	if d >= parity {
		d++
	}

	return raid.Slot(d)
}

// DataIndex returns the data index of the chunk that slot holds in a row, or
// -1 if that is parity. Preconditions: slot is in [0, Disks).
func (m *Map) DataIndex(row int64, slot raid.Slot) int {
	parity := int(m.ParitySlot(row))
	s := int(slot)

	switch {
	case s == parity:
		return -1
	case m.symmetric():
		return (s - parity - 1 + m.disks) % m.disks
	case s > parity:
		return s - 1
	default:
		return s
	}
}

// symmetric reports whether a row's data begins after its parity and wraps,
// instead of skipping the parity.
func (m *Map) symmetric() bool {
	return m.layout == raid.LeftSymmetric || m.layout == raid.RightSymmetric
}
