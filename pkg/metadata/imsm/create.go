package imsm

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Versions implements [metadata.Format].
func (Format) Versions() []string { return []string{version} }

// The sizes of strips, in sectors: mdadm's usual one, that of RAID1, which has
// none, and what the firmware has.
const (
	usualChunk raid.Sectors = 256
	mirrorUnit raid.Sectors = 128
	chunkMin   raid.Sectors = 8
	chunkMax   raid.Sectors = 2048
)

// Create implements [metadata.Format].
func (Format) Create(p metadata.NewArray, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	k, err := newArray(p, devices)
	if err != nil {
		return raid.UUID{}, nil, fmt.Errorf("imsm: %w", err)
	}

	stages := k.Record(p.State(len(k.members), func(i int) bool { return k.members[i] != nil }))

	return k.array(len(k.volumes) - 1), stages, nil
}

// checkNew verifies what no device is needed to judge.
func checkNew(p metadata.NewArray, devices []metadata.NewMember) error {
	switch {
	case p.Version != version:
		return fmt.Errorf("no metadata version %q", p.Version)
	case p.Disks < 1 || p.Disks > disksMax || len(devices) < p.Disks || len(devices) > disksMax:
		return fmt.Errorf("%d slots, and %d devices for them, of at most %d", p.Disks, len(devices), disksMax)
	case len(devices) > p.Disks && !p.Level.HasRedundancy():
		return fmt.Errorf("%v has no use for a spare", p.Level)
	case p.Bitmap == metadata.BitmapInternal:
		return errors.New("the format has no bitmap that is kept here")
	case p.PPL && p.Level != raid.Level5:
		return fmt.Errorf("%v has no partial parity logs", p.Level)
	case !named(p.Name):
		return fmt.Errorf("name %q: 1 to %d letters, digits, dots, dashes and underscores", p.Name, nameSize)
	}

	if err := checkShape(p.Geometry); err != nil {
		return err
	}

	return checkDevices(p, devices)
}

// named reports whether a volume can have a name: what mdadm allows.
func named(name string) bool {
	return name != "" && len(name) <= nameSize && name[0] != '.' && strings.Trim(name, nameLetters) == ""
}

const nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// checkShape verifies that the format has such arrays.
func checkShape(g raid.Geometry) error {
	power := g.Chunk >= chunkMin && g.Chunk <= chunkMax && bits.OnesCount64(uint64(g.Chunk)) == 1
	if g.Size < 0 || g.Level.HasChunks() && !power {
		return fmt.Errorf("chunk of %d, size of %d sectors: a chunk is a power of two from %d to %d",
			g.Chunk, g.Size, chunkMin, chunkMax)
	}

	if g.Level == raid.Level0 && g.Layout == raid.Original {
		g.Layout = 0 // members are of one size, where it makes no difference
	}

	return checkLevel(g)
}

// checkLevel verifies the level, the layout and the number of members.
func checkLevel(g raid.Geometry) error {
	fewest, even := 1, false
	layout := usualLayout(g.Level)

	switch g.Level {
	case raid.Level0:
	case raid.Level1:
		if g.Disks != 2 {
			return fmt.Errorf("%v of %d members: it has 2", g.Level, g.Disks)
		}
	case raid.Level5:
		fewest = 3
	case raid.Level10:
		fewest, even = 4, true
	case raid.LevelLinear, raid.Level4, raid.Level6:
		return fmt.Errorf("%v: there are levels 0, 1, 5 and 10", g.Level)
	}

	switch {
	case g.Layout != layout:
		return fmt.Errorf("%v with the layout %q: there is %q", g.Level, g.Layout.Name(g.Level), layout.Name(g.Level))
	case g.Disks < fewest || even && g.Disks%2 != 0:
		return fmt.Errorf("%v of %d members: it has at least %d, and an even number of them if it is level 10",
			g.Level, g.Disks, fewest)
	default:
		return nil
	}
}

