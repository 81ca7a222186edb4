//go:build !no_imsm

package scan

import (
	"bytes"
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestIMSMMagic: what begins as a record and is none is not to be overwritten.
func TestIMSMMagic(t *testing.T) {
	image := make([]byte, 1<<20)
	copy(image[len(image)-1024:], "Intel Raid ISM Cfg Sig. 1.0.00")

	r := Scan(metadata.Source{ReaderAt: bytes.NewReader(image), Size: 2048, Block: 512, Serial: "m0"}, Formats()...)
	if !errors.Is(r.Err, metadata.ErrCorrupt) || len(r.Signatures) != 1 || r.Signatures[0].Kind != "imsm" {
		t.Errorf("Scan() = %+v", r)
	}
}

// TestIMSMRuns: arrays of Intel's firmware are ones that we run and make.
func TestIMSMRuns(t *testing.T) {
	g := conformance.LoadGolden(t, "imsm-raid5-3")
	for i := range g.Members {
		r := Scan(g.Source(i), Formats()...)
		if r.Superblock == nil || r.Superblock.Level != raid.Level5 || r.Superblock.Unsupported != "" || r.Err != nil ||
			len(r.Conflicts) > 0 {
			t.Errorf("member %d: Scan() = %+v", i, r)
		}
	}

	if f, version, err := Creates("imsm"); err != nil || f.Name() != "imsm" || version != "imsm" {
		t.Errorf("Creates() = %v, %q, %v", f, version, err)
	}
}
