package md1

import (
	"hash/crc32"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

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
