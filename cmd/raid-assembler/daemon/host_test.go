package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
	"raid-assembler/pkg/scan/sysfs"
)

// TestUsers checks that a device is in use if it or a partition of it is
// mounted, swapped to, or part of something else.
func TestUsers(t *testing.T) {
	dir := t.TempDir()
	h := realHost{mounts: filepath.Join(dir, "mountinfo"), swaps: filepath.Join(dir, "swaps")}

	for name, text := range map[string]string{
		h.mounts: "21 26 8:1 / /boot rw,relatime shared:1 - ext4 /dev/sda1 rw\n" +
			"22 26 0:44 / /data rw - btrfs /dev/sdb rw\nnonsense\n",
		h.swaps: "Filename Type Size Used Priority\n/dev/sdc2 partition 1 0 -2\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	users := h.users()

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
		if got := users.of(tt.dev); got != tt.want {
			t.Errorf("user of %s = %q, want %q", tt.dev.Name, got, tt.want)
		}
	}
}

// TestDirect checks that direct I/O reads at any alignment what was written,
// and nothing beyond the end.
func TestDirect(t *testing.T) {
	const size = 5*pageBytes + 512

	path := filepath.Join(t.TempDir(), "image")
	content := make([]byte, size)

	for i := range content {
		content[i] = byte(i / 7)
	}

	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}

	r, err := openDirect(path, unix.O_RDWR, size/raid.SectorSize)
	if err != nil {
		t.Fatal(err)
	}

	block := bytes.Repeat([]byte{0xab}, pageBytes)
	if _, err := r.WriteAt(block, pageBytes); err != nil {
		t.Fatal(err)
	}

	copy(content[pageBytes:], block)

	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct{ off, length int }{
		{0, 1}, {0, pageBytes}, {3, 5000}, {pageBytes - 1, 2}, {size - 512, 512}, {0, size}, {17, 0},
	} {
		got := make([]byte, tt.length)
		if n, err := r.ReadAt(got, int64(tt.off)); err != nil || n != tt.length ||
			!bytes.Equal(got, content[tt.off:tt.off+tt.length]) {
			t.Errorf("ReadAt(%d bytes at %d) = %d, %v, or other bytes", tt.length, tt.off, n, err)
		}
	}

	for _, tt := range []struct{ off, length int }{{size - 1, 2}, {-1, 1}, {size + 1, 1}} {
		if _, err := r.ReadAt(make([]byte, tt.length), int64(tt.off)); err == nil {
			t.Errorf("ReadAt(%d bytes at %d) of %d succeeds", tt.length, tt.off, size)
		}
	}

	if err := r.Close(); err != nil {
		t.Error(err)
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
