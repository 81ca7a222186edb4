// Package policy decides what to do about the arrays of a host: which to
// start and with which members, which to wait for, which to refuse, what to
// give to an array that runs, and what to leave alone.
//
// Everything here is a function of its arguments. The clock, the devices, the
// engine and the configuration belong to the caller: time comes in as a
// duration and decisions go out as values, to be carried out, logged, or
// printed by a dry run. The order in which devices turn up shows nowhere.
//
// The freshest superblock decides who is a member, by its role table; what a
// member says of itself is not asked. Whether a superblock is old follows from
// how superblocks are written: in rounds, each of which gives every working
// member the same event count, and none of which begins before the one before
// it is durable everywhere. A power cut within a round leaves members one
// event behind that the freshest still lists. That is the only way to be
// behind and current; whoever is further behind, or is not listed, missed
// something.
package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"raid-assembler/pkg/raid"
)

// DefaultDeadline is how long an array may lack members before it is started
// without them, counted from its first.
const DefaultDeadline = 30 * time.Second

// Config is what the administrator may choose.
type Config struct {
	// Deadline is how long an array may lack members that its level survives
	// before it is started without them.
	Deadline time.Duration

	// Readd permits giving a degraded array a member back that is out of
	// date. The engine gives it what it missed, where the bitmap tells, and all
	// of it anew where not.
	Readd bool

	// Served says why arrays of the geometry given cannot be run, or returns
	// the empty string.
	Served func(raid.Geometry) string

	// For says what was chosen for one array. Nil chooses nothing in particular.
	For func(Identity) Choice
}

// Identity is what an array is chosen by.
type Identity struct {
	UUID   raid.UUID
	Name   string // as its metadata has it
	Format string // as people call it: "1.2"
	Host   string // that its metadata names, or empty
	Ours   bool   // it has run on this machine, as far as somebody remembers
}

// Never is the deadline of an array that is not started without its members.
const Never time.Duration = math.MaxInt64

// Mode is whether an array is started unasked.
type Mode uint8

// The modes; a later one lets less happen.
const (
	Run         Mode = iota // it is
	RunReadOnly             // it is, and not written to
	Leave                   // it is not
	LeaveToMdadm
)

// Choice is what was chosen for one array.
type Choice struct {
	Mode       Mode
	By         string // whoever chose the mode, for a reason
	Deadline   time.Duration
	DeadlineBy string // whoever chose the deadline; empty if nobody did
	Limits     Limits
	// Fault says why it is not known what was chosen, or is empty.
	Fault string
}

// Limits are what a member may do wrong before it is replaced by a spare, while it can
// still be copied from. 0 stands for anything.
type Limits struct {
	Errors  int           // operations that failed, within an hour
	Belated int           // operations that took very long, likewise
	Slow    time.Duration // that it is much slower than its peers
}

// choice returns what was chosen for the array that sb is of.
func (cfg Config) choice(v View, sb *Superblock) Choice {
	if cfg.For == nil {
		return Choice{Deadline: cfg.Deadline}
	}

	return cfg.For(v.Identity(sb))
}

// Identity returns what the array is chosen by that sb is of.
func (v View) Identity(sb *Superblock) Identity {
	return Identity{UUID: sb.Array, Name: sb.Name, Format: sb.Format, Host: sb.Host, Ours: v.Ours[sb.Array]}
}

// DefaultConfig returns what holds where nothing was chosen.
func DefaultConfig() Config {
	return Config{Deadline: DefaultDeadline, Readd: true, Served: Served}
}

// DisksMax is the most slots that an array may have to be run.
const DisksMax = 64

// Served says why the engine cannot run arrays of geometry g, or returns the
// empty string.
func Served(g raid.Geometry) string {
	if g.Disks > DisksMax {
		return fmt.Sprintf("it has %d slots, and at most %d are served; mdadm may", g.Disks, DisksMax)
	}

	switch g.Level {
	case raid.LevelLinear, raid.Level0, raid.Level1, raid.Level4, raid.Level5, raid.Level6:
		return ""
	case raid.Level10:
		if _, err := g.Copies(); err != nil {
			return err.Error()
		}

		return ""
	default:
		return fmt.Sprintf("%v is not served; mdadm may", g.Level)
	}
}

