package stripe

import (
	"errors"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/raid"
)

// MaxDisks is the largest number of slots that the data path serves.
const MaxDisks = 64

// Op is what a request or a transfer does.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Flush
	Discard     // what was there need not be kept; not offered where there is parity
	WriteZeroes // as a Write of zeroes, without the data
)

func (o Op) String() string {
	return [...]string{"read", "write", "flush", "discard", "write-zeroes"}[o]
}

// Request is an operation on the array.
type Request struct {
	Tag    int // below Config.Depth; in use until its Result
	Op     Op
	Sector raid.Sectors // of the array
	Data   []byte       // of a Read or a Write: whole sectors
	// Sectors is the length of a Discard or of WriteZeroes.
	Sectors raid.Sectors
	FUA     bool // what is written is to be on stable storage when it ends
}

func (r *Request) end() raid.Sectors {
	if r.Op == Discard || r.Op == WriteZeroes {
		return r.Sector + r.Sectors
	}

	return r.Sector + raid.Sectors(len(r.Data)/raid.SectorSize)
}

// Result says that a request has ended.
type Result struct {
	Tag int
	Op  Op
	OK  bool // all of it was done; if not, the client is owed an I/O error
}

// Transfer is an operation on one member.
type Transfer struct {
	ID     int // to be given to Complete
	Device int // as given to SetMember or SetSuccessor
	Op     Op
	Sector raid.Sectors // of the component, from the start of its data area
	Data   []byte       // of a Read or a Write: whole sectors
	// Sectors is the length; 0 for a Flush, which is for all of the member.
	Sectors raid.Sectors
	FUA     bool
	Log     bool // Sector counts from the start of the member's partial parity log
}

// Fault is how a transfer went wrong.
type Fault uint8

// The faults.
const (
	None   Fault = iota
	Medium       // these sectors could not be read or written; the member may be fine
	Gone         // the member does not answer any more
)

// Failure says that a member was given up on. The Path has stopped using it;
// no write that it missed may be acknowledged before that is recorded.
type Failure struct {
	Device int
	Slot   raid.Slot
	Op     Op
	Sector raid.Sectors
}

// BadBlock says that sectors of a member became bad, or that they are no longer.
// [Member.Bad] says so already; no result that bears on it may be acknowledged
// before it is recorded. That they are good again may be recorded later.
type BadBlock struct {
	Device  int
	Slot    raid.Slot
	Range   raid.Range // of the component
	Cleared bool
}

// Member is what holds a slot.
type Member struct {
	Device int
	State  raid.MemberState // InSync, Recovering, Faulty or Missing
	// Recovered is the component offset below which a Recovering member is
	// right.
	Recovered raid.Sectors
	// Full says of a successor that it holds everything: it has the slot as soon
	// as the member there is given up.
	Full bool
	// WriteMostly and Slow members are read only where the others do not do.
	WriteMostly, Slow bool
	// Bad is where the member holds no valid data, or nil if there is no log
	// to keep that in. The Path changes it.
	Bad *intent.BadBlocks
}

// working reports whether m is used at all.
func (m *Member) working() bool { return m.State == raid.InSync || m.State == raid.Recovering }

// holds reports whether m is right up to component sector end, but for its bad
// blocks.
func (m *Member) holds(end raid.Sectors) bool {
	return m.State == raid.InSync || m.State == raid.Recovering && end <= m.Recovered
}

// bad reports whether one of the component sectors from lo to hi is known to
// be bad.
func (m *Member) bad(lo, hi raid.Sectors) bool { return m.Bad != nil && m.Bad.Has(lo, hi) }

// even returns the part of n sectors from at on that is bad everywhere or
// nowhere.
func (m *Member) even(at, n raid.Sectors) raid.Sectors {
	if m.Bad == nil || m.Bad.Empty() {
		return n
	}

	r, ok := m.Bad.First(at, at+n)

	switch {
	case !ok:
		return n
	case r.From > at:
		return r.From - at
	default:
		return r.To - at
	}
}

// CrashLog remembers what is being written to rows with parity, for whoever comes
// after a process that has died: a row of which only a part was written is made
// right by writing all of it again.
type CrashLog interface {
	// Begin is called before a write to rows is handed out, with its number, which
	// is below [Writes]; with the component sectors that it is for, and with
	// what each slot is to hold there, nil where that stays as it is.
	Begin(id int, at raid.Range, data [][]byte)
	// End is called when all of it has ended, before the memory is used anew.
	End(id int)
	// Move says that what is in old is in to now, and that old is used anew.
	Move(old, to []byte)
	// Trust says whether redundancy is right but for what is being written.
	Trust(trusted bool)
}

// Config sizes a Path.
type Config struct {
	Geometry *geometry.Map
	Level    raid.Level
	Disks    int
	Chunk    raid.Sectors // 0 where the level has none
	Depth    int          // requests at a time
	// Scratch holds the pieces of memory that parity is computed in, all of
	// one length, a multiple of 4096. There must be two more than Disks of
	// them, or more; one is kept full of zeroes.
	Scratch [][]byte
	// Linger lets the writes of a stream wait for their neighbours while none
	// of the stream is in flight. It obliges the caller to call [Path.Tick]
	// soon while [Path.Lingering] says so.
	Linger bool
	// Logs is memory for the partial parity logs of a RAID5, by slot, or nil if
	// it has none: as much as a log holds, and 8 KiB or more.
	Logs       [][]byte
	Signature  uint32   // of the logs
	Generation uint64   // no log on a member has a higher one
	CrashLog   CrashLog // nil if nobody comes after
}

// ErrConfig says that a Path cannot be made as asked.
var ErrConfig = errors.New("unusable configuration")
