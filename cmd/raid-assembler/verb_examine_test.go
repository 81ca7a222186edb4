package main

import (
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
)

// TestExamineSeveralArrays shows a device that is a member of two arrays.
func TestExamineSeveralArrays(t *testing.T) {
	r := examineReport{
		Path: "/dev/sda", Superblock: reportOf(&metadata.Superblock{Name: "first"}),
		Others: []*superblockReport{reportOf(&metadata.Superblock{Name: "second"})},
	}

	if text := r.text(); !strings.Contains(text, "first") || !strings.Contains(text, "second") {
		t.Errorf("text does not name both arrays:\n%s", text)
	}
}
