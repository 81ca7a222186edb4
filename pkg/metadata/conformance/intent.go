package conformance

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// marks sets bits of the bitmap and has the blocks written that they are in,
// and what is on disk read again by another Keeper.
func (h *history) marks(what string) {
	h.t.Helper()

	if h.bitmap == nil {
		return
	}

	size, skip := h.bitmap.Blocks()
	bits := h.bitmap.Bits()

	for i := range bits {
		bits[i] = byte(i*7+len(what)) & 0x55
	}

	if rest := int((h.bitmap.Info().Sectors + h.bitmap.Info().Chunk - 1) / h.bitmap.Info().Chunk % 8); rest > 0 {
		bits[len(bits)-1] &= 1<<rest - 1
	}

	h.bitmap.SetCleared(h.keeper.Events())

	for block := 0; block*size < skip+len(bits); block++ {
		writes := h.bitmap.Write(block)
		h.checkPlaces(what, [][]metadata.Write{writes})

		for id, record := range h.members {
			_, slotted := role(record)
			if to := slices.ContainsFunc(writes, func(w metadata.Write) bool { return w.Member == id }); to != slotted {
				h.t.Errorf("%s: block %d is written to device %d, which is %s: %t", what, block, id, record.State, to)
			}
		}

		h.apply([][]metadata.Write{writes})
	}

	h.checkForeign(what)

	k, err := h.format.Keep(h.attachments())
	if err != nil {
		h.t.Fatalf("%s: Keep() error = %v", what, err)
	}

	again := k.Bitmap()
	if again == nil || !bytes.Equal(bits, again.Bits()) {
		h.t.Fatalf("%s: another Keeper reads another bitmap", what)
	}

	if diff := cmp.Diff(h.bitmap.Info(), again.Info()); diff != "" {
		h.t.Errorf("%s: bitmap, read again (-want +got):\n%s", what, diff)
	}
}

// role returns the slot that a device is recorded in.
func role(record metadata.MemberRecord) (raid.Slot, bool) {
	return record.Slot, record.State == raid.InSync || record.State == raid.Recovering
}

// goBad has sectors of a member go bad, more of them, others, and none at all.
func (h *history) goBad() {
	id := h.slot(1)

	room := h.keeper.BadBlockRoom(id)
	if room == 0 {
		return
	}

	size := h.geometry.Size
	many := make([]raid.Range, 0, room)

	for at := raid.Sectors(0); len(many) < min(room, 100) && at+3 <= size; at += 5 {
		many = append(many, raid.Range{From: at, To: at + 3})
	}

	record := h.members[id]

	for i, bad := range [][]raid.Range{
		{{From: 0, To: 1}},
		{{From: 0, To: 1}, {From: size - 1, To: size}},
		many,
		append([]raid.Range{{From: 1, To: 2}}, many[2:]...),
		many[:2],
		{},
		{{From: 8, To: 9}},
		{},
	} {
		record.BadBlocks = bad
		h.members[id] = record
		h.record(fmt.Sprintf("bad blocks %d", i))

		if got := mustProbe(h.t, h.format, &h.disks[id]).BadBlocks; !slices.Equal(got, bad) {
			h.t.Errorf("bad blocks %v, want %v", got, bad)
		}
	}
}

// succeed has a spare filled to take the place of the member in slot 1, which
// is in use until then.
func (h *history) succeed() {
	old, id := h.slot(1), h.spare()

	for _, recovered := range []raid.Sectors{0, h.geometry.Size / 2} {
		h.members[id] = metadata.MemberRecord{State: raid.Recovering, Slot: 1, Recovered: recovered, Replacement: true}
		h.record(fmt.Sprintf("filled to %d", recovered))

		if sb := mustProbe(h.t, h.format, &h.disks[id]); !sb.Replacement {
			h.t.Errorf("device %d does not say that it is to replace another", id)
		}
	}

	h.members[old] = metadata.MemberRecord{State: raid.Faulty, Slot: 1}
	h.members[id] = metadata.MemberRecord{State: raid.InSync, Slot: 1}
	h.record("replaced")

	delete(h.members, old)
	h.record("removed")
	h.keeper.Forget(old)
}

// comeBack has the member in slot 1 fail and come back: with a bitmap only what
// it missed is copied.
func (h *history) comeBack() {
	old := h.slot(1)
	disk := h.disks[old]
	h.members[old] = metadata.MemberRecord{State: raid.Faulty, Slot: 1}
	h.record("failed")
	delete(h.members, old)
	h.record("removed")
	h.keeper.Forget(old)

	id, err := h.keeper.Attach(metadata.Attachment{
		Superblock: mustProbe(h.t, h.format, &disk), Source: disk.Source(),
	})
	if err != nil || int(id) != len(h.disks) {
		h.t.Fatalf("Attach() = %d, %v", id, err)
	}

	h.disks, h.foreign = append(h.disks, disk), append(h.foreign, disk.foreign())
	h.areas[id] = h.areas[old]
	h.members[id] = metadata.MemberRecord{State: raid.Recovering, Slot: 1, ByBitmap: h.bitmap != nil}
	h.record("come back")

	if sb := mustProbe(h.t, h.format, &h.disks[id]); sb.ByBitmap != (h.bitmap != nil && !h.restarts) {
		h.t.Errorf("device %d: by bitmap: %t", id, sb.ByBitmap)
	}

	h.members[id] = metadata.MemberRecord{State: raid.InSync, Slot: 1}
	h.record("brought up to date")
}

// rechunk makes the bitmap coarser.
func (h *history) rechunk() {
	if h.bitmap == nil {
		return
	}

	if err := h.bitmap.Rechunk(h.bitmap.Info().Chunk * 4); err != nil {
		h.t.Fatalf("Rechunk() error = %v", err)
	}

	h.record("another chunk")
	h.marks("marks of another chunk")
}

// between reports whether a list of bad blocks is one of a crash between two:
// it lacks nothing that both have and has nothing that neither has.
func between(now, before, after []raid.Range) bool {
	has := func(list []raid.Range, sector raid.Sectors) bool {
		return slices.ContainsFunc(list, func(r raid.Range) bool { return r.From <= sector && sector < r.To })
	}

	for _, list := range [][]raid.Range{now, before, after} {
		for _, r := range list {
			for s := r.From; s < r.To; s++ {
				old, fresh := has(before, s), has(after, s)
				if is := has(now, s); old && fresh && !is || !old && !fresh && is {
					return false
				}
			}
		}
	}

	return true
}
