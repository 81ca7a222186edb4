package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// history is an array under test: its devices, what its Keeper was told, and
// what follows from that.
type history struct {
	t       testing.TB
	format  metadata.Format
	disks   []Disk
	foreign [][]byte // what each disk's Foreign held at first, in one piece
	keeper  metadata.Keeper
	// restarts is as Array has it.
	restarts bool
	bitmap   metadata.Bitmap // nil if there is none, or nobody is to ask for it

	geometry raid.Geometry
	array    raid.UUID
	resync   raid.Sectors
	members  map[metadata.MemberID]metadata.MemberRecord
	areas    map[metadata.MemberID]Extent // of data
	given    map[metadata.MemberID]bool   // what was added, and not yet written
	now      time.Time
}

func newHistory(tb testing.TB, format metadata.Format, a Array) *history {
	tb.Helper()

	h := &history{
		t: tb, format: format, disks: a.Make(tb), resync: raid.MaxSectors, restarts: a.Restarts,
		members: map[metadata.MemberID]metadata.MemberRecord{},
		areas:   map[metadata.MemberID]Extent{},
		given:   map[metadata.MemberID]bool{},
		now:     time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
	}

	attached := h.attachments()
	h.geometry, h.array = attached[0].Superblock.Geometry, attached[0].Superblock.Array

	for i, member := range attached {
		sb := member.Superblock
		record := metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}

		if slot, ok := sb.Role(sb.Number).Slot(); ok {
			record = metadata.MemberRecord{State: raid.InSync, Slot: slot}
		}

		id := metadata.MemberID(i)
		h.members[id] = record
		h.areas[id] = Extent{sb.DataOffset.Bytes(), sb.DataSize.Bytes()}
		h.foreign = append(h.foreign, h.disks[i].foreign())
	}

	var err error
	if h.keeper, err = format.Keep(attached); err != nil {
		tb.Fatalf("Keep() error = %v", err)
	}

	return h
}

func (d *Disk) foreign() []byte {
	var all []byte
	for _, e := range d.Foreign {
		all = append(all, d.Image[e.Offset:][:e.Size]...)
	}

	return all
}

func (h *history) attachments() []metadata.Attachment {
	h.t.Helper()

	var attached []metadata.Attachment
	for i := range h.disks {
		attached = append(attached, metadata.Attachment{
			Superblock: mustProbe(h.t, h.format, &h.disks[i]), Source: h.disks[i].Source(),
		})
	}

	return attached
}

func (h *history) state() metadata.State {
	h.now = h.now.Add(time.Second)

	return metadata.State{ResyncOffset: h.resync, Members: maps.Clone(h.members), Now: h.now}
}

func (h *history) apply(stages [][]metadata.Write) {
	for _, w := range slices.Concat(stages...) {
		copy(h.disks[w.Member].Image[w.Sector.Bytes():], w.Data)
	}
}

// slot returns the id of the member in a slot.
func (h *history) slot(slot raid.Slot) metadata.MemberID {
	h.t.Helper()

	for id, record := range h.members {
		if record.Slot == slot && record.State != raid.Faulty {
			return id
		}
	}

	h.t.Fatalf("no member in slot %d", slot)

	return 0
}

func (h *history) spare() metadata.MemberID {
	h.t.Helper()

	for id, record := range h.members {
		if record.State == raid.Spare {
			return id
		}
	}

	h.t.Fatal("the array has no spare")

	return 0
}

// testLife walks an array through what can happen to it: whoever has no use for
// a bitmap, and whoever keeps it.
func testLife(t *testing.T, format metadata.Format, a Array) {
	newHistory(t, format, a).live(a)

	h := newHistory(t, format, a)
	if h.bitmap = h.keeper.Bitmap(); h.bitmap != nil {
		h.live(a)
	}
}

