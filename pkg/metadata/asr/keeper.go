package asr

import (
	"errors"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

var _ metadata.Format = Format{}

var errReadOnly = errors.New("asr: the metadata is read, and not written")

// Versions implements [metadata.Format].
func (Format) Versions() []string { return nil }

// Create implements [metadata.Format].
func (Format) Create(metadata.NewArray, []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	return raid.UUID{}, nil, errReadOnly
}

// Keep implements [metadata.Format].
func (Format) Keep([]metadata.Attachment, ...metadata.Keeper) (metadata.Keeper, error) {
	return nil, errReadOnly
}
