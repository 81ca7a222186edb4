package md1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// The versions of the write-intent bitmap. In version 3 the bits are in the
// order of the host that wrote them, which was little-endian as far as anybody
// can tell.
const (
	bitmapHostOrder = 3
	bitmapPlain     = 4
	bitmapClustered = 5
	bitmapLockless  = 6
)

// bitmap_super_t in drivers/md/md-bitmap.h. The bits follow it.
const (
	bitmapMagic      = 0x6d746962
	bitmapHeaderSize = 256

	offBitmapVersion       = 4
	offBitmapUUID          = 8
	offBitmapEvents        = 24
	offBitmapEventsCleared = 32
	offBitmapSyncSize      = 40
	offBitmapState         = 48
	offBitmapChunk         = 52 // in bytes
	offBitmapSleep         = 56 // in seconds
	offBitmapWriteBehind   = 60
	offBitmapReserved      = 64 // sectors that the bitmap may fill, or 0
)

// The bits of the state that say that the bitmap is of no account: it was out
// of date, or could not be written.
const (
	bitmapStale      = 1 << 1
	bitmapWriteError = 1 << 2
)

// bitmapBytesMax bounds the bits of a bitmap that is kept: four million, which
// take 12 MiB in all while the array runs. mdadm makes a quarter of that at
// most, unless it is told otherwise.
const bitmapBytesMax = 512 << 10

var errNoBitmap = errors.New("no bitmap superblock")

// bitmap is the superblock of an internal bitmap.
type bitmap [bitmapHeaderSize]byte

func (b *bitmap) version() uint32 { return binary.LittleEndian.Uint32(b[offBitmapVersion:]) }
func (b *bitmap) events() uint64  { return binary.LittleEndian.Uint64(b[offBitmapEvents:]) }
func (b *bitmap) state() uint32   { return binary.LittleEndian.Uint32(b[offBitmapState:]) }
func (b *bitmap) chunk() uint32   { return binary.LittleEndian.Uint32(b[offBitmapChunk:]) }
func (b *bitmap) sleep() uint32   { return binary.LittleEndian.Uint32(b[offBitmapSleep:]) }
func (b *bitmap) behind() uint32  { return binary.LittleEndian.Uint32(b[offBitmapWriteBehind:]) }

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

// valid verifies what the kernel does of a bitmap superblock, and that the
// bitmap is not larger than we keep. sectors are those that it covers.
func (b *bitmap) valid(sectors raid.Sectors) error {
	const (
		chunkMin  = raid.SectorSize
		behindMax = 1<<14 - 1
		sleepMax  = 1 << 24 // seconds; far beyond what anybody would ask for
	)

	switch {
	case b.version() != bitmapHostOrder && b.version() != bitmapPlain:
		return fmt.Errorf("bitmap version %d", b.version())
	case b.chunk() < chunkMin || bits.OnesCount32(b.chunk()) != 1:
		return fmt.Errorf("bitmap chunk of %d bytes", b.chunk())
	case b.sleep() < 1 || b.sleep() > sleepMax:
		return fmt.Errorf("bitmap daemon_sleep of %d seconds", b.sleep())
	case b.behind() > behindMax:
		return fmt.Errorf("bitmap write_behind of %d exceeds %d", b.behind(), behindMax)
	case sectors < 1 || bitmapBytes(sectors, b.chunkSectors()) > bitmapHeaderSize+bitmapBytesMax:
		return fmt.Errorf("bitmap of %d sectors in chunks of %d bytes", sectors, b.chunk())
	default:
		return nil
	}
}

func (b *bitmap) chunkSectors() raid.Sectors { return raid.Sectors(b.chunk() / raid.SectorSize) }

// bitmapBytes returns how many bytes a bitmap takes with its superblock.
func bitmapBytes(sectors, chunk raid.Sectors) int64 {
	chunks := int64((sectors + chunk - 1) / chunk)

	return bitmapHeaderSize + (chunks+7)/8
}

// info translates b, which is valid.
func (b *bitmap) info(sectors raid.Sectors) metadata.BitmapInfo {
	return metadata.BitmapInfo{
		Chunk: b.chunkSectors(), Sectors: sectors,
		Events: b.events(), Cleared: binary.LittleEndian.Uint64(b[offBitmapEventsCleared:]),
		Stale: b.state()&(bitmapStale|bitmapWriteError) != 0,
		Sleep: time.Duration(b.sleep()) * time.Second, WriteBehind: int(b.behind()),
	}
}

// infoOf returns what b, that of the member raw, says; nil if it is nil or does
// not count.
func (b *bitmap) infoOf(raw *Raw) *metadata.BitmapInfo {
	if b == nil || b.valid(syncSectors(raw)) != nil {
		return nil
	}

	info := b.info(syncSectors(raw))
	info.Stale = info.Stale || info.Events < raw.Events

	return &info
}

// syncSectors returns what the bitmap of an array covers, which is what a
// resync goes over: of the array at RAID10, else of each member.
func syncSectors(raw *Raw) raid.Sectors {
	size, chunk := raid.Sectors(raw.Size), raid.Sectors(raw.Chunksize)

	level := raid.Level(raw.Level)
	if !level.HasChunks() || chunk < 1 {
		return size
	}

	chunks := size / chunk
	if level == raid.Level10 {
		near, far := max(raid.Sectors(raw.Layout&0xff), 1), max(raid.Sectors(raw.Layout>>8&0xff), 1)

		// Neither can be so large that the product overflows: size fits the
		// device, and there are at most 1920 of them.
		chunks = min(chunks, 1<<50) / far * raid.Sectors(raw.RaidDisks) / near
	}

	return chunks * chunk
}

// bitmapEnd returns the sector that the bitmap of raw may not reach: what lies
// behind it, or the end of the device.
func bitmapEnd(raw *Raw, size raid.Sectors) raid.Sectors {
	at, end := bitmapPlace(raw), size
	behind := func(is bool, sector raid.Sectors) {
		if is && sector > at {
			end = min(end, sector)
		}
	}

	behind(true, raid.Sectors(raw.SuperOffset))
	behind(raw.BblogSize > 0 && raw.BblogOffset != 0, raid.Sectors(raw.SuperOffset)+raid.Sectors(raw.BblogOffset))
	behind(raw.DataSize > 0, raid.Sectors(raw.DataOffset))

	return end
}

// bitmapFits verifies that a bitmap of the given size can be written where raw
// says, in blocks of the size given, and lies over nothing else.
func bitmapFits(raw *Raw, size raid.Sectors, bytes int64, block int) error {
	block = max(block, raid.SectorSize)
	at := bitmapPlace(raw)
	end := at + raid.Sectors((bytes+int64(block)-1)/int64(block)*int64(block)/raid.SectorSize)

	super := raid.Sectors(raw.SuperOffset)
	first, last := raid.Sectors(raw.DataOffset), raid.Sectors(raw.DataOffset+raw.DataSize)

	switch {
	case at < 0 || at.Bytes()%int64(block) != 0:
		return fmt.Errorf("a bitmap at sector %d, in blocks of %d bytes", at, block)
	case at < last && first < end, at < super+blockSize/raid.SectorSize && super < end:
		return fmt.Errorf("a bitmap at sector %d would lie over the data or the superblock", at)
	case end > bitmapEnd(raw, size):
		return fmt.Errorf("a bitmap at sector %d has room for %d sectors, and takes %d",
			at, bitmapEnd(raw, size)-at, end-at)
	default:
		return nil
	}
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
