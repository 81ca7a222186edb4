package asr

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// sampleSize is the size of the disk whose end the sample is.
const sampleSize raid.Sectors = 17942584

// ending is a device of which only the end is not zero.
type ending struct {
	start int64
	data  []byte
}

func (e ending) ReadAt(p []byte, off int64) (int, error) {
	clear(p)

	end := e.start + int64(len(e.data))
	if off >= end {
		return 0, io.EOF
	}

	if to := off + int64(len(p)); to > e.start {
		from := max(off, e.start)
		copy(p[from-off:], e.data[from-e.start:])
	}

	if n := end - off; n < int64(len(p)) {
		return int(n), io.EOF
	}

	return len(p), nil
}

func sample(tb testing.TB) []byte {
	tb.Helper()

	zstd := conformance.Tool(tb, "zstd", "zstd")

	image, err := exec.Command(zstd, "-dqc", filepath.Join("testdata", "adaptec-raid.img.zst")).Output()
	if err != nil {
		tb.Fatal(err)
	}

	return image
}

func sampleSource(image []byte) metadata.Source {
	return metadata.Source{
		ReaderAt: ending{sampleSize.Bytes() - int64(len(image)), image}, Size: sampleSize, Block: raid.SectorSize,
	}
}

// TestSample: what a controller wrote is read.
func TestSample(t *testing.T) {
	sb, err := Format{}.Probe(sampleSource(sample(t)))
	if err != nil {
		t.Fatal(err)
	}

	want := raid.Geometry{Level: raid.Level0, Disks: 4, Chunk: 128}
	if fmt.Sprint(sb.Geometry) != fmt.Sprint(want) || sb.Name != "ZERO" || sb.DataOffset != 0 || sb.DataSize != 17942528 {
		t.Errorf("Probe() = %+v", sb)
	}

	if sb.Events != 1 || !sb.Clean() || sb.Unreadable != "" {
		t.Errorf("Probe() = %+v", sb)
	}

	// By the drive's number: SCSI ids 0, 1, 4 and 8.
	for slot, n := range []int{0x59, 0xea, 0xd9, 0x6a} {
		if got, ok := sb.Role(n).Slot(); !ok || got != raid.Slot(slot) {
			t.Errorf("number %d: %v, want slot %d", n, sb.Role(n), slot)
		}
	}

	if sb.Number != 0x59 {
		t.Errorf("number %d", sb.Number)
	}
}

// TestSampleChanged: what another controller may have made of it is not run, or
// not even read, and the reason is said.
func TestSampleChanged(t *testing.T) {
	tests := []struct {
		name               string
		change             func(table []byte)
		unread, unrun, err string
	}{
		{"checksum", func(b []byte) { b[offSum]++ }, "", "", "checksum"},
		{"open", func(b []byte) { b[offOpen] = 1 }, "", "", "open state"},
		{"no line of the disk", func(b []byte) { lineOf(b, 1)[offMagic]++; seal(b) }, "", "", "no line"},
		{"too many members", func(b []byte) { b[offCount+1]++; copy(lineOf(b, 5), lineOf(b, 4)); seal(b) }, "", "", "members"},
		{"a foreign stamp", func(b []byte) { b[offStamp] = 1 }, "", "", "reserved"},
		{"RAID5", func(b []byte) { lineOf(b, 0)[offType] = typeRAID5; seal(b) }, "parity", "parity", ""},
		{"another type", func(b []byte) { lineOf(b, 0)[offType] = 3; seal(b) }, "type 3", "type 3", ""},
		{"two levels", func(b []byte) { b[offCount+1]++; lineOf(b, 5)[offLevel] = levelDual; seal(b) }, "two levels", "two", ""},
		{"an offset", func(b []byte) { lineOf(b, 2)[23] = 1; seal(b) }, "elsewhere", "elsewhere", ""},
		{"one place", func(b []byte) { lineOf(b, 2)[offID+3] = 0; seal(b) }, "one place", "one place", ""},
		{"unlike chunks", func(b []byte) { lineOf(b, 4)[offStripe+1] = 64; seal(b) }, "chunks", "chunks", ""},
		{"capacity", func(b []byte) { lineOf(b, 0)[offCapacity+3] = 1; seal(b) }, "not 4 times", "not 4 times", ""},
		{"a member less", func(b []byte) { b[offCount+1]--; seal(b) }, "3 of 4", "3 of 4", ""},
		{"morphing", func(b []byte) { lineOf(b, 0)[offState] = arrayMorphing; seal(b) }, "being changed", "changed", ""},
		{"dead", func(b []byte) { lineOf(b, 0)[offState] = arrayDead; seal(b) }, "", "dead", ""},
		{"pending", func(b []byte) { lineOf(b, 3)[offFlags] = 0x80; seal(b) }, "", "not finished", ""},
	}

	for _, tt := range tests {
		image := sample(t)
		tt.change(image[len(image)-17*raid.SectorSize:])

		sb, err := Format{}.Probe(sampleSource(image))

		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case !strings.Contains(sb.Unsupported, tt.unrun) || !strings.Contains(sb.Unreadable, tt.unread) ||
			(tt.unread == "") != (sb.Unreadable == ""):
			t.Errorf("%s: unsupported %q, unreadable %q", tt.name, sb.Unsupported, sb.Unreadable)
		}
	}
}

// seal computes the checksum of a table anew.
func seal(table []byte) { order.PutUint16(table[offSum:], sum(table)) }
