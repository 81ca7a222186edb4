// Package asr knows the metadata of Adaptec's HostRAID (ASR): that of the
// controllers on main boards and small cards of the years from 2001 on.
//
// The last sector of a disk is its reserved block, which says which disk this is
// and where its table of arrays is: usually the 16 sectors in front.
//
//	header  64 bytes: how many lines, whether an array is open
//	lines   64 bytes each: one for an array, then one for each of its members
//
// A table names disks by a number of four bytes that each has in its reserved
// block. The slot of a member is its place among those of the array in the order
// of where they are attached. A spare has a table with a pair of lines of its own.
//
// Numbers are big-endian. There is no specification: the reference is asr.h of
// dmraid, which has the structures from a driver of Adaptec's, what dmraid and
// FreeBSD do with them, and one sample of a real disk.
//
// # Events
//
// The format counts changes of configuration, in 16 bits, and has no count of
// what else is recorded. We keep one in bytes of the header that are reserved,
// with the former count that it goes with, and a checksum that ties it to the
// disk: see [stamp]. Where others have counted on since, so have we.
package asr

import (
	"crypto/sha1"
	"encoding/binary"

	"raid-assembler/pkg/raid"
)

// Format is the metadata module for ASR.
type Format struct{}

// version is what people call it.
const version = "asr"

// Name implements [metadata.Format].
func (Format) Name() string { return "asr" }

// The reserved block.
const (
	magicBlock    = 0x37fc4d1e
	magicSoftware = 0x4450544d // DPTM: what the software needs of the block is valid
	blockVersion  = 8

	offStorageTid = 0x38
	offTid        = 0x3a
	offVersion    = 0x3f
	offDrive      = 0x40
	offSoftware   = 0x100
	offTable      = 0x104
)

// The table.
const (
	magicTable   = 0x900765c4
	tableVersion = 2
	tableSectors = 16
	linesMax     = 127

	offTableVersion = 4
	offMax          = 8
	offCount        = 10
	offLineSize     = 12
	offSum          = 14
	offTimestamp    = 28
	offOpen         = 33
	offPriority     = 34
	offSpareID      = 35
	offSpareDrive   = 36
	offSpareArray   = 40
	offStamp        = 52

	headSize = 64
	lineSize = 64
)

// Whether an array is open: writes may be in flight.
const (
	openNo  = 0
	openYes = 3
)

// A line.
const (
	offMembers    = 0
	offSeq        = 2
	offMagic      = 4
	offLevel      = 8
	offType       = 9
	offState      = 10
	offFlags      = 11
	offID         = 16
	offCapacity   = 24
	offStripe     = 28
	offAdded      = 36
	offLineTid    = 38
	offAppend     = 40
	offName       = 48
	nameSize      = 16
	poolMagic     = 0xffffffff // of the array that global spares form
	unsetMagic    = 0
	changePending = 0xe0 // flags: the table is to be changed, or a copy is under way
	built         = 0x10 // flag: the first build of the array is complete
)

// The kinds of lines.
const (
	levelPhysical     = 0
	levelLogical      = 1
	levelIntermediate = 2
	levelDual         = 3
)

// The types of arrays.
const (
	typeRAID0 = 0
	typeRAID1 = 1
	typeRAID4 = 4
	typeRAID5 = 5
	typeSpare = 0xfe
)

// The states of members.
const (
	memberOptimal    = 0x00
	memberFailed     = 0x03
	memberReplaced   = 0x04
	memberBuilding   = 0x10
	memberRebuilding = 0x20
)

// The states of arrays.
const (
	arrayOptimal      = 0x00
	arrayDegraded     = 0x01
	arrayRebuilding   = 0x02
	arrayMorphing     = 0x03
	arrayDead         = 0x04
	arrayVerifying    = 0x0a
	arrayVerifyingFix = 0x1a
	arrayBuilding     = 0x0b
	arrayCreated      = 0x54
)

// levelUnknown is the level of arrays of which not even that can be told.
const levelUnknown raid.Level = 1000

var order = binary.BigEndian

// sum returns the checksum of the lines of a table.
func sum(table []byte) uint16 {
	var s uint16
	for _, b := range table[headSize : headSize+int(order.Uint16(table[offCount:]))*lineSize] {
		s += uint16(b)
	}

	return s
}

// uuidOf returns a UUID for what the format gives four bytes.
func uuidOf(kind string, magic uint32) raid.UUID {
	digest := sha1.Sum(order.AppendUint32([]byte("Adaptec ASR "+kind), magic))

	return raid.UUID(digest[:16])
}

// numbers is how many members an array can have as the others see it.
const numbers = 256

// number returns by which the members of an array know each other: a device that
// takes the place of another must never pass for it.
func number(drive uint32) int { return int(drive % numbers) }
