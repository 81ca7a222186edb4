package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/fstest"

	"raid-assembler/internal/golden"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
	"raid-assembler/pkg/scan/sysfs"
)

// TestClaimedBy checks that a device is in use if it or a partition of it is
// mounted, swapped to, or part of something else.
func TestClaimedBy(t *testing.T) {
	users := sysfs.Users{
		"8:1": "the mount /boot", "/dev/sda1": "the mount /boot", "/dev/sdb": "the mount /data", "/dev/sdc2": "swap",
	}

	for _, tt := range []struct {
		dev  sysfs.Device
		want string
	}{
		{sysfs.Device{Name: "sda1", Major: 8, Minor: 1}, "the mount /boot"},
		{sysfs.Device{Name: "sda", Major: 8, Partitions: []string{"sda1"}}, "the mount /boot"},
		{sysfs.Device{Name: "sda2", Major: 8, Minor: 2}, ""},
		{sysfs.Device{Name: "sdb", Major: 8, Minor: 16}, "the mount /data"},
		{sysfs.Device{Name: "sdc", Major: 8, Minor: 32, Partitions: []string{"sdc1", "sdc2"}}, "swap"},
		{sysfs.Device{Name: "sdd", Major: 8, Minor: 48, Holders: []string{"dm-0", "md127"}}, "dm-0, md127"},
	} {
		if got := claimedBy(tt.dev, users); got != tt.want {
			t.Errorf("user of %s = %q, want %q", tt.dev.Name, got, tt.want)
		}
	}
}

// TestProbeUnreadable checks that a device that cannot be read is not taken for
// an empty one: the file ends where the device does not.
func TestProbeUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}

	disk := Disk{Path: path, Size: 1 << 15, Block: 512}
	if f := (&realHost{}).Probe(disk); f.Unreadable == "" {
		t.Errorf("Probe of what cannot be read = %+v", f)
	}

	if err := os.Truncate(path, disk.Size.Bytes()); err != nil {
		t.Fatal(err)
	}

	if f := (&realHost{}).Probe(disk); f.Unreadable != "" || f.Superblock != nil {
		t.Errorf("Probe of zeros = %+v", f)
	}
}

// TestFinding checks that what is corrupt is told from what cannot be read, for
// the one must not be overwritten and the other may pass.
func TestFinding(t *testing.T) {
	f := finding(scan.Result{
		Err:        fmt.Errorf("md1: checksum: %w", metadata.ErrCorrupt),
		Signatures: []scan.Signature{{Kind: "ext"}, {Kind: "gpt", Detail: "4 partitions"}},
	})
	if f.Corrupt == "" || f.Unreadable != "" || fmt.Sprint(f.Others) != "[ext gpt (4 partitions)]" {
		t.Errorf("finding = %+v", f)
	}

	f = finding(scan.Result{Signatures: []scan.Signature{{Kind: "ddf"}}})
	if f.Foreign != "ddf" {
		t.Errorf("finding = %+v", f)
	}

	f = finding(scan.Result{Err: errors.New("read at 4096: input/output error")})
	if f.Corrupt != "" || f.Unreadable == "" {
		t.Errorf("finding = %+v", f)
	}
}

// TestFindingsAreSmall: what is kept of a member is no more than what is decided by, of each
// format: the memory of a daemon that sees hundreds of disks is made of that.
func TestFindingsAreSmall(t *testing.T) {
	const most, many = 16 << 10, 20

	for _, set := range golden.Sets(t, "md090-raid1", "md12-raid1-2-bitmap", "ddf-raid1", "imsm-raid1-2") {
		image := set.Images(t)[0]
		src := metadata.Source{
			ReaderAt: bytes.NewReader(image), Size: raid.Sectors(len(image) / raid.SectorSize), Block: set.Sector, Serial: "m0",
		}

		before := heap()

		kept := make([]Finding, many)
		for i := range kept {
			kept[i] = finding(scan.Scan(src, scan.Formats()...))
		}

		size := (int64(heap()) - int64(before)) / many

		if kept[0].Superblock == nil {
			t.Errorf("%s: finding = %+v, want a superblock", set.Name, kept[0])
		}

		if size > most {
			t.Errorf("%s: %d bytes are kept of a member, want at most %d", set.Name, size, most)
		}

		runtime.KeepAlive(kept)
		runtime.KeepAlive(image)
	}
}

