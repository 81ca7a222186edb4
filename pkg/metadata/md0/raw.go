package md0

import (
	"encoding/binary"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	magic        = 0xa92b4efc
	majorVersion = 0
	minorPlain   = 90
	minorReshape = 91
	blockSize    = 4096
	maxDisks     = 27
	descriptor   = 128 // bytes of an entry
	offDisks     = 512
	offThis      = blockSize - descriptor
	offSum       = 38 * 4
	bitClean     = 1 << 0
	bitClustered = 1 << 5
	bitBitmap    = 1 << 8
	resyncedAll  = 1<<32 - 1 // how md says everything, in an offset of 32 bits
	diskFaulty   = 1 << 0
	diskActive   = 1 << 1
	diskSync     = 1 << 2
	diskRemoved  = 1 << 3
	diskMostly   = 1 << 9  // to be read only if no other can be
	diskFailFast = 1 << 10 // not to be asked again when it fails
	diskFlags    = diskMostly | diskFailFast
)

// UUID is a UUID that prints as mdadm prints it.
type UUID raid.UUID

// MarshalText implements [encoding.TextMarshaler].
func (u UUID) MarshalText() ([]byte, error) { return []byte(raid.UUID(u).String()), nil }

// Header is what a superblock says but of devices, field by field and in order.
// A host that is big-endian has the high words of event counts first.
type Header struct {
	// What is the same on every member and rarely changes.
	Magic         uint32     `json:"magic"`
	MajorVersion  uint32     `json:"major_version"`
	MinorVersion  uint32     `json:"minor_version"`
	PatchVersion  uint32     `json:"patch_version"`
	GvalidWords   uint32     `json:"gvalid_words"`
	SetUUID0      uint32     `json:"set_uuid0"`
	Ctime         uint32     `json:"ctime"`
	Level         int32      `json:"level"`
	Size          uint32     `json:"size"` // in KiB
	NrDisks       uint32     `json:"nr_disks"`
	RaidDisks     uint32     `json:"raid_disks"`
	MdMinor       uint32     `json:"md_minor"`
	NotPersistent uint32     `json:"not_persistent"`
	SetUUID1      uint32     `json:"set_uuid1"`
	SetUUID2      uint32     `json:"set_uuid2"`
	SetUUID3      uint32     `json:"set_uuid3"`
	Constant      [16]uint32 `json:"-"`

	// What changes while the array runs.
	Utime           uint32     `json:"utime"`
	State           uint32     `json:"state"`
	ActiveDisks     uint32     `json:"active_disks"`
	WorkingDisks    uint32     `json:"working_disks"`
	FailedDisks     uint32     `json:"failed_disks"`
	SpareDisks      uint32     `json:"spare_disks"`
	SbCsum          uint32     `json:"sb_csum"`
	EventsLo        uint32     `json:"events_lo"`
	EventsHi        uint32     `json:"events_hi"`
	CpEventsLo      uint32     `json:"cp_events_lo"`
	CpEventsHi      uint32     `json:"cp_events_hi"`
	RecoveryCp      uint32     `json:"recovery_cp"` // in sectors
	ReshapePosition uint64     `json:"reshape_position"`
	NewLevel        int32      `json:"new_level"`
	DeltaDisks      int32      `json:"delta_disks"`
	NewLayout       uint32     `json:"new_layout"`
	NewChunk        uint32     `json:"new_chunk"` // in bytes
	Changing        [14]uint32 `json:"-"`

	// The geometry.
	Layout    uint32     `json:"layout"`
	ChunkSize uint32     `json:"chunk_size"` // in bytes
	RootPV    uint32     `json:"root_pv"`
	RootBlock uint32     `json:"root_block"`
	Geometry  [60]uint32 `json:"-"`
}

// Disk is an entry of the table of devices.
type Disk struct {
	Number   uint32 `json:"number"`
	Major    uint32 `json:"major"` // of the device, where it was when this was written
	Minor    uint32 `json:"minor"`
	RaidDisk uint32 `json:"raid_disk"`
	State    uint32 `json:"state"`
}

// faulty reports whether d holds the place of a member that is not one.
func (d Disk) faulty() bool { return d.State&(diskFaulty|diskRemoved) != 0 }

// role returns the role that an entry gives its device, in an array of disks.
func (d Disk) role(disks uint32) raid.Role {
	switch {
	case d.faulty():
		return raid.RoleFaulty
	case d.State&diskSync != 0 && d.RaidDisk < disks:
		return raid.Role(d.RaidDisk)
	default:
		return raid.RoleSpare
	}
}

