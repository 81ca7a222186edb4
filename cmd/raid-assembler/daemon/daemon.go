// Package daemon is raid-assembler as a daemon: it hears of devices, looks at
// them, asks policy what to do, has the engine do it, and answers for all that
// over varlink.
//
// It is level-triggered. A uevent, a change at the engine, a timer: each is
// only a hint to look again at what is there, decide anew, and carry out the
// difference. Nothing that matters is remembered between two looks but when an
// array's first member was seen and what the operator asked for; the latter is
// kept in files. To lose a hint, or to die at any point, changes nothing.
//
// One goroutine owns the state. Everything that can take time (a probe, a call
// to the engine) is done by others, which report back by mail: a disk that
// does not answer keeps nobody waiting but itself.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/recording"
	"raid-assembler/pkg/scan/uevent"
)

// The times that the daemon keeps.
const (
	// debounce gathers the hints of one occasion: a shelf of disks that is
	// switched on, an array that loses several.
	debounce = 20 * time.Millisecond
	// rescanEvery bounds how long a change goes unnoticed that nobody told.
	rescanEvery = time.Minute
	// patience is how long a probe may take before decisions no longer wait
	// for it. What is slower is told, and used when it has answered.
	patience = 3 * time.Second
	// operationMax bounds one request to the engine.
	operationMax = time.Minute
	// listMax bounds the question what the engine has.
	listMax = 5 * time.Second
	// refreshMax bounds the wait for probes that do not answer, from when it was
	// begun to look at everything.
	refreshMax = listMax + 3*patience
	// retryMin and retryMax bound the pause after a request that failed; it
	// doubles while the same fails again.
	retryMin = time.Second
	retryMax = time.Minute
)

// Disk is one block device, as the kernel shows it.
type Disk struct {
	Path    string // /dev/sda
	Serial  string
	Seq     uint64 // another once the disk was unplugged; 0 if unknown
	Size    raid.Sectors
	Block   int    // logical block size in bytes
	Claimed string // who uses it, other than the engine; empty if nobody

	Model, WWN string
	Port       string // where it is plugged in, as in /dev/disk/by-path
	Rotational bool
	Whole      bool // it is no part of another device

	// Ignored says why it is not read, for it cannot be a member, or is empty.
	Ignored string
}

// Finding is what a probe of a device found.
type Finding struct {
	Superblock *metadata.Superblock // nil if there is none that can be trusted
	Corrupt    string               // why what there is cannot be trusted
	Unreadable string               // why it could not be read
	Foreign    string               // RAID metadata that no module of ours reads
	Others     []string             // what else it holds: a file system, a partition table
	Conflicts  []string             // those of Others that contradict the superblock
	// Readings are the superblocks of several formats, Superblock among them, if they
	// contradict nothing but each other.
	Readings []*metadata.Superblock
}

// Host is the devices of a host.
type Host interface {
	// Disks returns the devices that are there. A member of a running array
	// that is not among them is gone. What a device is called, and is like, may
	// be what it was at the last call, unless there is news of its path.
	// It is not safe for concurrent use.
	Disks(news func(path string) bool) ([]Disk, error)
	// Probe reads what is on a device. It may hang as long as the device
	// does.
	Probe(disk Disk) Finding
	// Content reads all of a device, or a sample, and returns the offset of a byte
	// that is not zero, or -1. Progress is told how far it has come.
	Content(ctx context.Context, disk Disk, sample bool, progress func(done int64)) (int64, error)
	// Claim opens a device for writing, and for nobody else.
	Claim(disk Disk) (Claimed, error)
	// FindPartitions has the kernel look for the partitions of a device anew.
	FindPartitions(disk Disk) error
	// SetReadOnly has the kernel refuse writes to a block device, or take them.
	SetReadOnly(device string, on bool) error
}

// Claimed is a device that nobody else can open exclusively.
type Claimed interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error
	Close() error
}

// Engine is what the daemon asks of the engine.
type Engine interface {
	List(ctx context.Context) (api.ListReply, error)
	Start(ctx context.Context, p api.StartParameters) error
	// Request has it carry out any other method that answers nothing.
	Request(ctx context.Context, method string, parameters any) error
}

