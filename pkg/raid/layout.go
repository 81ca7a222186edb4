package raid

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Layout says how chunks rotate over the members, in md's numbers; what a
// number means depends on the level.
type Layout uint32

// The layouts of RAID0. They differ where members differ in size, and only
// there: kernels from 3.14 to 5.3 did it in another way than those before, and
// those since need to be told.
const (
	Original  Layout = 1
	Alternate Layout = 2
)

// The layouts of RAID5, which RAID6 has as well, with Q behind P.
const (
	LeftAsymmetric  Layout = 0
	RightAsymmetric Layout = 1
	LeftSymmetric   Layout = 2
	RightSymmetric  Layout = 3
	ParityFirst     Layout = 4
	ParityLast      Layout = 5
)

// The layouts that only RAID6 has: those of DDF, and those of a RAID5 with a
// Q on one more member.
const (
	DDFZeroRestart   Layout = 8
	DDFNRestart      Layout = 9
	DDFNContinue     Layout = 10
	LeftAsymmetric6  Layout = 16
	RightAsymmetric6 Layout = 17
	LeftSymmetric6   Layout = 18
	RightSymmetric6  Layout = 19
	ParityFirst6     Layout = 20
)

// layoutName is one name of a layout. Of those of one layout the first is
// shown, and the others are understood.
type layoutName struct {
	name   string
	layout Layout
}

var raid0Layouts = []layoutName{{"original", Original}, {"alternate", Alternate}}

var raid5Layouts = []layoutName{
	{"left-asymmetric", LeftAsymmetric},
	{"right-asymmetric", RightAsymmetric},
	{"left-symmetric", LeftSymmetric},
	{"right-symmetric", RightSymmetric},
	{"parity-first", ParityFirst},
	{"parity-last", ParityLast},
	{"la", LeftAsymmetric},
	{"ra", RightAsymmetric},
	{"ls", LeftSymmetric},
	{"rs", RightSymmetric},
	{"ddf-zero-restart", RightAsymmetric},
	{"ddf-N-restart", LeftAsymmetric},
	{"ddf-N-continue", LeftSymmetric},
}

var raid6Layouts = append(slices.Clone(raid5Layouts[:10]),
	layoutName{"ddf-zero-restart", DDFZeroRestart},
	layoutName{"ddf-N-restart", DDFNRestart},
	layoutName{"ddf-N-continue", DDFNContinue},
	layoutName{"left-asymmetric-6", LeftAsymmetric6},
	layoutName{"right-asymmetric-6", RightAsymmetric6},
	layoutName{"left-symmetric-6", LeftSymmetric6},
	layoutName{"right-symmetric-6", RightSymmetric6},
	layoutName{"parity-first-6", ParityFirst6},
	layoutName{"parity-last-6", ParityLast}, // Q is where it would be anyway
	layoutName{"la-6", LeftAsymmetric6},
	layoutName{"ra-6", RightAsymmetric6},
	layoutName{"ls-6", LeftSymmetric6},
	layoutName{"rs-6", RightSymmetric6},
)

// layoutNames returns the names of the layouts that a level has by number.
func layoutNames(level Level) []layoutName {
	switch level {
	case Level0:
		return raid0Layouts
	case Level5:
		return raid5Layouts
	case Level6:
		return raid6Layouts
	case LevelLinear, Level1, Level4, Level10:
		return nil
	default:
		return nil
	}
}

// Name returns what mdadm calls layout l at level, or "" where layouts mean
// nothing. A RAID10's name is the kind and number of its copies: "n2", "f2",
// "o3", "n2,f2", with ",sets" behind where far copies stay within sets.
func (l Layout) Name(level Level) string {
	if level == Level10 {
		return l.copiesName()
	}

	names := layoutNames(level)
	for _, n := range names {
		if n.layout == l {
			return n.name
		}
	}

	if len(names) == 0 || level == Level0 && l == 0 {
		return ""
	}

	return fmt.Sprintf("layout-%d", uint32(l))
}

// ParseLayout reads a layout as [Layout.Name] shows it, or in one of the short
// forms that mdadm takes, or "", which is the level's default.
func ParseLayout(level Level, text string) (Layout, error) {
	names := layoutNames(level)

	switch {
	case level == Level10:
		return parseCopies(text)
	case text == "":
		return defaultLayout(level), nil
	case len(names) == 0:
		return 0, fmt.Errorf("raid: layout %q: %v has none", text, level)
	}

	var known []string

	for _, n := range names {
		if strings.EqualFold(n.name, text) {
			return n.layout, nil
		}

		known = append(known, n.name)
	}

	return 0, fmt.Errorf("raid: layout %q: %v has %s", text, level, strings.Join(known, ", "))
}

func defaultLayout(level Level) Layout {
	switch level {
	case Level0:
		return Original
	case Level5, Level6:
		return LeftSymmetric
	case LevelLinear, Level1, Level4, Level10:
		return 0
	default:
		return 0
	}
}

// The fields of a RAID10's layout.
const (
	copiesMask = 0xff
	farShift   = 8
	offsetBit  = 1 << 16
	setsShift  = 17
)

// The rules by which far copies stay within sets of slots. The first was a
// mistake of md's, and still served by it.
const (
	setsNone  = 0
	setsOfFar = 1
	setsOfAll = 2
)

var setsNames = []string{setsNone: "", setsOfFar: ",old-sets", setsOfAll: ",sets"}

func (l Layout) copiesName() string {
	near, far, sets := int(l&copiesMask), int(l>>farShift&copiesMask), int(l>>setsShift)
	if near == 0 || far == 0 || sets >= len(setsNames) {
		return fmt.Sprintf("layout-%#x", uint32(l))
	}

	var parts []string
	if near > 1 || far == 1 {
		parts = append(parts, "n"+strconv.Itoa(near))
	}

	switch {
	case l&offsetBit != 0:
		parts = append(parts, "o"+strconv.Itoa(far))
	case far > 1:
		parts = append(parts, "f"+strconv.Itoa(far))
	}

	return strings.Join(parts, ",") + setsNames[sets]
}

// parseCopies reads a RAID10's layout.
func parseCopies(text string) (Layout, error) {
	if text == "" {
		text = "n2"
	}

	var near, far, rest Layout

	for part := range strings.SplitSeq(text, ",") {
		if sets := slices.Index(setsNames, ","+part); sets > 0 && rest>>setsShift == 0 {
			rest |= Layout(sets) << setsShift

			continue
		}

		if part == "" {
			return 0, badCopies(text)
		}

		n, err := strconv.Atoi(part[1:])
		if err != nil || n < 1 || n > copiesMask {
			return 0, badCopies(text)
		}

		switch kind := part[0]; {
		case kind == 'n' && near == 0:
			near = Layout(n)
		case kind == 'f' && far == 0:
			far = Layout(n)
		case kind == 'o' && far == 0:
			far, rest = Layout(n), rest|offsetBit
		default:
			return 0, badCopies(text)
		}
	}

	return max(near, 1) | max(far, 1)<<farShift | rest, nil
}

func badCopies(text string) error {
	return fmt.Errorf("raid: layout %q: raid10 has nN, fN and oN for N near, far or offset copies, each once", text)
}
