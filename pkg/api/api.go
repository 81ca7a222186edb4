// Package api is the varlink interface between raid-assembler and raid-engine,
// and what users script against: the types of its messages, and their text in
// varlink's own language, for introspection.
//
// The mechanism is in the package varlink below; the methods are served by the
// two programs.
package api

import (
	_ "embed"
	"strings"

	"raid-assembler/pkg/raid"
)

// The interfaces, as varlink describes them.
var (
	//go:embed io.raidassembler.Engine.varlink
	EngineDescription string
	//go:embed io.raidassembler.Assembler.varlink
	AssemblerDescription string
)

// The names of the interfaces, and where they are served.
const (
	EngineInterface    = "io.raidassembler.Engine"
	AssemblerInterface = "io.raidassembler.Assembler"

	EngineSocket    = "/run/raid-engine/" + EngineInterface
	AssemblerSocket = "/run/raid-assembler/" + AssemblerInterface
)

// The errors of both interfaces, to which the interface name is put in front.
const (
	// ErrRefused says that a request was understood and is not carried out:
	// it would risk data, or what it names is not in the right state. Its
	// parameter "reason" says why, and what would make it go ahead.
	ErrRefused = "Refused"
	// ErrNotFound says that no array or member has the name given.
	ErrNotFound = "NotFound"
	// ErrFailed says that the attempt was made and did not succeed.
	ErrFailed = "Failed"
)

// ErrorParameters are the parameters of every error.
type ErrorParameters struct {
	Reason string `json:"reason"`
}

// Reason returns what an error says beside the class that it wraps last, which its name
// on the wire tells.
func Reason(err, class error) string {
	return strings.TrimSuffix(err.Error(), ": "+class.Error())
}

// Array is one array, running or not.
type Array struct {
	Name      string   `json:"name"`
	UUID      string   `json:"uuid"`
	Metadata  string   `json:"metadata"`
	Level     string   `json:"level"`
	Layout    string   `json:"layout"`
	ChunkKiB  int64    `json:"chunk_kib"`
	SizeBytes int64    `json:"size_bytes"`
	State     string   `json:"state"`    // a raid.ArrayState
	Degraded  int      `json:"degraded"` // members missing
	Device    string   `json:"device"`   // of the kernel: /dev/ublkb0; empty when inactive
	Node      string   `json:"node"`     // the stable name: /dev/raid/NAME
	Sync      *Sync    `json:"sync"`     // what goes on, or null
	Limits    Limits   `json:"limits"`
	Bitmap    *Bitmap  `json:"bitmap"`  // null if it has none
	Scrub     *Scrub   `json:"scrub"`   // the last one, since the array was started, or null
	Members   []Member `json:"members"` // by slot, then the spares
	Reason    string   `json:"reason"`  // why it is in this state
	// Events is the event count of the newest superblocks of what runs, and Recorded that
	// which all members in sync have, and none that was lost since the array was
	// started; it is left out while nobody can tell.
	Events   uint64 `json:"events,omitempty"`
	Recorded uint64 `json:"recorded_events,omitempty"`
	// Container is the UUID of the set of devices that its metadata is of, at
	// formats that have such; others have none.
	Container string `json:"container,omitempty"`
}

// Container returns the text for a container, which is none for none.
func Container(uuid raid.UUID) string {
	if uuid.IsZero() {
		return ""
	}

	return uuid.String()
}

// Limits are how fast an array syncs.
type Limits struct {
	// Minimum is what a sync does in a second even while the array is in use.
	Minimum int64 `json:"minimum_bytes_per_second"`
	Maximum int64 `json:"maximum_bytes_per_second"` // 0 for as fast as it goes
}

// Bitmap is a write-intent bitmap: which parts of the array may not be
// redundant after a crash, or were missed by a member that is gone.
type Bitmap struct {
	ChunkKiB   int64 `json:"chunk_kib"`   // that one bit stands for
	DirtyBytes int64 `json:"dirty_bytes"` // that its bits stand for
	TotalBytes int64 `json:"total_bytes"`
}

// Range is a part of an array or of a member, half open.
type Range struct {
	From int64 `json:"from_bytes"`
	To   int64 `json:"to_bytes"`
}

// Scrub is what a check, a repair or a resync found that was not redundant.
type Scrub struct {
	Action          string `json:"action"`
	Done            bool   `json:"done"` // else it goes on, or was ended
	MismatchedBytes int64  `json:"mismatched_bytes"`
	// Where is where, of each member; the first ones if there are many.
	Where []Mismatch `json:"where"`
}

// Mismatch is a part of the members that is not redundant, half open. At RAID10
// its offsets are those of the array.
type Mismatch struct {
	From int64 `json:"from_bytes"`
	To   int64 `json:"to_bytes"`
	Slot *int  `json:"slot"` // whose content was wrong; null if nobody can know
}

