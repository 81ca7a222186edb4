package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// partition is one of a partition table, in blocks.
type partition struct {
	kind         byte
	start, count uint32
}

// putMBR writes a partition table as fdisk makes it.
func putMBR(image []byte, partitions ...partition) []byte {
	for i, p := range partitions {
		entry := image[446+16*i:]
		entry[4] = p.kind
		binary.LittleEndian.PutUint32(entry[8:], p.start)
		binary.LittleEndian.PutUint32(entry[12:], p.count)
	}

	image[510], image[511] = 0x55, 0xaa

	return image
}

// putGPT writes a GPT over size sectors with one partition, primary and
// backup, in blocks of the size given.
func putGPT(image []byte, size raid.Sectors, block int) []byte {
	le := binary.LittleEndian
	last := uint64(size.Bytes())/uint64(block) - 1
	room := uint64(16384 / block)

	table := make([]byte, 16384)
	copy(table, "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4") // Linux filesystem
	copy(table[16:], "a partition of it")
	le.PutUint64(table[32:], 2+room)
	le.PutUint64(table[40:], last-room-1)

	for _, h := range []struct{ at, other, entries uint64 }{{1, last, 2}, {last, 1, last - room}} {
		header := make([]byte, block)
		copy(header, "EFI PART")
		le.PutUint32(header[8:], 0x10000)
		le.PutUint32(header[12:], 92)
		le.PutUint64(header[24:], h.at)
		le.PutUint64(header[32:], h.other)
		le.PutUint64(header[40:], 2+room)
		le.PutUint64(header[48:], last-room-1)
		copy(header[56:], "the disk's GUID.")
		le.PutUint64(header[72:], h.entries)
		le.PutUint32(header[80:], 128)
		le.PutUint32(header[84:], 128)
		le.PutUint32(header[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(header[16:], crc32.ChecksumIEEE(header[:92]))
		copy(image[int(h.at)*block:], header)
		copy(image[int(h.entries)*block:], table)
	}

	return putMBR(image, partition{0xee, 1, uint32(last)})
}

// sumGPT makes the checksum of a primary header right, whatever it says.
func sumGPT(image []byte) []byte {
	header := image[512:1024]
	size := min(binary.LittleEndian.Uint32(header[12:]), 512)

	binary.LittleEndian.PutUint32(header[16:], 0)
	binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header[:size]))

	return image
}

func kinds(r Result) []string {
	var all []string
	for _, s := range r.Signatures {
		all = append(all, fmt.Sprintf("%d %v", s.Offset, s))
	}

	return all
}

func TestSignatures(t *testing.T) {
	put := func(offset int, text string) []byte {
		image := blank()
		copy(image[(offset+len(image))%len(image):], text)

		return image
	}
	ext := put(1024+56, "\x53\xef")
	ext[1024] = 1 // inodes

	oddExt := bytes.Clone(ext)
	oddExt[1024+24] = 7 // blocks of 128 KiB

	shifted := blank()
	copy(shifted[4096:], member(t, blank(), 1)[:4096]) // as if a partition began here

	// The superblock of a partition that reaches to the end of its disk.
	last := putMBR(blank(), partition{0xfd, 64, uint32(deviceSize - 64)})
	copy(last[64*512:], member(t, blank()[:(deviceSize-64).Bytes()], 0))

	damaged := putGPT(blank(), deviceSize, 512)
	damaged[1024+40] ^= 1

	badHeader := putGPT(blank(), deviceSize, 512)
	badHeader[512+48] ^= 1
	clear(badHeader[(deviceSize - 1).Bytes():])

	for _, tt := range []struct {
		name  string
		image []byte
		want  []string
	}{
		{"blank", blank(), nil},
		{"nothing", nil, nil},
		{"xfs", put(0, "XFSB"), []string{"0 xfs"}},
		{"luks", put(0, "LUKS\xba\xbe"), []string{"0 luks"}},
		{"ntfs", put(3, "NTFS    "), []string{"0 ntfs"}},
		{"exfat", put(3, "EXFAT   "), []string{"0 exfat"}},
		{"fat", put(54, "FAT16   "), []string{"0 fat"}},
		{"fat32", put(82, "FAT32   "), []string{"0 fat"}},
		{"fat is no partition table", putMBR(put(82, "FAT32   "), partition{0x83, 1, 2}), []string{"0 fat"}},
		{"ext", ext, []string{"1024 ext"}},
		{"ext without inodes", put(1024+56, "\x53\xef"), nil},
		{"ext of odd blocks", oddExt, nil},
		{"swap", put(4086, "SWAPSPACE2"), []string{"0 swap"}},
		{"swap of large pages", put(65526, "SWAPSPACE2"), []string{"0 swap"}},
		{"btrfs", put(65600, "_BHRfS_M"), []string{"65536 btrfs"}},
		{"lvm2", put(512, "LABELONE"+strings.Repeat("\x00", 16)+"LVM2 001"), []string{"512 lvm2"}},
		{"lvm1", put(512, "LABELONE"+strings.Repeat("\x00", 16)+"LVM1 001"), nil},
		{"iso9660", put(32769, "CD001"), []string{"32768 iso9660"}},
		{"bcache", put(4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"), []string{
			"4096 bcache",
		}},
		{"md of a partition", shifted, []string{"4096 md superblock of another device"}},
		{"md of the last partition", last, []string{
			"0 mbr (partitions of type 0xfd)", "16769024 md superblock of another device",
		}},
		{"mbr", putMBR(blank(), partition{0x83, 2048, 100}, partition{0xfd, 4096, 100}), []string{
			"0 mbr (partitions of type 0x83, 0xfd)",
		}},
		{"empty mbr", putMBR(blank()), nil},
		{"boot code", bytes.Repeat([]byte{0x55, 0xaa}, 1<<20), nil},
		{"gpt", putGPT(blank(), deviceSize, 512), []string{
			"512 gpt (1 partitions)", "16776704 gpt (backup, 1 partitions)",
		}},
		{"damaged gpt", damaged, []string{"512 gpt (damaged)", "16776704 gpt (backup, 1 partitions)"}},
		{"damaged header", badHeader, []string{"512 gpt (damaged)"}},
		{"several", putMBR(put(65600, "_BHRfS_M"), partition{0x83, 2048, 100}), []string{
			"0 mbr (partitions of type 0x83)", "65536 btrfs",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Scan(source(tt.image), Formats()...)
			if r.Superblock != nil || r.Err != nil || len(r.Conflicts) != 0 {
				t.Errorf("Scan() = %+v", r)
			}

			if diff := cmp.Diff(tt.want, kinds(r)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}

			if r.Empty() != (len(tt.want) == 0) {
				t.Errorf("Empty() = %v", r.Empty())
			}
		})
	}
}

