package md1

import (
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// obstacle is a reason to leave an array alone.
type obstacle struct {
	is     bool
	reason string
	what   hindrance
}

// hindrance says what an obstacle is in the way of.
type hindrance int

const (
	running hindrance = 1 << iota
	reading           // the content moves, or is not all where it should be

	everything = running | reading
)

// obstacles returns what may keep an array with the superblock given, and the
// bitmap that was found, if any, from being run.
func obstacles(raw *Raw, src metadata.Source, found *bitmap) []obstacle {
	has := func(f Feature) bool { return raw.FeatureMap&f != 0 }
	unknown := raw.FeatureMap &^ featuresKnown
	blocks := fmt.Sprintf("logical blocks of %d bytes are larger than a superblock", src.Block)

	_, hasBadLog := badPlace(raw, src)
	noLog := pplFits(raw, src)

	var version uint32

	if found != nil {
		version = found.version()
	}

	return []obstacle{
		{unknown != 0, fmt.Sprintf("unknown feature bits %#x", uint32(unknown)), everything},
		// The kernel takes these for features that it does not know.
		{raw.Pad0 != 0 || raw.Pad3 != [28]byte{}, "reserved bytes are not zero", everything},
		{has(FeatureReshapeActive | FeatureReshapeBackwards | FeatureNewOffset), "a reshape is active", everything},
		{has(FeatureJournal) || hasJournal(raw), "the array has a journal device", everything},
		{noLog != nil, fmt.Sprint(noLog), running},
		{hasThreeInASlot(raw), "three members are in one slot", running},
		{has(FeatureClustered), "the array is shared by a cluster", running},
		{has(FeatureBadBlocks) && !hasBadLog, "the bad block log has no place of its own", running},
		// It knows of parts whose parity was never computed.
		{version == bitmapLockless, "the bitmap is lockless (version 6)", everything},
		{version == bitmapClustered, "the bitmap is clustered (version 5)", running},
		{src.Block > blockSize, blocks, running},
	}
}

// unsupported returns why an array with the superblock given can not be run,
// and why its content cannot be told. Either may be empty.
func unsupported(raw *Raw, src metadata.Source, found *bitmap) (run, read string) {
	var notRun, notRead []string

	for _, o := range obstacles(raw, src, found) {
		if !o.is {
			continue
		}

		if o.what&running != 0 {
			notRun = append(notRun, o.reason)
		}

		if o.what&reading != 0 {
			notRead = append(notRead, o.reason)
		}
	}

	return strings.Join(notRun, ", "), strings.Join(notRead, ", ")
}

func hasJournal(raw *Raw) bool {
	return slices.Contains(raw.DevRoles, raid.RoleJournal)
}

// hasThreeInASlot reports whether more than a member and its replacement share
// a slot, as it looks when a superblock of many roles was written in part.
func hasThreeInASlot(raw *Raw) bool {
	var taken [maxRoles]uint8 // as many as raid_disks can be

	for _, role := range raw.DevRoles {
		slot, ok := role.Slot()
		if !ok || slot >= raid.Slot(raw.RaidDisks) {
			continue
		}

		if taken[slot]++; taken[slot] > 2 {
			return true
		}
	}

	return false
}
