// Package geometry says where the sectors of an array lie on its members.
//
// A [Map] is computed once, when an array starts. Its methods are pure, do not
// allocate and may be called from any number of goroutines, since they are on
// the path of every request. It knows nothing of members that are missing, nor
// of where the data area begins on a device: a component sector counts from the
// start of the member's data area.
//
// The words, for a RAID5 of three slots with the left-symmetric layout:
//
//	          slot 0   slot 1   slot 2
//	row 0       D0       D1       P      each cell is one chunk; the number is
//	row 1       D1       P        D0     the data index d within the row
//	row 2       P        D0       D1
//
// A RAID10 has no rows of that kind: its chunks have copies, and each member
// holds chunks whose array sector [Map.Virtual] tells.
package geometry

import (
	"fmt"
	"math"

	"raid-assembler/pkg/raid"
)

// Map is the geometry of one array, ready for lookups.
//
// Invariants: the array's size in bytes fits an int64; zones are not empty,
// begin at 0 and follow one another without gap; chunk is above 0 if the level
// has chunks.
type Map struct {
	level  raid.Level
	layout raid.Layout
	disks  int
	data   int // data chunks in a row
	chunk  raid.Sectors
	row    raid.Sectors // array sectors in a row: chunk * data

	component raid.Sectors // used on each member; 0 where members differ
	array     raid.Sectors
	zones     []zone // RAID0 and linear only

	rotation rotation // parity levels only
	copies   copies   // RAID10 only
}

// maxArray keeps offsets in bytes within an int64.
const maxArray = raid.Sectors(math.MaxInt64 / raid.SectorSize)

// maxDisks is what every known format stays below; it bounds what a hostile
// superblock can make us allocate.
const maxDisks = 4096

// New returns the map of an array. Returns an error, with the numbers in it, if
// g describes no array that could exist, or one of a level or layout that this
// package does not know.
func New(g raid.Geometry) (*Map, error) {
	least, known := minDisks(g.Level)

	switch {
	case !known:
		return nil, fmt.Errorf("geometry: %v is not supported", g.Level)
	case g.Disks < least:
		return nil, fmt.Errorf("geometry: %d slots, %v needs %d", g.Disks, g.Level, least)
	case g.Disks > maxDisks:
		return nil, fmt.Errorf("geometry: %d slots, limit %d", g.Disks, maxDisks)
	case g.Chunk < 0 || g.Level.HasChunks() && g.Chunk == 0:
		return nil, fmt.Errorf("geometry: %v with a chunk of %d sectors", g.Level, g.Chunk)
	case g.Chunk > maxArray/raid.Sectors(g.Disks):
		return nil, fmt.Errorf("geometry: chunk of %d sectors on %d slots is too large", g.Chunk, g.Disks)
	}

	m := &Map{level: g.Level, layout: g.Layout, disks: g.Disks, data: 1, chunk: g.Chunk}

	var err error
	if g.Level == raid.Level0 || g.Level == raid.LevelLinear {
		err = m.fromSizes(g)
	} else {
		err = m.fromSize(g)
	}

	if err != nil {
		return nil, fmt.Errorf("geometry: %w", err)
	}

	return m, nil
}

// minDisks returns how few slots a level can have, and false for levels that
// have no map. One slot is odd but real: appliances make mirrors of one, to be
// able to add another.
func minDisks(level raid.Level) (int, bool) {
	switch level {
	case raid.LevelLinear, raid.Level0, raid.Level1:
		return 1, true
	case raid.Level4, raid.Level5:
		return 2, true
	case raid.Level6:
		return 4, true
	case raid.Level10:
		return 2, true
	default:
		return 0, false
	}
}

// fromSize finishes the map of a level that uses equally much of each member.
func (m *Map) fromSize(g raid.Geometry) error {
	m.component = g.Size

	if m.level.HasChunks() {
		m.component -= m.component % m.chunk // as md does when it starts the array
	}

	if m.component <= 0 {
		return fmt.Errorf("component size of %d sectors with a chunk of %d", g.Size, g.Chunk)
	}

	if m.component > maxArray/raid.Sectors(m.disks) {
		return fmt.Errorf("component size of %d sectors on %d slots is too large", g.Size, g.Disks)
	}

	switch {
	case m.level == raid.Level10:
		return m.fromCopies(g)
	case m.level.HasParity():
		if err := m.rotate(); err != nil {
			return err
		}

		m.row = m.chunk * raid.Sectors(m.data)
	}

	m.array = m.component * raid.Sectors(m.data)

	return nil
}

// ArraySectors returns the size of the array.
func (m *Map) ArraySectors() raid.Sectors { return m.array }

// ComponentSectors returns how much of each member's data area is used, for
// levels that use equally much of each; else 0.
func (m *Map) ComponentSectors() raid.Sectors { return m.component }

// Disks returns the number of slots.
func (m *Map) Disks() int { return m.disks }

// Chunk returns the chunk size; 0 if there are no chunks.
func (m *Map) Chunk() raid.Sectors { return m.chunk }

// SyncSectors returns how far a resync goes, in the unit that its position is
// recorded in: array sectors of a RAID10, as md has it, else component sectors.
func (m *Map) SyncSectors() raid.Sectors {
	if m.level == raid.Level10 {
		return m.array
	}

	return m.component
}

// StripeSectors returns how much data a chunk on each member makes, which is
// what md calls the optimal size of a request; 0 if there are no chunks.
func (m *Map) StripeSectors() raid.Sectors {
	switch m.level {
	case raid.Level4, raid.Level5, raid.Level6:
		return m.row
	case raid.Level0:
		return m.chunk * raid.Sectors(m.disks)
	case raid.Level10:
		if m.disks%m.copies.near != 0 {
			return m.chunk * raid.Sectors(m.disks)
		}

		return m.chunk * raid.Sectors(m.disks/m.copies.near)
	case raid.LevelLinear, raid.Level1:
		return 0
	default:
		return 0
	}
}

// Locate returns the member and the component sector where array sector s
// lies, and how many sectors from there on are contiguous on that member.
//
// Where there are copies it is the first. Preconditions: s is in [0,
// ArraySectors).
func (m *Map) Locate(s raid.Sectors) (slot raid.Slot, component, run raid.Sectors) {
	switch {
	case m.zones != nil:
		return m.locateInZone(s)
	case m.level == raid.Level10:
		return m.locateCopy(s, 0)
	case m.row == 0:
		return 0, s, m.array - s
	default:
		row := int64(s / m.row)
		within := s % m.row
		offset := within % m.chunk

		return m.DataSlot(row, int(within/m.chunk)), raid.Sectors(row)*m.chunk + offset, m.chunk - offset
	}
}

// Copies returns in how many places each sector of the array lies, not
// counting parity.
func (m *Map) Copies() int {
	switch m.level {
	case raid.Level1:
		return m.disks
	case raid.Level10:
		return m.copies.near * m.copies.far
	case raid.LevelLinear, raid.Level0, raid.Level4, raid.Level5, raid.Level6:
		return 1
	default:
		return 1
	}
}

// Copy is [Map.Locate] for copy i of array sector s. No two copies are in one
// slot, and no copy's run is shorter than another's. Preconditions: i is in
// [0, Copies).
func (m *Map) Copy(s raid.Sectors, i int) (slot raid.Slot, component, run raid.Sectors) {
	if m.level == raid.Level10 {
		return m.locateCopy(s, i)
	}

	slot, component, run = m.Locate(s)

	return slot + raid.Slot(i), component, run // i is above 0 on a RAID1 only
}
