package ddf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper keeps the record of one array, and with those of the other running
// arrays of its container what they have in common.
//
// Invariants:
//   - record is what every member has of the array, once it was written.
//   - No member of the array has a record with a higher sequence number.
type keeper struct {
	*container

	guid     GUID
	geometry raid.Geometry
	record   []byte
	places   []int // of the slots, in the record
	seq      uint32
	members  []*member // by MemberID; nil once forgotten

	// Reused by every Record, which may run while memory is short.
	holders  []*member // by slot
	keeps    []bool    // by slot: its refnum stays, though it has failed
	survives func(raid.Slot) bool
	parts    [8][]metadata.Write
	stages   [][]metadata.Write
	unused   []byte // a record that is none
	piece    int    // the most that one write holds
}

// member is an attached device.
type member struct {
	disk   *disk
	offset raid.Sectors // of its data

	// By the last Record.
	works, failed bool
	filled        bool // it is in the record, and not yet in sync
	inRecord      bool
}

// Keep implements [metadata.Format].
func (f Format) Keep(members []metadata.Attachment, beside ...metadata.Keeper) (metadata.Keeper, error) {
	if len(members) == 0 {
		return nil, errors.New("ddf: no members to keep")
	}

	k, err := newKeeper(members, beside)
	if err != nil {
		return nil, fmt.Errorf("ddf: %w", err)
	}

	return k, nil
}

func newKeeper(members []metadata.Attachment, beside []metadata.Keeper) (*keeper, error) {
	first := members[0].Superblock

	fresh, ok := first.Raw.(*Raw)
	if !ok || first.Array.IsZero() {
		return nil, errors.New("the superblock is of no array of the format")
	}

	k := &keeper{container: newContainer(latest(members)), geometry: first.Geometry, piece: metadata.WriteMax}

	for _, other := range beside {
		o, ok := other.(*keeper)
		if !ok || o.container.guid != k.container.guid {
			return nil, errors.New("an array of another container")
		}

		k.container = o.container
	}

	k.mu.Lock()
	defer k.mu.Unlock()

	if err := k.load(fresh, first.Array); err != nil {
		return nil, err
	}

	keepers := k.keepers
	k.keepers = nil

	for _, other := range beside {
		if o, ok := other.(*keeper); ok { // which was seen above
			k.keepers = append(k.keepers, o)
		}
	}

	k.keepers = append(k.keepers, k)

	for i, a := range members {
		if _, err := k.attach(a); err != nil {
			k.keepers = keepers

			return nil, fmt.Errorf("member %d: %w", i, err)
		}
	}

	if k.like == nil {
		k.like = k.members[0].disk
	}

	return k, nil
}

// latest returns what counts of the devices of a container: that with the
// highest sequence number in its header.
func latest(members []metadata.Attachment) *Raw {
	var best *Raw

	for _, a := range members {
		if r, ok := a.Superblock.Raw.(*Raw); ok && (best == nil || r.Header.Seq > best.Header.Seq) {
			best = r
		}
	}

	return best
}

// load takes the array's record, and what its freshest member says of it, from r.
func (k *keeper) load(r *Raw, array raid.UUID) error {
	a := r.active

	for _, record := range a.configs() {
		c, err := decodeConfig(a.form, record, a.header.elements())
		if err != nil {
			return err
		}

		if v := r.virtual(c.GUID); v != nil && r.arrayUUID(v, r.nameOf(v)) == array {
			k.record, k.guid, k.places, k.seq = bytes.Clone(record), c.GUID, c.places, c.Seq

			entry := k.array(c.GUID)
			if entry == nil {
				return fmt.Errorf("array %v is not among those of the container", array)
			}

			copy(entry, a.section(a.header.Virtual)[headSize+v.Index*entrySize:][:entrySize])
		}
	}

	switch {
	case k.record == nil:
		return fmt.Errorf("no record of array %v", array)
	case k.seq > seqMax:
		return fmt.Errorf("sequence number %d leaves no room above it", k.seq)
	}

	k.holders, k.keeps = make([]*member, len(k.places)), make([]bool, len(k.places))
	k.survives = func(slot raid.Slot) bool { return k.holders[slot] != nil && !k.holders[slot].filled }
	k.unused = bytes.Repeat([]byte{0xff}, len(k.record))

	return nil
}