// TestGPTOddFields gives every field that a GPT is read by a value that it
// must not be read by.
func TestGPTOddFields(t *testing.T) {
	for name, tt := range map[string]struct {
		offset int
		value  uint64
	}{
		"small header":       {12, 91},
		"large header":       {12, 513},
		"huge header":        {12, 1<<32 - 1},
		"entries elsewhere":  {72, 1 << 20},
		"entries far away":   {72, 1<<64 - 1},
		"entries overflow":   {72, 1 << 55},
		"no entries":         {80, 0},
		"many entries":       {80, 129},
		"entries of nothing": {84, 0},
		"large entries":      {84, 129},
		"huge entries":       {84, 1 << 31},
	} {
		image := putGPT(blank(), deviceSize, 512)
		clear(image[(deviceSize - 1).Bytes():])

		if tt.offset == 72 {
			binary.LittleEndian.PutUint64(image[512+tt.offset:], tt.value)
		} else {
			binary.LittleEndian.PutUint32(image[512+tt.offset:], uint32(tt.value))
		}

		want := []string{"512 gpt (damaged)"}
		if diff := cmp.Diff(want, kinds(Scan(source(sumGPT(image))))); diff != "" {
			t.Errorf("%s: signatures (-want +got):\n%s", name, diff)
		}
	}
}

// TestGPTOf4KiB finds a table whose blocks are of 4 KiB, and not that of a
// disk whose blocks are smaller.
func TestGPTOf4KiB(t *testing.T) {
	src := source(putGPT(blank(), deviceSize, 4096))
	if r := Scan(src); r.Signatures != nil {
		t.Errorf("in blocks of 512 bytes: Scan() = %v", kinds(r))
	}

	src.Block = 4096

	want := []string{"4096 gpt (1 partitions)", "16773120 gpt (backup, 1 partitions)"}
	if diff := cmp.Diff(want, kinds(Scan(src))); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

// TestBlkidAgrees asks blkid, which we did not write, about the tables that
// the tests above make up, and makes file systems with their own tools.
func TestBlkidAgrees(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	run := func(program, debian string, args ...string) string {
		t.Helper()

		out, err := exec.Command(conformance.Tool(t, program, debian), append(args, path)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}

		return string(out)
	}
	write := func(image []byte) {
		t.Helper()

		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for want, image := range map[string][]byte{
		`PTTYPE="gpt"`:             putGPT(blank(), deviceSize, 512),
		`PTTYPE="dos"`:             putMBR(blank(), partition{0x83, 2048, 4096}),
		`TYPE="linux_raid_member"`: member(t, blank(), 0),
	} {
		write(image)

		if out := run("blkid", "util-linux", "-p"); !strings.Contains(out, want) {
			t.Errorf("blkid says %s, want %s", out, want)
		}
	}

	for program, tt := range map[string]struct{ debian, want string }{
		"mkfs.ext4": {"e2fsprogs", "1024 ext"},
		"mkswap":    {"util-linux", "0 swap"},
	} {
		write(blank())
		run(program, tt.debian, "-q")

		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}

		if diff := cmp.Diff([]string{tt.want}, kinds(Scan(source(image), Formats()...))); diff != "" {
			t.Errorf("%s: signatures (-want +got):\n%s", program, diff)
		}

		if zero, err := Zeros(source(image)); zero || err != nil {
			t.Errorf("%s: Zeros() = %v, %v", program, zero, err)
		}
	}
}

func TestZeros(t *testing.T) {
	for name, tt := range map[string]struct {
		image []byte
		set   int // a byte that is not zero; none if negative
		want  bool
	}{
		"blank":          {blank(), -1, true},
		"nothing":        {nil, -1, true},
		"one sector":     {make([]byte, 512), -1, true},
		"first byte":     {blank(), 0, false},
		"last byte":      {blank(), int(deviceSize.Bytes()) - 1, false},
		"a sample":       {blank(), 100<<16 + 4095, false},
		"between two":    {blank(), 100<<16 + 4096, true},
		"of one sector":  {make([]byte, 512), 511, false},
		"in the 1st MiB": {blank(), 1<<20 - 1, false},
	} {
		if tt.set >= 0 {
			tt.image[tt.set] = 1
		}

		if got, err := Zeros(source(tt.image)); got != tt.want || err != nil {
			t.Errorf("%s: Zeros() = %v, %v, want %v", name, got, err, tt.want)
		}
	}

	src := source(blank())
	for _, at := range []int64{0, 100 << 16, deviceSize.Bytes() - 1} {
		src.ReaderAt = failingAt{bytes.NewReader(blank()), at}
		if zero, err := Zeros(src); zero || !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("unreadable at %d: Zeros() = %v, %v", at, zero, err)
		}
	}
}
