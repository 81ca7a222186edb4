package ddf

import (
	"fmt"
	"sort"
	"strings"

	"raid-assembler/pkg/raid"
)

// The primary and the secondary RAID levels.
const (
	prlRAID0  = 0x00
	prlRAID1  = 0x01
	prlRAID4  = 0x04
	prlRAID5  = 0x05
	prlRAID6  = 0x06
	prlRAID1E = 0x11
	prlConcat = 0x1f

	srlStriped = 0
	srlSpanned = 3
	srlNone    = 0xff
)

// arrangement is a level and layout in the words of the format.
type arrangement struct{ prl, rlq uint8 }

// rule says which level and layout an arrangement stands for.
type rule struct {
	arrangement
	level  raid.Level
	layout raid.Layout
}

// The RAID10 layouts that there are words for.
const (
	nearTwo = 0x102
	farTwo  = 0x201 // which the specification calls "offset"; mdadm takes it for this
)

// rules are all that md can run, a RAID1 aside, of which the qualifier counts
// the members.
var rules = []rule{
	{arrangement{prlRAID0, 0}, raid.Level0, 0},
	{arrangement{prlRAID4, 1}, raid.Level4, 0},
	{arrangement{prlRAID5, 0}, raid.Level5, raid.RightAsymmetric},
	{arrangement{prlRAID5, 2}, raid.Level5, raid.LeftAsymmetric},
	{arrangement{prlRAID5, 3}, raid.Level5, raid.LeftSymmetric},
	{arrangement{prlRAID6, 1}, raid.Level6, raid.DDFZeroRestart},
	{arrangement{prlRAID6, 2}, raid.Level6, raid.DDFNRestart},
	{arrangement{prlRAID6, 3}, raid.Level6, raid.DDFNContinue},
	{arrangement{prlRAID1E, 0}, raid.Level10, nearTwo},
	{arrangement{prlRAID1E, 1}, raid.Level10, farTwo},
	{arrangement{prlConcat, 0}, raid.LevelLinear, 0},
}

// levelUnknown is the level of arrays whose arrangement nobody knows here.
const levelUnknown raid.Level = 1000

// shape returns what a record says of the array's geometry, but for its size,
// or why it cannot be told.
func (c *Config) shape() (raid.Geometry, error) {
	g := raid.Geometry{Level: levelUnknown + raid.Level(c.PRL), Disks: int(c.Primaries)}
	known := false

	switch {
	case c.Secondaries > 1 && c.PRL == prlRAID1 && (c.SRL == srlStriped || c.SRL == srlSpanned) && c.Primaries < 0x100:
		g.Level, g.Layout, known = raid.Level10, raid.Layout(0x100|c.Primaries), true
		g.Disks *= int(c.Secondaries)
	case c.Secondaries > 1:
		return g, fmt.Errorf("a primary level %#x below a secondary level %d", c.PRL, c.SRL)
	case c.PRL == prlRAID1 && c.RLQ <= 1 && c.Primaries > 1:
		g.Level, known = raid.Level1, true
	}

	for _, r := range rules {
		if c.Secondaries <= 1 && r.arrangement == (arrangement{c.PRL, c.RLQ}) {
			g.Level, g.Layout, known = r.level, r.layout, true
		}
	}

	if !known {
		return g, fmt.Errorf("a primary level %#x with the qualifier %d for %d members", c.PRL, c.RLQ, c.Primaries)
	}

	return c.strips(g)
}

// strips adds the chunk to a geometry.
func (c *Config) strips(g raid.Geometry) (raid.Geometry, error) {
	switch {
	case g.Level == raid.Level1 || g.Level == raid.LevelLinear && c.ChunkShift == 0xff:
		return g, nil
	case c.ChunkShift > 20:
		return raid.Geometry{Level: levelUnknown + raid.Level(c.PRL), Disks: g.Disks},
			fmt.Errorf("strips of 2^%d sectors", c.ChunkShift)
	}

	g.Chunk = 1 << c.ChunkShift

	return g, nil
}

// capacity returns how many sectors an array has that uses size of each member.
func capacity(g raid.Geometry, size raid.Sectors) raid.Sectors {
	if g.Chunk > 0 {
		size = size / g.Chunk * g.Chunk
	}

	disks := raid.Sectors(g.Disks)

	switch g.Level {
	case raid.Level1:
		return size
	case raid.Level4, raid.Level5, raid.Level6:
		return size * (disks - raid.Sectors(g.Redundancy()))
	case raid.Level10:
		near, far := raid.Sectors(g.Layout&0xff), raid.Sectors(g.Layout>>8&0xff)

		return size / g.Chunk / far * disks / near * g.Chunk
	case raid.LevelLinear, raid.Level0:
		return size * disks
	}

	return 0
}

// arrange returns how the record of an array says what its geometry is, or what
// the format has no words for.
func arrange(g raid.Geometry) (arrangement, error) {
	if g.Level == raid.Level1 && (g.Disks == 2 || g.Disks == 3) {
		return arrangement{prlRAID1, uint8(g.Disks - 2)}, nil
	}

	if g.Level == raid.Level0 && g.Layout == raid.Original {
		g.Layout = 0 // members are of one size, where it makes no difference
	}

	for _, r := range rules {
		if r.level == g.Level && r.layout == g.Layout {
			return r.arrangement, nil
		}
	}

	if g.Level == raid.Level1 {
		return arrangement{}, fmt.Errorf("%v of %d members: it has 2 or 3", g.Level, g.Disks)
	}

	return arrangement{}, fmt.Errorf("%v with the layout %q: there are %s",
		g.Level, g.Layout.Name(g.Level), strings.Join(layouts(g.Level), ", "))
}

// layouts returns the names of the layouts that a level can have.
func layouts(level raid.Level) []string {
	var names []string

	for _, r := range rules {
		if r.level == level {
			names = append(names, r.layout.Name(level))
		}
	}

	return names
}

// usualLayout returns what an array of a level gets if nobody says otherwise.
func usualLayout(level raid.Level) raid.Layout {
	switch level {
	case raid.Level5:
		return raid.LeftSymmetric
	case raid.Level6:
		return raid.DDFNContinue
	case raid.Level10:
		return nearTwo
	case raid.LevelLinear, raid.Level0, raid.Level1, raid.Level4:
	}

	return 0
}

// used returns how much of each member an array uses whose record may give it
// less than all that there is room for, or an error if that cannot be said.
func (c *Config) used(g raid.Geometry, room raid.Sectors) (raid.Sectors, error) {
	have, want := capacity(g, room), sectorsOf(c.ArrayBlocks)
	if want == have {
		return room, nil
	}

	granule := max(g.Chunk, 1)
	n := sort.Search(int(room/granule), func(n int) bool { return capacity(g, raid.Sectors(n)*granule) >= want })

	if size := raid.Sectors(n) * granule; size > 0 && capacity(g, size) == want {
		return size, nil
	}

	return 0, fmt.Errorf("an array of %d sectors whose members make up %d", want, have)
}