// View is all that is known of a host at one moment.
type View struct {
	Devices []Device
	Running []Running // the arrays that the engine has

	// Waited is how long ago the first member of each array was seen.
	Waited map[raid.UUID]time.Duration
	// Returned is how long ago each device, by path, came back that had gone from an
	// array which ran: each time within [FlapWindow], in any order.
	Returned map[string][]time.Duration
	// Held are the arrays that the operator stopped, and wants stopped.
	Held map[raid.UUID]bool
	// Told are the arrays of which the engine knows what the one before was writing
	// to them when it died.
	Told map[raid.UUID]bool
	// LossAccepted are the arrays that the operator wants started even where
	// parity cannot be trusted, and what it stands in for may be wrong.
	LossAccepted map[raid.UUID]bool
	// Forced are the arrays that the operator wants started with what is here,
	// before the deadline.
	Forced map[raid.UUID]bool
	// Asked are the arrays that the operator wants started, whatever was chosen
	// for them.
	Asked map[raid.UUID]bool
	// Known says who last had the slots of each array, as far as somebody
	// remembers. Reasons name them; nothing is decided by it.
	Known map[raid.UUID]map[raid.Slot]string
	// Last is what each array was when it last ran on this machine, as far as somebody
	// remembers: what is older and comes without those is not started by itself.
	Last map[raid.UUID]Last
	// Ours are the arrays that have run on this machine, as far as somebody
	// remembers: they are not another's, whatever host they name.
	Ours map[raid.UUID]bool
	// Writable are the arrays that could be written to when they ran last, and
	// were not stopped: the operator may have wanted that.
	Writable map[raid.UUID]bool
	// Ports say where the disk was plugged in that last had each slot, as far as
	// somebody remembers: what is plugged in there now is to take its place.
	Ports map[raid.UUID]map[raid.Slot]string
	// Refused are the devices, by path, that the engine would not give to an array
	// a moment ago: others come first.
	Refused map[raid.UUID]map[string]bool
}

// Device is one block device, and what was found on it. One that is a member of
// several arrays is there once for each, with the same Path.
type Device struct {
	Path    string // names it in decisions, and decides nothing
	Serial  string
	DiskSeq uint64 // of the disk: another once it was unplugged; 0 if unknown
	Size    raid.Sectors
	Block   int // logical block size in bytes
	// Rotational says that it is a disk that turns.
	Rotational bool
	// Port is where it is plugged in; empty for what is no disk by itself.
	Port string
	// Domains are those that it is in: spares move within them.
	Domains []string
	// Blank is whether it holds anything, and Content what, where that was found.
	Blank   Blank
	Content string
	// Fills are the domains in which it may be put to use if it is blank, and
	// FillsSlot those in which it may if a member was plugged in there that is lost.
	Fills, FillsSlot []string

	Superblock *Superblock // nil if it holds no metadata that can be trusted
	Corrupt    string      // why what metadata it holds cannot be trusted
	Unreadable string      // why it could not be read
	Foreign    string      // RAID metadata that it holds and that is not read here
	Conflicts  []string    // what else it holds, that says it is no member
	Claimed    string      // who uses it, other than the engine
	Shunned    string      // why it is not to be put to use unasked
	Worn       string      // what it did wrong, if it was replaced for that: likewise
}

// Superblock is what the metadata of one device says.
type Superblock struct {
	Array  raid.UUID
	Device raid.UUID
	Name   string // of the array
	Format string // as people call it: "1.2"
	Host   string // that the array belongs to, or empty

	raid.Geometry

	Number  int         // of this device, into Roles
	Roles   []raid.Role // of every device, by number
	Events  uint64
	Updated time.Time // when it was written; zero if it does not say

	DataOffset     raid.Sectors // of the data, from the start of the device
	DataSize       raid.Sectors
	ResyncOffset   raid.Sectors // MaxSectors if redundancy is right everywhere
	RecoveryOffset raid.Sectors // MaxSectors if this device's data is right everywhere
	Replacement    bool         // this device is to replace another in its slot
	WriteMostly    bool
	Bad            raid.Sectors // that this device has no valid data of
	Log            bool         // partial parity is logged, so that parity can be made right
	Unsupported    string       // why such arrays cannot be run, or empty
	// Container is the set of devices whose metadata this is part of, zero if there
	// is none. A spare of it is of no array. One of no container either is a spare
	// of every container of its format.
	Container  raid.UUID
	Everywhere bool // a member of one array of the container is to be one of all
}

