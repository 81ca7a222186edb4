package md1

import (
	"errors"
	"fmt"
	"hash/crc32"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// pplSectors is the room for logs that mdadm makes: 1 MiB, a ring.
const pplSectors = 2048

// pplField returns what a new superblock says of where its logs are, where it
// would have the place of a bitmap: behind it, or at 1.0 in front of the bad
// block log.
func pplField(m minor) int32 {
	offset := int16(bitmapOffset)
	if m == 0 {
		offset = -pplSectors - bblogSectors
	}

	return int32(pplSectors<<16 | uint32(uint16(offset)))
}

// pplPlace returns where a member keeps partial parity, or nil if it does not.
func pplPlace(raw *Raw) *metadata.PPL {
	if raw.FeatureMap&(FeaturePPL|FeatureMultiplePPLs) == 0 {
		return nil
	}

	// The place is where that of a bitmap is else: 16 bits each.
	offset, size := int16(raw.BitmapOffset), uint16(uint32(raw.BitmapOffset)>>16)

	return &metadata.PPL{
		Sector: raid.Sectors(raw.SuperOffset) + raid.Sectors(offset), Size: raid.Sectors(size),
		Ring:      raw.FeatureMap&FeatureMultiplePPLs != 0,
		Signature: crc32.Checksum(raw.SetUUID[:], crc32.MakeTable(crc32.Castagnoli)),
	}
}

// pplFits verifies that the logs of a member lie over nothing else, and that
// nothing else is meant to lie there: the kernel knows no bitmap beside them.
func pplFits(raw *Raw, src metadata.Source) error {
	const least = 16 // sectors: a header, and the partial parity of a row

	log := pplPlace(raw)
	if log == nil {
		return nil
	}

	both := raw.FeatureMap&FeaturePPL != 0 && raw.FeatureMap&FeatureMultiplePPLs != 0
	end, block := log.Sector+log.Size, int64(max(src.Block, raid.SectorSize))
	over := func(from, to raid.Sectors) bool { return log.Sector < to && from < end }

	super, data := raid.Sectors(raw.SuperOffset), raid.Sectors(raw.DataOffset)
	bad := super + raid.Sectors(raw.BblogOffset)

	switch {
	case both || raw.FeatureMap&FeatureBitmapOffset != 0:
		return fmt.Errorf("partial parity logs beside something else, features %#x", uint32(raw.FeatureMap))
	case raid.Level(raw.Level) != raid.Level5:
		return errors.New("a partial parity log on a level that has none")
	case log.Size < least || log.Sector < 0 || end > src.Size,
		log.Sector.Bytes()%block != 0, over(super, super+blockSize/raid.SectorSize),
		over(data, data+raid.Sectors(raw.DataSize)),
		raw.BblogSize > 0 && over(bad, bad+raid.Sectors(raw.BblogSize)):
		return fmt.Errorf("no place for a partial parity log of %d sectors at sector %d", log.Size, log.Sector)
	default:
		return nil
	}
}