// TestForeign checks that a superblock that belongs elsewhere is told of, and
// not when it is that of a partition.
func TestForeign(t *testing.T) {
	set := newWorld(t).set("data", raid.Level1, 2, 0)
	image := set[0].image
	copy(image[4096+144:], "\xff\xff") // super_offset
	copy(image[4096+216:], make([]byte, 4))

	var sum uint64
	for i := 0; i < 256+2*128; i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(image[4096+i:]))
	}

	binary.LittleEndian.PutUint32(image[4096+216:], uint32(sum)+uint32(sum>>32))

	if f := finding(scan.Scan(set[0].source(), scan.Formats()...)); f.Foreign == "" || f.Superblock != nil {
		t.Errorf("finding = %+v, want a superblock of another device", f)
	}

	// An entry for a partition that ends with the disk.
	copy(image[446:], "\x00\x00\x00\x00\xfd\x00\x00\x00\x00\x08\x00\x00\x00\x38\x00\x00")
	copy(image[510:], "\x55\xaa")

	if f := finding(scan.Scan(set[0].source(), scan.Formats()...)); f.Foreign != "" {
		t.Errorf("finding = %+v, want nothing but a partition table", f)
	}
}

// counted counts the files that are opened.
type counted struct {
	fstest.MapFS

	files int
}

func (c *counted) Open(name string) (fs.File, error) {
	c.files++

	return c.MapFS.Open(name)
}

// TestDisksCost checks that a look at many disks reads little of those of which
// there is no news, and sees all that it must.
func TestDisksCost(t *testing.T) {
	sys := &counted{MapFS: fstest.MapFS{}}
	h := &realHost{tree: sysfs.Tree{Sys: sys}, proc: fstest.MapFS{}}
	plug := func(i int) string {
		dir := fmt.Sprintf("devices/host0/block/sd%d/", i)
		for name, text := range map[string]string{
			"dev": fmt.Sprintf("8:%d", i), "size": "4096", "diskseq": fmt.Sprint(i + 1), "device/model": "old",
		} {
			sys.MapFS[dir+name] = &fstest.MapFile{Data: []byte(text)}
		}

		sys.MapFS[fmt.Sprintf("class/block/sd%d", i)] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../" + dir[:len(dir)-1])}

		return dir
	}
	look := func(news ...string) (disks []Disk, files int) {
		before := sys.files

		disks, err := h.Disks(func(path string) bool { return slices.Contains(news, path) })
		if err != nil {
			t.Fatal(err)
		}

		return disks, sys.files - before
	}

	const many = 40
	for i := range many {
		plug(i)
	}

	_, all := look()
	dir := plug(many)

	disks, few := look("/dev/sd40")
	if one := all / many; len(disks) != many+1 || few > 4*(many+2)+one {
		t.Errorf("%d files opened at first and %d when a disk came, at %d disks", all, few, len(disks))
	}

	// What the kernel does not tell, and what it does.
	sys.MapFS[dir+"holders/dm-0/dev"] = &fstest.MapFile{}
	sys.MapFS[dir+"device/vpd_pg80"] = &fstest.MapFile{Data: []byte("\x00\x80\x00\x03one")}

	disks, _ = look()
	if last := disks[slices.IndexFunc(disks, func(d Disk) bool { return d.Path == "/dev/sd40" })]; last.Claimed != "dm-0" || last.Serial != "" {
		t.Errorf("without news: %+v", last)
	}

	disks, _ = look("/dev/sd40")
	if last := disks[slices.IndexFunc(disks, func(d Disk) bool { return d.Path == "/dev/sd40" })]; last.Claimed != "dm-0" || last.Serial != "one" {
		t.Errorf("with news: %+v", last)
	}

	// Another disk of the same name.
	sys.MapFS[dir+"diskseq"].Data = []byte("99")
	sys.MapFS[dir+"device/vpd_pg80"].Data = []byte("\x00\x80\x00\x03two")

	disks, _ = look()
	if last := disks[slices.IndexFunc(disks, func(d Disk) bool { return d.Path == "/dev/sd40" })]; last.Serial != "two" || last.Seq != 99 {
		t.Errorf("another disk: %+v", last)
	}
}
