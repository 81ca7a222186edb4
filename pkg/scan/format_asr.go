//go:build !no_asr

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/asr"
)

func asrFormat() []metadata.Format { return []metadata.Format{foreign{asr.Format{}}} }

// foreign is a format whose arrays are shown and dumped, and neither run nor made.
type foreign struct{ metadata.Format }

// Probe implements [metadata.Format].
func (f foreign) Probe(src metadata.Source) (*metadata.Superblock, error) {
	sb, err := f.Format.Probe(src)
	if err == nil && sb.Unsupported == "" {
		sb.Unsupported = "arrays with " + sb.Format + " metadata are shown and not run: none was yet"
	}

	return sb, err
}

// Versions implements [metadata.Format].
func (foreign) Versions() []string { return nil }