func (h *history) live(a Array) {
	h.resync = 0
	h.record("dirty")
	h.marks("marks")
	h.resync = h.geometry.Size / 2
	h.record("half in sync")
	h.resync = raid.MaxSectors
	h.record("clean")
	h.record("clean again")

	h.rechunk()

	if h.geometry.Level.HasRedundancy() {
		h.goBad()
		h.fail()
		h.recover()
		h.replace()
		h.comeBack()

		if a.Replaces {
			h.succeed()
		}
	}

	h.assembleAgain()
	h.resync = 0
	h.record("dirty after another start")
	h.marks("marks after another start")
	h.resync = raid.MaxSectors
	h.record("stopped")
}

// fail has the member in slot 0 fail and be removed, with writes in flight.
func (h *history) fail() {
	failed := h.slot(0)

	h.resync = 0
	h.members[failed] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	h.record("failed")
	h.record("still failed")

	delete(h.members, failed)
	h.record("removed")
	h.keeper.Forget(failed)
	h.record("forgotten")
}

// recover has a spare take slot 0.
func (h *history) recover() {
	id := h.spare()

	for _, recovered := range []raid.Sectors{0, h.geometry.Size / 3, h.geometry.Size / 2} {
		h.members[id] = metadata.MemberRecord{State: raid.Recovering, Slot: 0, Recovered: recovered}
		h.record(fmt.Sprintf("recovered to %d", recovered))
	}

	h.members[id] = metadata.MemberRecord{State: raid.InSync, Slot: 0}
	h.resync = raid.MaxSectors
	h.record("recovered")
}

// replace adds new devices: one that was never used, one that is full of other
// things, and one that was a member of the same array.
func (h *history) replace() {
	disk := h.disks[h.slot(0)]

	for _, what := range []string{"blank", "random", "once a member"} {
		fresh := Disk{Image: bytes.Clone(disk.Image), Block: disk.Block, Serial: what}

		switch what {
		case "blank":
			clear(fresh.Image)
		case "random":
			for i := range fresh.Image {
				fresh.Image[i] = byte(i*i>>3 + i)
			}
		}

		src := fresh.Source()

		id, offset, size, err := h.keeper.Add(src, raid.UUID{1, byte(len(h.disks))})
		if err != nil {
			h.t.Fatalf("Add() error = %v", err)
		}

		if int(id) != len(h.disks) || offset < 0 || size < h.geometry.Size || size > src.Size-offset {
			h.t.Fatalf("Add() = %d, %d, %d on %d sectors", id, offset, size, src.Size)
		}

		h.disks = append(h.disks, fresh)
		h.foreign = append(h.foreign, nil)
		h.areas[id] = Extent{offset.Bytes(), size.Bytes()}
		h.members[id] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
		h.given[id] = true
		h.record("added, " + what)
	}
}

// assembleAgain forgets the Keeper and makes another from what is on disk.
func (h *history) assembleAgain() {
	old := h.keeper.Events()

	var (
		disks   []Disk
		foreign [][]byte
	)

	members, areas := map[metadata.MemberID]metadata.MemberRecord{}, map[metadata.MemberID]Extent{}

	// Ids are in order of attachment, with none left out.
	for _, id := range slices.Sorted(maps.Keys(h.members)) {
		members[metadata.MemberID(len(disks))], areas[metadata.MemberID(len(disks))] = h.members[id], h.areas[id]
		disks, foreign = append(disks, h.disks[id]), append(foreign, h.foreign[id])
	}

	h.disks, h.foreign, h.members, h.areas = disks, foreign, members, areas

	var err error
	if h.keeper, err = h.format.Keep(h.attachments()); err != nil {
		h.t.Fatalf("Keep() error = %v", err)
	}

	if h.bitmap != nil {
		if h.bitmap = h.keeper.Bitmap(); h.bitmap == nil || h.bitmap.Info().Stale {
			h.t.Fatal("the bitmap that was kept is not believed")
		}
	}

	if h.keeper.Events() < old {
		h.t.Errorf("Events() = %d, and was %d before", h.keeper.Events(), old)
	}
}

