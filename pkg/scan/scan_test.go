package scan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
)

const deviceSize raid.Sectors = 32768

func blank() []byte { return make([]byte, deviceSize.Bytes()) }

func source(image []byte) metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(image),
		Size:     raid.Sectors(len(image) / raid.SectorSize),
		Block:    raid.SectorSize,
	}
}

// member makes the device a member of a RAID1 with the metadata 1.minor.
func member(tb testing.TB, image []byte, minor int) []byte {
	tb.Helper()

	stages, err := md1.Create(metadata.NewArray{
		Version: fmt.Sprintf("1.%d", minor), Array: raid.UUID{0xaa}, Name: "data", Now: time.Unix(1_700_000_000, 0),
		Geometry: raid.Geometry{Level: raid.Level1, Disks: 2},
	}, []metadata.NewMember{{Source: source(image)}, {}})
	if err != nil {
		tb.Fatal(err)
	}

	for _, stage := range stages {
		for _, w := range stage {
			copy(image[w.Sector.Bytes():], w.Data)
		}
	}

	return image
}

// TestConflicts draws which of what lies beside a superblock contradicts it.
func TestConflicts(t *testing.T) {
	small := deviceSize - 128 // what a RAID1 with 1.0 is as large as, or larger

	for _, tt := range []struct {
		name  string
		image []byte
		want  []string // pieces of the conflicts
		sigs  []string
	}{
		{"1.2 alone", member(t, blank(), 2), nil, nil},
		{"1.1 alone", member(t, blank(), 1), nil, nil},
		{"1.0 alone", member(t, blank(), 0), nil, nil},
		{
			"mbr in front", member(t, putMBR(blank(), partition{0x83, 2048, 4096}), 2),
			[]string{"a partition table, mbr (partitions of type 0x83), in front of the data of the array"},
			[]string{"0 mbr (partitions of type 0x83)"},
		},
		{
			// The superblock lies where the table's entries were.
			"gpt left over", member(t, putGPT(blank(), deviceSize, 512), 2), nil,
			[]string{"512 gpt (damaged)", "16776704 gpt (backup, 1 partitions)"},
		},
		{
			"gpt in front", member(t, putGPT(blank(), deviceSize, 512), 1),
			[]string{"a partition table, gpt (1 partitions), in front of the data of the array"},
			[]string{"512 gpt (1 partitions)", "16776704 gpt (backup, 1 partitions)"},
		},
		{
			"partitions in the array", member(t, putGPT(blank(), small, 512), 0), nil,
			[]string{"512 gpt (1 partitions)"},
		},
		{
			"partitions over the metadata", member(t, putMBR(blank(), partition{0x83, 2048, 30720}), 0),
			[]string{"that reaches to sector 32768, where the data of the array ends at 32736"},
			[]string{"0 mbr (partitions of type 0x83)"},
		},
		{
			// Such as that of a RAID0, which begins on its first member.
			"partitions beyond the device", member(t, putMBR(blank(), partition{0x83, 2048, 90000}), 0), nil,
			[]string{"0 mbr (partitions of type 0x83)"},
		},
		{
			"file system left over", func() []byte {
				image := blank()
				copy(image[65600:], "_BHRfS_M")

				return member(t, image, 2)
			}(), nil, []string{"65536 btrfs"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Scan(source(tt.image), Formats()...)
			if r.Superblock == nil || r.Module != "md1" || r.Err != nil || r.Empty() {
				t.Fatalf("Scan() = %+v", r)
			}

			if len(r.Conflicts) != len(tt.want) {
				t.Fatalf("Conflicts = %q, want %q", r.Conflicts, tt.want)
			}

			for i, want := range tt.want {
				if !strings.Contains(r.Conflicts[i], want) {
					t.Errorf("conflict = %q, want ...%s...", r.Conflicts[i], want)
				}
			}

			if diff := cmp.Diff(tt.sigs, kinds(r)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
		})
	}
}

// fake is a module that finds what it is told to.
type fake struct {
	metadata.Format
	name string
	err  error
}

func (f fake) Name() string { return f.name }

func (f fake) Probe(metadata.Source) (*metadata.Superblock, error) {
	if f.err != nil {
		return nil, f.err
	}

	return &metadata.Superblock{Format: f.name + " format"}, nil
}

func TestScanModules(t *testing.T) {
	found, none := fake{name: "a"}, fake{name: "n", err: metadata.ErrNotFound}
	corrupt := fake{name: "c", err: fmt.Errorf("c: torn: %w", metadata.ErrCorrupt)}
	failing := fake{name: "f", err: io.ErrUnexpectedEOF}

	for _, tt := range []struct {
		name      string
		formats   []metadata.Format
		module    string
		conflicts []string
		err       error
		msg       string
	}{
		{name: "none", formats: []metadata.Format{none, none}},
		{name: "no modules"},
		{name: "one", formats: []metadata.Format{none, found}, module: "a"},
		{
			name: "two", formats: []metadata.Format{found, fake{name: "b"}}, module: "a",
			conflicts: []string{"a superblock of b (b format, array 00000000:00000000:00000000:00000000) beside " +
				"a superblock of a (a format, array 00000000:00000000:00000000:00000000)"},
		},
		{name: "corrupt", formats: []metadata.Format{corrupt, failing}, err: metadata.ErrCorrupt, msg: "c: torn"},
		{name: "two corrupt", formats: []metadata.Format{corrupt, corrupt}, err: metadata.ErrCorrupt, msg: "\n"},
		{
			name: "corrupt beside a good one", formats: []metadata.Format{corrupt, found}, module: "a",
			conflicts: []string{"c: torn: corrupt superblock"},
		},
		{name: "unreadable", formats: []metadata.Format{none, failing}, err: io.ErrUnexpectedEOF},
		{name: "unreadable for one", formats: []metadata.Format{failing, found}, module: "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Scan(source(blank()), tt.formats...)
			if !errors.Is(r.Err, tt.err) || tt.err != nil && !strings.Contains(r.Err.Error(), tt.msg) {
				t.Errorf("Err = %v, want %v: ...%s...", r.Err, tt.err, tt.msg)
			}

			if r.Module != tt.module || (r.Superblock != nil) != (tt.module != "") {
				t.Errorf("Module = %q, Superblock = %v, want that of %q", r.Module, r.Superblock, tt.module)
			}

			if diff := cmp.Diff(tt.conflicts, r.Conflicts); diff != "" {
				t.Errorf("Conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

// failingAt fails reads that touch a byte.
type failingAt struct {
	io.ReaderAt
	at int64
}

func (f failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, io.ErrNoProgress
	}

	return f.ReaderAt.ReadAt(p, off)
}

func TestScanUnreadable(t *testing.T) {
	image := putMBR(blank(), partition{0x83, 2048, 100})

	for name, at := range map[string]int64{"start": 60000, "end": deviceSize.Bytes() - 60000} {
		src := source(image)
		src.ReaderAt = failingAt{src.ReaderAt, at}

		r := Scan(src, Formats()...)
		if !errors.Is(r.Err, io.ErrNoProgress) || errors.Is(r.Err, metadata.ErrCorrupt) || r.Empty() {
			t.Errorf("%s: Err = %v", name, r.Err)
		}

		// A member is one whatever cannot be read elsewhere.
		src = source(member(t, blank(), 2))
		src.ReaderAt = failingAt{src.ReaderAt, at}

		if r := Scan(src, Formats()...); r.Superblock == nil || r.Err != nil {
			t.Errorf("%s: member: Scan() = %+v", name, r)
		}
	}
}

// counting counts reads.
type counting struct {
	io.ReaderAt

	n int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n++

	return c.ReaderAt.ReadAt(p, off)
}

// TestScanGolden scans members that md made: no content of theirs, and nothing
// of md's, is taken for something else. Each end is read once.
func TestScanGolden(t *testing.T) {
	for _, name := range []string{"md10-raid1-2", "md11-raid5-3", "md12-raid5-ls-4-bitmap-spare"} {
		g := conformance.LoadGolden(t, name)
		for i := range g.Members {
			src := g.Source(i)
			reads := &counting{ReaderAt: src.ReaderAt}
			src.ReaderAt = reads

			r := Scan(src, Formats()...)
			if r.Superblock == nil || r.Err != nil || len(r.Conflicts)+len(r.Signatures) != 0 || reads.n != 2 {
				t.Errorf("%s: member %d: Scan() = %+v after %d reads", name, i, r, reads.n)
			}
		}
	}
}

// patched is a device of any size that holds what a fuzzer made at its start
// and its end, and counts what is read.
type patched struct {
	size       int64
	head, tail []byte
	read       int64
}

func (p *patched) ReadAt(buf []byte, off int64) (int, error) {
	p.read += int64(len(buf))

	clear(buf)
	overlay(buf, off, p.tail, p.size-int64(len(p.tail)))
	overlay(buf, off, p.head, 0)

	if left := p.size - off; left < int64(len(buf)) {
		return int(max(left, 0)), io.EOF
	}

	return len(buf), nil
}

// overlay copies to buf, which is read at off, what of data at start it covers.
func overlay(buf []byte, off int64, data []byte, start int64) {
	if skip := off - start; skip > 0 {
		data, start = data[min(skip, int64(len(data))):], off
	}

	if start < off+int64(len(buf)) {
		copy(buf[start-off:], data)
	}
}

// FuzzScan holds Scan to a superblock or an error, and never both, to bounded
// reads, and to signatures that lie on the device.
func FuzzScan(f *testing.F) {
	gpt := putGPT(blank(), deviceSize, 512)
	f.Add(gpt[:20000], gpt[len(gpt)-20000:], uint16(deviceSize), false)
	f.Add(putMBR(blank(), partition{0x83, 1, 2})[:512], []byte{}, uint16(1), true)
	f.Add(member(f, blank(), 2)[:8192], []byte("Intel Raid ISM Cfg Sig. "), uint16(deviceSize), true)
	f.Fuzz(func(t *testing.T, head, tail []byte, size uint16, large bool) {
		if len(head) > 1024 {
			sumGPT(head)
		}

		const readMax = 1 << 20

		d := &patched{size: raid.Sectors(size).Bytes(), head: head, tail: tail}
		src := metadata.Source{ReaderAt: d, Size: raid.Sectors(size), Block: raid.SectorSize}

		if large {
			src.Block = 4096
		}

		r := Scan(src, Formats()...)
		if r.Superblock != nil && r.Err != nil {
			t.Errorf("Scan() = %v, %v", r.Superblock, r.Err)
		}

		if r.Superblock == nil && (r.Module != "" || r.Conflicts != nil) {
			t.Errorf("Scan() = %+v without a superblock", r)
		}

		if d.read > readMax {
			t.Errorf("Scan() read %d bytes, want at most %d", d.read, readMax)
		}

		for _, s := range r.Signatures {
			if s.Offset < 0 || s.Offset >= d.size || s.Kind == "" || s.end < 0 {
				t.Errorf("signature %+v on %d bytes", s, d.size)
			}
		}
	})
}

// TestLastPartitionOfTheDisk checks that a superblock of version 1.0, which lies at the
// end, is the partition's where disk and last partition end together: it says where
// it belongs, whatever the table says of it.
func TestLastPartitionOfTheDisk(t *testing.T) {
	const start = 2048

	part := member(t, blank(), 0)
	behind := append(make([]byte, start*raid.SectorSize), part...)

	for _, tt := range []struct {
		name   string
		image  []byte
		module string
		stray  bool
	}{
		{"the partition", part, "md1", false},
		{"the disk", putMBR(bytes.Clone(behind), partition{0xfd, start, uint32(deviceSize)}), "", true},
		{"the disk, without its table", behind, "", true},
		{"a disk that is a member itself", member(t, bytes.Clone(behind), 0), "md1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Scan(source(tt.image), Formats()...)
			stray := slices.ContainsFunc(r.Signatures, func(s Signature) bool { return s.Kind == kindStray })

			if r.Err != nil || r.Module != tt.module || stray != tt.stray || len(r.Conflicts) > 0 {
				t.Errorf("Scan() = %+v, want the module %q", r, tt.module)
			}
		})
	}
}
