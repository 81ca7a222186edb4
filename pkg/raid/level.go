package raid

import (
	"fmt"
	"strconv"
	"strings"
)

// Level is a RAID level, numbered as md numbers it.
type Level int32

// The levels that this module knows.
const (
	LevelLinear Level = -1
	Level0      Level = 0
	Level1      Level = 1
	Level4      Level = 4
	Level5      Level = 5
	Level6      Level = 6
	Level10     Level = 10
)

// Redundancy returns how many of disks members may be missing, whichever they
// are, before data is lost. An unknown level tolerates none. Of a RAID10, whose
// layout is not known here, it is what the least of them survives;
// [Geometry.Survives] is exact.
func (l Level) Redundancy(disks int) int {
	switch l {
	case Level1:
		return disks - 1
	case Level4, Level5, Level10:
		return 1
	case Level6:
		return 2
	case LevelLinear, Level0:
		return 0
	default:
		return 0
	}
}

// HasParity reports whether l computes parity, and so has a write hole.
func (l Level) HasParity() bool { return l == Level4 || l == Level5 || l == Level6 }

// HasRedundancy reports whether l can lose a member at all, and so is ever
// dirty, degraded or in need of a spare.
func (l Level) HasRedundancy() bool { return l == Level1 || l == Level10 || l.HasParity() }

// HasChunks reports whether l spreads data over members chunk by chunk.
func (l Level) HasChunks() bool { return l == Level0 || l == Level10 || l.HasParity() }

func (l Level) String() string {
	if l == LevelLinear {
		return "linear"
	}

	return fmt.Sprintf("raid%d", int32(l))
}

// ParseLevel reads "raid5", "5", "linear" and the like.
func ParseLevel(text string) (Level, error) {
	if text == "linear" {
		return LevelLinear, nil
	}

	n, err := strconv.Atoi(strings.TrimPrefix(strings.ToLower(text), "raid"))
	if err == nil {
		switch l := Level(n); l {
		case Level0, Level1, Level4, Level5, Level6, Level10:
			return l, nil
		case LevelLinear:
		}
	}

	return 0, fmt.Errorf("raid: unknown level %q: one of linear, 0, 1, 4, 5, 6, 10", text)
}

// Geometry is what determines where an array's sectors lie on its members.
type Geometry struct {
	Level  Level
	Layout Layout
	Disks  int       // slots
	Chunk  Sectors   // 0 where the level has no chunks
	Size   Sectors   // used on each member; 0 for levels that use Sizes
	Sizes  []Sectors // by slot, the data area of each member; RAID0 and linear
}

// Redundancy returns how many members may be missing, whichever they are,
// before data is lost.
func (g Geometry) Redundancy() int {
	if g.Level != Level10 {
		return g.Level.Redundancy(g.Disks)
	}

	c, err := g.copies()
	if err != nil {
		return 0
	}

	return c.Count() - 1
}

// Survives reports whether all content is there if only those slots work of
// which working says so. On a RAID10 that depends on which they are: some copy
// of every chunk has to be left.
func (g Geometry) Survives(working func(Slot) bool) bool {
	missing := 0

	for slot := range Slot(g.Disks) {
		if !working(slot) {
			missing++
		}
	}

	if missing == 0 || g.Level != Level10 {
		return missing <= g.Level.Redundancy(g.Disks)
	}

	c, err := g.copies()
	if err != nil {
		return false
	}

	// The first copies of consecutive chunks are Near slots apart, so that
	// they begin at slot 0 again after a full turn.
	for first, chunk := Slot(0), 0; chunk == 0 || first != 0; chunk++ {
		if !c.some(first, working) {
			return false
		}

		first = (first + Slot(c.Near)) % Slot(g.Disks)
	}

	return true
}
