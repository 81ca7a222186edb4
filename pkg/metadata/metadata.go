// Package metadata says what a metadata module is: the code that knows one
// on-disk format, and nothing but it.
//
// A module does no I/O of its own choosing: it reads through a [Source] within
// bounds, and what it wants written it returns as [Write]s for the engine to
// carry out. It never trusts a length, an offset or a name from a disk.
//
// Formats live in packages below this one. They import this package and raid,
// and no other format.
package metadata

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"raid-assembler/pkg/raid"
)

var (
	// ErrNotFound says that a device holds no metadata of the format. It is
	// the common answer and not worth a log line.
	ErrNotFound = errors.New("no superblock")

	// ErrCorrupt says that the device was meant to hold metadata of the
	// format, and that it cannot be trusted. The device must be neither used
	// nor overwritten.
	ErrCorrupt = errors.New("corrupt superblock")
)

// Source is a device or an image file to be probed.
type Source struct {
	io.ReaderAt
	Size   raid.Sectors
	Block  int    // logical block size in bytes; a power of two, at least 512
	Serial string // of the disk; formats that need none ignore it
}

// Format is a metadata module.
type Format interface {
	// Name is the name of the module, such as "md1".
	Name() string

	// Probe reads src at the places where the format keeps its metadata.
	//
	// Returns an error wrapping [ErrNotFound] if there is none, one wrapping
	// [ErrCorrupt] if there is some that cannot be trusted, and any other
	// error if src could not be read. Exactly one of the results is nil.
	Probe(src Source) (*Superblock, error)

	// Keep returns a Keeper for the array whose members hold the superblocks
	// given, the freshest first. beside are those of the other running arrays of
	// the same container, whose metadata it shares from then on. Preconditions:
	// the superblocks come from this module's Probe, have one Array UUID, and
	// Unsupported is empty in each.
	Keep(members []Attachment, beside ...Keeper) (Keeper, error)

	// Versions returns what metadata Create makes, as people call it: "1.2". The
	// first is the usual one.
	Versions() []string

	// Create returns the writes that make an array of devices, and the UUID that
	// it has: the first Disks of them get the slots, the others are spares. The
	// Member of a write is the position in devices. Devices that form a container
	// of the format already, all of one and all that it has, get a further array
	// beside those that they have. What other signatures the devices have is for
	// the caller to erase.
	//
	// An array with redundancy is dirty after this, unless p.AssumeClean: its
	// members are resynced when it starts. Returns an error that names the limit
	// if the format cannot hold such an array.
	Create(p NewArray, devices []NewMember) (raid.UUID, [][]Write, error)

	// Erase returns the writes after which nothing finds metadata of the format
	// on src any more: at each place where it may be, whether it is sound or not.
	// Returns none if there is none, and an error if src could not be read.
	Erase(src Source) ([]Write, error)
}

// Superblock is what the metadata of one member says, in terms that all
// formats share. It was verified: checksum, bounds, and that it fits the
// device.
type Superblock struct {
	Format string // as people call it: "1.2"
	Array  raid.UUID
	Device raid.UUID
	Name   string // of the array, without the host; unescaped, from the disk
	Host   string // that the array belongs to; unescaped, from the disk; may be empty

	raid.Geometry // Sizes is empty: other members know their own

	Created time.Time
	Updated time.Time
	Events  uint64
	// EventsShared says that Events counts the records of all arrays of the container.
	EventsShared bool

	Number int         // of this member, into Roles
	Roles  []raid.Role // of every member, by number

	DataOffset raid.Sectors // of this member's data area, from the start of the device
	DataSize   raid.Sectors // of the data area

	// ResyncOffset is the component offset below which redundancy is right:
	// MaxSectors if the array is clean and whole in sync, 0 if it is dirty.
	ResyncOffset raid.Sectors
	// RecoveryOffset is the component offset below which this member's data
	// is right: MaxSectors unless it is being recovered.
	RecoveryOffset raid.Sectors

	// BadBlocks are the component sectors of which this member has no valid
	// data, ascending.
	BadBlocks []raid.Range
	// WriteMostly says that this member is to be read only if no other can be,
	// FailFast that it is not to be asked again when it fails.
	WriteMostly, FailFast bool
	// Replacement says that this member is to take the place of another in its
	// slot, which is in use while it is being filled.
	Replacement bool
	// ByBitmap says that the recovery of this member copies only what the
	// bitmap says that it missed.
	ByBitmap bool
	// Bitmap is the array's write-intent bitmap as this member has it, or nil.
	Bitmap *BitmapInfo
	// PPL says where this member keeps partial parity, or is nil.
	PPL *PPL

	// Unsupported says why arrays with this superblock can be shown but not
	// be run, or is empty.
	Unsupported string
	// Unreadable says why not even the content of such an array can be told
	// from its members, or is empty: it moves, or part of it lies elsewhere.
	Unreadable string

	// Raw is the format's own decoded form, for examine.
	Raw any

	// Container is the set of devices whose metadata this is part of, at formats
	// that have such: several arrays may lie on the same devices then. A spare of
	// a container is no member of any array: Array is zero, and so is Container if
	// any container of the format may have it.
	Container raid.UUID
	// Everywhere says that each member of an array of the container is to be one of
	// all of them.
	Everywhere bool
	// Others are what the metadata says of the further arrays of the container
	// that this device is a member of. They have no Others.
	Others []*Superblock
}

