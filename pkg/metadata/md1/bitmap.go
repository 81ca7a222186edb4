package md1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// The versions of the write-intent bitmap that are not the plain one.
const (
	bitmapClustered = 5
	bitmapLockless  = 6
)

// What matters here of bitmap_super_t in drivers/md/md-bitmap.h. The bits
// follow it.
const (
	bitmapMagic      = 0x6d746962
	bitmapHeaderSize = 256

	offBitmapVersion       = 4
	offBitmapUUID          = 8
	offBitmapEvents        = 24
	offBitmapEventsCleared = 32
)

var errNoBitmap = errors.New("no bitmap superblock")

// bitmap is the superblock of an internal bitmap.
type bitmap [bitmapHeaderSize]byte

func (b *bitmap) version() uint32 { return binary.LittleEndian.Uint32(b[offBitmapVersion:]) }
func (b *bitmap) events() uint64  { return binary.LittleEndian.Uint64(b[offBitmapEvents:]) }

// bitmapPlace returns the sector of the bitmap superblock. Preconditions: raw
// was checked. Neither term is large enough to overflow.
func bitmapPlace(raw *Raw) raid.Sectors {
	return raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BitmapOffset)
}

// readBitmap reads the superblock of the internal bitmap of a member.
// Preconditions: raw has FeatureBitmapOffset.
func readBitmap(raw *Raw, src metadata.Source) (*bitmap, error) {
	at := bitmapPlace(raw)
	if at < 0 || at >= src.Size {
		return nil, fmt.Errorf("bitmap at sector %d of %d: %w", at, src.Size, errNoBitmap)
	}

	buf, err := readBlock(src, at)
	if err != nil {
		return nil, fmt.Errorf("read sector %d: %w", at, err)
	}

	b := bitmap(buf[:bitmapHeaderSize])
	if binary.LittleEndian.Uint32(b[:]) != bitmapMagic || UUID(b[offBitmapUUID:][:16]) != raw.SetUUID {
		return nil, fmt.Errorf("sector %d: %w", at, errNoBitmap)
	}

	return &b, nil
}

// staleBlock returns the first logical block of a bitmap like b that md takes
// for stale, whatever the array's event count: what is behind it is then of no
// account.
func (b *bitmap) staleBlock(block int) []byte {
	buf := bytes.Repeat([]byte{0xff}, max(block, raid.SectorSize))
	copy(buf, b[:])
	clear(buf[offBitmapEvents : offBitmapEventsCleared+8])

	return buf
}
