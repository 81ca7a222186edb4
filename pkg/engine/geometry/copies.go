package geometry

import (
	"fmt"

	"raid-assembler/pkg/raid"
)

// copies is how a RAID10 lays out its chunks. It sees a section of the members
// as one long line of places, slot after slot and row after row, on which each
// chunk lies near times in a row.
//
// Invariant: forth[f] is a permutation of the slots, and back[f] undoes it.
type copies struct {
	near, far int
	offset    bool
	stride    raid.Sectors // from a copy to the next far one
	forth     [][]raid.Slot
	back      [][]raid.Slot
}

// fromCopies finishes the map of a RAID10. Preconditions: the component size
// is in whole chunks.
func (m *Map) fromCopies(g raid.Geometry) error {
	c, err := g.Copies()
	if err != nil {
		return err
	}

	// md uses as many chunks of each member as all sections get alike.
	rows := m.component / m.chunk / raid.Sectors(c.Far)
	chunks := rows * raid.Sectors(m.disks) / raid.Sectors(c.Near)

	if chunks == 0 {
		return fmt.Errorf("component size of %d sectors with a chunk of %d and %d far copies", g.Size, g.Chunk, c.Far)
	}

	m.component = rows * raid.Sectors(c.Far) * m.chunk
	m.array = chunks * m.chunk

	m.copies = copies{near: c.Near, far: c.Far, offset: c.Offset, stride: rows * m.chunk}
	if c.Offset {
		m.copies.stride = m.chunk
	}

	m.copies.rotate(c, m.disks)

	return nil
}

// rotate fills in the permutations.
func (c *copies) rotate(rule raid.Copies, disks int) {
	c.forth = make([][]raid.Slot, c.far)
	c.back = make([][]raid.Slot, c.far)

	for f := range c.far {
		c.forth[f] = make([]raid.Slot, disks)
		c.back[f] = make([]raid.Slot, disks)

		for slot := range raid.Slot(disks) {
			to := slot
			if f > 0 {
				to = rule.NextFar(c.forth[f-1][slot])
			}

			c.forth[f][slot] = to
			c.back[f][to] = slot
		}
	}
}

// locateCopy is Copy for RAID10, in md's order of copies.
func (m *Map) locateCopy(s raid.Sectors, i int) (slot raid.Slot, component, run raid.Sectors) {
	c := &m.copies
	offset := s % m.chunk
	place := int64(s/m.chunk)*int64(c.near) + int64(i/c.far)
	row, f := raid.Sectors(place/int64(m.disks)), i%c.far

	if c.offset {
		row *= raid.Sectors(c.far)
	}

	slot = c.forth[f][place%int64(m.disks)]

	return slot, row*m.chunk + raid.Sectors(f)*c.stride + offset, m.chunk - offset
}

// Virtual returns the array sector of which there is a copy at a component
// sector of slot, and how many sectors from there on are contiguous in both;
// ok is false where a member has room for a chunk that the array lacks.
// Preconditions: the level is RAID1 or RAID10, slot is in [0, Disks), component
// is in [0, ComponentSectors).
func (m *Map) Virtual(slot raid.Slot, component raid.Sectors) (s, run raid.Sectors, ok bool) {
	if m.level == raid.Level1 {
		return component, m.array - component, true
	}

	c := &m.copies
	row, f := c.rowOf(component, m.chunk)
	offset := component % m.chunk
	place := row*int64(m.disks) + int64(c.back[f][slot])
	s = raid.Sectors(place/int64(c.near))*m.chunk + offset

	return s, m.chunk - offset, s < m.array
}

// rowOf returns the row within its section, and the section, or which of the
// far copies it is.
func (c *copies) rowOf(component, chunk raid.Sectors) (row int64, f int) {
	if c.offset {
		k := int64(component / chunk)

		return k / int64(c.far), int(k % int64(c.far))
	}

	return int64(component % c.stride / chunk), int(component / c.stride)
}

// Span returns the range of the array that holds all that lies in component
// sectors [lo, hi) of any slot. Preconditions: the level is RAID1 or RAID10,
// 0 <= lo < hi <= SectionEnd(lo).
func (m *Map) Span(lo, hi raid.Sectors) raid.Range {
	if m.level == raid.Level1 {
		return raid.Range{From: lo, To: hi}
	}

	c := &m.copies
	top, _ := c.rowOf(lo, m.chunk)
	bottom, _ := c.rowOf(hi-1, m.chunk)

	first := top * int64(m.disks) / int64(c.near)
	last := ((bottom+1)*int64(m.disks) - 1) / int64(c.near) // which the array's end may lack
	span := raid.Range{From: raid.Sectors(first) * m.chunk, To: raid.Sectors(last+1) * m.chunk}

	// The ends of a chunk are left out, unless another copy of it is between.
	if !c.offset || lo/m.chunk == (hi-1)/m.chunk {
		span.From += lo % m.chunk
		span.To -= m.chunk - 1 - (hi-1)%m.chunk
	}

	span.To = min(span.To, m.array)

	return span
}

// SectionEnd returns where the section ends in which a component sector lies:
// in far layouts what is above it belongs to quite other chunks.
// Preconditions: component is in [0, ComponentSectors).
func (m *Map) SectionEnd(component raid.Sectors) raid.Sectors {
	if m.level != raid.Level10 || m.copies.offset {
		return m.component
	}

	return (component/m.copies.stride + 1) * m.copies.stride
}
