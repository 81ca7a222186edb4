package raid

// ArrayState is the state of an array, in the words of md's array_state.
type ArrayState string

// The states of an array.
const (
	Inactive     ArrayState = "inactive"      // known, not served
	ReadOnly     ArrayState = "readonly"      // served, never written
	Clean        ArrayState = "clean"         // redundancy is right and the superblocks say so
	WritePending ArrayState = "write-pending" // a write waits for the superblocks to say dirty
	Active       ArrayState = "active"        // writes may be in flight; the superblocks say dirty
	Broken       ArrayState = "broken"        // more members are gone than the level survives
)

// MemberState is the state of one member.
type MemberState string

// The states of a member.
const (
	InSync     MemberState = "in-sync"
	Spare      MemberState = "spare"
	Recovering MemberState = "recovering"
	Faulty     MemberState = "faulty"
	Missing    MemberState = "missing"
	Stale      MemberState = "stale"
)

// SyncAction is what an array does by itself to its redundancy.
type SyncAction string

// The sync actions.
const (
	Idle    SyncAction = "idle"
	Resync  SyncAction = "resync"  // redundancy is recomputed after an unclean stop
	Recover SyncAction = "recover" // a spare is filled
	Check   SyncAction = "check"   // redundancy is compared, and differences are counted
	Repair  SyncAction = "repair"  // as check, and differences are mended
	Replace SyncAction = "replace" // a member is copied to its successor
)