// outcome is what a device said at one moment: a superblock or an error.
type outcome struct {
	sb  *metadata.Superblock
	err error
	// when it was asked, in words; empty if no write was torn.
	when string
}

// record records the state, carries out the writes one by one, and has every
// moment of it probed.
func (h *history) record(what string) {
	h.t.Helper()

	st := h.state()
	events := h.keeper.Events()
	before := make([]outcome, len(h.disks))

	for i := range h.disks {
		before[i].sb, before[i].err = probe(h.t, h.format, h.disks[i].Source())
	}

	stages := h.keeper.Record(st)
	if h.keeper.Events() <= events {
		h.t.Errorf("%s: Events() = %d after %d", what, h.keeper.Events(), events)
	}

	h.checkWrites(what, stages)

	seen := map[metadata.MemberID][]outcome{}
	for _, w := range slices.Concat(stages...) {
		seen[w.Member] = append(seen[w.Member], h.tear(w)...)
	}

	h.checkResult(what, st)

	for id, outcomes := range seen {
		after := mustProbe(h.t, h.format, &h.disks[id])
		for _, o := range outcomes {
			// What is given to the array may be nothing until it is a spare.
			if !h.given[id] || !errors.Is(o.err, metadata.ErrNotFound) {
				h.checkCrash(what, before[id], after, o)
			}
		}
	}

	clear(h.given)
	h.checkForeign(what)
}

// checkForeign checks that what belongs to others is as it was.
func (h *history) checkForeign(what string) {
	h.t.Helper()

	for i := range h.disks {
		if !bytes.Equal(h.disks[i].foreign(), h.foreign[i]) {
			h.t.Errorf("%s: device %d: what is not ours was changed", what, i)
		}
	}
}

// tear carries out w, and returns what the device says when the first or the
// last sectors of it are written and the others are not.
func (h *history) tear(w metadata.Write) []outcome {
	disk := &h.disks[w.Member]
	place := disk.Image[w.Sector.Bytes():][:len(w.Data)]
	old := bytes.Clone(place)

	var seen []outcome

	ask := func(when string) {
		sb, err := probe(h.t, h.format, disk.Source())
		seen = append(seen, outcome{sb, err, when})
	}

	for cut := raid.SectorSize; cut < len(place); cut += raid.SectorSize {
		copy(place, w.Data[:cut])
		copy(place[cut:], old[cut:])
		ask(fmt.Sprintf("with the first %d bytes at sector %d", cut, w.Sector))

		copy(place, old[:cut])
		copy(place[cut:], w.Data[cut:])
		ask(fmt.Sprintf("without the first %d bytes at sector %d", cut, w.Sector))
	}

	copy(place, w.Data)
	ask("")

	return seen
}

// checkCrash checks what a device says after a crash: what it said before, or
// what it would have said after. Where a write was torn it may also say that
// it cannot be trusted, or used: some checksums cannot tell zeros from ones,
// and what that makes of a superblock must at least be odd enough.
func (h *history) checkCrash(what string, before outcome, after *metadata.Superblock, now outcome) {
	h.t.Helper()

	before, now = settled(before, after, now)

	switch {
	case now.err == nil && h.mayBe(before, after, now.sb):
	case now.err != nil && before.err != nil: // there was none, and there is none yet
	case now.err != nil && now.when != "" && errors.Is(now.err, metadata.ErrCorrupt):
	case now.err == nil && now.when != "" && now.sb.Unsupported != "":
	case now.err != nil:
		h.t.Errorf("%s: crash %s: Probe() error = %v", what, now.when, now.err)
	default:
		h.t.Errorf("%s: crash %s: neither as before nor as after (-after +now):\n%s",
			what, now.when, diff(after, now.sb))
	}
}

// mayBe reports whether a device says what it said before or will say after, or
// the latter with the event count that it and all others had.
func (h *history) mayBe(before outcome, after, now *metadata.Superblock) bool {
	if before.err != nil || same(now, after) {
		return same(now, after)
	}

	said := *after
	said.Events, said.ResyncOffset = before.sb.Events, before.sb.ResyncOffset

	return same(now, before.sb) || h.restarts && same(now, &said)
}

