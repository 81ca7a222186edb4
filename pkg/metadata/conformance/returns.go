package conformance

import (
	"bytes"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// testReturns has one disk become a spare and be let go of again and again, as one does
// that comes and goes for months. It takes no part in the array, and the array always has
// room for it.
func testReturns(t *testing.T, format metadata.Format, a Array) {
	const times = 300

	h := newHistory(t, format, a)
	if !h.geometry.Level.HasRedundancy() {
		return
	}

	h.fail() // else some formats have no room for another

	disk := Disk{Image: bytes.Clone(h.disks[h.slot(1)].Image), Block: h.disks[0].Block, Serial: "comes and goes"}
	clear(disk.Image)

	for n := range times {
		id, _, _, err := h.keeper.Add(disk.Source(), raid.UUID{2, byte(n), byte(n >> 8)})
		if err != nil {
			t.Fatalf("Add() error = %v, for the %d. time", err, n+1)
		}

		h.disks = append(h.disks, disk) // as it is now
		h.members[id] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
		h.apply(h.keeper.Record(h.state()))

		if _, err := format.Probe(disk.Source()); err != nil {
			t.Fatalf("Probe() error = %v, for the %d. time", err, n+1)
		}

		delete(h.members, id)
		h.keeper.Forget(id)
		h.apply(h.keeper.Record(h.state()))
	}
}
