package md0

import (
	"errors"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

var errShown = errors.New("md0: arrays of version 0.90 are shown and not run: they are mdadm's")

// Keep implements [metadata.Format].
func (Format) Keep([]metadata.Attachment, ...metadata.Keeper) (metadata.Keeper, error) {
	return nil, errShown
}

// Versions implements [metadata.Format].
func (Format) Versions() []string { return nil }

// Create implements [metadata.Format].
func (Format) Create(metadata.NewArray, []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	return raid.UUID{}, nil, errShown
}

// Erase implements [metadata.Format].
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	at, ok := place(src.Size)
	if !ok {
		return nil, nil
	}

	buf := make([]byte, blockSize)
	if n, err := src.ReadAt(buf, at.Bytes()); n < len(buf) {
		return nil, fmt.Errorf("md0: read sector %d: %w", at, err)
	}

	if _, ok := orderOf(buf); !ok {
		return nil, nil
	}

	return []metadata.Write{{Sector: at, Data: make([]byte, max(src.Block, blockSize))}}, nil
}
