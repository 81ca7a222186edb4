//go:build !no_ddf

package scan

import (
	"bytes"
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
)

// TestDDFMagic: what begins as an anchor and is none is not to be overwritten.
func TestDDFMagic(t *testing.T) {
	image := make([]byte, 1<<20)
	copy(image[len(image)-512:], "\xde\x11\xde\x11")

	r := Scan(metadata.Source{ReaderAt: bytes.NewReader(image), Size: 2048, Block: 512}, Formats()...)
	if !errors.Is(r.Err, metadata.ErrCorrupt) || len(r.Signatures) != 1 || r.Signatures[0].Kind != "ddf" {
		t.Errorf("Scan() = %+v", r)
	}
}
