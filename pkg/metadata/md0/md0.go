// Package md0 knows Linux md superblocks of version 0.90.
//
// One block of 4096 bytes, in the last 64 KiB of the device that begin at a
// multiple of 64 KiB; all that is in front of it is data. It consists of 32-bit
// words, in the byte order of the host that wrote it:
//
//	  0  array, constant    32 words
//	 32  array, state       32 words
//	 64  array, geometry    64 words
//	128  devices            27 entries of 32 words
//	992  this device        a copy of its entry
//
// A device is named by its number, the index of its entry. A member that is in
// sync has its slot for a number, and all others have the numbers from
// raid_disks on: numbers change hands. Nothing else names a device, and nothing
// says how far one was recovered: it is a spare until it is whole.
//
// The reference is struct mdp_superblock_s in include/uapi/linux/raid/md_p.h.
//
// Superblocks of the other byte order are read, and their arrays are not run,
// and those of a reshape (version 0.91) are shown.
package md0

import (
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Format is the metadata module for superblocks 0.90.
type Format struct{}

var _ metadata.Format = Format{}

// Name implements [metadata.Format].
func (Format) Name() string { return "md0" }

// reserved is what the superblock lies in, and what follows it has of that.
const reserved raid.Sectors = 128

// place returns the sector of the superblock of a device of the given size,
// which is the size of its data too, and false if there is no room for it.
func place(size raid.Sectors) (raid.Sectors, bool) {
	at := size&^(reserved-1) - reserved

	return at, at > 0
}

// sizeMax is the largest component that levels with redundancy have: more has
// no room in the superblock.
const sizeMax raid.Sectors = 2<<32 - 2

// dataSize returns how much data a device has whose superblock is at a sector.
func dataSize(level raid.Level, at raid.Sectors) raid.Sectors {
	if level.HasRedundancy() {
		return min(at, sizeMax)
	}

	return at
}

// timeOf returns a time from the disk.
func timeOf(disk uint32) time.Time { return time.Unix(int64(disk), 0).UTC() }
