package metadata

import (
	"time"

	"raid-assembler/pkg/raid"
)

// BitmapChoice says whether a new array gets a write-intent bitmap.
type BitmapChoice int

// The choices.
const (
	BitmapAuto     BitmapChoice = iota // if the array is larger than 100 MiB and its format has bitmaps
	BitmapNone                         // in no case
	BitmapInternal                     // in any case
)

// NewArray says what array to create.
type NewArray struct {
	// Version is one of the Format's Versions.
	Version string
	Array   raid.UUID // ignored by formats that make up their own
	Name    string
	Host    string // that it belongs to; may be empty, and is ignored by formats that have none

	// Geometry is that of the array. A Size of 0 stands for the largest that
	// fits, a Chunk of 0 for the format's usual one where the level has chunks.
	// Sizes is ignored. A Layout of 0 at level 0 is the original one.
	raid.Geometry
	// UsualLayout says that Layout is the format's to choose.
	UsualLayout bool

	// Bitmap says whether the array gets a write-intent bitmap, BitmapChunk what
	// a bit of it stands for: 0 is what the format's own tool would choose.
	Bitmap      BitmapChoice
	BitmapChunk raid.Sectors
	// PPL has a RAID5 keep partial parity logs, and no bitmap then.
	PPL bool

	// AssumeClean says that redundancy is right already.
	AssumeClean bool
	Now         time.Time
}

// State returns what there is to record of the new array: of so many devices those that
// are here, the first of which have its slots, and the others are spares.
func (p NewArray) State(devices int, here func(i int) bool) State {
	st := State{Members: make(map[MemberID]MemberRecord), Now: p.Now}
	if p.AssumeClean || !p.Level.HasRedundancy() {
		st.ResyncOffset = raid.MaxSectors
	}

	for i := range devices {
		switch {
		case !here(i):
		case i < p.Disks:
			st.Members[MemberID(i)] = MemberRecord{State: raid.InSync, Slot: raid.Slot(i)}
		default:
			st.Members[MemberID(i)] = MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
		}
	}

	return st
}

// NewMember is a device to create an array on. One without a Source holds its
// slot open.
type NewMember struct {
	Source
	Device                raid.UUID
	WriteMostly, FailFast bool
}