// of reports whether d is a member of an array by its own word.
func (d *Device) of(array raid.UUID) bool { return d.Superblock != nil && d.Superblock.Array == array }

// role returns what sb says of the device with the given number.
func (sb *Superblock) role(number int) raid.Role {
	if number < 0 || number >= len(sb.Roles) {
		return raid.RoleSpare
	}

	return sb.Roles[number]
}

// slot returns the slot that sb gives to the device with the given number.
func (sb *Superblock) slot(number int) (raid.Slot, bool) { return sb.role(number).Slot() }

// members returns the numbers of the devices that sb gives a slot.
func (sb *Superblock) members() []int {
	var numbers []int

	for n := range sb.Roles {
		if _, ok := sb.slot(n); ok {
			numbers = append(numbers, n)
		}
	}

	return numbers
}

// Running is an array that the engine has.
type Running struct {
	UUID      raid.UUID
	Name      string
	Level     raid.Level
	State     raid.ArrayState
	Format    string    // of the metadata, as people call it
	Container raid.UUID // zero if there is none
	Members   []RunningMember
}

// RunningMember is a device that the engine has, or a slot that lacks one.
type RunningMember struct {
	Path    string // empty if missing
	Serial  string
	DiskSeq uint64    // as [Device] has it
	Slot    raid.Slot // NoSlot for a spare, and for one that is being filled to replace a member
	State   raid.MemberState

	Errors, Belated int           // within the last hour, as [Limits] has them
	Slow            time.Duration // likewise
	Asked           bool          // it is to be replaced, and a moment ago that was asked for
}

// Action is what to do.
type Action uint8

// The actions.
const (
	// LeaveAlone says that a device, or an array if no device is named, is
	// not touched.
	LeaveAlone Action = iota
	// Wait says that an array lacks members that may yet arrive.
	Wait
	// Refuse says that an array is not started, whoever arrives, until the
	// operator decides something.
	Refuse
	// Start says that the array is to be started with Members.
	Start
	// AddSpare says that the device is to be given to the running array.
	AddSpare
	// FailMember says that a member of the running array is gone though the
	// engine still counts on it.
	FailMember
	// RemoveMember says that the engine should let go of a device that is
	// gone and that it does not count on.
	RemoveMember
	// Prove says that it is to be found out whether the device is blank, for it is
	// to be given to the running array if so.
	Prove
	// Replace says that the member of the running array is to be copied to a spare,
	// which then takes its place.
	Replace
)

var actionNames = [...]string{
	"leave-alone", "wait", "refuse", "start", "add-spare", "fail-member", "remove-member", "prove",
	"replace",
}

func (a Action) String() string { return actionNames[a] }

// MarshalText implements [encoding.TextMarshaler].
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Action) UnmarshalText(text []byte) error {
	i := slices.Index(actionNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("policy: no action is called %q", text)
	}

	*a = Action(i)

	return nil
}

// Cause is the kind of reason for a decision not to do something.
type Cause string

// The causes.
const (
	Stale      Cause = "stale"      // it missed writes, or an array's members that are here did
	Diverged   Cause = "diverged"   // each of two sides has writes that the other missed
	Cloned     Cause = "cloned"     // two devices are one member
	Conflict   Cause = "conflict"   // metadata contradicts itself or what else is there
	Corrupt    Cause = "corrupt"    // metadata cannot be trusted
	Unreadable Cause = "unreadable" // a device does not answer
	InUse      Cause = "in-use"     // somebody else has it
	Unserved   Cause = "unserved"   // the engine cannot run such arrays
	Held       Cause = "held"       // somebody asked for it
	Missing    Cause = "missing"    // members are not here
	Hole       Cause = "write-hole" // parity is needed and wrong
	Unneeded   Cause = "unneeded"   // there is no use for it
	Chosen     Cause = "chosen"     // the configuration has it so
	Unsettled  Cause = "unsettled"  // what the configuration has is not known
	NotBlank   Cause = "not-blank"  // it holds something
	Flapping   Cause = "flapping"   // it comes and goes
	Worn       Cause = "worn"       // it was replaced for what it did wrong
)

