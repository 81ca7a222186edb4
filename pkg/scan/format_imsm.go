//go:build !no_imsm

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/imsm"
)

func imsmFormat() []metadata.Format { return []metadata.Format{intel{imsm.Format{}}} }

// intel is the format of Intel's firmware, whose arrays are shown and dumped, and
// neither run nor made.
type intel struct{ metadata.Format }

// Probe implements [metadata.Format].
func (i intel) Probe(src metadata.Source) (*metadata.Superblock, error) {
	sb, err := i.Format.Probe(src)
	if err != nil {
		return nil, err
	}

	for _, one := range sb.All() {
		if one.Unsupported == "" {
			one.Unsupported = "arrays with " + sb.Format + " metadata are shown and not run: they are mdadm's"
		}
	}

	return sb, nil
}

// Versions implements [metadata.Format].
func (intel) Versions() []string { return nil }