// Config is what a daemon works with.
type Config struct {
	Policy policy.Config // where the configuration chooses nothing else
	// Settings are the configuration at the start, with what is wrong with it.
	Settings config.Config
	Host     Host
	Engine   Engine
	// Events are the uevents. When it is closed the daemon ends.
	Events <-chan uevent.Event
	// HeldDir is where it is written down which arrays the operator stopped, and which
	// disks the operator took out.
	HeldDir string
	// Roster is the file of what is known of members that may be gone; empty for
	// none.
	Roster string
	// RosterCopy is the file of what the initramfs knew of that.
	RosterCopy string
	// Hostname goes into the metadata of new arrays.
	Hostname string
	// Machine names this machine whatever its host name is; empty if nobody knows.
	Machine string

	Log    func(journal.Event)
	Notify func(state string) // the service manager
	Warn   func(text string)  // an administrator, about the daemon itself
	// Protect is told the devices of arrays that run, whenever they are listed.
	Protect func(paths []string)
	// Guarded reports whether anybody protects them.
	Guarded func() bool
	// Run runs a program of the administrator's, with what it is to find in its
	// environment.
	Run func(ctx context.Context, program string, environment []string) error

	// Watchdog is how often the service manager wants to hear that the daemon
	// is alive; 0 means never.
	Watchdog time.Duration
}

// Daemon is one daemon. Its methods but Run are safe for concurrent use.
type Daemon struct {
	cfg   Config
	ctx   context.Context // of Run: what it started ends with it
	mail  chan func()
	ended chan struct{} // closed when Run has

	// All that follows belongs to the goroutine of Run.

	disks   map[string]*disk // by path
	touched map[string]bool  // paths that a uevent named
	rescan  bool             // all are to be probed again
	anew    bool             // all are to be looked at as if for the first time
	hinted  bool             // the debounce timer runs
	rested  time.Time        // when a hint is followed again

	arrays    []api.Array     // that the engine has
	claimed   map[string]bool // the devices of these, by path
	told      []string        // the arrays that do not run, of which it knows what was being written
	listing   bool
	listAgain bool
	fresh     bool // arrays is from after the last look
	engineBad string

	looked    time.Time // the first look since the last decision
	decisions []policy.Decision
	decided   time.Time
	recording recording.Ring // of what was decided
	changed   chan struct{}  // closed at the next decision
	deadline  *time.Timer
	ready     bool

	first map[raid.UUID]time.Time // when the first member was seen
	held  holds

	members members

	settings config.Config
	policy   policy.Config      // as settings has it
	writable map[raid.UUID]bool // arrays, when they ran last; not those that were stopped

	busy  map[raid.UUID]bool   // something is being done to it
	names map[raid.UUID]string // of those that are being started
	given map[string]bool      // devices that an array is being given
	retry map[raid.UUID]*attempt
	said  map[string]string // what is in the journal already
	seqs  map[string]uint64 // of the disk that a member was when it became one
	shuns shuns
	comes map[string]*comings              // and goings of disks that arrays had, by serial number
	no    map[raid.UUID]map[string]refusal // by array and path

	health health

	alarms map[policy.Alarm]time.Time // that hold, and when each is told again; zero for never
}

// New returns a daemon.
func New(cfg Config) (*Daemon, error) {
	held, err := loadHolds(cfg.HeldDir)
	if err != nil {
		return nil, err
	}

	shuns, err := loadShuns(filepath.Join(cfg.HeldDir, "disks"))
	if err != nil {
		return nil, err
	}

	d := &Daemon{
		cfg: cfg, mail: make(chan func()), ended: make(chan struct{}), changed: make(chan struct{}), held: held,
		disks: make(map[string]*disk), touched: make(map[string]bool),
		first: make(map[raid.UUID]time.Time), busy: make(map[raid.UUID]bool),
		given: make(map[string]bool), names: make(map[raid.UUID]string),
		retry: make(map[raid.UUID]*attempt), said: make(map[string]string),
		seqs: make(map[string]uint64), shuns: shuns, comes: make(map[string]*comings),
		writable: make(map[raid.UUID]bool),
		no:       make(map[raid.UUID]map[string]refusal), alarms: make(map[policy.Alarm]time.Time),
	}
	d.configure(cfg.Settings)

	return d, nil
}

