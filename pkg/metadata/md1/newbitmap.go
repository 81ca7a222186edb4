package md1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	bitmapAutoMin raid.Sectors = 100 << 11 // the largest array without one
	bitmapOffset               = 8         // from the superblock, but at 1.0
	bitmapSleep                = 5         // seconds
	bitmapChunk   raid.Sectors = 64 << 11  // if there is room for smaller ones
)

// devflags returns the flags of a member as they are on disk.
func devflags(writeMostly, failFast bool) uint8 {
	var flags uint8

	if writeMostly {
		flags |= devWriteMostly
	}

	if failFast {
		flags |= devFailFast
	}

	return flags
}

// newBitmap gives the superblock of a new array the bitmap that p asks for and
// returns the bitmap's superblock, or nil if there is to be none.
func newBitmap(p metadata.NewArray, like *Raw) (*bitmap, error) {
	sectors := syncSectors(like)

	large := arraySectors(like) > bitmapAutoMin
	wanted := p.Bitmap == metadata.BitmapInternal || p.Bitmap == metadata.BitmapAuto && !p.PPL && large

	if !wanted || !p.Level.HasRedundancy() {
		if p.Bitmap == metadata.BitmapInternal {
			return nil, fmt.Errorf("%v has no use for a bitmap", p.Level)
		}

		return nil, nil //nolint:nilnil // there is none
	}

	chunk, err := chooseChunk(sectors, bitmapRoom(raid.Sectors(like.Size)), p.BitmapChunk)
	if err != nil {
		return nil, err
	}

	var b bitmap

	le := binary.LittleEndian
	le.PutUint32(b[:], bitmapMagic)
	le.PutUint32(b[offBitmapVersion:], bitmapPlain)
	copy(b[offBitmapUUID:], like.SetUUID[:])
	le.PutUint64(b[offBitmapSyncSize:], uint64(sectors))
	le.PutUint32(b[offBitmapChunk:], uint32(chunk.Bytes()))
	le.PutUint32(b[offBitmapSleep:], bitmapSleep)

	like.FeatureMap |= FeatureBitmapOffset
	like.BitmapOffset = bitmapOffset

	if minorNamed(p.Version) == 0 {
		like.BitmapOffset = -int32(b.takes(like)) - bblogSectors
	}

	return &b, b.valid(sectors)
}

// chooseChunk returns what a bit is to stand for so that a bitmap fits into
// room: what is asked for, or mdadm's choice.
func chooseChunk(sectors, room, asked raid.Sectors) (raid.Sectors, error) {
	least := raid.Sectors(pageSize / raid.SectorSize)
	for bitmapBytes(sectors, least) > room.Bytes() {
		if least *= 2; least.Bytes() > math.MaxInt32 {
			return 0, fmt.Errorf("no bitmap of %d sectors fits into %d", sectors, room)
		}
	}

	switch {
	case asked == 0:
		return max(least, bitmapChunk), nil
	case asked < least || asked.Bytes() > math.MaxInt32 || bits.OnesCount64(uint64(asked)) != 1:
		return 0, fmt.Errorf("a bitmap chunk of %d sectors is no power of two of at least %d", asked, least)
	default:
		return asked, nil
	}
}

// pages returns how many sectors the whole pages take that bytes fill.
func pages(bytes int64) raid.Sectors {
	return raid.Sectors((bytes + pageSize - 1) / pageSize * pageSize / raid.SectorSize)
}

// arraySectors returns the size of an array with redundancy.
func arraySectors(raw *Raw) raid.Sectors {
	level := raid.Level(raw.Level)
	if !level.HasParity() {
		return syncSectors(raw)
	}

	return syncSectors(raw) * raid.Sectors(int(raw.RaidDisks)-level.Redundancy(int(raw.RaidDisks)))
}

// takes returns how many sectors a new bitmap has to itself.
func (b *bitmap) takes(raw *Raw) raid.Sectors {
	return pages(bitmapBytes(syncSectors(raw), b.chunkSectors()))
}

// wholeBitmap returns the write of a new bitmap: every bit is set.
func wholeBitmap(raw *Raw, header *bitmap) metadata.Write {
	data := bytes.Repeat([]byte{0xff}, int(header.takes(raw).Bytes()))
	copy(data, header[:])

	return metadata.Write{Sector: bitmapPlace(raw), Data: data}
}
