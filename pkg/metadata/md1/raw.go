package md1

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	magic        = 0xa92b4efc
	majorVersion = 1

	headerSize = 256
	blockSize  = 4096 // of the largest superblock; always read whole
	maxRoles   = (blockSize - headerSize) / 2
)

// Feature is a set of feature_map bits. The kernel builds the set from its
// run-time state at every write: most bits are state and not configuration.
type Feature uint32

// The feature_map bits, as MD_FEATURE_* in md_p.h.
const (
	FeatureBitmapOffset     Feature = 1 << iota // an internal bitmap is at bitmap_offset
	FeatureRecoveryOffset                       // this member is right below recovery_offset only
	FeatureReshapeActive                        // the reshape fields are valid
	FeatureBadBlocks                            // the bad block log is not empty
	FeatureReplacement                          // this member replaces another of the same slot
	FeatureReshapeBackwards                     // the reshape runs from high to low
	FeatureNewOffset                            // new_offset is valid
	FeatureRecoveryBitmap                       // the recovery follows the bitmap
	FeatureClustered                            // several hosts use the array at once
	FeatureJournal                              // the array has a journal device
	FeaturePPL                                  // a partial parity log is at ppl.offset
	FeatureMultiplePPLs                         // a ring of partial parity logs is
	FeatureRAID0Layout                          // layout means something at level 0

	featuresKnown = FeatureRAID0Layout<<1 - 1
)

// The bits of devflags.
const (
	devWriteMostly = 1 << iota // to be read only if no other can be
	devFailFast                // not to be asked again when it fails
)

// UUID is a UUID that prints as mdadm prints it.
type UUID raid.UUID

// MarshalText implements [encoding.TextMarshaler].
func (u UUID) MarshalText() ([]byte, error) { return []byte(raid.UUID(u).String()), nil }

// SetName is the name of an array, padded with zeros. Its bytes come from the
// disk: nothing says that they are text.
type SetName [32]byte

// String returns the bytes before the first zero, unescaped.
func (n SetName) String() string {
	text, _, _ := strings.Cut(string(n[:]), "\x00")

	return text
}

// MarshalText implements [encoding.TextMarshaler]. What cannot be printed is
// escaped.
func (n SetName) MarshalText() ([]byte, error) {
	quoted := strconv.Quote(n.String())

	return []byte(quoted[1 : len(quoted)-1]), nil
}

// DevRoles says what each device number is, in md's numbers.
type DevRoles []raid.Role

// MarshalJSON leaves out the unused numbers at the end, of which there are
// usually more than a hundred.
func (r DevRoles) MarshalJSON() ([]byte, error) {
	end := len(r)
	for end > 0 && r[end-1] == raid.RoleSpare {
		end--
	}

	return json.Marshal(append([]raid.Role{}, r[:end]...))
}

// Header mirrors the first 256 bytes of struct mdp_superblock_1 in
// include/uapi/linux/raid/md_p.h, field by field and in order. TestLayout pins
// the offsets.
type Header struct {
	// What is the same on every member and rarely changes.
	Magic           uint32  `json:"magic"`
	MajorVersion    uint32  `json:"major_version"`
	FeatureMap      Feature `json:"feature_map"`
	Pad0            uint32  `json:"pad0"`
	SetUUID         UUID    `json:"set_uuid"`
	SetName         SetName `json:"set_name"`
	Ctime           uint64  `json:"ctime"`
	Level           int32   `json:"level"`
	Layout          uint32  `json:"layout"`
	Size            uint64  `json:"size"`
	Chunksize       uint32  `json:"chunksize"` // in sectors
	RaidDisks       uint32  `json:"raid_disks"`
	BitmapOffset    int32   `json:"bitmap_offset"` // with PPL: its offset and size, 16 bits each
	NewLevel        int32   `json:"new_level"`
	ReshapePosition uint64  `json:"reshape_position"`
	DeltaDisks      int32   `json:"delta_disks"`
	NewLayout       uint32  `json:"new_layout"`
	NewChunk        uint32  `json:"new_chunk"` // in sectors
	NewOffset       int32   `json:"new_offset"`

	// What describes this member. All offsets are in sectors, those of the
	// bitmap and the bad block log from the superblock.
	DataOffset       uint64 `json:"data_offset"`
	DataSize         uint64 `json:"data_size"`
	SuperOffset      uint64 `json:"super_offset"`
	RecoveryOffset   uint64 `json:"recovery_offset"`
	DevNumber        uint32 `json:"dev_number"`
	CntCorrectedRead uint32 `json:"cnt_corrected_read"`
	DeviceUUID       UUID   `json:"device_uuid"`
	Devflags         uint8  `json:"devflags"`
	BblogShift       uint8  `json:"bblog_shift"`
	BblogSize        uint16 `json:"bblog_size"`
	BblogOffset      int32  `json:"bblog_offset"`

	// What changes while the array runs.
	Utime            uint64   `json:"utime"`
	Events           uint64   `json:"events"`
	ResyncOffset     uint64   `json:"resync_offset"`
	SbCsum           uint32   `json:"sb_csum"`
	MaxDev           uint32   `json:"max_dev"`
	LogicalBlockSize uint32   `json:"logical_block_size"`
	Pad3             [28]byte `json:"-"`
}

