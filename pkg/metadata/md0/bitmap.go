package md0

import (
	"bytes"
	"encoding/binary"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// bitmap_super_t in drivers/md/md-bitmap.h, which is little-endian. It follows
// the superblock, where one says that there is a bitmap, and the bits follow it.
const (
	bitmapMagic      = 0x6d746962
	bitmapHeaderSize = 256
	bitmapOffset     = blockSize / raid.SectorSize

	offBitmapUUID          = 8
	offBitmapEvents        = 24
	offBitmapEventsCleared = 32
)

// readBitmap returns the superblock of a bitmap that a member has, or nil.
func readBitmap(raw *Raw, src metadata.Source) []byte {
	at, _ := place(src.Size)
	buf := make([]byte, blockSize)

	// Its UUID is that of the superblock as it lies there.
	uuid := append([]byte(nil), raw.image[5*4:6*4]...)
	uuid = append(uuid, raw.image[13*4:16*4]...)

	n, err := src.ReadAt(buf, (at + bitmapOffset).Bytes())
	if n < len(buf) && err != nil || binary.LittleEndian.Uint32(buf) != bitmapMagic ||
		!bytes.Equal(buf[offBitmapUUID:][:len(uuid)], uuid) {
		return nil
	}

	return buf[:bitmapHeaderSize]
}

// noteBitmap looks at the bitmap of a member that is attached: the count of
// events goes on from the highest.
func (k *keeper) noteBitmap(raw *Raw, src metadata.Source) {
	if raw.State&bitBitmap == 0 {
		return
	}

	header := readBitmap(raw, src)
	if header == nil {
		return
	}

	k.events = max(k.events, binary.LittleEndian.Uint64(header[offBitmapEvents:]))
	k.bitmap = header
}

// staleBitmap returns the first block of a bitmap like that given which md takes
// for stale, whatever the array's event count.
func staleBitmap(header []byte, block int) []byte {
	buf := bytes.Repeat([]byte{0xff}, max(block, raid.SectorSize))
	copy(buf, header)
	clear(buf[offBitmapEvents : offBitmapEventsCleared+8])

	return buf
}
