package imsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// superblock returns what r says of the volumes that src is a member of, or of
// the spare that it is. Returns an error if that cannot be.
func (r *Raw) superblock(src metadata.Source) (*metadata.Superblock, error) {
	var (
		all    []*metadata.Superblock
		extent []raid.Range
	)

	for i := range r.Volumes {
		sb, at, err := r.member(i)
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", i, err)
		}

		if _, ok := r.Volumes[i].slot(r.index); !ok {
			continue
		}

		if err := r.fits(at, extent, src); err != nil {
			return nil, fmt.Errorf("volume %d: %w", i, err)
		}

		if slices.ContainsFunc(all, func(other *metadata.Superblock) bool { return other.Array == sb.Array }) {
			return nil, fmt.Errorf("two volumes %v", sb.Array)
		}

		extent = append(extent, at)
		all = append(all, sb)
	}

	if len(all) == 0 {
		return r.spare(src), nil
	}

	all[0].Others = all[1:]

	return all[0], nil
}

// fits checks that the data of a volume lies apart from that of others and from
// the metadata.
func (r *Raw) fits(at raid.Range, others []raid.Range, src metadata.Source) error {
	record, _ := place(src, len(r.mpb))

	if at.Empty() || at.To > record {
		return fmt.Errorf("data at sectors %d to %d, and the metadata at %d", at.From, at.To, record)
	}

	for _, other := range others {
		if at.Overlaps(other) {
			return fmt.Errorf("data at sectors %d to %d, over %d to %d", at.From, at.To, other.From, other.To)
		}
	}

	return nil
}

// slot returns in which slot a disk of the table is.
func (v *Volume) slot(index int) (int, bool) {
	stale := -1

	for slot := range v.Maps[0].Ords {
		switch i, rebuild := v.Maps[0].disk(slot); {
		case i != index:
		case !rebuild:
			return slot, true
		case stale < 0:
			stale = slot
		}
	}

	return stale, stale >= 0
}

// current returns the map that says what a volume is, and not what it is to be.
func (v *Volume) current() *Map { return &v.Maps[len(v.Maps)-1] }

// common returns what is so of all arrays and spares of the container.
func (r *Raw) common() *metadata.Superblock {
	sb := &metadata.Superblock{
		Format: version, Device: r.Serial.device(), Container: r.container(), Events: uint64(r.Generation),
		EventsShared: true, Number: r.index, ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors, Raw: r,
	}

	if r.Created != 0 { // old records have none
		sb.Created = time.Unix(int64(min(r.Created, 1<<37)), 0).UTC()
	}

	return sb
}

// spare returns what r says of a disk that is in no volume.
func (r *Raw) spare(src metadata.Source) *metadata.Superblock {
	sb := r.common()
	record, _ := place(src, len(r.mpb))
	sb.DataSize = max(min(record, src.Size-recordSectors), 0)
	sb.Roles = make([]raid.Role, len(r.Disks))

	for i := range sb.Roles {
		sb.Roles[i] = raid.RoleSpare
	}

	var why []string

	switch own := r.Disks[r.index]; {
	case own.failed():
		why = append(why, "the disk has failed in its container")
	case own.Status&diskJournal != 0:
		why = append(why, "the disk is the journal of a container")
	}

	sb.Unsupported = strings.Join(append(why, r.strange()...), ", ")

	return sb
}

// strange returns what there is in the container that is not understood.
func (r *Raw) strange() []string {
	if unknown := r.Attributes &^ attrKnown; unknown != 0 {
		return []string{fmt.Sprintf("attributes %#x, which are not known", uint32(unknown))}
	}

	return nil
}

// member returns what r says of a volume, and of this disk in it, and what part
// of each member it has.
func (r *Raw) member(index int) (*metadata.Superblock, raid.Range, error) {
	v, sb := &r.Volumes[index], r.common()
	sb.Array, sb.Name, sb.DataOffset = r.array(index), v.Name, raid.Sectors(v.Maps[0].Start)
	sb.Everywhere = true

	var (
		run, read []string // what keeps it from being run, and from being read
		size      raid.Sectors
		why       error
	)

	if sb.Geometry, why = v.Maps[0].shape(); why != nil {
		run, read = append(run, why.Error()), append(read, why.Error())
		size = raid.Sectors(min(v.Maps[0].Blocks, 1<<54))
	} else if size, why = v.size(sb.Geometry); why != nil {
		run = append(run, why.Error())
	}

	sb.DataSize = size
	if sb.Level.HasRedundancy() {
		sb.Size = size
	}

	if err := r.roles(sb, v); err != nil {
		return nil, raid.Range{}, err
	}

	if moves := v.moves(); moves != "" {
		run, read = append(run, moves), append(read, moves)
	}

	run = append(append(run, v.hinders()...), r.strange()...)
	end := r.protect(sb, v, &run)

	r.progress(sb, v)
	sb.BadBlocks = r.badBlocks(sb)
	sb.Unsupported, sb.Unreadable = strings.Join(run, ", "), strings.Join(read, ", ")

	return sb, raid.Range{From: sb.DataOffset, To: end}, nil
}

// roles sets who is in which slot.
func (r *Raw) roles(sb *metadata.Superblock, v *Volume) error {
	sb.Roles = make([]raid.Role, len(r.Disks))
	for i := range sb.Roles {
		sb.Roles[i] = raid.RoleSpare
		if r.Disks[i].failed() {
			sb.Roles[i] = raid.RoleFaulty
		}
	}

	for _, m := range v.Maps {
		for slot := range m.Ords {
			if i, _ := m.disk(slot); i >= len(r.Disks) {
				return fmt.Errorf("disk %d of %d in slot %d", i, len(r.Disks), slot)
			}
		}
	}

	for slot := range v.Maps[0].Ords {
		i, rebuild := v.Maps[0].disk(slot)

		switch mine, _ := v.slot(i); {
		case mine == slot && !r.Disks[i].failed():
			sb.Roles[i] = raid.Role(slot)
		case mine != slot && !rebuild:
			return fmt.Errorf("disk %d has two slots", i)
		}
	}

	return nil
}