// Raw is a superblock as it lies on disk.
type Raw struct {
	Header
	DevRoles DevRoles `json:"dev_roles"`

	// tail is what follows the roles in the block that was decoded. md leaves
	// it alone, and so do we.
	tail []byte

	// badEntries are those of the bad block log, which lies elsewhere.
	badEntries []uint64
}

// Decode decodes the superblock at the start of buf, wherever buf came from:
// that it lies at its super_offset and fits the device is for Probe to say.
//
// Returns an error wrapping [metadata.ErrNotFound] if there is none, and one
// wrapping [metadata.ErrCorrupt] if it is not whole.
func Decode(buf []byte) (*Raw, error) {
	raw, err := decode(buf)
	if err != nil {
		return nil, fmt.Errorf("md1: %w", err)
	}

	return raw, nil
}

func decode(buf []byte) (*Raw, error) {
	if len(buf) < headerSize {
		return nil, fmt.Errorf("%d bytes: %w", len(buf), metadata.ErrNotFound)
	}

	var raw Raw
	if _, err := binary.Decode(buf, binary.LittleEndian, &raw.Header); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}

	switch {
	case raw.Magic != magic || raw.MajorVersion == 0: // version 0 lies elsewhere
		return nil, metadata.ErrNotFound
	case raw.MajorVersion != majorVersion:
		return nil, fmt.Errorf("version %d.x is not known: %w", raw.MajorVersion, metadata.ErrCorrupt)
	}

	// max_dev comes from the disk and bounds every read below.
	if raw.MaxDev > maxRoles {
		return nil, fmt.Errorf("max_dev %d exceeds %d: %w", raw.MaxDev, maxRoles, metadata.ErrCorrupt)
	}

	size := superSize(int(raw.MaxDev))
	if len(buf) < size {
		return nil, fmt.Errorf("%d of %d bytes: %w", len(buf), size, metadata.ErrCorrupt)
	}

	if sum := checksum(buf[:size]); sum != raw.SbCsum {
		return nil, fmt.Errorf("checksum %#08x, computed %#08x: %w", raw.SbCsum, sum, metadata.ErrCorrupt)
	}

	raw.DevRoles = make(DevRoles, raw.MaxDev)
	for i := range raw.DevRoles {
		raw.DevRoles[i] = raid.Role(binary.LittleEndian.Uint16(buf[superSize(i):]))
	}

	raw.tail = append([]byte(nil), buf[size:min(len(buf), blockSize)]...)

	return &raw, nil
}

// Encode returns r as it lies on disk, with its checksum computed: what Decode
// was given, if r was not changed. Preconditions: r has MaxDev roles.
func (r *Raw) Encode() []byte {
	buf, err := binary.Append(make([]byte, 0, blockSize), binary.LittleEndian, &r.Header)
	if err != nil {
		panic("md1: header has a field of no fixed size: " + err.Error())
	}

	for _, role := range r.DevRoles {
		buf = binary.LittleEndian.AppendUint16(buf, uint16(role))
	}

	putChecksum(buf)

	return append(buf, r.tail...)
}

// superSize returns the size of a superblock with the given number of roles:
// what its checksum covers.
func superSize(maxDev int) int { return headerSize + 2*maxDev }

// checksum sums super as little-endian words, taking its checksum field as
// zero, and folds the carries back in once, as md does.
func checksum(super []byte) uint32 {
	var sum uint64

	for i := 0; i+4 <= len(super); i += 4 {
		if i != offSbCsum {
			sum += uint64(binary.LittleEndian.Uint32(super[i:]))
		}
	}

	// An odd number of roles leaves half a word.
	if len(super)%4 == 2 {
		sum += uint64(binary.LittleEndian.Uint16(super[len(super)-2:]))
	}

	return uint32(sum) + uint32(sum>>32)
}

func putChecksum(super []byte) {
	binary.LittleEndian.PutUint32(super[offSbCsum:], checksum(super))
}
