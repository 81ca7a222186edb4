package ddf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// superblock returns what r says of the arrays that src is a member of, or of
// the spare that it is. Returns an error if that cannot be.
func (r *Raw) superblock(src metadata.Source) (*metadata.Superblock, error) {
	own := r.physical(r.Refnum)
	if own == nil {
		return nil, fmt.Errorf("the disk has refnum %08x, which is none of the container's", r.Refnum)
	}

	var (
		all    []*metadata.Superblock
		extent []raid.Range
	)

	for i := range r.Configs {
		c := &r.Configs[i]

		v := r.virtual(c.GUID)
		if v == nil || v.State&vdStateMask == vdDeleted || !slices.Contains(c.Refnums, r.Refnum) {
			continue // left over
		}

		sb, err := r.member(c, v, own)
		if err != nil {
			return nil, err
		}

		at := raid.Range{From: sb.DataOffset, To: sb.DataOffset + sectorsOf(c.Blocks)}
		if err := r.fits(at, extent, src); err != nil {
			return nil, err
		}

		if slices.ContainsFunc(all, func(other *metadata.Superblock) bool { return other.Array == sb.Array }) {
			return nil, fmt.Errorf("two records of array %v", sb.Array)
		}

		extent = append(extent, at)
		all = append(all, sb)
	}

	if len(all) == 0 {
		return r.spare(own), nil
	}

	all[0].Others = all[1:]

	return all[0], nil
}

// fits checks that the data of an array lies apart from that of others and from
// the metadata.
func (r *Raw) fits(at raid.Range, others []raid.Range, src metadata.Source) error {
	taken := append(slices.Clone(others), raid.Range{From: r.anchorAt, To: raid.MaxSectors})
	for _, a := range r.copies {
		if a != nil {
			taken = append(taken, raid.Range{From: a.start, To: a.end()})
		}
	}

	if at.Empty() || at.To > src.Size {
		return fmt.Errorf("data at sectors %d to %d of %d", at.From, at.To, src.Size)
	}

	for _, other := range taken {
		if at.Overlaps(other) {
			return fmt.Errorf("data at sectors %d to %d, over %d to %d", at.From, at.To, other.From, other.To)
		}
	}

	return nil
}

// spare returns what r says of a disk that is in no array.
func (r *Raw) spare(own *PhysicalDisk) *metadata.Superblock {
	sb := &metadata.Superblock{
		Format: version, Device: uuidOf(own.GUID[:]), Host: r.host, Container: r.container(),
		Created: created(r.Header.GUID, r.form), Updated: timeOf(r.Header.Timestamp), Events: uint64(r.Header.Seq),
		Number: own.Index, DataSize: min(sectorsOf(own.Room), r.lowest()),
		ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors, Raw: r,
	}

	if !own.working() {
		sb.Unsupported = "the disk has failed in its container"
	}

	return sb
}

// lowest returns the first sector of the metadata.
func (r *Raw) lowest() raid.Sectors {
	low := r.anchorAt
	for _, kind := range []byte{typePrimary, typeSecondary} {
		if at, ok := r.Anchor.place(kind); ok {
			low = min(low, at)
		}
	}

	return low
}

// member returns what a record says of an array, and of this disk in it.
func (r *Raw) member(c *Config, v *VirtualDisk, own *PhysicalDisk) (*metadata.Superblock, error) {
	sb := &metadata.Superblock{
		Format: version, Array: r.arrayUUID(v, r.nameOf(v)), Device: uuidOf(own.GUID[:]), Container: r.container(),
		Name: v.Name, Host: r.host, Created: created(v.GUID, r.form), Updated: timeOf(c.Timestamp),
		Events: uint64(c.Seq), Number: own.Index, DataSize: sectorsOf(c.Blocks),
		ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors, Raw: r,
	}

	var why error

	if sb.Geometry, why = c.shape(); why != nil {
		sb.Unreadable = why.Error()
	}

	if why == nil {
		why = r.size(sb, c)
	}

	if err := r.roles(sb, c); err != nil {
		return nil, err
	}

	if sb.Level.HasRedundancy() && (v.State&vdInconsistent != 0 || v.InitState&initMask != initFull) {
		sb.ResyncOffset = 0
	}

	if own.State&pdRebuilding != 0 && own.working() && sb.Level.HasRedundancy() {
		sb.RecoveryOffset = 0
	}

	r.hinder(sb, c, v, why)

	return sb, nil
}

