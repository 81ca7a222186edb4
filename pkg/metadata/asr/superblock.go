package asr

import (
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// room returns how many sectors a disk has in front of its metadata.
func (r *Raw) room() raid.Sectors {
	room := raid.Sectors(r.Reserved.Table)
	if first := raid.Sectors(r.Reserved.FirstBlock); first > 0 && first < room {
		room = first
	}

	return room
}

// superblock returns what the metadata of one disk says.
func (r *Raw) superblock(src metadata.Source) (*metadata.Superblock, error) {
	drive := uint32(r.Reserved.DriveMagic)
	sb := &metadata.Superblock{
		Format: version, Device: uuidOf("disk", drive), Number: number(drive),
		ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors, DataSize: r.room(), Raw: r,
	}

	var doubt doubts

	if src.Block > raid.SectorSize {
		doubt.run("the format counts in blocks of 512 bytes, and the device has blocks of %d", src.Block)
	}

	if r.group.at < 0 {
		if m := r.Table.ArrayMagic; m != poolMagic && m != unsetMagic {
			doubt.run("it is a spare of array %#x alone, of which it says no more", uint32(m))
		}

		sb.Events = r.Table.Stamp.events(r.Lines[r.group.own].Seq)
		sb.Unsupported = doubt.text(true)

		return sb, nil
	}

	array := r.Lines[r.group.at]
	sb.Array, sb.Name = uuidOf("array", uint32(array.Magic)), array.Name
	sb.Events = r.Table.Stamp.events(r.seq())

	r.shape(sb, &doubt)

	if err := r.space(sb, &doubt); err != nil {
		return nil, err
	}

	r.roles(sb, &doubt)
	r.condition(sb, &doubt)
	sb.Unsupported, sb.Unreadable = doubt.text(true), doubt.text(false)

	return sb, nil
}

// seq returns the sequence number of the array: the highest, for not everybody
// keeps it alike in all lines.
func (r *Raw) seq() uint16 {
	seq := r.Lines[r.group.at].Seq
	for _, i := range r.group.members {
		seq = max(seq, r.Lines[i].Seq)
	}

	return seq
}

// doubts are the reasons why an array cannot be run, and those among them why
// it cannot even be read.
type doubts struct{ all, unreadable []string }

func (d *doubts) run(format string, args ...any) { d.all = append(d.all, fmt.Sprintf(format, args...)) }

func (d *doubts) read(format string, args ...any) {
	d.run(format, args...)
	d.unreadable = append(d.unreadable, d.all[len(d.all)-1])
}

func (d *doubts) text(run bool) string {
	if run {
		return strings.Join(d.all, ", ")
	}

	return strings.Join(d.unreadable, ", ")
}

// shape sets the level of the array and its chunk.
func (r *Raw) shape(sb *metadata.Superblock, doubt *doubts) {
	array := r.Lines[r.group.at]
	member := r.Lines[r.group.own]

	if len(r.group.members) > 0 {
		member = r.Lines[r.group.members[0]]
	}

	sb.Disks = int(array.Members)

	switch {
	case array.Type == typeRAID0 && member.Stripe > 0:
		sb.Level, sb.Chunk = raid.Level0, raid.Sectors(member.Stripe)
	case array.Type == typeRAID1:
		sb.Level = raid.Level1
	case (array.Type == typeRAID4 || array.Type == typeRAID5) && member.Stripe > 0:
		sb.Level, sb.Chunk = raid.Level(array.Type), raid.Sectors(member.Stripe)

		doubt.read("nobody knows where its parity lies")
	default:
		sb.Level = levelUnknown

		doubt.read("arrays of type %d with stripes of %d sectors are not known", array.Type, member.Stripe)
	}

	r.oddities(doubt)

	if sb.Level == raid.Level0 {
		r.stripes(doubt)
	}
}

// oddities notes what of the lines says that more is to be known of the array than
// is known.
func (r *Raw) oddities(doubt *doubts) {
	array := r.Lines[r.group.at]

	for _, l := range r.Lines {
		if l.Level == levelDual || l.Level == levelIntermediate {
			doubt.read("it is part of an array of two levels, whose order is not known")

			break
		}
	}

	for _, i := range r.group.members {
		l := r.Lines[i]
		if l.Offset != 0 || l.Added != 0 || l.Append != 0 || array.Added != 0 || array.Append != 0 {
			doubt.read("it is being extended, or lies elsewhere: offset %d, block %d", l.Offset, l.Append)

			break
		}
	}
}

// stripes verifies that the members of a RAID0 are alike, and in one order.
func (r *Raw) stripes(doubt *doubts) {
	array := r.Lines[r.group.at]
	if len(r.group.members) < int(array.Members) {
		doubt.read("the table has %d of %d members", len(r.group.members), array.Members)
	}

	for n, i := range r.group.members {
		l, before := r.Lines[i], r.Lines[r.group.members[max(n-1, 0)]]

		switch {
		case n > 0 && l.place() == before.place():
			doubt.read("two members have one place")
		case l.Stripe != before.Stripe:
			doubt.read("the chunks of members are of %d and %d sectors", l.Stripe, before.Stripe)
		}
	}
}

// space sets where the data of this disk is. Returns an error if it lies over the
// metadata.
func (r *Raw) space(sb *metadata.Superblock, doubt *doubts) error {
	array, own := r.Lines[r.group.at], r.Lines[r.group.own]
	used, all := raid.Sectors(own.Capacity), raid.Sectors(array.Capacity)

	if all == 0 || !r.group.spare && (used == 0 || used > r.room()) {
		return fmt.Errorf("%d sectors of data of %d, and the metadata begins at %d", used, all, r.room())
	}

	switch {
	case sb.Level == raid.Level0 && r.group.spare:
		doubt.run("a RAID0 has no use for a spare")
	case sb.Level == raid.Level0:
		sb.DataSize = used
		if all > used*raid.Sectors(sb.Disks) || all%(sb.Chunk*raid.Sectors(sb.Disks)) != 0 {
			doubt.read("%d sectors of the array are not %d times the chunks of %d", all, sb.Disks, used)
		} else {
			sb.DataSize = all / raid.Sectors(sb.Disks)
		}
	case sb.Level == raid.Level1:
		sb.Size = min(all, sb.DataSize)
		r.mirror(all, used, doubt)
	case sb.Level.HasParity():
		sb.Size = min(max(used, 1), sb.DataSize)
	}

	return nil
}

// mirror verifies the sizes of a RAID1.
func (r *Raw) mirror(all, used raid.Sectors, doubt *doubts) {
	switch {
	case !r.group.spare && all != used:
		doubt.read("%d sectors of the array, and %d of each member", all, used)
	case all > r.room():
		doubt.run("%d sectors of the array, and the disk has %d", all, r.room())
	}
}

// roles sets who is in which slot.
func (r *Raw) roles(sb *metadata.Superblock, doubt *doubts) {
	count := sb.Number + 1
	for _, i := range r.group.members {
		count = max(count, number(uint32(r.Lines[i].Magic))+1)
	}

	sb.Roles = slices.Repeat([]raid.Role{raid.RoleSpare}, count)
	taken := make([]bool, count)
	alike := false

	for slot, i := range r.group.members {
		l := r.Lines[i]
		n := number(uint32(l.Magic))
		alike = alike || taken[n]
		taken[n] = true

		sb.Roles[n] = raid.RoleFaulty
		if l.works() {
			sb.Roles[n] = raid.Role(slot)
		}

		if i == r.group.own && l.works() && l.State != memberOptimal && sb.Level.HasRedundancy() {
			sb.RecoveryOffset = 0
		}
	}

	if alike || r.group.spare && taken[sb.Number] {
		doubt.run("two of its disks have numbers that cannot be told apart here")
	}
}

// condition sets whether the array is in sync, and notes what keeps it from being
// run.
func (r *Raw) condition(sb *metadata.Superblock, doubt *doubts) {
	array := r.Lines[r.group.at]
	dirty := r.Table.Open != openNo

	switch array.State {
	case arrayOptimal, arrayDegraded, arrayRebuilding:
	case arrayVerifying, arrayVerifyingFix, arrayBuilding, arrayCreated:
		dirty = true
	case arrayMorphing:
		doubt.read("the array is being changed")
	case arrayDead:
		doubt.run("its controller calls the array dead")
	default:
		doubt.run("the array is in state %#x, which is not known", array.State)
	}

	if dirty && sb.Level.HasRedundancy() {
		sb.ResyncOffset = 0
	}

	for _, i := range append([]int{r.group.at}, r.group.members...) {
		if flags := r.Lines[i].Flags & changePending; flags != 0 {
			doubt.run("its controller has not finished a change: flags %#x", flags)

			break
		}
	}
}