// Sync is the progress of a resync, a recovery, a check, a repair or a
// replacement.
type Sync struct {
	Action         string `json:"action"` // a raid.SyncAction
	DoneBytes      int64  `json:"done_bytes"`
	TotalBytes     int64  `json:"total_bytes"`
	BytesPerSecond int64  `json:"bytes_per_second"`
	SecondsLeft    int64  `json:"seconds_left"` // -1 while unknown
	WaitsFor       string `json:"waits_for"`    // the array that uses one of its disks meanwhile, or empty
}

// Member is one member of an array, or a slot that lacks one.
type Member struct {
	Device string `json:"device"` // /dev/sda; empty when missing
	Serial string `json:"serial"`
	Slot   *int   `json:"slot"`  // from 0; null for a spare
	State  string `json:"state"` // a raid.MemberState
	// Replaces says that it is to take the place of the member that has the slot.
	Replaces    bool `json:"replaces"`
	WriteMostly bool `json:"write_mostly"` // it is read only if no other can be
	// BadBlocks are the parts of the member's data area that it has no valid
	// data of.
	BadBlocks []Range `json:"bad_blocks"`
	// Errors are how many operations it failed, Belated how many took more than a
	// quarter of what they may, since it was given to the array, and SlowSeconds for how
	// long it has been much slower than its peers.
	Errors      int   `json:"errors,omitempty"`
	Belated     int   `json:"belated,omitempty"`
	SlowSeconds int64 `json:"slow_seconds,omitempty"`
}

// Idle is a device that belongs to no running array.
type Idle struct {
	Device string `json:"device"`
	Serial string `json:"serial"`
	Array  string `json:"array"` // that its metadata names, or empty
	Reason string `json:"reason"`
	// Container is as in [Array].
	Container string `json:"container,omitempty"`
	// Proof is how far it has been read, if that goes on, to see whether it is blank.
	Proof *Proof `json:"proof,omitempty"`
}

// Proof is how far a device has been read.
type Proof struct {
	DoneBytes  int64 `json:"done_bytes"`
	TotalBytes int64 `json:"total_bytes"`
}

// Waiting is an array that lacks members and whose deadline has not passed.
type Waiting struct {
	Name        string `json:"name"`
	UUID        string `json:"uuid"`
	Present     int    `json:"present"`
	Needed      int    `json:"needed"`
	SecondsLeft int64  `json:"seconds_left"` // -1 if no deadline will start it
	Reason      string `json:"reason"`
	// Container is as in [Array].
	Container string `json:"container,omitempty"`
}

// Status is the answer to raid-assembler status.
type Status struct {
	Version int       `json:"version"`
	Arrays  []Array   `json:"arrays"`
	Spares  []Idle    `json:"spares"`
	Waiting []Waiting `json:"waiting"`
	Unused  []Idle    `json:"unused"`
	// Absent are the disks that last were in sync in slots that nobody has now, as
	// far as the daemon remembers. Nothing is decided by it.
	Absent []Absent `json:"absent,omitempty"`
	// Guard says that nobody but the engine may open members for writing.
	Guard bool `json:"guard,omitempty"`
}

// Absent is a disk that is not here.
type Absent struct {
	Array    string `json:"array"`
	UUID     string `json:"uuid"` // of the array
	Slot     int    `json:"slot"` // that it had
	Serial   string `json:"serial"`
	Model    string `json:"model"`
	WWN      string `json:"wwn"`
	Port     string `json:"port"`      // where it was plugged in, as in /dev/disk/by-path
	LastSeen string `json:"last_seen"` // when it last was in sync, as in RFC 3339
}

// StatusVersion is the version of the form of [Status].
const StatusVersion = 1

// StartMember is a device to start an array with.
type StartMember struct {
	Device string `json:"device"` // a path under /dev
	Serial string `json:"serial"`
	// Slot is the slot that the freshest superblock gives it, null for a
	// spare. The engine reads the superblock again and refuses if it differs.
	Slot *int `json:"slot"`
}

// StartParameters ask the engine to start an array.
type StartParameters struct {
	UUID     string        `json:"uuid"`
	Name     string        `json:"name"` // for /dev/raid/NAME; unique on this host
	Members  []StartMember `json:"members"`
	Degraded bool          `json:"degraded"` // may lack members that the level survives
	ReadOnly bool          `json:"read_only,omitempty"`
	// AcceptLoss says that the parity of an array that is dirty and lacks
	// members is to be taken for right.
	AcceptLoss bool `json:"accept_loss,omitempty"`
	// GrowTo is how much of each member the array is to use from now on, in
	// bytes; 0 for all there is, null for as much as before.
	GrowTo *int64 `json:"grow_to_bytes,omitempty"`
}

// ArrayParameters name an array: by its name or its UUID.
type ArrayParameters struct {
	Array string `json:"array"`
}