// settled takes what a device says of bad blocks for what it will say, where it
// is between that and what it said before: the log lies elsewhere and changes
// before what counts on it does.
func settled(before outcome, after *metadata.Superblock, now outcome) (outcome, outcome) {
	if now.err != nil || before.err != nil || !between(now.sb.BadBlocks, before.sb.BadBlocks, after.BadBlocks) {
		return before, now
	}

	was, is := *before.sb, *now.sb
	was.BadBlocks, is.BadBlocks = after.BadBlocks, after.BadBlocks
	before.sb, now.sb = &was, &is

	return before, now
}

// checkWrites checks that writes are whole blocks that damage nothing, and
// that they go to all whom they concern and nobody else.
func (h *history) checkWrites(what string, stages [][]metadata.Write) {
	h.t.Helper()

	written := h.checkPlaces(what, stages)

	for id, record := range h.members {
		if record.State != raid.Faulty && !written[id] {
			h.t.Errorf("%s: does not write to device %d, which is %s", what, id, record.State)
		}
	}
}

// checkPlaces checks that writes are whole blocks that damage nothing, and
// returns who is written to.
func (h *history) checkPlaces(what string, stages [][]metadata.Write) map[metadata.MemberID]bool {
	h.t.Helper()

	written := map[metadata.MemberID]bool{}

	for _, w := range slices.Concat(stages...) {
		record, ok := h.members[w.Member]
		if !ok || record.State == raid.Faulty {
			h.t.Fatalf("%s: writes to device %d, which is %q", what, w.Member, record.State)
		}

		written[w.Member] = true
		disk, area := h.disks[w.Member], h.areas[w.Member]
		start, end := w.Sector.Bytes(), w.Sector.Bytes()+int64(len(w.Data))

		switch block := int64(max(disk.Block, raid.SectorSize)); {
		case len(w.Data) == 0 || start%block != 0 || end%block != 0:
			h.t.Fatalf("%s: writes bytes %d to %d in blocks of %d", what, start, end, block)
		case len(w.Data) > metadata.WriteMax:
			h.t.Fatalf("%s: writes %d bytes at once", what, len(w.Data))
		case start < 0 || end > int64(len(disk.Image)):
			h.t.Fatalf("%s: writes bytes %d to %d of %d", what, start, end, len(disk.Image))
		case start < area.Offset+area.Size && end > area.Offset && record.State != raid.Spare:
			h.t.Fatalf("%s: writes bytes %d to %d over data at %v", what, start, end, area)
		}
	}

	return written
}

// checkResult checks that the superblocks say st.
func (h *history) checkResult(what string, st metadata.State) {
	h.t.Helper()

	numbers := map[int]metadata.MemberID{}

	for id, record := range st.Members {
		if record.State == raid.Faulty {
			continue
		}

		sb := mustProbe(h.t, h.format, &h.disks[id])
		h.checkNumber(what, sb, id, numbers)

		if sb.Array.IsZero() && record.State == raid.Spare {
			h.checkSpare(what, sb, id)

			continue
		}

		if sb.Array != h.array || sb.Events != h.keeper.Events() || sb.Unsupported != "" {
			h.t.Errorf("%s: device %d: array %v, %d events, unsupported %q",
				what, id, sb.Array, sb.Events, sb.Unsupported)
		}

		if diff := cmp.Diff(h.geometry, sb.Geometry); diff != "" {
			h.t.Errorf("%s: device %d: geometry (-want +got):\n%s", what, id, diff)
		}

		if h.geometry.Level.HasRedundancy() && !reaches(sb.ResyncOffset, st.ResyncOffset) {
			h.t.Errorf("%s: device %d: resync offset %d, want %d", what, id, sb.ResyncOffset, st.ResyncOffset)
		}

		if recovered := h.recovered(record); !reaches(sb.RecoveryOffset, recovered) {
			h.t.Errorf("%s: device %d: recovery offset %d, want %d", what, id, sb.RecoveryOffset, recovered)
		}

		if area := (Extent{sb.DataOffset.Bytes(), sb.DataSize.Bytes()}); !h.isArea(sb, area, h.areas[id]) {
			h.t.Errorf("%s: device %d: data at %v, want %v", what, id, area, h.areas[id])
		}

		h.checkRoles(what, sb, id, st)
	}
}

