package md1

import (
	"encoding/binary"
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

// emptyPPL returns what a log begins with that has nothing in it: a header
// without entries, and then nothing that could be taken for the next log of a
// ring. The fields are those of struct ppl_header.
func emptyPPL(log *metadata.PPL) []byte {
	const header, reserved, checksum = 4096, 512, 532

	buf := make([]byte, 2*header)
	for i := range reserved {
		buf[i] = 0xff
	}

	binary.LittleEndian.PutUint32(buf[reserved:], log.Signature)
	binary.LittleEndian.PutUint32(buf[checksum:], crc32.Checksum(buf[:header], crc32.MakeTable(crc32.Castagnoli)))

	return buf
}