// size sets how much of each member is used, or says why that cannot be told.
func (r *Raw) size(sb *metadata.Superblock, c *Config) error {
	size, err := c.used(sb.Geometry, sb.DataSize)
	if err != nil {
		size = sb.DataSize
	}

	switch {
	case sb.Level.HasRedundancy():
		sb.Size = size
	default:
		sb.DataSize = size
	}

	return err
}

// roles sets who is in which slot, as far as this disk's record tells, and where
// its data is.
func (r *Raw) roles(sb *metadata.Superblock, c *Config) error {
	count := 0
	for _, p := range r.PhysicalDisks {
		count = max(count, p.Index+1)
	}

	sb.Roles = make([]raid.Role, count)
	for i := range sb.Roles {
		sb.Roles[i] = raid.RoleSpare
	}

	for i, refnum := range c.Refnums {
		if refnum == 0 {
			continue
		}

		if slices.Contains(c.Refnums[:i], refnum) {
			return fmt.Errorf("refnum %08x has two slots", refnum)
		}

		if refnum == r.Refnum {
			sb.DataOffset = sectorsOf(c.Offsets[i])
		}

		p := r.physical(refnum)

		switch {
		case p == nil:
		case p.working():
			sb.Roles[p.Index] = raid.Role(c.slot(i))
		default:
			sb.Roles[p.Index] = raid.RoleFaulty
		}
	}

	return nil
}

// slot returns the slot of member i of a record.
func (c *Config) slot(i int) raid.Slot {
	if c.Secondaries <= 1 {
		return raid.Slot(i)
	}

	return raid.Slot(int(c.SecondarySeq)*int(c.Primaries) + i)
}

// hinder notes what keeps the array from being run. why is what is known of that.
func (r *Raw) hinder(sb *metadata.Superblock, c *Config, v *VirtualDisk, why error) {
	var run []string

	if why != nil {
		run = append(run, why.Error())
	}

	var read []string
	if sb.Unreadable != "" {
		read = append(read, sb.Unreadable)
	}

	if v.State&vdMorphing != 0 {
		run, read = append(run, "the array is being changed"), append(read, "the array is being changed")
	}

	if r.remapped() {
		const is = "sectors of the disk are remapped"

		run, read = append(run, is), append(read, is)
	}

	if v.InitState&accessMask != 0 {
		run = append(run, "the array is not to be written")
	}

	if c.Secondaries > 1 {
		run = append(run, "a member tells only of its own mirror, and not of those beside it")
	}

	if c.Secondaries > 1 && c.SecondarySeq >= c.Secondaries {
		read = append(read, fmt.Sprintf("mirror %d of %d", c.SecondarySeq, c.Secondaries))
	}

	if r.form.order != binary.BigEndian {
		run = append(run, "the numbers are little-endian")
	}

	sb.Unsupported, sb.Unreadable = strings.Join(run, ", "), strings.Join(read, ", ")
}

var errLong = errors.New("beyond what is read")

// remapped reports whether the disk's log of bad blocks may have any entries.
func (r *Raw) remapped() bool {
	log, err := r.badBlocks()

	if err != nil || log == nil {
		return err != nil
	}

	return r.form.order.Uint32(log) == magicBadBlocks && r.form.order.Uint16(log[offUsed:]) != 0
}

// badBlocks returns the head of the log of bad blocks, if there is one.
func (r *Raw) badBlocks() ([]byte, error) {
	s := r.Header.BadBlocks
	if s.Offset == none32 || s.Length == 0 {
		return nil, nil
	}

	at := r.active.offset(s)
	if at+raid.SectorSize > len(r.active.image) {
		return nil, errLong
	}

	return r.active.image[at:][:raid.SectorSize], nil
}