// checkNumber checks that no other device has the number of device id. Nobody
// numbers a spare that any container may have.
func (h *history) checkNumber(
	what string, sb *metadata.Superblock, id metadata.MemberID, numbers map[int]metadata.MemberID,
) {
	if sb.Array.IsZero() && sb.Container.IsZero() {
		return
	}

	if other, taken := numbers[sb.Number]; taken {
		h.t.Errorf("%s: devices %d and %d both have number %d", what, id, other, sb.Number)
	}

	numbers[sb.Number] = id
}

// isArea reports whether the data of a member is where it was said to be. In a
// container other arrays may have what this one has no use for.
func (h *history) isArea(sb *metadata.Superblock, area, want Extent) bool {
	if sb.Container.IsZero() {
		return area == want
	}

	return area.Offset == want.Offset && area.Size >= h.geometry.Size.Bytes() && area.Size <= want.Size
}

// checkSpare checks what device id says, which is a spare of the container, or of
// any.
func (h *history) checkSpare(what string, sb *metadata.Superblock, id metadata.MemberID) {
	h.t.Helper()

	if sb.Unsupported != "" || sb.Role(sb.Number) != raid.RoleSpare {
		h.t.Errorf("%s: device %d, a spare, is %v of container %v, unsupported %q",
			what, id, sb.Role(sb.Number), sb.Container, sb.Unsupported)
	}

	if sb.Container.IsZero() {
		return // any container may have it, and none numbers it
	}

	for other := range h.members {
		if other == id || h.members[other].State == raid.Faulty {
			continue
		}

		if its := mustProbe(h.t, h.format, &h.disks[other]); its.Container != sb.Container || its.Number == sb.Number {
			h.t.Errorf("%s: spare %d is number %d of container %v, and device %d number %d of %v",
				what, id, sb.Number, sb.Container, other, its.Number, its.Container)
		}
	}
}

// reaches reports whether an offset on disk serves for the one recorded. A
// format may keep it in larger units, but must never be ahead of it.
func reaches(disk, recorded raid.Sectors) bool {
	if recorded == 0 || recorded == raid.MaxSectors {
		return disk == recorded
	}

	return disk <= recorded
}

// checkRoles checks that sb, of device id, has the slots that st has.
func (h *history) checkRoles(what string, sb *metadata.Superblock, id metadata.MemberID, st metadata.State) {
	h.t.Helper()

	want, got := map[raid.Slot]bool{}, map[raid.Slot]bool{}

	for _, record := range st.Members {
		if h.shows(record) {
			want[record.Slot] = true
		}
	}

	for _, role := range sb.Roles {
		if slot, ok := role.Slot(); ok {
			got[slot] = true
		}
	}

	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Errorf("%s: device %d: slots that are taken (-want +got):\n%s", what, id, diff)
	}

	slot, ok := sb.Role(sb.Number).Slot()
	if record := st.Members[id]; ok != h.shows(record) || ok && slot != record.Slot {
		h.t.Errorf("%s: device %d is %v to itself, want %s in slot %d",
			what, id, sb.Role(sb.Number), record.State, record.Slot)
	}
}

// shows reports whether a device that is recorded so has a slot to the format.
func (h *history) shows(record metadata.MemberRecord) bool {
	return record.State == raid.InSync || record.State == raid.Recovering && !h.restarts
}

// recovered returns below which offset a device is right to the format.
func (h *history) recovered(record metadata.MemberRecord) raid.Sectors {
	if record.State == raid.Recovering && !h.restarts {
		return record.Recovered
	}

	return raid.MaxSectors
}