// checkDevices verifies what is asked of devices.
func checkDevices(p metadata.NewArray, devices []metadata.NewMember) error {
	block, seen := 0, map[Serial]int{}

	for i, d := range devices {
		if d.ReaderAt == nil {
			if i >= p.Disks || !p.Level.HasRedundancy() {
				return fmt.Errorf("device %d is missing", i)
			}

			continue
		}

		serial := SerialOf(d.Serial)
		_, ok := anchorAt(d.Source)

		switch other, twice := seen[serial]; {
		case d.WriteMostly || d.FailFast:
			return fmt.Errorf("device %d: the format has no write-mostly or fail-fast members", i)
		case serial == Serial{}:
			return fmt.Errorf("device %d: %w", i, errNoSerial)
		case twice:
			return fmt.Errorf("devices %d and %d have serial number %q", other, i, serial.String())
		case block != 0 && blockOf(d.Source) != block:
			return fmt.Errorf("device %d has blocks of %d bytes, others of %d", i, blockOf(d.Source), block)
		case !ok:
			return fmt.Errorf("device %d has %d sectors in blocks of %d bytes", i, d.Size, blockOf(d.Source))
		}

		block = blockOf(d.Source)
		seen[serial] = i
	}

	if p.PPL && block != raid.SectorSize {
		return fmt.Errorf("partial parity logs on disks with blocks of %d bytes", block)
	}

	if block == 0 {
		return errors.New("no device for any slot")
	}

	return nil
}

// newArray returns the keeper of a new volume, which has yet to write its first
// record.
func newArray(p metadata.NewArray, devices []metadata.NewMember) (*keeper, error) {
	if p.UsualLayout {
		p.Layout = usualLayout(p.Level)
	}

	if p.Chunk == 0 && p.Level.HasChunks() {
		p.Chunk = usualChunk
	}

	if err := checkNew(p, devices); err != nil {
		return nil, err
	}

	raws, err := loadAll(devices)
	if err != nil {
		return nil, err
	}

	k := &keeper{}
	if k.container, err = containerFor(raws, p, devices); err != nil {
		return nil, err
	}

	k.keepers = []*keeper{k}
	k.gather(devices)

	if err := k.alike(p, devices); err != nil {
		return nil, err
	}

	if err := k.newVolume(p, devices); err != nil {
		return nil, err
	}

	k.reserve()
	k.start()

	return k, nil
}

// usualLayout returns the only layout of a level.
func usualLayout(level raid.Level) raid.Layout {
	if level == raid.Level10 {
		return nearTwo
	}

	return 0
}

