package scan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Signature is a sign that a program other than our modules has used, or uses,
// a device.
type Signature struct {
	Kind   string // "ext", "gpt", "lvm2"
	Offset int64  // in bytes, of the structure that was recognized
	Detail string // in words for people; may be empty

	// table says that it divides the device, and end where the last of what it
	// speaks of ends.
	table   bool
	end     raid.Sectors
	last    raid.Range // the partition that reaches farthest
	damaged bool
}

func (s Signature) String() string {
	text := s.Kind
	if s.Detail != "" {
		text += " (" + s.Detail + ")"
	}

	return text
}

// contradicts says why a device with s is not simply the member that sb says
// it is, or nothing.
//
// Only partition tables can: a file system, a swap area or an LVM label in
// front of the data was there before the superblock, which lies where they
// have structures of their own, and their own tools erase it when they come
// later. A table may be older or younger, both happens.
func (s Signature) contradicts(sb *metadata.Superblock, size raid.Sectors) string {
	if !s.table || s.damaged {
		return ""
	}

	first, last := sb.DataOffset, sb.DataOffset+sb.DataSize

	switch at := raid.Sectors(s.Offset / raid.SectorSize); {
	case sb.Array.IsZero():
		return fmt.Sprintf("a partition table, %v, on a spare, which has no content", s)
	case at < first || at >= last:
		return fmt.Sprintf("a partition table, %v, in front of the data of the array", s)
	case s.end > last && s.end <= size:
		// What the array holds may be partitioned, and the table of an array
		// ends where the array does. One that reaches over the metadata behind
		// the data, and not beyond the device, is that of the device.
		return fmt.Sprintf("a partition table, %v, that reaches to sector %d, where the data of the array ends at %d",
			s, s.end, last)
	default:
		return ""
	}
}

// contradictsAll returns why s contradicts what a superblock says of each array
// that the device is a member of, for it may be the content of any; or nothing.
func (s Signature) contradictsAll(sb *metadata.Superblock, size raid.Sectors) string {
	why := ""

	for _, one := range sb.All() {
		if why = s.contradicts(one, size); why == "" {
			break
		}
	}

	return why
}

// magic is a signature at a fixed place.
type magic struct {
	kind   string
	offset int64 // of the magic, from the start of the device, or its end if negative
	text   string
	start  int64 // of the structure, from the magic
}

// magics returns the signatures that are known by their bytes alone. Those of
// RAID formats serve as long as no module knows the format: a device with one
// is not free to be used.
func magics(block int64) []magic {
	const bcache = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"

	return []magic{
		{"xfs", 0, "XFSB", 0},
		{"luks", 0, "LUKS\xba\xbe", 0},
		{"ntfs", 3, "NTFS    ", -3},
		{"exfat", 3, "EXFAT   ", -3},
		{"fat", 54, "FAT", -54},
		{"fat", 82, "FAT32", -82},
		{"swap", 4096 - 10, "SWAPSPACE2", 10 - 4096},
		{"swap", 65536 - 10, "SWAPSPACE2", 10 - 65536}, // pages of 64 KiB
		{"bcache", 4096 + 24, bcache, -24},
		{"iso9660", 32769, "CD001", -1},
		{"btrfs", 65536 + 64, "_BHRfS_M", -64},
		{"ddf", -block, "\xde\x11\xde\x11", 0},
		{"imsm", -2 * block, "Intel Raid ISM Cfg Sig. ", 0},
	}
}

// windowStart and windowEnd are how much of the start and the end of a device
// is read: up to the magic of btrfs, and the metadata of md before version 1,
// which lies up to 128 KiB before the end, as an anchor of DDF can a sector earlier.
const (
	windowStart = 68 << 10
	windowEnd   = 132 << 10
)

// window is a part of a device.
type window struct {
	start int64
	data  []byte
}

// at returns size bytes at an offset, or nil if they are not all in w.
func (w window) at(offset int64, size int) []byte {
	from := offset - w.start
	if from < 0 || from > int64(len(w.data)) || int64(size) > int64(len(w.data))-from {
		return nil
	}

	return w.data[from:][:size]
}

func readWindow(src metadata.Source, start, end int64) (window, error) {
	// Devices are read in whole blocks.
	w := window{start: max(start, 0) &^ 4095}
	w.data = make([]byte, max(min(end, src.Size.Bytes())-w.start, 0))

	if n, err := src.ReadAt(w.data, w.start); n < len(w.data) {
		return window{}, fmt.Errorf("read %d bytes at %d: %w", len(w.data), w.start, err)
	}

	return w, nil
}

