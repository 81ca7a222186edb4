package md1

import (
	"encoding/binary"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// dataRoom returns how much data a member may have: at 1.0 what it has, for
// its superblock would have to move, else up to the end of the device or to
// what lies behind the data.
func dataRoom(raw *Raw, m minor, size raid.Sectors) raid.Sectors {
	if m == 0 {
		return raid.Sectors(raw.DataSize)
	}

	super, data, end := raid.Sectors(raw.SuperOffset), raid.Sectors(raw.DataOffset), size
	behind := func(is bool, at raid.Sectors) {
		if is && at > data {
			end = min(end, at)
		}
	}

	behind(raw.FeatureMap&FeatureBitmapOffset != 0, bitmapPlace(raw))
	if log := pplPlace(raw); log != nil {
		behind(true, log.Sector)
	}

	behind(raw.BblogSize > 0, super+raid.Sectors(raw.BblogOffset))

	return max(end-data, 0)
}

// Grow implements [metadata.Keeper].
func (k *keeper) Grow(size raid.Sectors) (raid.Sectors, error) {
	level := raid.Level(k.like.Level)
	if !level.HasRedundancy() {
		return 0, fmt.Errorf("md1: %v uses all of its members", level)
	}

	// The copies of far layouts would have to move.
	if level == raid.Level10 && k.like.Layout>>8&0xff > 1 && k.like.Layout>>16&1 == 0 {
		return 0, fmt.Errorf("md1: a RAID10 of layout %#x cannot grow", k.like.Layout)
	}

	room := k.room()
	if size == 0 {
		size = room
	}

	if level.HasChunks() {
		size -= size % raid.Sectors(max(k.like.Chunksize, 1))
	}

	if old := raid.Sectors(k.like.Size); size <= old || size > room {
		return 0, fmt.Errorf("md1: %d sectors of each member, of which it uses %d and has room for %d", size, old, room)
	}

	grown := *k.like
	grown.Size = uint64(size)

	if b := k.intent; b != nil {
		chunk, err := b.chunkFor(syncSectors(&grown))
		if err != nil {
			return 0, fmt.Errorf("md1: %w", err)
		}

		b.reshape(syncSectors(&grown), chunk)
	}

	k.like.Size = grown.Size

	for i, m := range k.members {
		if m != nil && size > raid.Sectors(binary.LittleEndian.Uint64(m.image[offDataSize:])) {
			m.widen(metadata.MemberID(i))
		}
	}

	return size, nil
}

// widen has the superblock of a member say how much data it may have by now, and
// nothing else that is new, before any says that the array uses more: else a power
// cut could leave some that use more than others say there is room for.
func (m *member) widen(id metadata.MemberID) {
	le := binary.LittleEndian
	le.PutUint64(m.image[offDataSize:], uint64(m.room))

	if m.size == 0 {
		return // it has none yet
	}

	super := make([]byte, blockSize)
	copy(super, m.image)

	if m.found != nil {
		raw := *m.found
		raw.DataSize = uint64(m.room)
		copy(super, raw.Encode())
	} else {
		putChecksum(super[:superSize(int(le.Uint32(super[offMaxDev:])))])
	}

	m.first = append(m.first, metadata.Write{Member: id, Sector: m.at, Data: super[:max(m.block, raid.SectorSize)]})
}

// room returns how much data every attached device may have.
func (k *keeper) room() raid.Sectors {
	room := raid.MaxSectors

	for _, m := range k.members {
		if m != nil {
			room = min(room, m.room)
		}
	}

	return room
}