// MemberParameters name a device and an array that it belongs to, or is to
// belong to. Device is a path or a serial.
type MemberParameters struct {
	Array  string `json:"array"`
	Device string `json:"device"`
	// Anew, of Add, has the device filled anew, whatever it holds.
	Anew bool `json:"anew,omitempty"`
	// Reason is recorded in the journal.
	Reason string `json:"reason"`
}

// SyncParameters ask for a sync, or for the end of one: Action is check,
// repair, or idle. From and To bound it, in bytes of each member; a To of 0
// stands for the end.
type SyncParameters struct {
	Array  string `json:"array"`
	Action string `json:"action"`
	From   int64  `json:"from_bytes"`
	To     int64  `json:"to_bytes"`
	Reason string `json:"reason"`
}

// ReplaceParameters ask for a member to be copied to another device, which
// then takes its place. With is empty for a spare of the array's.
type ReplaceParameters struct {
	Array  string `json:"array"`
	Device string `json:"device"`
	With   string `json:"with"`
	Reason string `json:"reason"`
}

// LimitParameters set how fast an array syncs, until it is stopped. Null
// leaves a limit as it is, 0 makes it the default.
type LimitParameters struct {
	Array   string `json:"array"`
	Minimum *int64 `json:"minimum_bytes_per_second"`
	Maximum *int64 `json:"maximum_bytes_per_second"`
}

// BitmapParameters change what a bit of an array's write-intent bitmap stands for.
type BitmapParameters struct {
	Array string `json:"array"`
	Chunk int64  `json:"chunk_bytes"`
}

// AccessParameters make an array read-only, or writable again.
type AccessParameters struct {
	Array    string `json:"array"`
	ReadOnly bool   `json:"read_only"`
}

// ArrayReply answers methods that return one array.
type ArrayReply struct {
	Array Array `json:"array"`
}

// ListReply answers List, and each change for Watch.
type ListReply struct {
	Arrays []Array `json:"arrays"`
	// Told has the UUIDs of arrays that do not run, and of which the engine knows
	// what the one before was writing to them when it died. The assembler has none.
	Told []string `json:"told,omitempty"`
}

// ChangeParameters ask the assembler for a change. DryRun says what would be
// done, and does nothing. What a change has no use for is left as it is.
type ChangeParameters struct {
	Array   string   `json:"array"`
	Devices []string `json:"devices"`
	Force   bool     `json:"force"`
	DryRun  bool     `json:"dry_run"`
	// AcceptLoss, of Assemble, has parity taken for right that may be wrong.
	AcceptLoss bool `json:"accept_loss,omitempty"`
	// Choose, of Assemble, has what the devices hold count, and all other members of
	// the array filled anew.
	Choose   bool   `json:"choose,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`                // of Assemble and Access
	From     int64  `json:"from_bytes,omitempty"`               // of Check and Repair, in bytes of each member
	To       int64  `json:"to_bytes,omitempty"`                 // likewise; 0 for the end
	Size     int64  `json:"size_bytes,omitempty"`               // of Grow, of each member; 0 for all there is
	Chunk    int64  `json:"chunk_bytes,omitempty"`              // of Bitmap
	Minimum  *int64 `json:"minimum_bytes_per_second,omitempty"` // of Limit; null for as it is, 0 for the default
	Maximum  *int64 `json:"maximum_bytes_per_second,omitempty"`
}

// CreateParameters ask the assembler for a new array.
type CreateParameters struct {
	Name        string   `json:"name"`
	Level       string   `json:"level"`
	Layout      string   `json:"layout"` // empty for the level's default
	ChunkKiB    int64    `json:"chunk_kib"`
	Metadata    string   `json:"metadata"` // "1.2" if empty
	SizeBytes   int64    `json:"size_bytes"`
	Disks       int      `json:"disks"`
	Devices     []string `json:"devices"` // the members, then the spares
	AssumeClean bool     `json:"assume_clean"`
	Bitmap      string   `json:"bitmap,omitempty"` // none or internal; empty for what fits the size
	PPL         bool     `json:"ppl,omitempty"`    // partial parity logs, and no bitmap
	Force       bool     `json:"force"`            // overwrite what the devices hold
	DryRun      bool     `json:"dry_run"`
}

// ChangeReply says what was done, or would be, one sentence a line.
type ChangeReply struct {
	Done  []string `json:"done"`
	Array *Array   `json:"array"`
}

// ExplainReply is a chain of evidence, one sentence a line.
type ExplainReply struct {
	Lines []string `json:"lines"`
}

// RecordingParameters ask for what was decided.
type RecordingParameters struct {
	Number int64 `json:"number"` // of the first entry; below 0 for the newest
}

// RecordingReply is some of what was decided.
type RecordingReply struct {
	Entries [][]byte `json:"entries"` // packed, as package recording has it
	Next    *int64   `json:"next"`    // to ask for next; null if there are no more
	Dropped int64    `json:"dropped"` // entries that are not kept any more
}
