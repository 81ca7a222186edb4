// Package imsm knows the metadata of Intel's firmware RAID: Matrix Storage,
// Rapid Storage and VROC, as the firmware, its drivers and mdadm keep it.
//
// All of it is one record, the same on every disk of a container:
//
//	head     216 bytes: family, generation, attributes, checksum of all
//	disks    48 bytes each: serial number, size, spare, configured or failed
//	volumes  name, size, migration, dirty, and one map or two
//	log      of bad blocks, of all disks together
//
// A map says where a volume lies, the same on each member, its level, and which
// entry of the disk table is in which slot. While a volume migrates the first map
// is what it is to become, the second what it is.
//
// The first block of the record is the last but one of the disk; what does not
// fit follows it in memory and lies in front of it on the disk. The last block
// belongs to migrations that change the shape, which are not run here.
//
// A disk knows which entry is its own by its serial number. One that is in no
// volume has a record of its own, and is a spare of any container.
//
// The reference is super-intel.c of mdadm, and FreeBSD's md_intel.c. Numbers are
// little-endian. On disks with blocks of 4 KiB most of them count such.
package imsm

import (
	"crypto/sha1"
	"encoding/binary"
	"hash/crc32"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// version is what people call it.
const version = "imsm"

var order = binary.LittleEndian

// signature begins a record. What follows is the version of whoever wrote it
// first, which says nothing that the attributes do not.
const signature = "Intel Raid ISM Cfg Sig. "

const signatureSize = 32

// The offsets in the head.
const (
	offSum        = 32
	offSize       = 36
	offFamily     = 40
	offGeneration = 44
	offAttributes = 52
	offDiskCount  = 56
	offVolCount   = 57
	offOrigFamily = 64
	offCycles     = 68
	offLogSize    = 72
	offVolsMade   = 76
	offCreated    = 80
	offMark       = 204
	headSize      = 216
)

// The attributes, which are what a reader must understand.
const (
	attrRAID0     = 1 << 0
	attrRAID1     = 1 << 1
	attrRAID10    = 1 << 2
	attrRAID5     = 1 << 4
	attrBigStrips = 1 << 6
	attrRAID10Ext = 1 << 7
	attrBigDisks  = 1 << 26 // the high words of numbers count
	attrBadBlocks = 1 << 27
	attrBigVols   = 1 << 29
	attrUnused    = 1 << 30
	attrChecksum  = 1 << 31

	attrKnown = attrRAID0 | attrRAID1 | attrRAID10 | attrRAID5 | attrBigStrips | attrRAID10Ext |
		attrBigDisks | attrBadBlocks | attrBigVols | attrUnused | attrChecksum
)

// An entry of the disk table.
const (
	offTotal     = 16
	offSCSI      = 20
	offStatus    = 24
	offTotalHigh = 32
	diskSize     = 48
	serialSize   = 16
	disksMax     = 255
)

// The status of a disk.
const (
	diskSpare      = 1
	diskConfigured = 2
	diskFailed     = 4
	diskJournal    = 1 << 25
)

// A volume, up to its first map.
const (
	offVolSize     = 16
	offVolSizeHigh = 20
	offVolStatus   = 24
	offVolNumber   = 40
	offPolicy      = 50
	offUnit        = 80
	offMigrating   = 88
	offMigration   = 89
	offDirty       = 90
	offUnitHigh    = 96
	volSize        = 112
	nameSize       = 16
	volumesMax     = 2 // the firmware has no more
)

// The status of a volume.
const (
	volCoalesce = 4 | 8 // mdadm sets both
	volFix      = 0x80  // a verification that repairs
	volClone    = 0x1c00
)

// What a volume keeps against the write hole.
const (
	policyOff         = 0
	policyLog         = 1
	policyJournal     = 2
	policyLogs        = 3
	policyJournals    = 4
	policyMultipleOff = 5
	policyBitmap      = 6
)

// The migrations.
const (
	migrationInit = iota
	migrationRebuild
	migrationVerify
	migrationGeneral
	migrationChange
)

// The bits that say that a volume is dirty.
const (
	volDirty    = 1
	volLogValid = 2 // its partial parity logs are of use
)

// A map of a volume.
const (
	offStart       = 0
	offBlocks      = 4
	offStripes     = 8
	offStrip       = 12
	offState       = 14
	offLevel       = 15
	offMembers     = 16
	offDomains     = 17
	offFailedSlot  = 18
	offOne         = 19 // which mdadm calls ddf
	offStartHigh   = 20
	offBlocksHigh  = 24
	offStripesHigh = 28
	mapSize        = 48 // and four bytes for each slot

	ordRebuild = 1 << 24 // in a slot: what the disk has is not in sync
	ordIndex   = ordRebuild - 1
	noSlot     = 0xff
)

// The states of a map.
const (
	stateNormal = iota
	stateUninitialized
	stateDegraded
	stateFailed
)

// The log of bad blocks.
const (
	logMagic   = 0xabadb10c
	logHead    = 8
	logEntry   = 8
	logMax     = 254 // entries
	logRunMax  = 256 // blocks of one
	mapsOfEach = 2   // at most
)

// What lies behind a volume, and at the end of a disk, in sectors.
const (
	regionSectors   raid.Sectors = 2048 // behind the data of each member: a log or a bitmap
	singleLog       raid.Sectors = (4096 + 128<<10) / raid.SectorSize
	recordSectors   raid.Sectors = 2210
	reservedSectors raid.Sectors = 8192
)

// Serial is a serial number as the metadata holds it.
type Serial [serialSize]byte

// SerialOf returns what the firmware makes of a disk's serial number: its last 16
// characters, but for spaces and what cannot be printed. A colon is not left,
// since the serials of disks that are gone have one.
func SerialOf(text string) Serial {
	var (
		all    []byte
		serial Serial
	)

	for i := range len(text) {
		switch c := text[i]; {
		case c == ':':
			all = append(all, ';')
		case c > ' ' && c < 0x80:
			all = append(all, c)
		}
	}

	copy(serial[:], all[max(0, len(all)-len(serial)):])

	return serial
}

// String returns the serial up to where it is padded.
func (s Serial) String() string { return cut(s[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (s Serial) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// cut returns text up to its first zero.
func cut(padded []byte) string {
	for i, b := range padded {
		if b == 0 {
			return string(padded[:i])
		}
	}

	return string(padded)
}

// same reports whether two serials are the same up to where they are padded.
func (s Serial) same(other Serial) bool { return cut(s[:]) == cut(other[:]) }

// device returns the UUID of a disk, of which the metadata has none.
func (s Serial) device() raid.UUID { return uuidOf([]byte("disk"), []byte(cut(s[:]))) }

// uuidOf returns the UUID that mdadm makes of what identifies something, as it
// shows it on a little-endian host: in numbers of 32 bits.
func uuidOf(parts ...[]byte) raid.UUID {
	var (
		u        raid.UUID
		identity = make([]byte, 0, 64)
	)

	identity = append(identity, signature...)
	for _, part := range parts {
		identity = append(identity, part...)
	}

	sum := sha1.Sum(identity)
	for i := 0; i < len(u); i += 4 {
		binary.BigEndian.PutUint32(u[i:], order.Uint32(sum[i:]))
	}

	return u
}

// sum returns the checksum of a record.
func sum(mpb []byte) uint32 {
	var total uint32
	for i := 0; i+4 <= len(mpb); i += 4 {
		total += order.Uint32(mpb[i:])
	}

	return total - order.Uint32(mpb[offSum:])
}

// The mark is in what the format leaves free: 12 bytes of a record that is longer
// than a block, and may be torn, or says how far a sync came, which not everybody
// says only once it is so. The checksum of the format is a sum, and does not
// tell a flag in one slot from the same in another. Whoever else writes the record
// leaves a mark of an older generation, which says nothing.
const (
	markMagic      = 0x4b52414d
	offMarkOf      = offMark + 4
	offMarkSum     = offMark + 8
	markRoom       = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	offBehindCheck = offSum + 4
)

// markOf returns what the mark of a record should hold.
func markOf(mpb []byte) uint32 {
	crc := crc32.Update(0, crc32.IEEETable, mpb[:offSum])
	crc = crc32.Update(crc, crc32.IEEETable, mpb[offBehindCheck:offMark])

	return crc32.Update(crc, crc32.IEEETable, mpb[headSize:])
}

// marked reports whether a record has a mark that says something.
func marked(mpb []byte) bool {
	return order.Uint32(mpb[offMark:]) == markMagic &&
		order.Uint32(mpb[offMarkOf:]) == order.Uint32(mpb[offGeneration:])
}

// putMark gives a record its mark, or takes it away, unless the place is another's.
func putMark(mpb []byte, needed bool) {
	mark := mpb[offMark:headSize]
	if order.Uint32(mark) != markMagic && string(mark) != markRoom {
		return
	}

	clear(mark)

	if needed {
		order.PutUint32(mpb[offMark:], markMagic)
		order.PutUint32(mpb[offMarkOf:], order.Uint32(mpb[offGeneration:]))
		order.PutUint32(mpb[offMarkSum:], markOf(mpb))
	}
}

func blockOf(src metadata.Source) int { return max(src.Block, raid.SectorSize) }
