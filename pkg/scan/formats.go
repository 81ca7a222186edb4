package scan

import (
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
)

// Formats returns the metadata modules that this program has. All but the first
// can be left out by a build tag.
func Formats() []metadata.Format {
	return slices.Concat([]metadata.Format{md1.Format{}}, md0Format(), ddfFormat(), imsmFormat(), asrFormat())
}