// Member is a device to start an array with.
type Member struct {
	Path   string
	Serial string
	Slot   raid.Slot // NoSlot for a spare
}

// Decision is an action and the reason for it.
type Decision struct {
	Action Action
	Array  raid.UUID // zero if a device belongs to none
	Name   string    // of the array, as its metadata says

	Device string // the path, where the decision is about one device
	Serial string

	// From is of AddSpare: the array that has the device, and is to let go of it
	// first; zero if none has.
	From raid.UUID
	// Fault is of Replace: what the member does wrong.
	Fault string
	// Anew is of AddSpare: nothing that the device holds is to be taken for right.
	Anew bool

	Members  []Member // of Start: by slot, then the spares
	ReadOnly bool     // of Start: it is not to be written to
	Degraded bool     // of Start: not every slot has a member in sync
	Loss     bool     // of Start: parity cannot be trusted, which was accepted
	Present  int      // of Wait: members that can be used
	Needed   int      // of Wait: members that the freshest superblock calls working
	// Missing is of Wait and Start: slots that the freshest superblock fills, and nobody
	// here; and those of members that are newer, and not here.
	Missing []raid.Slot
	// Left is of Wait: until the array is started without them; negative if never. Of
	// what flaps it is how long it is left alone.
	Left time.Duration

	Cause  Cause  // of LeaveAlone, Wait and Refuse
	Reason string // does not change while only time passes
}

// Decide returns what to do about all that v shows: first the arrays by UUID,
// for each what to do with it and then what to do with its devices, by path;
// last the devices that belong to no array.
//
// It may be called again whenever anything changes and when the shortest Left
// has passed. The same view always gives the same decisions.
func Decide(v View, cfg Config) []Decision {
	devices := sorted(v.Devices)
	tenders := make(map[raid.UUID]*tender)
	taken := make(map[*Device]bool)

	for i := range v.Running {
		t := newTender(&v.Running[i], devices, v)
		tenders[t.array.UUID] = t

		for _, d := range t.attached {
			taken[d] = true
		}
	}

	groups, strays := group(devices, taken)

	for uuid := range tenders {
		if groups[uuid] == nil {
			groups[uuid] = []*Device{}
		}
	}

	tended := make(map[raid.UUID][]Decision)
	for uuid, t := range tenders {
		tended[uuid] = t.tend(groups[uuid], v, cfg)
	}

	beside, strays := share(tenders, strays)
	lend(tenders, tended, devices, strays)

	var ds []Decision

	for _, uuid := range sortedKeys(groups) {
		if tenders[uuid] != nil {
			ds = append(ds, tended[uuid]...)
		} else {
			ds = append(ds, assemble(v, uuid, groups[uuid], cfg)...)
		}
	}

	for _, d := range strays {
		lent := func(dec Decision) bool { return dec.Action == AddSpare && dec.Device == d.Path }
		if !slices.ContainsFunc(ds, lent) {
			ds = append(ds, stray(d))
		}
	}

	return append(ds, beside...)
}

// share decides which devices of containers are given to arrays of theirs, and returns
// the strays that are left: a spare goes to the first array that needs one, and a member
// of one array to others that are to have the same.
func share(tenders map[raid.UUID]*tender, strays []*Device) (ds []Decision, left []*Device) {
	uuids := sortedKeys(tenders)

	for _, d := range strays {
		i := slices.IndexFunc(uuids, func(uuid raid.UUID) bool { return tenders[uuid].lacks(d) })
		if i < 0 {
			left = append(left, d)

			continue
		}

		t := tenders[uuids[i]]
		ds = append(ds, t.give(d, fmt.Sprintf("it is a spare of %s, and %s %s vacant", d.home(),
			slotNames(t.vacant()), are(t.vacant()))))
	}

	for _, uuid := range uuids {
		for _, other := range uuids {
			ds = append(ds, tenders[uuid].follow(tenders[other])...)
		}
	}

	return ds, left
}