// seqMax leaves room to count up from, whatever a disk says.
const seqMax = 1 << 31

// attach attaches a device.
func (k *keeper) attach(a metadata.Attachment) (metadata.MemberID, error) {
	sb := a.Superblock

	r, ok := sb.Raw.(*Raw)
	if !ok || r.Header.GUID != k.container.guid {
		return 0, fmt.Errorf("a superblock of container %v among those of %v",
			sb.Container, uuidOf(k.container.guid[:]))
	}

	if sb.Unsupported != "" {
		return 0, errors.New(sb.Unsupported)
	}

	d := k.attached(r.Refnum)
	if d == nil {
		var err error
		if d, err = k.newDisk(r, a.Source); err != nil {
			return 0, err
		}
	}

	for _, c := range r.Configs {
		if c.GUID == k.guid && c.Seq > seqMax {
			return 0, fmt.Errorf("sequence number %d leaves no room above it", c.Seq)
		} else if c.GUID == k.guid {
			k.seq = max(k.seq, c.Seq)
		}
	}

	k.container.seq = max(k.container.seq, r.Header.Seq)

	if k.container.seq > seqMax {
		return 0, fmt.Errorf("sequence number %d leaves no room above it", k.container.seq)
	}

	k.members = append(k.members, &member{disk: d, offset: sb.DataOffset})

	return metadata.MemberID(len(k.members) - 1), nil
}

// Attach implements [metadata.Keeper].
func (k *keeper) Attach(a metadata.Attachment) (metadata.MemberID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	id, err := k.attach(a)
	if err != nil {
		return 0, fmt.Errorf("ddf: %w", err)
	}

	return id, nil
}

// Forget implements [metadata.Keeper].
func (k *keeper) Forget(id metadata.MemberID) {
	k.mu.Lock()
	defer k.mu.Unlock()

	d := k.members[id].disk
	k.members[id] = nil

	if k.attached(d.refnum) == nil {
		k.lost(d.refnum)

		if k.like == d {
			k.model()
		}
	}
}

// Leave implements [metadata.Sharing]. What its disks are stays as it was recorded.
func (k *keeper) Leave() {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.keepers = slices.DeleteFunc(k.keepers, func(other *keeper) bool { return other == k })
	k.model()
}

// model chooses the disk on which others are modelled anew.
func (k *keeper) model() {
	for _, other := range k.keepers {
		for _, m := range other.members {
			if m != nil {
				k.like = m.disk

				return
			}
		}
	}
}

// Events implements [metadata.Keeper].
func (k *keeper) Events() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()

	return uint64(k.seq)
}

// BadBlockRoom implements [metadata.Keeper]: the log that the format has is of
// sectors that were remapped, not of such that have no content.
func (k *keeper) BadBlockRoom(metadata.MemberID) int { return 0 }

// Log implements [metadata.Keeper].
func (k *keeper) Log(metadata.MemberID) *metadata.PPL { return nil }

// Bitmap implements [metadata.Keeper].
func (k *keeper) Bitmap() metadata.Bitmap { return nil }

// Grow implements [metadata.Keeper].
func (k *keeper) Grow(size raid.Sectors) (raid.Sectors, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if !k.geometry.Level.HasRedundancy() {
		return 0, fmt.Errorf("ddf: %v does not grow", k.geometry.Level)
	}

	room := raid.MaxSectors

	for _, m := range k.members {
		if m != nil {
			room = min(room, k.roomAt(m))
		}
	}

	if size == 0 {
		size = room
	}

	size -= size % max(k.geometry.Chunk, 1)
	if size > room || size <= k.geometry.Size {
		return 0, fmt.Errorf("ddf: %d sectors of each member, which uses %d and has room for %d",
			size, k.geometry.Size, room)
	}

	k.geometry.Size = size
	k.form.order.PutUint64(k.record[offBlocks:], uint64(size))
	k.form.order.PutUint64(k.record[offArrayBlocks:], uint64(capacity(k.geometry, size)))

	return size, nil
}

// roomAt returns how many sectors a device has from the start of its data up to
// what follows.
func (k *keeper) roomAt(m *member) raid.Sectors {
	end := m.disk.room

	for _, r := range k.claims(m.disk) {
		if r.From > m.offset {
			end = min(end, r.From)
		}
	}

	return end - m.offset
}