// Raw is a superblock as it lies on disk.
type Raw struct {
	ByteOrder string `json:"byte_order"`
	ArrayUUID UUID   `json:"array_uuid"`
	Header           // as its host would read it
	Disks     []Disk `json:"disks"`
	ThisDisk  Disk   `json:"this_disk"`
	image     []byte // all of it, of which md keeps what it does not know to be zero
}

// bigEndian reports whether a host of the other byte order wrote r.
func (r *Raw) bigEndian() bool { return r.ByteOrder == binary.BigEndian.String() }

// events returns the event count.
func (r *Raw) events() uint64 { return uint64(r.EventsHi)<<32 | uint64(r.EventsLo) }

// checkpoint returns the event count as of which recovery_cp is right.
func (r *Raw) checkpoint() uint64 { return uint64(r.CpEventsHi)<<32 | uint64(r.CpEventsLo) }

// Decode decodes the superblock at the start of buf, wherever buf came from:
// that it fits the device is for Probe to say.
//
// Returns an error wrapping [metadata.ErrNotFound] if there is none, and one
// wrapping [metadata.ErrCorrupt] if it is not whole.
func Decode(buf []byte) (*Raw, error) {
	raw, err := decode(buf)
	if err != nil {
		return nil, fmt.Errorf("md0: %w", err)
	}

	return raw, nil
}

func decode(buf []byte) (*Raw, error) {
	if len(buf) < blockSize {
		return nil, fmt.Errorf("%d bytes: %w", len(buf), metadata.ErrNotFound)
	}

	buf = buf[:blockSize]

	order, ok := orderOf(buf)
	if !ok {
		return nil, unknownVersion(buf)
	}

	if sum, stored := checksum(buf, order), order.Uint32(buf[offSum:]); stored != sum && stored != folded(sum) {
		return nil, fmt.Errorf("checksum %#08x, computed %#08x: %w", stored, sum, metadata.ErrCorrupt)
	}

	raw := &Raw{ByteOrder: order.String(), image: append([]byte(nil), buf...), Disks: make([]Disk, maxDisks)}
	if _, err := binary.Decode(buf, order, &raw.Header); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}

	for i := range raw.Disks {
		raw.Disks[i] = decodeDisk(buf[offDisks+i*descriptor:], order)
	}

	raw.ThisDisk = decodeDisk(buf[offThis:], order)

	if raw.bigEndian() {
		raw.EventsLo, raw.EventsHi = raw.EventsHi, raw.EventsLo
		raw.CpEventsLo, raw.CpEventsHi = raw.CpEventsHi, raw.CpEventsLo
	}

	for i, word := range []uint32{raw.SetUUID0, raw.SetUUID1, raw.SetUUID2, raw.SetUUID3} {
		binary.BigEndian.PutUint32(raw.ArrayUUID[4*i:], word)
	}

	return raw, nil
}

// orderOf returns the byte order of a superblock of version 0, and false if
// there is none.
func orderOf(buf []byte) (binary.ByteOrder, bool) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(buf) == magic && order.Uint32(buf[4:]) == majorVersion {
			return order, true
		}
	}

	return nil, false
}

// unknownVersion says what a superblock is that is none of version 0: version 1 lies
// elsewhere, and may belong to something else that is here.
func unknownVersion(buf []byte) error {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if version := order.Uint32(buf[4:]); order.Uint32(buf) == magic && version > 1 {
			return fmt.Errorf("version %d.x is not known: %w", version, metadata.ErrCorrupt)
		}
	}

	return metadata.ErrNotFound
}

func decodeDisk(buf []byte, order binary.ByteOrder) Disk {
	word := func(i int) uint32 { return order.Uint32(buf[4*i:]) }

	return Disk{word(0), word(1), word(2), word(3), word(4)}
}

// checksum sums the words of a superblock, taking its checksum field as zero,
// and folds the carries back in once, as md does.
func checksum(super []byte, order binary.ByteOrder) uint32 {
	var sum uint64

	for i := 0; i < len(super); i += 4 {
		if i != offSum {
			sum += uint64(order.Uint32(super[i:]))
		}
	}

	return uint32(sum) + uint32(sum>>32)
}

// folded returns a checksum as md keeps it on Alpha: in 16 bits.
func folded(sum uint32) uint32 {
	sum = sum>>16 + sum&0xffff

	return sum>>16 + sum&0xffff
}