// All returns sb and its Others: one superblock for each array that the device is
// a member of, or that of a spare.
func (sb *Superblock) All() []*Superblock { return append([]*Superblock{sb}, sb.Others...) }

// Of returns what the metadata says of an array, or nil if the device is no
// member of it.
func (sb *Superblock) Of(array raid.UUID) *Superblock {
	for _, one := range sb.All() {
		if one.Array == array {
			return one
		}
	}

	return nil
}

// Role returns what sb says of the member with the given number.
func (sb *Superblock) Role(number int) raid.Role {
	if number < 0 || number >= len(sb.Roles) {
		return raid.RoleSpare
	}

	return sb.Roles[number]
}

// Holds reports whether the member has room for what best, of the same array, says
// that each of them holds. One that is a record behind, and holds less by its own
// word, has not heard that the array grew: that it has room was seen before that was
// recorded.
func (sb *Superblock) Holds(best *Superblock) bool {
	return sb.DataSize >= best.Size || sb.Size < best.Size && sb.Events+1 == best.Events
}

// Clean reports whether redundancy is right everywhere.
func (sb *Superblock) Clean() bool { return sb.ResyncOffset == raid.MaxSectors }

// BitmapInfo is what the superblock of a write-intent bitmap says.
type BitmapInfo struct {
	Chunk   raid.Sectors // that one bit stands for
	Sectors raid.Sectors // that it covers: of the array at RAID10, else of the component
	Events  uint64       // of the array, when this was written
	// Cleared is the event count from which on a member was in sync when a bit
	// was cleared: one that is not older is brought up to date by the bits.
	Cleared uint64
	// Stale says that the bits are of no account: every one counts as set.
	Stale       bool
	Sleep       time.Duration // between the passes that clear bits
	WriteBehind int           // writes that write-mostly members may lag
}

// Covers reports whether the bits tell all that a member missed that was in
// sync when it had the event count given.
func (b BitmapInfo) Covers(events uint64) bool {
	return !b.Stale && events >= b.Cleared && events <= b.Events
}

// PPL is where a member keeps partial parity: a log, or a ring of them, each in
// the form of struct ppl_header of include/uapi/linux/raid/md_p.h.
type PPL struct {
	Sector, Size raid.Sectors // from the start of the device
	Ring         bool         // there are several logs after one another
	Signature    uint32       // of the array, in each log
}

// Empty returns what a log begins with that has nothing in it: a header without
// entries, and then nothing that could be taken for the next log of a ring.
func (p PPL) Empty() []byte {
	const header, reserved, checksum = 4096, 512, 532

	buf := make([]byte, 2*header)
	for i := range reserved {
		buf[i] = 0xff
	}

	binary.LittleEndian.PutUint32(buf[reserved:], p.Signature)
	binary.LittleEndian.PutUint32(buf[checksum:], crc32.Checksum(buf[:header], crc32.MakeTable(crc32.Castagnoli)))

	return buf
}

// Attachment is a device that the engine has opened for an array.
type Attachment struct {
	Superblock *Superblock
	Source     Source
}

// MemberID names an attached device to a [Keeper]: the position in the list
// given to Keep, or what Add returned. It is never used again for another.
type MemberID int

// MemberRecord is what is to be recorded of one attached device.
type MemberRecord struct {
	State raid.MemberState // InSync, Recovering, Spare or Faulty
	Slot  raid.Slot        // for InSync and Recovering, and for Faulty unless another has it
	// Recovered is the component offset below which a Recovering member is
	// right.
	Recovered raid.Sectors
	// Replacement says that it shares its slot with the member that it is to
	// replace. It is Recovering, or InSync until the other is gone.
	Replacement bool
	// ByBitmap says that it was in sync in its slot before and that only what
	// the bitmap says is copied to it.
	ByBitmap bool
	// BadBlocks are component sectors of which it has no valid data, ascending
	// and apart; nil if they are what they were. Preconditions: BadBlockRoom
	// has room for them.
	BadBlocks []raid.Range
}

