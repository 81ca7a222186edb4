package md1

import (
	"encoding/binary"
	"fmt"
	"math"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// bblogSectors is the size of the bad block log that mdadm reserves.
const bblogSectors = 8

// image returns the superblock raw as a block of blockSize bytes, with what
// like says of the array: a stale member's own view of it is of no account.
func image(raw, like *Raw) []byte {
	buf := make([]byte, blockSize)
	copy(buf, raw.Encode())

	array := like.Encode()
	copy(buf[:offDataOffset], array[:offDataOffset])
	copy(buf[offLogicalBlockSize:headerSize], array[offLogicalBlockSize:headerSize])

	return buf
}

// roleMax returns how many roles there is room for between the superblock and
// whatever follows it.
func (r *Raw) roleMax() int {
	room := int64(blockSize)
	less := func(is bool, sectors int64) {
		if is && sectors > 0 {
			room = min(room, sectors*raid.SectorSize)
		}
	}

	// Neither can overflow: they were checked against the size of the device.
	less(r.FeatureMap&FeatureBitmapOffset != 0, int64(r.BitmapOffset))
	less(r.BblogSize > 0, int64(r.BblogOffset))
	less(true, int64(min(r.DataOffset, math.MaxInt32))-int64(min(r.SuperOffset, math.MaxInt32)))

	return (int(room) - headerSize) / 2
}

// rolesIn returns how many roles fit into the sectors that at least count of
// them take: what mdadm makes of it.
func rolesIn(count int) int {
	return (written(count, raid.SectorSize) - headerSize) / 2
}

// bitmapRoom returns how many sectors mdadm leaves for a bitmap that covers
// size sectors.
func bitmapRoom(size raid.Sectors) raid.Sectors {
	const (
		kib = 2
		gib = 1 << 20 * kib
	)

	switch {
	case size < 64*kib:
		return 0
	case size-64*kib >= 200*gib:
		return 128 * kib
	case size-4*kib > 8*gib:
		return 64 * kib
	default:
		return 4 * kib
	}
}

// newMember returns the superblock of a spare on src, for the array that like
// is a superblock of and laid out as it is there.
func newMember(like *Raw, m minor, src metadata.Source, device raid.UUID) (*Raw, error) {
	level := raid.Level(like.Level)
	if !level.HasRedundancy() {
		return nil, fmt.Errorf("%v has no use for a spare", level)
	}

	at, ok := m.place(src.Size)
	if !ok || src.Block > blockSize {
		return nil, fmt.Errorf("no room for a %v superblock on %d sectors in blocks of %d", m, src.Size, src.Block)
	}

	raw := *like
	raw.tail, raw.badEntries = nil, nil
	raw.FeatureMap &^= FeatureBadBlocks | FeatureReplacement
	raw.SuperOffset = uint64(at)
	raw.DeviceUUID = UUID(device)
	raw.RecoveryOffset, raw.CntCorrectedRead, raw.Devflags = 0, 0, 0

	offset, need := raid.Sectors(raw.DataOffset), raid.Sectors(raw.Size)

	end := src.Size
	if m == 0 {
		end = dataEnd(&raw, offset+need)
	}

	if end-offset < need {
		return nil, fmt.Errorf("%d sectors are too few: the array uses %d of each member from sector %d, there are %d",
			src.Size, need, offset, max(end-offset, 0))
	}

	raw.DataSize = uint64(end - offset)

	return &raw, nil
}

// dataEnd returns where the data area of a 1.0 member ends: before its bitmap
// and its bad block log, and before the room for a bitmap if it can be had
// above need.
func dataEnd(raw *Raw, need raid.Sectors) raid.Sectors {
	at := raid.Sectors(raw.SuperOffset)

	reserved := int32(0)
	if raw.FeatureMap&FeatureBitmapOffset != 0 {
		reserved = min(reserved, raw.BitmapOffset)
	}

	if raw.BblogSize > 0 {
		reserved = min(reserved, raw.BblogOffset)
	}

	if log := pplPlace(raw); log != nil {
		reserved = min(reserved, int32(log.Sector-at))
	}

	end := at + raid.Sectors(reserved)

	return min(end, max(need, at-bitmapRoom(raid.Sectors(raw.Size))-bblogSectors))
}

// preparations returns what is to be written to src before it becomes the
// member raw: what would otherwise be found there beside its superblock is
// erased, and it gets a bitmap if b is not nil and the array has one. The
// Member of the writes is for the caller to set.
func preparations(raw *Raw, m minor, src metadata.Source, b *bitmap) ([]metadata.Write, error) {
	writes, err := erasures(m, src)
	if err != nil {
		return nil, err
	}

	if log := pplPlace(raw); log != nil {
		writes = append(writes, metadata.Write{Sector: log.Sector, Data: log.Empty()})
	}

	if b == nil || raw.FeatureMap&FeatureBitmapOffset == 0 {
		return writes, nil
	}

	w, err := bitmapWrite(raw, b, src.Block)
	if err != nil {
		return nil, err
	}

	return append(writes, w), nil
}

// erasures returns writes that erase superblocks of other minor versions than
// keep, which may be none, from src.
func erasures(keep minor, src metadata.Source) ([]metadata.Write, error) {
	var writes []metadata.Write

	for _, m := range minors() {
		at, ok := m.place(src.Size)
		if !ok || m == keep {
			continue
		}

		buf, err := readBlock(src, at)
		if err != nil {
			return nil, fmt.Errorf("read sector %d: %w", at, err)
		}

		if binary.LittleEndian.Uint32(buf) == magic {
			writes = append(writes, metadata.Write{Sector: at, Data: make([]byte, max(src.Block, raid.SectorSize))})
		}
	}

	return writes, nil
}

// bitmapWrite returns the write that makes b, as a stale bitmap, that of raw.
func bitmapWrite(raw *Raw, b *bitmap, block int) (metadata.Write, error) {
	data := b.staleBlock(block)
	if err := bitmapFits(raw, math.MaxInt64/raid.SectorSize, int64(len(data)), block); err != nil {
		return metadata.Write{}, err
	}

	return metadata.Write{Sector: bitmapPlace(raw), Data: data}, nil
}