// Run runs the daemon until ctx ends, or the uevents do: blind to devices it is
// better started anew.
func (d *Daemon) Run(ctx context.Context) error {
	defer close(d.ended)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	d.ctx = ctx

	d.deadline = time.NewTimer(rescanEvery)
	defer d.deadline.Stop()

	slow := time.NewTicker(rescanEvery)
	defer slow.Stop()

	alive := make(<-chan time.Time)

	if d.cfg.Watchdog > 0 {
		ticker := time.NewTicker(d.cfg.Watchdog)
		defer ticker.Stop()

		alive = ticker.C
	}

	if err := d.members.takeCopy(d.cfg.RosterCopy); err != nil {
		d.cfg.Warn(fmt.Sprintf("what the initramfs knew of members that may be gone is left out: %v", err))
	}

	d.look()

	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.mail:
			f()
		case ev, ok := <-d.cfg.Events:
			if !ok {
				return errors.New("daemon: no more uevents are heard")
			}

			d.hear(ev)
		case <-d.deadline.C:
			d.look()
		case <-alive:
			d.cfg.Notify(daemon.SdNotifyWatchdog)
		case <-slow.C:
			d.anew = true
			d.probeSuspects()
			d.look()
		}
	}
}

// post has the goroutine of Run call f, unless it has ended.
func (d *Daemon) post(f func()) {
	select {
	case d.mail <- f:
	case <-d.ended:
	}
}

// do has the goroutine of Run call f, and waits for it.
func (d *Daemon) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	call := func() {
		f()
		close(done)
	}

	select {
	case d.mail <- call:
		<-done

		return nil
	case <-d.ended:
		return errors.New("daemon: it has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// after has the goroutine of Run call f in a while.
func (d *Daemon) after(pause time.Duration, f func()) {
	time.AfterFunc(pause, func() { d.post(f) })
}

// hear takes a uevent for the hint that it is.
func (d *Daemon) hear(ev uevent.Event) {
	switch {
	case ev.Rescan():
		d.rescan = true
		d.cfg.Log(journal.Event{
			Kind: journal.UeventsLost, Message: "uevents were lost: all devices are looked at again",
		})
	case ev.Name != "" && ev.Action != "remove":
		d.touched["/dev/"+ev.Name] = true
	}

	d.hint()
}

// hint has the daemon look again soon, but not all of the time: what was found has to be
// used as well, however many hints there are.
func (d *Daemon) hint() {
	if d.hinted {
		return
	}

	d.hinted = true
	d.after(max(debounce, time.Until(d.rested)), func() {
		d.hinted = false
		d.look()
	})
}

// Hint has the daemon look again soon: something changed at the engine.
func (d *Daemon) Hint() { d.post(d.hint) }

// look looks at all that is there. A decision follows when what it started has
// answered.
func (d *Daemon) look() {
	began := time.Now()
	defer func() { d.rested = time.Now().Add(time.Since(began)) }()

	if d.looked.IsZero() {
		d.looked = began
	}

	disks, err := d.cfg.Host.Disks(func(path string) bool { return d.anew || d.rescan || d.touched[path] })
	if err != nil {
		d.cfg.Warn(fmt.Sprintf("the devices cannot be listed: %v", err))
		d.after(retryMin, d.hint)

		return
	}

	d.update(disks)
	d.syncMembers()
	d.list()
}

// list asks the engine what it has.
func (d *Daemon) list() {
	d.fresh = false

	if d.listing {
		d.listAgain = true

		return
	}

	d.listing = true

	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, listMax)
		defer cancel()

		list, err := d.cfg.Engine.List(ctx)
		d.post(func() { d.listed(list, err) })
	}()
}

func (d *Daemon) listed(list api.ListReply, err error) {
	d.listing = false

	if d.listAgain {
		d.listAgain = false
		d.list()

		return
	}

	if err != nil {
		if d.engineBad != err.Error() && d.ctx.Err() == nil {
			d.cfg.Warn(fmt.Sprintf("raid-engine does not answer: %v", err))
		}

		d.engineBad = err.Error()
		d.cfg.Notify("STATUS=raid-engine does not answer")
		d.isReady() // who waits for arrays waits for their devices; the boot goes on
		d.after(retryMin, d.hint)

		return
	}

	d.engineBad, d.arrays, d.told, d.fresh = "", list.Arrays, list.Told, true
	d.noteWritable()
	d.noteClaims()
	d.health.note(list.Arrays, time.Now())
	d.attach()
	d.settle()
}

// settle decides if all that is being asked has answered, or has had its time.
func (d *Daemon) settle() {
	if !d.fresh || d.looked.IsZero() {
		return
	}

	if d.members.awaited() || d.probing() && time.Since(d.looked) < 2*patience {
		return
	}

	d.looked = time.Time{}
	d.decide()
}

// isReady tells the service manager, once, that all has been looked at.
func (d *Daemon) isReady() {
	if !d.ready {
		d.ready = true
		d.cfg.Notify(daemon.SdNotifyReady)
	}
}
