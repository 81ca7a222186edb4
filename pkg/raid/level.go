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
// are, before data is lost. An unknown level tolerates none.
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

// Layout says how chunks rotate over the members, in md's numbers; what a
// number means depends on the level.
type Layout uint32

// The layouts of RAID5.
const (
	LeftAsymmetric  Layout = 0
	RightAsymmetric Layout = 1
	LeftSymmetric   Layout = 2
	RightSymmetric  Layout = 3
	ParityFirst     Layout = 4
	ParityLast      Layout = 5
)

// Name returns what mdadm calls layout l at level, or "" where layouts mean
// nothing.
func (l Layout) Name(level Level) string {
	switch level {
	case Level5, Level6:
		names := []string{
			"left-asymmetric", "right-asymmetric", "left-symmetric",
			"right-symmetric", "parity-first", "parity-last",
		}
		if int(l) < len(names) {
			return names[l]
		}

		return fmt.Sprintf("layout-%d", uint32(l))
	case Level10:
		return fmt.Sprintf("layout-%#x", uint32(l))
	case LevelLinear, Level0, Level1, Level4:
		return ""
	default:
		return ""
	}
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
