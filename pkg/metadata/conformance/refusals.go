package conformance

import (
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// testAllocates checks that a running array's metadata is kept without memory:
// what waits for a Record may be what would free some.
func testAllocates(t *testing.T, format metadata.Format, a Array) {
	h := newHistory(t, format, a)
	st := h.state()

	for range 2 {
		h.keeper.Record(st)
	}

	if got := testing.AllocsPerRun(20, func() { h.keeper.Record(st) }); got != 0 {
		t.Errorf("Record() allocates %v times, want 0", got)
	}
}

// testRefusals checks that what cannot be done is refused, and that nothing is
// the worse for it.
func testRefusals(t *testing.T, format metadata.Format, a Array) {
	if k, err := format.Keep(nil); err == nil || k != nil {
		t.Errorf("Keep() of no members = %v, %v", k, err)
	}

	h := newHistory(t, format, a)

	for _, sectors := range []raid.Sectors{0, 1, 24, h.geometry.Size} {
		small := Disk{Image: make([]byte, sectors.Bytes()), Block: raid.SectorSize, Serial: "small"}
		if id, offset, size, err := h.keeper.Add(small.Source(), raid.UUID{1}); err == nil {
			t.Errorf("Add() of %d sectors = %d, %d, %d", sectors, id, offset, size)
		}
	}

	bad := h.disks[0].Source()
	bad.ReaderAt = badReader{}

	if id, _, _, err := h.keeper.Add(bad, raid.UUID{1}); err == nil {
		t.Errorf("Add() of a device that cannot be read = %d", id)
	}

	h.record("after refusals")
}
