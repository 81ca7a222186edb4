package md1

import (
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// unsupported returns why an array with the superblock given must be left
// alone, or nothing.
func unsupported(raw *Raw, src metadata.Source) []string {
	var reasons []string

	add := func(is bool, reason string) {
		if is {
			reasons = append(reasons, reason)
		}
	}

	has := func(f Feature) bool { return raw.FeatureMap&f != 0 }

	if unknown := raw.FeatureMap &^ featuresKnown; unknown != 0 {
		add(true, fmt.Sprintf("unknown feature bits %#x", uint32(unknown)))
	}

	// The kernel takes these for features that it does not know.
	add(raw.Pad0 != 0 || raw.Pad3 != [28]byte{}, "reserved bytes are not zero")
	add(has(FeatureReshapeActive|FeatureReshapeBackwards|FeatureNewOffset), "a reshape is active")
	add(has(FeatureJournal) || hasJournal(raw), "the array has a journal device")
	add(has(FeaturePPL|FeatureMultiplePPLs), "the array has a partial parity log")
	add(has(FeatureClustered), "the array is shared by a cluster")
	add(has(FeatureBadBlocks), "the bad block log is not empty")
	add(has(FeatureReplacement) || hasTwoInASlot(raw), "a member is being replaced while it is in use")

	if has(FeatureBitmapOffset) {
		if bitmap, err := readBitmap(raw, src); err == nil {
			add(bitmap.version == bitmapLockless, "the bitmap is lockless (version 6)")
			add(bitmap.version == bitmapClustered, "the bitmap is clustered (version 5)")
		}
	}

	return reasons
}

func hasJournal(raw *Raw) bool {
	for _, role := range raw.DevRoles {
		if role == raid.RoleJournal {
			return true
		}
	}

	return false
}

// hasTwoInASlot reports whether two members share a slot: one of them is the
// other's replacement, and only its own superblock says which.
func hasTwoInASlot(raw *Raw) bool {
	var taken [maxRoles]bool // as many as raid_disks can be

	for _, role := range raw.DevRoles {
		slot, ok := role.Slot()
		if !ok || slot >= raid.Slot(raw.RaidDisks) {
			continue
		}

		if taken[slot] {
			return true
		}

		taken[slot] = true
	}

	return false
}
