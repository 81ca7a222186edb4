package md1

import (
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

var errNoBitmap = errors.New("no bitmap superblock")

// bitmap is what matters here of bitmap_super_t in drivers/md/md-bitmap.h.
type bitmap struct {
	version uint32
	events  uint64
}

// readBitmap reads the superblock of the internal bitmap of a member.
// Preconditions: raw has FeatureBitmapOffset.
func readBitmap(raw *Raw, src metadata.Source) (bitmap, error) {
	const (
		bitmapMagic = 0x6d746962
		offVersion  = 4
		offUUID     = 8
		offEvents   = 24
	)

	// Neither can overflow: super_offset is on the device, bitmap_offset is
	// 32 bits wide.
	at := raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BitmapOffset)
	if at < 0 || at >= src.Size {
		return bitmap{}, fmt.Errorf("bitmap at sector %d of %d: %w", at, src.Size, errNoBitmap)
	}

	buf, err := readBlock(src, at)
	if err != nil {
		return bitmap{}, fmt.Errorf("read sector %d: %w", at, err)
	}

	if binary.LittleEndian.Uint32(buf) != bitmapMagic || UUID(buf[offUUID:offUUID+16]) != raw.SetUUID {
		return bitmap{}, fmt.Errorf("sector %d: %w", at, errNoBitmap)
	}

	return bitmap{
		version: binary.LittleEndian.Uint32(buf[offVersion:]),
		events:  binary.LittleEndian.Uint64(buf[offEvents:]),
	}, nil
}
