// Package ddf knows SNIA's Common RAID Disk Data Format, revisions 1.0, 1.2 and
// 2.0, as mdadm and the firmware of controllers keep it.
//
// At the end of a disk is an anchor, which says where the rest is: twice, a
// header and sections behind it.
//
//	header      512 bytes: where the sections are, sequence number, whether open
//	controller  who wrote it
//	physical    all disks of the container: refnum, whether online, rebuilding, failed
//	virtual     all arrays of the container: name, whether consistent
//	config      a record for each array that this disk is a member of: level,
//	            the refnums of its members in order, where it lies on each
//	data        which disk this is
//
// The same is on every disk but for the last two. A member is named by its place
// in the physical section, its slot is that of its refnum in the record.
//
// The event count of an array is the sequence number of its record, not that of
// the header: other arrays of the container lie on other disks and go on alone.
//
// The reference is the specification (SNIA, 2.0 of March 2009) and super-ddf.c of
// mdadm. Numbers are big-endian, but for some old controllers of Adaptec.
package ddf

import (
	"crypto/sha1"
	"encoding/binary"
	"hash/crc32"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Format is the metadata module for DDF.
type Format struct{}

var (
	_ metadata.Format  = Format{}
	_ metadata.Sharing = (*keeper)(nil)
)

// version is what people call it.
const version = "ddf"

// Name implements [metadata.Format].
func (Format) Name() string { return "ddf" }

// The magic numbers of records.
const (
	magicHeader     = 0xde11de11
	magicController = 0xad111111
	magicPhysical   = 0x22222222
	magicVirtual    = 0xdddddddd
	magicConfig     = 0xeeeeeeee
	magicDisk       = 0x33333333
	magicBadBlocks  = 0xabadb10c
)

// The offsets that all records have in common.
const (
	offCRC  = 4
	offGUID = 8
)

// The offsets in a header of what changes, or is looked for in place.
const (
	offRevision     = 32
	offSeq          = 40
	offTimestamp    = 44
	offOpen         = 48
	offPrimaryLBA   = 96
	offSecondaryLBA = 104
	offType         = 112
	offWorkspaceLBA = 120
	offCounts       = 128
	offSections     = 192
)

// The types of headers.
const (
	typeAnchor = iota
	typePrimary
	typeSecondary
)

// The physical and the virtual section: a head, and entries.
const (
	offUsed    = 8
	offMax     = 10
	headSize   = 64
	entrySize  = 64
	offRefnum  = 24 // in a physical entry
	offPDType  = 28
	offPDState = 30
	offRoom    = 32
	offPath    = 40
	offUnit    = 24 // in a virtual entry
	offState   = 32
	offInit    = 33
	offName    = 48
	nameSize   = 16
)

// The bits of a physical disk's type.
const (
	pdForced      = 1 << iota // its GUID was made up
	pdActive                  // it is a member of an array
	pdGlobalSpare             // of all arrays
	pdSpare                   // of some arrays
)

// The bits of a physical disk's state.
const (
	pdOnline     = 1 << iota
	pdFailed     // overrides the others
	pdRebuilding // it is being filled
	pdTransition
	pdMissing = 64
)

// A virtual disk's state and how far it was initialised.
const (
	vdOptimal          = 0
	vdDegraded         = 1
	vdDeleted          = 2
	vdFailed           = 4
	vdPartiallyOptimal = 5
	vdStateMask        = 7
	vdMorphing         = 8
	vdInconsistent     = 16

	initMask   = 3
	initFull   = 2
	accessMask = 0xc0
)

// The offsets in a config record.
const (
	offConfTimestamp = 32
	offConfSeq       = 36
	offPrimaries     = 64
	offChunkShift    = 66
	offPRL           = 67
	offRLQ           = 68
	offSecondaries   = 69
	offSecondarySeq  = 70
	offSRL           = 71
	offBlocks        = 72
	offArrayBlocks   = 80
	offSpareRefs     = 96
	offRefnums       = 512
)

// offDiskRefnum is the offset of the refnum in the record of a disk.
const offDiskRefnum = 32

const (
	guidSize = 24
	none32   = ^uint32(0)
	none64   = ^uint64(0)
)

// form is how numbers and checksums lie on a disk.
type form struct {
	order binary.ByteOrder
	// inverted says that checksums are those of Ethernet, as dmraid and FreeBSD
	// compute them. mdadm and LSI's firmware begin with a register of zeros and do
	// not invert it at the end.
	inverted bool
}

// four are the bytes that a checksum takes for its own field.
var four = []byte{0xff, 0xff, 0xff, 0xff}

// sum returns the checksum of a record.
func (f form) sum(record []byte) uint32 {
	start := none32
	if f.inverted {
		start = 0
	}

	sum := crc32.Update(start, crc32.IEEETable, record[:offCRC])
	sum = crc32.Update(sum, crc32.IEEETable, four)
	sum = crc32.Update(sum, crc32.IEEETable, record[offCRC+4:])

	if f.inverted {
		return sum
	}

	return ^sum
}

// sumOf returns the checksum of bytes that have no field for it.
func (f form) sumOf(data []byte) uint32 { return ^crc32.Update(none32, crc32.IEEETable, data) }

// whole reports whether the checksum of a record is right.
func (f form) whole(record []byte) bool { return f.order.Uint32(record[offCRC:]) == f.sum(record) }

// seal computes the checksum of a record.
func (f form) seal(record []byte) { f.order.PutUint32(record[offCRC:], f.sum(record)) }

// decade is the time between 1970 and 1980, when time begins here.
const decade = (10*365 + 2) * 24 * 3600

func timeOf(disk uint32) time.Time { return time.Unix(int64(disk)+decade, 0).UTC() }

func diskTime(t time.Time) uint32 { return uint32(max(t.Unix()-decade, 0)) }

// uuidOf returns the UUID that mdadm makes of what identifies something, as it
// shows it on a little-endian host: in numbers of 32 bits.
func uuidOf(identity []byte) raid.UUID {
	var u raid.UUID

	sum := sha1.Sum(identity)
	for i := 0; i < len(u); i += 4 {
		binary.BigEndian.PutUint32(u[i:], binary.LittleEndian.Uint32(sum[i:]))
	}

	return u
}

// unset reports whether a GUID stands for none.
func unset(guid []byte) bool {
	for _, b := range guid[:guidSize] {
		if b != 0xff {
			return false
		}
	}

	return true
}

// created returns the time that mdadm and most firmware put into a GUID.
func created(guid GUID, f form) time.Time { return timeOf(f.order.Uint32(guid[16:])) }