// stray decides to leave a device alone that belongs to no array.
func stray(d *Device) Decision {
	if fault := d.fault(); fault != (why{}) {
		return leave(d, fault)
	}

	if d.Worn != "" {
		return leave(d, d.worn())
	}

	if d.Superblock.Unsupported != "" {
		return leave(d, because(Unserved, "%s", d.Superblock.Unsupported))
	}

	return leave(d, because(Unneeded,
		"it is a spare of %s, and no array needs it: raid-assembler add gives it to one", d.home()))
}

// home is the set of devices that a spare which is of no array belongs to.
func (d *Device) home() string {
	if d.Superblock.Container.IsZero() {
		return "any container of its format"
	}

	return "its container"
}

// sorted returns the devices by path, for the order in which they turned up
// must not show.
func sorted(devices []Device) []Device {
	return slices.SortedFunc(slices.Values(devices), func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Serial, b.Serial),
			compareArrays(a.Superblock, b.Superblock))
	})
}

// compareArrays orders what one device is of several arrays.
func compareArrays(a, b *Superblock) int {
	if a == nil || b == nil {
		return 0
	}

	return slices.Compare(a.Array[:], b.Array[:])
}

// group returns the devices of each array, and those of no array that are
// worth a word all the same. What the engine has is taken, whatever it says.
func group(devices []Device, taken map[*Device]bool) (arrays map[raid.UUID][]*Device, strays []*Device) {
	arrays = make(map[raid.UUID][]*Device)

	for i := range devices {
		switch d := &devices[i]; {
		case taken[d]:
		case d.of(raid.UUID{}):
			strays = append(strays, d)
		case d.Superblock != nil:
			arrays[d.Superblock.Array] = append(arrays[d.Superblock.Array], d)
		case d.Corrupt != "" || d.Unreadable != "" || d.Foreign != "":
			strays = append(strays, d)
		}
	}

	return arrays, strays
}

func sortedKeys[T any](of map[raid.UUID]T) []raid.UUID {
	keys := make([]raid.UUID, 0, len(of))
	for uuid := range of {
		keys = append(keys, uuid)
	}

	slices.SortFunc(keys, func(a, b raid.UUID) int { return slices.Compare(a[:], b[:]) })

	return keys
}

func running(rs []Running, uuid raid.UUID) *Running {
	i := slices.IndexFunc(rs, func(r Running) bool { return r.UUID == uuid })
	if i < 0 {
		return nil
	}

	return &rs[i]
}

// why is a cause and the sentence for it. The zero value says that there is
// nothing wrong.
type why struct {
	cause Cause
	text  string
}

func because(cause Cause, format string, args ...any) why {
	return why{cause, fmt.Sprintf(format, args...)}
}

// leave decides to leave d alone.
func leave(d *Device, w why) Decision {
	dec := Decision{Action: LeaveAlone, Device: d.Path, Serial: d.Serial, Cause: w.cause, Reason: w.text}
	if d.Superblock != nil {
		dec.Array, dec.Name = d.Superblock.Array, d.Superblock.Name
	}

	return dec
}

// fault says why d cannot be used whatever its superblock says, if so. The
// cases are ordered by how much they explain.
func (d *Device) fault() why {
	switch {
	case d.Claimed != "":
		return because(InUse, "it is used by %s", d.Claimed)
	case d.Unreadable != "":
		return because(Unreadable, "it could not be read: %s", d.Unreadable)
	case d.Corrupt != "":
		return because(Corrupt, "its metadata cannot be trusted: %s", d.Corrupt)
	case d.Foreign != "" && d.Superblock == nil:
		return because(Unserved, "it holds %s, which is not for us: mdadm may tell more", d.Foreign)
	case len(d.Conflicts) > 0:
		return because(Conflict, "it is a member and something else too (%s): erase what is wrong with wipefs",
			list(slices.Sorted(slices.Values(d.Conflicts))))
	default:
		return why{}
	}
}
