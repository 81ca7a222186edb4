package md1

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Versions implements [metadata.Format].
func (Format) Versions() []string {
	return []string{minor(2).String(), minor(0).String(), minor(1).String()}
}

// minorNamed returns the minor version that a version names, or one that there
// is not.
func minorNamed(version string) minor {
	for _, m := range minors() {
		if m.String() == version {
			return m
		}
	}

	return -1
}

// Erase implements [metadata.Format].
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	writes, err := erasures(-1, src)
	if err != nil {
		return nil, fmt.Errorf("md1: %w", err)
	}

	return writes, nil
}

// Create implements [metadata.Format].
func (Format) Create(p metadata.NewArray, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	if p.UsualLayout {
		var err error
		if p.Layout, err = raid.ParseLayout(p.Level, ""); err != nil {
			return raid.UUID{}, nil, fmt.Errorf("md1: %w", err)
		}
	}

	if p.Chunk == 0 && p.Level.HasChunks() {
		p.Chunk = usualChunk
	}

	writes, err := Create(p, devices)

	return p.Array, writes, err
}

// usualChunk is what mdadm chooses.
const usualChunk raid.Sectors = 1024

// Create returns the writes that make an array of devices, as mdadm would
// place it: the first p.Disks of them get the slots, the others are spares.
// The Member of a write is the position in devices. What other signatures the
// devices have is for the caller to erase.
//
// An array with redundancy is dirty after this, unless p.AssumeClean: its
// members are resynced when it starts.
func Create(p metadata.NewArray, devices []metadata.NewMember) ([][]metadata.Write, error) {
	like, err := newArray(p, devices)
	if err != nil {
		return nil, fmt.Errorf("md1: %w", err)
	}

	header, err := newBitmap(p, like)
	if err != nil {
		return nil, fmt.Errorf("md1: %w", err)
	}

	var first, supers []metadata.Write

	for i, d := range devices {
		if d.ReaderAt == nil {
			continue
		}

		raw, err := placed(*like, minorNamed(p.Version), d, header)
		if err != nil {
			return nil, fmt.Errorf("md1: device %d: %w", i, err)
		}

		raw.DevNumber = uint32(i)

		erase, err := erasures(minorNamed(p.Version), d.Source)
		if err != nil {
			return nil, fmt.Errorf("md1: device %d: %w", i, err)
		}

		if header != nil {
			erase = append(erase, wholeBitmap(raw, header))
		}

		if log := pplPlace(raw); log != nil {
			erase = append(erase, metadata.Write{Sector: log.Sector, Data: log.Empty()})
		}

		for _, w := range erase {
			w.Member = metadata.MemberID(i)
			first = append(first, w)
		}

		supers = append(supers, superWrite(metadata.MemberID(i), raw, d.Block))
	}

	return stages(first, supers), nil
}

// stages returns those of the stages given that write anything.
func stages(all ...[]metadata.Write) [][]metadata.Write {
	return slices.DeleteFunc(all, func(stage []metadata.Write) bool { return len(stage) == 0 })
}

// superWrite returns the write of a superblock that nothing was in place of.
func superWrite(id metadata.MemberID, raw *Raw, block int) metadata.Write {
	return metadata.Write{
		Member: id,
		Sector: raid.Sectors(raw.SuperOffset),
		Data:   image(raw, raw)[:written(int(raw.MaxDev), block)],
	}
}

// check verifies what no superblock is needed to judge.
func check(p metadata.NewArray, devices []metadata.NewMember) error {
	switch {
	case minorNamed(p.Version) < 0:
		return fmt.Errorf("no metadata version %q", p.Version)
	case p.Disks < 1 || p.Disks > maxRoles || len(devices) < p.Disks:
		return fmt.Errorf("%d slots of at most %d, and %d devices for them", p.Disks, maxRoles, len(devices))
	case len(devices) > maxRoles:
		return fmt.Errorf("%d devices exceed %d", len(devices), maxRoles)
	case len(devices) > p.Disks && !p.Level.HasRedundancy():
		return fmt.Errorf("%v has no use for a spare", p.Level)
	case p.PPL && (p.Level != raid.Level5 || p.Bitmap == metadata.BitmapInternal):
		return fmt.Errorf("%v has partial parity logs only at raid5, and without a bitmap", p.Level)
	case p.Chunk < 0 || p.Chunk > 1<<31 || p.Size < 0:
		return fmt.Errorf("chunk of %d, size of %d sectors", p.Chunk, p.Size)
	default:
		return nil
	}
}

