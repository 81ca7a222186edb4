// Package core is what the thread of one array does, but for the doing. It
// joins the state machine (package engine), the data path (package stripe) and
// the keeper of the metadata: it takes the requests of clients, the ends of
// operations on members and the time, and gives operations on members and
// answers to clients.
//
// It does no I/O and knows no clock, and so the simulation that cuts the power
// runs the same code as the array's thread (package loop):
//
//	c.SetTime(now)
//	c.Submit(...), c.Complete(...)   // whatever has happened since
//	c.Advance()
//	... c.Operations(), c.Answers()  // do these
//
// It allocates nothing for a request.
package core

import (
	"fmt"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// DeviceMax is the highest number that a device of an array has.
const DeviceMax = 255

// Device is a device of the array.
type Device struct {
	ID          engine.DeviceID
	Offset      raid.Sectors // of the data area
	WriteMostly bool
	FailFast    bool         // it is to answer soon, or be failed
	BadBlocks   []raid.Range // component sectors without valid data, ascending

	bad *intent.BadBlocks // nil if there is no log to keep them in
	log raid.Sectors      // where its partial parity log is, from the start of the device
}

// Notice is something to be told: an [engine.Report] and what it is about.
type Notice struct {
	engine.Report
	Offset     raid.Sectors // of the component, where it matters
	Mismatched raid.Sectors // by the last sync: what was not redundant; or what is bad
	Cause      string       // why a device failed, if it is known
}

// Config is what a Core is made of.
type Config struct {
	Geometry *geometry.Map
	Setup    engine.Setup
	Chunk    raid.Sectors
	Devices  []Device
	Keeper   metadata.Keeper
	Depth    int // requests at a time; their tags are below it
	// Scratch is memory for parity; see stripe.Config.
	Scratch [][]byte
	// Records is memory for the writes of superblocks: each holds one.
	Records [][]byte
	// Logs is memory for partial parity logs, by slot; nil if the array has none.
	Logs [][]byte
	// Generation is above that of any log that a member has.
	Generation uint64
	// CrashLog is what a successor is left if the process dies; nil if there is none.
	CrashLog CrashLog
	// Spares are memory for when a member does not answer. There should be as
	// much as there is of each kind.
	Spares    Spares
	Deadlines Deadlines
	// Slab is how much of a component is synced at a time, while clients wait
	// for that range; 0 for as much as is usual.
	Slab raid.Sectors
	// SyncAfter is how long nothing is synced after the start, for clients who have
	// waited for it.
	SyncAfter time.Duration
	// Turns is asked before anything is synced; nil if no device is shared.
	Turns Turns
	// Seat is its place in the container that the metadata is of; nil if that is
	// of this array alone.
	Seat *Seat
	// Notify is called in the midst of a step and must not call back.
	Notify func(Notice)
}

// CrashLog is what a process leaves to the one that comes after it, when it has died
// and the machine has not.
type CrashLog interface {
	stripe.CrashLog
	// Events is called before superblocks with a new event count are written: a
	// successor that finds another one is not the next to use the devices.
	Events(n uint64)
	// Recorded is called when superblocks are on disk.
	Recorded()
}

// Operation is something to be done with a device. Whatever is to be done may
// be done at once, in any order.
type Operation struct {
	ID     int // to be given to Complete
	Device engine.DeviceID
	Sector raid.Sectors // from the start of the device
	Data   []byte       // of a Read or a Write: whole sectors, to be left alone until Complete
	// Sectors is the length; 0 for a Flush, which is for all of the device.
	Sectors raid.Sectors
	Op      stripe.Op
	FUA     bool // what is written is to be on stable storage when it ends
	Record  bool // of superblocks, not of the array's content
}

// Answer is what a client's request is to be answered with.
type Answer struct {
	Tag int
	OK  bool // all of it was done; if not, the client is owed an I/O error
	// Memory is what the tag has from now on, and what a Read has brought is
	// there, or nil if that has not changed. The old memory is in use still.
	Memory []byte
}

// area is where on a device the data path finds what it asks for.
type area struct {
	data, log raid.Sectors
}

// kind is what an operation is part of.
type kind uint8

const (
	transferring kind = iota // a transfer of the data path
	recording                // a record
	marking                  // a block of the bitmap
	passing                  // the flush before marks are cleared
	probing                  // a read of a slow member
)

// flight is an operation that has not ended.
type flight struct {
	Operation

	since    time.Duration // by the clock of the deadlines
	transfer int32         // its ID
	done     int32         // bytes
	kind     kind
	flying   bool
	late     bool // it was given up
}

// Core is a running array. It is not safe for concurrent use.
type Core struct {
	cfg    Config
	array  *engine.Array
	path   *stripe.Path
	disks  map[engine.DeviceID]Device
	areas  []area   // by device, for the data path
	health []Health // by device, as the pulses are

	numbers
	requests
	recorder
	marker
	syncer
	memories
	deadliner
	repeater
	slowness

	ignored rules // by tests only: see broken
	now     time.Time
	lingers time.Time // since when writes wait for their neighbours; zero if none does
	asked   []int32   // IDs, to be taken by Operations
	rest    Operation // of one of them
	flights []flight  // by ID
	free    []int     // IDs

	cause    map[engine.DeviceID]string // why a device failed, if it is known
	closed   bool                       // no more requests come
	stopping bool
	stopped  bool
}

// New returns a Core that does nothing before [Core.Start].
func New(cfg Config) (*Core, error) {
	disks := len(cfg.Setup.Members)
	if cfg.Setup.Level == raid.Level10 {
		cfg.Setup.SyncSize = cfg.Geometry.SyncSectors()
	}

	if len(cfg.Records) <= disks {
		return nil, fmt.Errorf("core: memory for %d writes of superblocks of %d slots", len(cfg.Records), disks)
	}

	c := &Core{
		cfg: cfg, array: engine.NewArray(cfg.Setup), disks: make(map[engine.DeviceID]Device),
		numbers: newNumbers(), requests: newRequests(cfg.Depth), recorder: newRecorder(),
		cause: make(map[engine.DeviceID]string),
	}
	c.throttle = newThrottle(cfg.Depth)
	c.memories = newMemories(&cfg)
	c.slowness = newSlowness(disks)
	c.deadliner.silent = make(map[engine.DeviceID]bool)

	var err error

	path := stripe.Config{
		Geometry: cfg.Geometry, Level: cfg.Setup.Level, Disks: disks, Chunk: cfg.Chunk,
		Depth: cfg.Depth, Scratch: cfg.Scratch, Linger: true,
	}
	if cfg.Logs != nil {
		path.Logs, path.Generation = cfg.Logs, cfg.Generation
		path.Signature = cfg.Keeper.Log(metadata.MemberID(cfg.Devices[0].ID)).Signature
	}

	if cfg.CrashLog != nil {
		path.CrashLog = cfg.CrashLog

		if cfg.Seat != nil {
			cfg.Seat.countFor(cfg.CrashLog, cfg.Keeper.Events)
		} else {
			cfg.CrashLog.Events(cfg.Keeper.Events())
		}
	}

	c.path, err = stripe.New(path)
	if err != nil {
		return nil, err
	}

	n := OperationsMax(cfg.Setup.Level, cfg.Depth, disks, len(cfg.Records))
	c.asked = make([]int32, 0, n)
	c.flights = make([]flight, 0, n)
	c.free = make([]int, 0, n)

	for _, d := range cfg.Devices {
		if err := c.attach(d, metadata.MemberID(d.ID)); err != nil {
			return nil, err
		}

		c.numbers.next = max(c.numbers.next, d.ID+1)
	}

	for slot := range c.array.Members() {
		c.setMember(raid.Slot(slot))
	}

	c.setSuccessor()
	c.marker = newMarker(&cfg, c.array.Degraded() > 0)

	return c, nil
}

// OperationsMax is how many operations there may be at a time, of an array with so
// many slots and buffers for records.
func OperationsMax(level raid.Level, depth, disks, records int) int {
	return stripe.TransfersMax(level, depth, disks) + records
}

// attach makes a device known, which the keeper calls member.
func (c *Core) attach(d Device, member metadata.MemberID) error {
	if room := c.cfg.Keeper.BadBlockRoom(member); room > 0 {
		d.bad = intent.NewBadBlocks(room)

		for _, r := range d.BadBlocks {
			if !d.bad.Add(r.From, r.To) {
				return fmt.Errorf("core: device %d has %d runs of bad blocks, more than its log holds",
					d.ID, len(d.BadBlocks))
			}
		}
	}

	if log := c.cfg.Keeper.Log(member); log != nil {
		d.log = log.Sector
	}

	c.call(d.ID, member)
	c.disks[d.ID] = d
	c.areas, c.health = reach(c.areas, d.ID), reach(c.health, d.ID)
	c.slowness.pulses = reach(c.slowness.pulses, d.ID)
	c.areas[d.ID] = area{data: d.Offset, log: d.log}
	// Another one had its number.
	delete(c.deadliner.silent, d.ID)
	delete(c.cause, d.ID)
	c.slowness.pulses[d.ID] = pulse{}
	c.health[d.ID] = Health{}

	return nil
}

// reach returns a list by device that goes up to id.
func reach[T any](list []T, id engine.DeviceID) []T {
	return append(list, make([]T, max(0, int(id)+1-len(list)))...)
}

// Start begins what there is to make right from the start.
func (c *Core) Start(now time.Time) {
	c.now = now
	c.syncer.after = now.Add(c.cfg.SyncAfter)
	c.step(engine.Started{})
}

// SetTime says what time it is. Whatever is told next happened then.
func (c *Core) SetTime(now time.Time) {
	c.elapse(now)
	c.now = now
}

// Close says that no more requests come. The array is stopped when those that
// are there have been answered.
func (c *Core) Close() { c.closed = true }

// Stopped reports whether the superblocks are as they should stay.
func (c *Core) Stopped() bool {
	return c.stopped && !c.recorder.active && c.marker.left+c.marker.flushing == 0
}

// Advance moves what has happened on, until there is nothing left to do but
// wait.
func (c *Core) Advance() {
	c.expire()
	c.askAgain()

	if c.recorder.queued {
		c.flushed()
	}

	for {
		for _, f := range c.path.Failures() {
			c.step(engine.MemberFailed{Device: engine.DeviceID(f.Device)})
		}

		for _, b := range c.path.BadBlocks() {
			// That they are good again waits for the next record.
			if !b.Cleared {
				c.tellBad(b)
				c.step(engine.RecordNeeded{})
			}
		}

		for _, res := range c.path.Results() {
			c.ended(res)
		}

		c.judge()
		c.clock()

		idle := true

		for t := range c.path.Transfers {
			idle = false

			c.transfer(t)
		}

		c.refuseSilent()

		if idle && !c.path.Pending() && !c.hurry() {
			break
		}
	}

	c.answer()
}

// lingerEvery is how often it is looked whether writes still wait for those that
// come after them in a stream: as long as a client takes to give the next ones.
const lingerEvery = 2 * time.Millisecond

// hurry ends the wait of writes for their neighbours when it is time, and
// reports whether it did.
func (c *Core) hurry() bool {
	switch {
	case !c.path.Lingering():
		c.lingers = time.Time{}
	case c.lingers.IsZero():
		c.lingers = c.now
	case c.now.Sub(c.lingers) >= lingerEvery:
		c.lingers = c.now
		c.path.Tick()

		return true
	}

	return false
}

// clock does what is due by time alone.
func (c *Core) clock() {
	idle := c.writing == 0 && len(c.held) == 0 && len(c.marker.waiting) == 0

	quiet := idle || c.broken(ruleClean)
	if quiet && c.array.State() == raid.Active && c.now.Sub(c.lastWrite) >= safeMode {
		c.step(engine.WentIdle{})
	}

	c.markClock()
	c.syncClock()

	switch {
	case !c.closed || c.stopping:
	case idle && c.reading == 0 && len(c.answers) == 0 && !c.path.Syncing():
		c.stopping = true
		c.step(engine.Stopping{})
	default:
		c.syncer.on = false // its last slab ends first
	}
}

// NeedsTime reports whether something is to happen by time alone.
func (c *Core) NeedsTime() bool {
	return c.array.State() == raid.Active || c.syncer.on || (c.closed && !c.stopped) ||
		c.passable() || c.deadliner.flying > 0 || len(c.again) > 0 || c.slowness.any || c.path.Lingering()
}

// tickEvery is how often the clock is to be looked at while there is a reason to.
const tickEvery = 50 * time.Millisecond

// Alarm returns in how long the time is to be told, and Advance called, if
// nothing else happens before; 0 if that is all the same.
func (c *Core) Alarm() time.Duration {
	switch {
	case !c.NeedsTime():
		return 0
	case c.path.Lingering():
		return lingerEvery
	case c.syncer.on && c.syncer.turn.ours && !c.path.Syncing():
		return max(time.Millisecond, min(tickEvery, c.throttle.nextAt.Sub(c.now)))
	default:
		return tickEvery
	}
}

// Operations yields what is to be done now, and what that leads to meanwhile; none
// is valid after its turn. Each must be completed once, in any order.
func (c *Core) Operations(yield func(*Operation) bool) {
	for i := 0; i < len(c.asked); i++ {
		f := &c.flights[c.asked[i]]
		o := &f.Operation

		if f.done > 0 {
			c.rest = f.rest()
			o = &c.rest
		}

		if !yield(o) {
			break
		}
	}

	c.asked = c.asked[:0]
}

// Answers returns the requests that are to be answered now, valid until the
// next call of any method.
func (c *Core) Answers() []Answer {
	due := c.due
	c.due = c.due[:0]

	return due
}

// operate asks for an operation, which is part of k.
func (c *Core) operate(o Operation, k kind) {
	f := c.launch(k)
	o.ID = f.ID
	f.Operation = o
}

// launch begins an operation, whose number it has by now, and nothing else.
func (c *Core) launch(k kind) *flight {
	id := len(c.flights)

	if n := len(c.free); n > 0 {
		id, c.free = c.free[n-1], c.free[:n-1]
	} else {
		c.flights = append(c.flights, flight{})
	}

	f := &c.flights[id]
	f.ID, f.kind, f.since, f.flying = id, k, c.deadliner.waited, true
	c.deadliner.flying++
	c.asked = append(c.asked, int32(id))

	return f
}

// transfer asks for a transfer of the data path. One with a device that was
// removed since is asked for all the same, and fails.
func (c *Core) transfer(t *stripe.Transfer) {
	id := engine.DeviceID(t.Device)

	if len(c.silent) > 0 && c.silent[id] {
		c.deadliner.refused = append(c.deadliner.refused, t.ID)

		return
	}

	from, rule := c.areas[id].data, ruleFlush
	if t.Log {
		from, rule = c.areas[id].log, ruleLogged
	}

	f := c.launch(transferring)
	f.transfer = int32(t.ID)
	f.Device, f.Op, f.Sector, f.Sectors, f.Data = id, t.Op, from+t.Sector, t.Sectors, t.Data
	f.FUA = t.FUA && !c.broken(rule)
}

// Expected returns what an operation that has not ended is, and how many bytes
// it is when all goes well.
func (c *Core) Expected(id int) (op stripe.Op, want int) {
	return c.flights[id].Op, len(c.flights[id].Data) - int(c.flights[id].done)
}

// Complete says how an operation went.
func (c *Core) Complete(id int, fault stripe.Fault) {
	f := c.flights[id]
	c.flights[id] = flight{}
	c.free = append(c.free, id)

	if f.late {
		c.deadliner.late--
	} else {
		c.deadliner.flying--
	}

	if len(c.memories.parked) > 0 {
		if f.Op == stripe.Read && !f.late {
			c.follow(f.Data)
		}

		c.unpark()
	}

	switch {
	case f.kind == probing:
		c.probed(f, fault)
	case f.late:
	case len(c.deadliner.silent) > 0 && c.deadliner.silent[f.Device]:
		// There was no memory to go on without it. Who knows what it has been
		// through: a reset may have cost it its cache.
		c.over(f, stripe.Gone)
	default:
		c.examine(f, fault)

		if f.Op == stripe.Read && fault == stripe.None {
			c.slowness.sampled(f.Device, c.deadliner.waited-f.since)
		}

		c.over(f, fault)
	}
}

// over says how an operation went to whom it is part of.
func (c *Core) over(f flight, fault stripe.Fault) {
	switch f.kind {
	case transferring:
		c.path.Complete(int(f.transfer), fault)
	case recording:
		c.recorded(f.Device, fault)
	case marking:
		c.marked(f.Device, fault)
	case passing:
		c.passed(f.Device, fault)
	case probing:
		// It has its memory until it ends.
	}
}

// step tells the state machine of an event, and does what it asks for.
func (c *Core) step(ev engine.Event) {
	for _, effect := range c.array.Step(ev) {
		c.do(effect)
	}

	if c.path.SetRecorded(c.array.MayAcknowledge()); c.array.State() == raid.Broken {
		c.path.SetBroken()
	}
}

func (c *Core) do(effect engine.Effect) {
	switch e := effect.(type) {
	case engine.WriteSuperblocks:
		c.record(e.Seq)
	case engine.ReleaseWrites:
		c.release()
	case engine.Acknowledge:
		// Advance answers what may be answered.
		c.releaseMarked()
	case engine.FailWrites:
		c.refuse()
	case engine.SetMember:
		c.setMember(e.Slot)
	case engine.SetSuccessor:
		c.setSuccessor()
	case engine.StartSync:
		c.startSync()
	case engine.StopSync:
		c.syncer.on = false
	case engine.Report:
		c.notice(e)
	case engine.Stopped:
		c.stopped = true
	default:
		panic(fmt.Sprintf("core: unknown effect %T", effect))
	}
}

// setMember tells the data path what holds a slot.
func (c *Core) setMember(slot raid.Slot) {
	if c.bits != nil {
		c.bits.MemberLeft() // whoever held it before
	}

	c.path.SetMember(slot, c.member(c.array.Members()[slot]))
	c.path.SetResynced(c.array.Resynced())
}

// setSuccessor tells the data path who is to take over which slot.
func (c *Core) setSuccessor() {
	slot, m := c.array.Successor()

	full := m.State == raid.InSync
	if full {
		m.State, m.Recovered = raid.Recovering, c.cfg.Setup.Size // it is not the one to be read yet
	}

	member := c.member(m)
	member.Full = full
	c.path.SetSuccessor(slot, member)
}

func (c *Core) member(m engine.Member) stripe.Member {
	d := c.disks[m.Device]

	return stripe.Member{
		Device: int(m.Device), State: m.State, Recovered: m.Recovered,
		WriteMostly: d.WriteMostly, Slow: m.Device != engine.None && c.slowness.pulses[m.Device].slow, Bad: d.bad,
	}
}

func (c *Core) notice(r engine.Report) {
	// The data path is told in the same turn what a sync has made right.
	c.path.SetResynced(c.array.Resynced())

	if r.Note == engine.NoteRecoverDone && c.bits != nil && c.array.Resynced() == raid.MaxSectors {
		// What an absent member missed it has, if there is none any more.
		c.bits.BeginSync()
		c.synced(raid.MaxSectors)
	}

	at := c.at
	if r.Note.Starts() {
		at = c.array.Syncing().From // the last one ended elsewhere
	}

	if c.cfg.Notify != nil {
		c.cfg.Notify(Notice{Report: r, Offset: at, Mismatched: c.mismatch, Cause: c.cause[r.Device]})
	}
}
