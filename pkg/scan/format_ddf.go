//go:build !no_ddf

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/ddf"
)

func ddfFormat() []metadata.Format { return []metadata.Format{shown{ddf.Format{}}} }

// shown is a format whose arrays are shown and dumped, and neither run nor made.
type shown struct{ metadata.Format }

// Probe implements [metadata.Format].
func (s shown) Probe(src metadata.Source) (*metadata.Superblock, error) {
	sb, err := s.Format.Probe(src)
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
func (shown) Versions() []string { return nil }
