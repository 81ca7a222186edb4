package scan

import (
	"bytes"
	"fmt"

	"raid-assembler/pkg/metadata"
)

// Zeros reports whether src is zero wherever it was looked at: the first and
// the last MiB, and 4 KiB at each of 256 places between them. A device that
// has been used, by anybody for anything, is most unlikely to pass; one that
// holds little may.
func Zeros(src metadata.Source) (bool, error) {
	const (
		edge    = 1 << 20
		sample  = 4 << 10
		samples = 256
	)

	size := src.Size.Bytes()
	if zero, err := zeros(src, 0, edge); err != nil || !zero {
		return false, err
	}

	if zero, err := zeros(src, size-edge, edge); err != nil || !zero {
		return false, err
	}

	for i := range int64(samples) {
		// In this order nothing overflows.
		if zero, err := zeros(src, size/samples*i, sample); err != nil || !zero {
			return false, err
		}
	}

	return true, nil
}

func zeros(src metadata.Source, start, size int64) (bool, error) {
	w, err := readWindow(src, start, start+size)
	if err != nil {
		return false, fmt.Errorf("scan: %w", err)
	}

	return len(bytes.Trim(w.data, "\x00")) == 0, nil
}
