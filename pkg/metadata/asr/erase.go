package asr

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Erase implements [metadata.Format]. The table stays: nothing finds it without
// the block that says where it is.
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	if src.Size < 1 {
		return nil, nil
	}

	block, err := read(src, src.Size-1, 1)
	if err != nil {
		return nil, err
	}

	if order.Uint32(block) != magicBlock || order.Uint32(block[offSoftware:]) != magicSoftware {
		return nil, nil
	}

	// A whole block, of which the last sector is the one.
	start := (src.Size - 1) / blockOf(src) * blockOf(src)

	data, err := read(src, start, src.Size-start)
	if err != nil {
		return nil, err
	}

	clear(data[len(data)-raid.SectorSize:])

	return []metadata.Write{{Sector: start, Data: data}}, nil
}
