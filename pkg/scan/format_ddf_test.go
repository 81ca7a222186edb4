//go:build !no_ddf

package scan

import (
	"bytes"
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
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

// TestDDFRuns: arrays of DDF are ones that we run and make.
func TestDDFRuns(t *testing.T) {
	g := conformance.LoadGolden(t, "ddf-raid5-3")
	for i := range g.Members {
		r := Scan(g.Source(i), Formats()...)
		if r.Superblock == nil || r.Superblock.Level != raid.Level5 || r.Superblock.Unsupported != "" || r.Err != nil ||
			len(r.Conflicts) > 0 {
			t.Errorf("member %d: Scan() = %+v", i, r)
		}
	}

	if f, version, err := Creates("ddf"); err != nil || f.Name() != "ddf" || version != "ddf" {
		t.Errorf("Creates() = %v, %q, %v", f, version, err)
	}
}
