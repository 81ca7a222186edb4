//go:build !no_asr

package scan

import (
	"bytes"
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
)

// TestASRMagic: what has the magic numbers of a reserved block, and no table, is
// not to be overwritten.
func TestASRMagic(t *testing.T) {
	image := make([]byte, 1<<20)
	copy(image[len(image)-512:], "\x37\xfc\x4d\x1e")
	copy(image[len(image)-256:], "DPTM")

	r := Scan(metadata.Source{ReaderAt: bytes.NewReader(image), Size: 2048, Block: 512}, Formats()...)
	if !errors.Is(r.Err, metadata.ErrCorrupt) || r.Empty() {
		t.Errorf("Scan() = %+v", r)
	}
}
