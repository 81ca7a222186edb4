package conformance

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// testGrow has an array use all that its members have, on devices that are larger
// than they were where the format finds itself there, and cuts the power at each
// write of the record, with any of those that were under way, or with all but those
// of one member. What is found then can be run, and is as large as it was or as it
// was to be: every member has room for what the freshest says that it holds, and what
// is new is not in sync. Reports whether the array grew.
func testGrow(t *testing.T, format metadata.Format, a Array) bool {
	h := newHistory(t, format, a)
	if larger := enlarged(h.disks); slices.ContainsFunc(larger, func(d Disk) bool {
		_, err := format.Probe(d.Source())

		return err != nil
	}) {
		t.Log("it is not found on larger devices")
	} else {
		h.disks = larger

		var err error
		if h.keeper, err = format.Keep(h.attachments()); err != nil {
			t.Fatalf("Keep() error = %v", err)
		}
	}

	old := h.geometry.Size

	size, err := h.keeper.Grow(0)
	if err != nil {
		t.Logf("it does not grow: %v", err)

		return false
	}

	h.resync = 0 // what is new is not in sync, and nobody knows better
	stages := h.keeper.Record(h.state())
	cuts := 0

	// One that fails at once, and has come back when the power has.
	for id := range h.disks {
		all := slices.DeleteFunc(slices.Concat(stages...), func(w metadata.Write) bool { return int(w.Member) == id })
		undo := h.do(all)

		h.checkGrowth(old, size)
		h.do(undo)
	}

	for _, stage := range stages {
		for written := range 1 << len(stage) {
			var did []metadata.Write

			for j, w := range stage {
				if written&(1<<j) != 0 {
					did = append(did, w)
				}
			}

			undo := h.do(did)
			cuts++

			h.checkGrowth(old, size)
			h.do(undo)
		}

		h.do(stage)
	}

	t.Logf("from %d to %d sectors, %d cuts of %d stages", old, size, cuts, len(stages))

	return true
}

// enlarged returns copies of disks that are larger.
func enlarged(disks []Disk) []Disk {
	larger := slices.Clone(disks)
	for i := range larger {
		larger[i].Image = append(bytes.Clone(larger[i].Image), make([]byte, 1<<20)...)
	}

	return larger
}

// do carries out writes, and returns those that undo them.
func (h *history) do(writes []metadata.Write) (undo []metadata.Write) {
	for _, w := range writes {
		at := h.disks[w.Member].Image[w.Sector.Bytes():][:len(w.Data)]
		undo = append(undo, metadata.Write{Member: w.Member, Sector: w.Sector, Data: bytes.Clone(at)})
		copy(at, w.Data)
	}

	slices.Reverse(undo)

	return undo
}

// checkGrowth checks what is found of an array while its growth was recorded.
func (h *history) checkGrowth(old, size raid.Sectors) {
	h.t.Helper()

	found := h.attachments()
	slotted := func(a metadata.Attachment) int {
		if _, ok := a.Superblock.Role(a.Superblock.Number).Slot(); ok {
			return 1
		}

		return 0
	}

	slices.SortStableFunc(found, func(a, b metadata.Attachment) int {
		return cmp.Or(cmp.Compare(slotted(b), slotted(a)), cmp.Compare(b.Superblock.Events, a.Superblock.Events))
	})

	best := found[0].Superblock
	if best.Size != old && (best.Size != size || best.ResyncOffset > old) {
		h.t.Errorf("a size of %d, in sync up to %d, was %d and was to be %d", best.Size, best.ResyncOffset, old, size)
	}

	for _, a := range found {
		if sb := a.Superblock; !sb.Holds(best) || slotted(a) > 0 && sb.Events+1 < best.Events {
			h.t.Errorf("number %d at event %d has room for %d sectors, the array uses %d at event %d",
				sb.Number, sb.Events, sb.DataSize, best.Size, best.Events)
		}
	}

	if _, err := h.format.Keep(found); err != nil {
		h.t.Errorf("Keep() error = %v", err)
	}
}
