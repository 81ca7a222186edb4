package loop

import (
	"strings"
	"testing"

	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestAddLargerBlocks offers a spare whose blocks are larger than what clients
// may write at a time.
func TestAddLargerBlocks(t *testing.T) {
	l := &Loop{cfg: Config{Block: 512}}

	_, err := l.Add(&member.Device{Path: "/dev/sdx", Block: 4096}, metadata.Source{}, raid.UUID{})
	if err == nil || !strings.Contains(err.Error(), "/dev/sdx has blocks of 4096 bytes, the array has 512") {
		t.Errorf("Add() = %v, want it to say that the blocks are too large", err)
	}
}