// ends is a device of which both ends have been read: most of what modules look for
// is there, and to ask the device for each of it anew takes a disk longer than the rest.
type ends struct {
	io.ReaderAt

	head, tail window
	err        error // of what could not be read, and is read piece by piece
}

func readEnds(src metadata.Source) ends {
	size := src.Size.Bytes()

	head, errHead := readWindow(src, 0, windowStart)
	tail, errTail := readWindow(src, size-windowEnd, size)

	return ends{src.ReaderAt, head, tail, cmp.Or(errHead, errTail)}
}

// ReadAt implements [io.ReaderAt].
func (e ends) ReadAt(p []byte, off int64) (int, error) {
	for _, w := range []window{e.head, e.tail} {
		if data := w.at(off, len(p)); data != nil {
			return copy(p, data), nil
		}
	}

	return e.ReaderAt.ReadAt(p, off)
}

// find returns the signatures at the ends of src.
func find(src metadata.Source, e ends) []Signature {
	size, head, tail := src.Size.Bytes(), e.head, e.tail

	var found []Signature

	for _, m := range magics(int64(max(src.Block, raid.SectorSize))) {
		w, offset := head, m.offset
		if offset < 0 {
			w, offset = tail, size+offset
		}

		if bytes.Equal(w.at(offset, len(m.text)), []byte(m.text)) {
			found = append(found, Signature{Kind: m.kind, Offset: offset + m.start})
		}
	}

	found = append(found, findExt(head)...)
	found = append(found, findLVM(head)...)
	found = append(found, findMD(head, tail, src.Size)...)
	found = append(found, findTables(head, tail, src, found)...)

	slices.SortStableFunc(found, func(a, b Signature) int { return cmp.Compare(a.Offset, b.Offset) })

	return found
}

// findExt finds ext2, ext3 and ext4, whose magic of two bytes needs a second
// look.
func findExt(head window) []Signature {
	const (
		at           = 1024
		size         = 256
		offInodes    = 0
		offBlockSize = 24 // the power of two, less 10
		offMagic     = 56
		blockSizeMax = 6
	)

	le := binary.LittleEndian

	sb := head.at(at, size)
	if sb == nil || le.Uint16(sb[offMagic:]) != 0xef53 {
		return nil
	}

	if le.Uint32(sb[offInodes:]) == 0 || le.Uint32(sb[offBlockSize:]) > blockSizeMax {
		return nil
	}

	return []Signature{{Kind: "ext", Offset: at}}
}

// findLVM finds the label of a physical volume, in one of the first sectors.
func findLVM(head window) []Signature {
	for sector := range int64(4) {
		label := head.at(sector*raid.SectorSize, raid.SectorSize)
		if label != nil && bytes.HasPrefix(label, []byte("LABELONE")) && string(label[24:32]) == "LVM2 001" {
			return []Signature{{Kind: "lvm2", Offset: sector * raid.SectorSize}}
		}
	}

	return nil
}

// kindStray is an md superblock of version 1 at a place where it would be
// found, were it this device's.
const kindStray = "md superblock of another device"

// kindOld is an md superblock of version 0.90, and moduleOld who reads such.
const (
	kindOld   = "md 0.90"
	moduleOld = "md0"
)

// findMD finds superblocks of md that no module may read: of version 0.90, and
// of version 1 if they belong to another device, such as the disk's last
// partition.
func findMD(head, tail window, size raid.Sectors) []Signature {
	const (
		magic    = 0xa92b4efc
		offMajor = 4
	)

	// Version 0.90 has the byte order of its host.
	le, be := binary.LittleEndian, binary.BigEndian

	var found []Signature

	add := func(kind string, w window, at raid.Sectors, order binary.ByteOrder, major uint32) {
		sb := w.at(at.Bytes(), raid.SectorSize)
		if sb != nil && order.Uint32(sb) == magic && order.Uint32(sb[offMajor:]) == major {
			found = append(found, Signature{Kind: kind, Offset: at.Bytes()})
		}
	}

	add(kindStray, head, 0, le, 1)
	add(kindStray, head, 8, le, 1)
	add(kindStray, tail, (size-16)&^7, le, 1)
	add(kindOld, tail, size&^127-128, le, 0)
	add(kindOld, tail, size&^127-128, be, 0)

	return found
}