// newArray returns what the superblocks of a new array have in common.
func newArray(p metadata.NewArray, devices []metadata.NewMember) (*Raw, error) {
	if err := check(p, devices); err != nil {
		return nil, err
	}

	name, err := setName(p.Host, p.Name)
	if err != nil {
		return nil, err
	}

	maxDev := rolesIn(len(devices))
	raw := &Raw{
		Header: Header{
			Magic: magic, MajorVersion: majorVersion,
			SetUUID: UUID(p.Array), SetName: name, Ctime: diskTime(p.Now),
			Level: int32(p.Level), Layout: uint32(p.Layout), Chunksize: uint32(p.Chunk), RaidDisks: uint32(p.Disks),
			Utime: diskTime(p.Now), MaxDev: uint32(maxDev),
		},
		DevRoles: make(DevRoles, maxDev),
	}

	for i := range raw.DevRoles {
		raw.DevRoles[i] = raid.RoleSpare
		if i < p.Disks && devices[i].ReaderAt != nil {
			raw.DevRoles[i] = raid.Role(i)
		}
	}

	if p.Level == raid.Level0 {
		raw.FeatureMap |= FeatureRAID0Layout
		raw.Layout = max(raw.Layout, 1)
	}

	if p.PPL {
		raw.FeatureMap |= FeatureMultiplePPLs
		raw.BitmapOffset = pplField(minorNamed(p.Version))
	}

	if p.AssumeClean || !p.Level.HasRedundancy() {
		raw.ResyncOffset = all
	}

	if err := setSpace(raw, p, devices); err != nil {
		return nil, err
	}

	return raw, nil
}

// setName returns the name of an array as md keeps it, without the host where
// there is no room for both.
func setName(host, name string) (SetName, error) {
	var set SetName

	full := name
	if host != "" && len(host)+1+len(name) < len(set) {
		full = host + ":" + name
	}

	// The last byte stays zero for readers that expect it.
	odd := strings.ContainsAny(name, ":/\x00") || strings.ContainsAny(host, ":\x00")
	if name == "" || odd || len(full) >= len(set) {
		return set, fmt.Errorf("name %q of host %q: 1 to %d bytes, no colon, slash or zero", name, host, len(set)-1)
	}

	copy(set[:], full)

	return set, nil
}

// setSpace chooses the data offset and the size that all members of a new
// array have in common.
func setSpace(like *Raw, p metadata.NewArray, devices []metadata.NewMember) error {
	smallest := raid.Sectors(-1)

	for _, d := range devices {
		if d.ReaderAt != nil && (smallest < 0 || d.Size < smallest) {
			smallest = d.Size
		}
	}

	if smallest < 0 {
		return errors.New("no device for any slot")
	}

	room := bitmapRoom(smallest)
	if p.PPL {
		room = pplSectors
	}

	free := smallest&^7 - 16 - bblogSectors - room
	if minorNamed(p.Version) != 0 {
		offset := dataOffset(smallest, p.Chunk, room)
		like.DataOffset = uint64(offset)
		free = smallest - offset
	}

	if !p.Level.HasRedundancy() {
		return nil
	}

	// mdadm rounds a RAID1 as well.
	granule := p.Chunk
	if !p.Level.HasChunks() {
		granule = 128
	}

	size := p.Size
	if size == 0 && granule > 0 {
		size = max(free, 0) / granule * granule
	}

	if size > free || size < 1 {
		return fmt.Errorf("%d sectors of each member, and the smallest has room for %d", size, max(free, 0))
	}

	like.Size = uint64(size)

	return nil
}

// dataOffset returns where mdadm puts the data on a device of the given size:
// behind the superblock, the bitmap and the bad block log, with head room for
// a later reshape of about a thousandth of the device, at a whole MiB.
func dataOffset(size, chunk, room raid.Sectors) raid.Sectors {
	const mib = 2048

	headroom := raid.Sectors(128 * mib)
	for headroom<<10 > size && (chunk == 0 || headroom/2 >= 2*chunk) {
		headroom /= 2
	}

	return (24 + room + headroom + mib - 1) / mib * mib
}

// placed returns the superblock of device d of a new array with the bitmap
// given, if any.
func placed(raw Raw, m minor, d metadata.NewMember, header *bitmap) (*Raw, error) {
	at, ok := m.place(d.Size)
	if !ok || d.Block > blockSize {
		return nil, fmt.Errorf("no room for a %v superblock on %d sectors in blocks of %d bytes", m, d.Size, d.Block)
	}

	raw.SuperOffset = uint64(at)
	raw.DeviceUUID = UUID(d.Device)
	raw.BblogSize = bblogSectors
	raw.Devflags = devflags(d.WriteMostly, d.FailFast)

	// A bitmap has what it needs, and what is not there yet as much as it may.
	room := bitmapRoom(raid.Sectors(raw.Size))
	if header != nil {
		room = header.takes(&raw)
	}

	ppl := raw.FeatureMap&FeatureMultiplePPLs != 0
	if ppl {
		room = pplSectors
	}

	end := d.Size
	switch {
	case m == 0 && ppl:
		raw.BblogOffset = -bblogSectors
		end = at - bblogSectors - pplSectors
	case m == 0 && header != nil:
		raw.BblogOffset = -bblogSectors
		end = at + raid.Sectors(raw.BitmapOffset)
	case m == 0:
		raw.BblogOffset = -bblogSectors
		end = dataEnd(&raw, raid.Sectors(raw.Size))
	default:
		raw.BblogOffset = int32(8 + room)
	}

	raw.DataSize = uint64(max(end-raid.Sectors(raw.DataOffset), 0))

	if err := acceptable(&raw, m, d.Source); err != nil {
		return nil, err
	}

	return &raw, nil
}
