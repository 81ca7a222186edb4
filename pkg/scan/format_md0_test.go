//go:build !no_md0

package scan

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/metadata/md1"
)

// TestOldMagic: what begins as a superblock of either byte order and is none is
// not to be overwritten, whether somebody reads such or not.
func TestOldMagic(t *testing.T) {
	for _, magic := range []string{"\xfc\x4e\x2b\xa9", "\xa9\x2b\x4e\xfc"} {
		image := make([]byte, deviceSize.Bytes())
		copy(image[16711680:], magic)

		r := Scan(source(image), md1.Format{})
		if got := kinds(r); r.Err != nil || !slices.Equal(got, []string{"16711680 md 0.90"}) {
			t.Errorf("unread: Scan() = %+v", r)
		}

		r = Scan(source(image), Formats()...)
		if got := kinds(r); !errors.Is(r.Err, metadata.ErrCorrupt) || !slices.Equal(got, []string{"16711680 md 0.90"}) {
			t.Errorf("Scan() = %+v", r)
		}
	}
}

// TestLastPartition: a superblock that disk and last partition have in common
// is the partition's, unless it is of components that are larger than that; and
// then there is a partition table where there must be none.
func TestLastPartition(t *testing.T) {
	g := conformance.LoadGolden(t, "md090-raid1-2")
	small := g.Images[0]
	whole := append(make([]byte, 1<<20), small...) // has the partition at 1 MiB
	tabled := bytes.Clone(small)
	clear(tabled[:512])

	start, end := uint32(2048), uint32(len(whole)/512)

	for _, tt := range []struct {
		name   string
		image  []byte
		module string
		stray  bool
		odd    string // part of the conflict
	}{
		{"the member", small, "md0", false, ""},
		{"a disk with the member as its last partition", putMBR(bytes.Clone(whole), partition{0xfd, start, end - start}), "", true, ""},
		{"behind another", putMBR(bytes.Clone(whole), partition{0x83, 1, 100}, partition{0xfd, start, end - start}), "", true, ""},
		{"a disk with smaller components, and no table", whole, "md0", false, ""},
		{"one whose partition ends before", putMBR(bytes.Clone(whole), partition{0xfd, start, 1024}), "md0", false, ""},
		{"a member with a table over all of it", putMBR(tabled, partition{0x83, start, 32768 - start}), "md0", false, "reaches to sector 32768"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Scan(source(tt.image), Formats()...)
			stray := slices.ContainsFunc(r.Signatures, func(s Signature) bool { return s.Kind == kindStray })

			if r.Err != nil || r.Module != tt.module || stray != tt.stray || (r.Superblock == nil) != (tt.module == "") {
				t.Errorf("Scan() = %+v", r)
			}

			if got := strings.Join(r.Conflicts, ", "); (got == "") != (tt.odd == "") || !strings.Contains(got, tt.odd) {
				t.Errorf("conflicts %q, want %q", got, tt.odd)
			}
		})
	}
}