// loadAll returns what records are on devices, nil for those that have none.
func loadAll(devices []metadata.NewMember) ([]*Raw, error) {
	raws := make([]*Raw, len(devices))

	for i, d := range devices {
		if d.ReaderAt == nil {
			continue
		}

		r, err := load(d.Source)

		switch {
		case err == nil && len(r.Volumes) > 0:
			raws[i] = r
		case err != nil && !errors.Is(err, metadata.ErrNotFound) && !errors.Is(err, metadata.ErrCorrupt):
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
	}

	return raws, nil
}

// containerFor returns the container that devices are all of, or a new one.
func containerFor(raws []*Raw, p metadata.NewArray, devices []metadata.NewMember) (*container, error) {
	var best *Raw

	count := 0

	for i, r := range raws {
		switch {
		case r == nil:
			continue
		case best != nil && r.container() != best.container():
			return nil, fmt.Errorf("device %d is of another container", i)
		case best == nil || r.Generation > best.Generation:
			best = r
		}

		count++
	}

	switch {
	case best == nil:
		return freshContainer(p, devices), nil
	case count != len(devices) || count != len(best.Disks):
		return nil, fmt.Errorf("%d of %d devices are of a container of %d: a further volume needs all of those",
			count, len(devices), len(best.Disks))
	}

	if err := best.takes(p.Name); err != nil {
		return nil, err
	}

	return newContainer(best), nil
}

// takes returns why the container cannot have a further volume of a name, or nil.
func (r *Raw) takes(name string) error {
	switch {
	case len(r.Volumes) >= volumesMax:
		return fmt.Errorf("the container has %d volumes already", len(r.Volumes))
	case r.Generation > generationMax:
		return fmt.Errorf("generation %d leaves no room above it", r.Generation)
	}

	for i := range r.Volumes {
		sb, _, err := r.member(i)

		switch {
		case err != nil:
			return err
		case sb.Unsupported != "":
			return fmt.Errorf("volume %q of the container: %s", sb.Name, sb.Unsupported)
		case sb.Name == name:
			return fmt.Errorf("the container has a volume of the name %q", name)
		}
	}

	return nil
}

// freshContainer returns a container without volumes, whose family is another than
// that of any other.
func freshContainer(p metadata.NewArray, devices []metadata.NewMember) *container {
	identity := p.Array[:]
	block := raid.SectorSize

	for _, d := range devices {
		if d.ReaderAt != nil {
			block = blockOf(d.Source)
			serial := SerialOf(d.Serial)
			identity = append(slices.Clip(identity), serial[:]...)
		}
	}

	digest := sha1.Sum(order.AppendUint64(identity, uint64(p.Now.UnixNano())))
	family := max(order.Uint32(digest[:]), 1)

	c := &container{block: block, version: 1}
	copy(c.head[:], signature+newestVersion)
	c.set(offFamily, family)
	c.set(offOrigFamily, family)
	c.set(offAttributes, attrChecksum)
	c.set(offCycles, 1)
	order.PutUint64(c.head[offCreated:], uint64(max(p.Now.Unix(), 0)))

	return c
}

// gather makes devices the members.
func (k *keeper) gather(devices []metadata.NewMember) {
	for _, d := range devices {
		if d.ReaderAt == nil {
			k.members = append(k.members, nil)

			continue
		}

		k.members = append(k.members, &member{disk: k.newDisk(d.Source), added: true})
	}
}

// alike verifies that a further volume has its members in the same slots as those
// that there are: the firmware has no others.
func (k *keeper) alike(p metadata.NewArray, devices []metadata.NewMember) error {
	for _, v := range k.volumes {
		if v.geometry.Disks != p.Disks || len(devices) != p.Disks {
			return fmt.Errorf("%d members, where the other volume of the container has %d", p.Disks, v.geometry.Disks)
		}

		for slot, m := range k.members {
			if i, _ := k.ord(v.maps[0], slot); m == nil || i != m.disk.index {
				return fmt.Errorf("device %d is in another slot of the other volume of the container", slot)
			}
		}
	}

	return nil
}

// newVolume adds the volume to the container.
func (k *keeper) newVolume(p metadata.NewArray, devices []metadata.NewMember) error {
	size := mapSize + 4*p.Disks
	v := &volume{geometry: p.Geometry, fresh: p.Level.HasRedundancy() && !p.AssumeClean}
	v.maps = [mapsOfEach][]byte{make([]byte, size), make([]byte, size)}

	at, free := k.gap()

	v.geometry.Size = p.Size
	if p.Size == 0 {
		v.geometry.Size = free - free%granule(p.Geometry)
	}

	switch g := v.geometry; {
	case g.Size%granule(g) != 0:
		return fmt.Errorf("a size of %d sectors of each member: it is a multiple of %d", g.Size, granule(g))
	case g.Size < 1 || g.Size > free:
		return fmt.Errorf("%d sectors of each member, and there is room for %d", max(g.Size, granule(g)), max(free, 0))
	}

	copy(v.head[:nameSize], p.Name)
	order.PutUint32(v.head[offVolStatus:], volCoalesce)

	made := order.Uint16(k.head[offVolsMade:]) + 1
	order.PutUint16(k.head[offVolsMade:], made)
	order.PutUint16(v.head[offVolNumber:], made)
	v.head[offPolicy] = policyMultipleOff

	if p.PPL {
		v.head[offPolicy] = policyLogs
	}

	k.volumes = append(k.volumes, v)
	k.volume = v
	k.newMap(v, at)
	k.putSize(v)
	copy(v.maps[1], v.maps[0])
	k.newMissing(devices[:p.Disks])

	return nil
}

// newMap makes the map of a volume that begins at a sector.
func (k *keeper) newMap(v *volume, at raid.Sectors) {
	g, m := v.geometry, v.maps[0]

	const likeOne = 4 // members of a RAID10 that firmware calls level 1

	level, attribute, strip := uint8(g.Level), uint32(attrRAID0), g.Chunk

	switch {
	case g.Level == raid.Level1:
		attribute, strip = attrRAID1, mirrorUnit
	case g.Level == raid.Level5:
		attribute = attrRAID5
	case g.Level == raid.Level10 && g.Disks == likeOne:
		level, attribute = uint8(raid.Level1), attrRAID10
	case g.Level == raid.Level10:
		attribute = attrRAID10 | attrRAID10Ext
	}

	k.set(offAttributes, k.get(offAttributes)|attribute)

	start := uint64(at / k.sectors())
	if start>>32 != 0 {
		k.setWide()
	}

	for _, m := range v.maps {
		order.PutUint16(m[offStrip:], uint16(strip/k.sectors()))
		putMap(m, offStart, offStartHigh, start)
	}

	m[offLevel], m[offMembers], m[offDomains], m[offFailedSlot], m[offOne] = level, uint8(g.Disks), 1, noSlot, 1
	if mirrored(g.Level) {
		m[offDomains] = 2
	}

	for slot := range g.Disks {
		putOrd(m, slot, ordIndex, true)
	}
}

// newMissing gives the slots without a device entries of disks that have failed.
func (k *keeper) newMissing(devices []metadata.NewMember) {
	for slot, d := range devices {
		if d.ReaderAt != nil {
			continue
		}

		var e entry

		copy(e.raw[:serialSize], fmt.Sprintf("missing:%d", slot))
		e.setStatus(diskConfigured | diskFailed)
		order.PutUint32(e.raw[offSCSI:], ^uint32(0))
		putOrd(k.volume.maps[0], slot, len(k.table), true)
		k.table = append(k.table, e)
	}
}

// gap returns the largest part of all members that no volume has, where a volume
// would begin in it, and how large it may be.
func (k *keeper) gap() (at, size raid.Sectors) {
	end := raid.MaxSectors

	for _, m := range k.members {
		if m != nil {
			end = min(end, m.disk.size-recordSectors-reservedSectors)
		}
	}

	if len(k.volumes) == 0 {
		return 0, end
	}

	from, to := k.extent(0)
	if front, behind := from-reservedSectors, end-to-reservedSectors; front > behind {
		return 0, front
	}

	return to + reservedSectors, end - to - reservedSectors
}

// Erase implements [metadata.Format]: the first block of the record, and the last
// block of the device if it is that of a migration of the container.
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	anchor, err := loadAnchor(src)
	if errors.Is(err, metadata.ErrNotFound) {
		return nil, nil
	}

	if err != nil {
		return nil, fmt.Errorf("imsm: %w", err)
	}

	at, _ := anchorAt(src)
	blank := make([]byte, len(anchor))
	writes := []metadata.Write{{Sector: at, Data: blank}}
	last := at + raid.Sectors(len(anchor)/raid.SectorSize)

	record, err := readBlocks(src, last, len(anchor))
	if err != nil {
		return nil, fmt.Errorf("imsm: %w", err)
	}

	const offRecordFamily = 8
	if family := order.Uint32(record[offRecordFamily:]); family != 0 && family == order.Uint32(anchor[offFamily:]) {
		writes = append(writes, metadata.Write{Sector: last, Data: blank})
	}

	return writes, nil
}