// moves returns why the content of a volume is on the move, or nothing.
func (v *Volume) moves() string {
	if v.Migrating == 0 {
		return ""
	}

	switch v.Migration {
	case migrationInit, migrationRebuild, migrationVerify:
		a, b := &v.Maps[0], &v.Maps[1]
		if a.Start != b.Start || a.Strip != b.Strip || a.Level != b.Level || a.Members != b.Members {
			return "the volume is being given another shape"
		}

		return ""
	case migrationGeneral:
		return "the volume is being given another shape"
	case migrationChange:
		return "the state of the volume is being changed"
	default:
		return fmt.Sprintf("a migration of type %d", v.Migration)
	}
}

// hinders returns what keeps a volume from being run, beside its shape.
func (v *Volume) hinders() []string {
	var why []string

	if v.Status&volClone != 0 {
		why = append(why, "the volume is a clone or has one")
	}

	if v.Migrating > 1 {
		why = append(why, fmt.Sprintf("a migration in state %d", v.Migrating))
	}

	switch v.Policy {
	case policyOff, policyMultipleOff, policyLog, policyLogs:
	case policyJournal, policyJournals:
		why = append(why, "partial parity is kept on another disk")
	case policyBitmap:
		why = append(why, "a write-intent bitmap, which would not be kept")
	default:
		why = append(why, fmt.Sprintf("write hole policy %d", v.Policy))
	}

	return why
}

// protect sets where partial parity is kept, and returns where all that belongs
// to the volume ends.
func (r *Raw) protect(sb *metadata.Superblock, v *Volume, why *[]string) raid.Sectors {
	end := sb.DataOffset + sb.DataSize

	if v.Policy != policyLog && v.Policy != policyLogs || sb.Level != raid.Level5 {
		return end
	}

	size := singleLog
	if v.Policy == policyLogs {
		size = regionSectors
	}

	at := sb.DataOffset + raid.Sectors(min(v.Maps[0].Stripes*uint64(v.Maps[0].Strip), 1<<54))
	sb.PPL = &metadata.PPL{
		Sector: at, Size: size, Ring: v.Policy == policyLogs, Signature: order.Uint32(r.family()),
	}

	if r.block != raid.SectorSize {
		*why = append(*why, fmt.Sprintf("partial parity logs on disks with blocks of %d bytes", r.block))
	}

	if at < end {
		*why = append(*why, "partial parity logs over the data")
	}

	return max(end, at+size)
}

// progress sets what is in sync. How far a sync came counts only if we said so:
// mdmon notes it before what was written is out of the caches of disks, which lose
// that with the power.
func (r *Raw) progress(sb *metadata.Superblock, v *Volume) {
	if !sb.Level.HasRedundancy() {
		return
	}

	repair := v.Migration == migrationVerify && v.Status&volFix != 0

	switch {
	case v.Dirty&volDirty != 0:
		sb.ResyncOffset = 0
	case v.Migrating != 0 && (v.Migration == migrationInit || repair):
		sb.ResyncOffset = 0
		if marked(r.mpb) {
			sb.ResyncOffset = v.Maps[0].resyncPace(sb.Level).done(v.Unit, sb.Size)
		}
	case v.current().State == stateUninitialized:
		sb.ResyncOffset = 0
	}

	slot, ok := sb.Role(r.index).Slot()
	if !ok {
		return
	}

	if _, rebuild := v.current().disk(int(slot)); !rebuild {
		return
	}

	sb.RecoveryOffset = 0

	if v.Migrating != 0 && v.Migration == migrationRebuild && r.filled(v) == 1 && marked(r.mpb) {
		sb.RecoveryOffset = v.Maps[1].rebuildPace(sb.Level).done(v.Unit, sb.Size)
	}
}

// filled returns how many members are being filled: how far each of several is
// there is no place for.
func (r *Raw) filled(v *Volume) int {
	count := 0

	for slot := range v.Maps[0].Ords {
		i, _ := v.Maps[0].disk(slot)
		if _, rebuild := v.current().disk(slot); rebuild && !r.Disks[i].failed() {
			count++
		}
	}

	return count
}

// badBlocks returns the sectors of a volume of which this disk has no valid data.
func (r *Raw) badBlocks(sb *metadata.Superblock) []raid.Range {
	var all []raid.Range

	for _, b := range r.BadBlocks {
		from := raid.Sectors(b.Start) - sb.DataOffset
		if one := (raid.Range{
			From: max(from, 0), To: min(from+raid.Sectors(b.Length), sb.DataSize),
		}); int(b.Disk) == r.index && !one.Empty() {
			all = append(all, one)
		}
	}

	slices.SortFunc(all, func(a, b raid.Range) int { return int(a.From - b.From) })

	apart := all[:0]

	for _, one := range all {
		if n := len(apart); n > 0 && apart[n-1].To >= one.From {
			apart[n-1].To = max(apart[n-1].To, one.To)
		} else {
			apart = append(apart, one)
		}
	}

	if len(apart) == 0 {
		return nil
	}

	return apart
}

var (
	errNoArray  = errors.New("the superblock is of no array of the format")
	errNoSerial = errors.New("the disk has no serial number, by which the metadata would know it")
)