// State is what the metadata of an array is to say.
type State struct {
	// ResyncOffset is 0 while writes may be in flight, else the offset below
	// which redundancy is right, MaxSectors for all.
	ResyncOffset raid.Sectors
	Members      map[MemberID]MemberRecord // a device that is not in it was removed
	Now          time.Time
}

// WriteMax is how large a write of a Keeper may be in bytes: there is memory for it
// when there is no other.
const WriteMax = 8 << 10

// Write is a write to a member, to be durable before it counts.
type Write struct {
	Member MemberID
	Sector raid.Sectors // from the start of the device
	Data   []byte       // whole logical blocks; valid until the next Record
}

// Sharing is a Keeper that shares the metadata of a container with those beside it.
type Sharing interface {
	Keeper

	// Leave ends it: what it has said of devices counts no more for the others. It
	// must not be used afterwards.
	Leave()
}

// Bitmap is the write-intent bitmap of a running array. Record writes its
// superblock, and all of it to a member that gets a slot; the bits are for the
// caller to set and clear, and to have written when they must be.
//
// Its blocks are numbered from 0, where its superblock is. No two writes of one
// block may be in flight, those of a Record among them: they could land in
// either order.
type Bitmap interface {
	// Info returns what its superblock says.
	Info() BitmapInfo

	// Bits returns the bits, of which bit i%8 of byte i/8 stands for chunk i. It
	// is the Keeper's own memory: what is in it when a write is submitted is
	// what is written. At first it holds what was found, all set if that was
	// stale.
	Bits() []byte

	// Blocks returns the size of a block in bytes, and at which byte of block 0
	// the bits begin.
	Blocks() (size, skip int)

	// Write returns the writes of block to every member that had a slot by the
	// last Record. They are valid until the next call of Write.
	Write(block int) []Write

	// SetCleared sets the event count from which on a member can be brought up
	// to date by the bits. It must be durable, with block 0, before a bit is
	// written that was cleared.
	SetCleared(events uint64)

	// Rechunk makes chunk what a bit stands for and has the next Record write
	// all of the bitmap. Every new bit is set that covers a sector of an old
	// one that was. The memory of Bits is another afterwards. Returns an error,
	// and changes nothing, if that bitmap would have no room.
	// Preconditions: no write of a block is in flight.
	Rechunk(chunk raid.Sectors) error
}

// Keeper keeps the metadata of one running array true. It is not safe for
// concurrent use.
type Keeper interface {
	// Record returns the writes that make every attached device but the
	// faulty ones say st, with an event count above all before. The writes of
	// one stage must be durable before those of the next are submitted. None holds
	// more than WriteMax bytes.
	Record(st State) (stages [][]Write)

	// Add attaches src as a spare and returns its id and its data area. It is
	// written by the next Record. Any metadata on src is overwritten then.
	// Returns an error if src is too small, or the array has no number left.
	Add(src Source, device raid.UUID) (id MemberID, offset, size raid.Sectors, err error)

	// Attach attaches a device that was a member before and has come back, with
	// what its superblock says of itself; what it is now is for the next Record
	// to say. Returns an error where Keep would.
	Attach(member Attachment) (MemberID, error)

	// Forget detaches a device; the next Record marks its place as free.
	Forget(id MemberID)

	// Grow has the records from now on say that the array uses size of each
	// member's data, rounded down to what the level allows, and returns that; a
	// size of 0 stands for all that every attached device has. Bits of the
	// bitmap that are new are set, its chunk may become larger and the memory of
	// its bits another. What is new is not in sync: the next Record says so by
	// its ResyncOffset, unless it is known to be all zeros. Returns an error,
	// and changes nothing, if the array would not be larger, or a device has no
	// room. Preconditions: no write of a block of the bitmap is in flight.
	Grow(size raid.Sectors) (raid.Sectors, error)

	// BadBlockRoom returns how many entries the bad block log of a device has,
	// each of which covers 512 sectors at most; 0 if it has none.
	BadBlockRoom(id MemberID) int

	// Log returns where a device keeps partial parity, or nil if the array has no
	// such logs. The first Record empties that of a device that was added.
	Log(id MemberID) *PPL

	// Bitmap returns the array's write-intent bitmap, or nil if it has none.
	Bitmap() Bitmap

	// Events returns the event count of the last Record.
	Events() uint64
}
