// Package md1 knows Linux md superblocks of version 1: 1.0, 1.1 and 1.2.
//
// On disk, little-endian whatever the host:
//
//	  0  array, constant     128 bytes
//	128  member, constant     64 bytes
//	192  array, state         64 bytes
//	256  dev_roles             2 bytes each, max_dev of them
//
// The minor versions differ only in where the superblock lies: 1.0 between 8
// and 12 KiB before the end of the device, 1.1 at its start, 1.2 at 4 KiB. A
// member is named by its device number, which indexes dev_roles and stays with
// it; its slot is what dev_roles says there.
//
// The reference is struct mdp_superblock_1 in include/uapi/linux/raid/md_p.h.
//
// Beside it, where it says so, each member has a bad block log, a copy of the
// array's write-intent bitmap or a partial parity log, all of which are kept.
// Arrays with a journal or a reshape under way, and those of a cluster, are
// reported as unsupported.
package md1

import (
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Format is the metadata module for superblocks 1.0, 1.1 and 1.2.
type Format struct{}

var _ metadata.Format = Format{}

// Name implements [metadata.Format].
func (Format) Name() string { return "md1" }

// The offsets of what changes while an array runs, so that a superblock can be
// changed in place. TestLayout pins them to Header.
const (
	offFeatureMap       = 8
	offSize             = 80
	offDataOffset       = 128 // where what describes the member begins
	offDataSize         = 136
	offRecoveryOffset   = 152
	offDevNumber        = 160
	offUtime            = 192 // where what changes begins
	offEvents           = 200
	offResyncOffset     = 208
	offSbCsum           = 216
	offMaxDev           = 220
	offLogicalBlockSize = 224
)

// all is how md says "everything" in an offset.
const all = ^uint64(0)

// sectorsOf returns an offset from the disk. What is too large for any device
// stands for everything.
func sectorsOf(disk uint64) raid.Sectors {
	return raid.Sectors(min(disk, uint64(raid.MaxSectors)))
}

// diskOffset is the reverse of sectorsOf.
func diskOffset(s raid.Sectors) uint64 {
	if s == raid.MaxSectors {
		return all
	}

	return uint64(s)
}

const timeBits = 40 // of seconds; above them are microseconds

// timeOf returns a time from the disk, or the zero time if no calendar has it.
func timeOf(disk uint64) time.Time {
	const end = 253402300800 // the year 10000, which time.Time cannot print

	seconds := disk & (1<<timeBits - 1)
	if seconds >= end {
		return time.Time{}
	}

	// Microseconds beyond a second would carry into the next.
	micro := min(disk>>timeBits, 999_999)

	return time.Unix(int64(seconds), int64(micro)*1000).UTC()
}

// diskTime returns t as the kernel writes it: in whole seconds.
func diskTime(t time.Time) uint64 {
	return uint64(max(t.Unix(), 0)) & (1<<timeBits - 1)
}
