package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
	"raid-assembler/pkg/scan/uevent"
)

const diskBytes = 8 << 20

// fakeDisk is a disk with an image in memory. What is on it is real metadata.
type fakeDisk struct {
	Disk

	image   []byte
	plugged bool
	others  []string
	hang    chan struct{} // if not nil, a probe answers when it is closed
	probes  int
}

func (f *fakeDisk) source() metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(f.image), Size: f.Size, Block: f.Block, Serial: f.Serial,
	}
}

// world is a host and its engine, both of them fake. They outlive daemons.
type world struct {
	t *testing.T

	mu       sync.Mutex
	disks    map[string]*fakeDisk // by serial
	seq      uint64
	arrays   map[raid.UUID]*fakeArray
	down     bool              // the engine does not answer
	slowly   time.Duration     // how long it takes to list devices, or arrays
	refuse   string            // why it starts nothing
	starts   int               // requests to start
	lists    int               // of the devices
	anew     int               // of those, that were to hold nothing for known
	noGrowth string            // why it starts nothing that is to grow
	asked    []string          // other requests, but for members
	answer   error             // to those
	tweak    func(*api.Array)  // changes what the engine tells
	readOnly map[string]bool   // by block device: that the kernel refuses writes
	journal  []journal.Event   // of all daemons
	states   []string          // that the service manager was told
	warned   []string          //
	events   chan uevent.Event // of the daemon that runs
	daemon   *Daemon
	kill     func() error
	engine   Engine // if not the world itself
	heldDir  string
	watchdog time.Duration
	settings config.Config
	roster   string
	copied   string // of the roster, in the initramfs
	hostname string
	machine  string
	ran      []string // programs, and what they were told
	givenUp  int      // proofs that a disk is blank
	takeNone string   // the name of an array that takes no member
	idle     bool     // nobody writes to arrays that are started

	protected   []string // the devices of arrays that run, as the guard was told
	partitioned []string // the disks whose partitions the kernel was to look for
}

func newWorld(t *testing.T) *world {
	t.Helper()

	return &world{
		t: t, disks: make(map[string]*fakeDisk), arrays: make(map[raid.UUID]*fakeArray), heldDir: t.TempDir() + "/held",
		hostname: "host", machine: "machine",
	}
}

// inWorld runs a test in a world of its own, with a clock of its own.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()

		test(t, w)
	})
}

func (w *world) end() {
	if w.kill != nil {
		w.killDaemon()
	}

	for _, f := range w.disks {
		if f.hang != nil {
			close(f.hang)
		}
	}
}

// disk makes a disk that is on the shelf.
func (w *world) disk(serial string) *fakeDisk {
	f := &fakeDisk{
		Disk:  Disk{Serial: serial, Size: diskBytes / raid.SectorSize, Block: raid.SectorSize, Whole: true},
		image: make([]byte, diskBytes),
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	w.disks[serial] = f

	return f
}

// set makes the disks of an array, with spares, on the shelf. Their serials are
// the name of the array and a number.
func (w *world) set(name string, level raid.Level, disks, spares int) []*fakeDisk {
	w.t.Helper()

	return w.setOf(name, metadata.NewArray{Name: name}, level, disks, spares)
}

// setOf is set, with the name and the host of an array apart from what its serials and
// its UUID begin with.
func (w *world) setOf(key string, as metadata.NewArray, level raid.Level, disks, spares int) []*fakeDisk {
	w.t.Helper()

	var (
		set     []*fakeDisk
		members []metadata.NewMember
	)

	for i := range disks + spares {
		f := w.disk(fmt.Sprintf("%s%d", key, i))
		set = append(set, f)
		members = append(members, metadata.NewMember{Source: f.source(), Device: raid.UUID{key[0], 0xdd, byte(i)}})
	}

	as.Array = raid.UUID{key[0]}
	w.format(as, level, disks, members, set)

	return set
}

// format writes the metadata of an array to the first of its members, which are set.
func (w *world) format(as metadata.NewArray, level raid.Level, disks int, members []metadata.NewMember, set []*fakeDisk) {
	w.t.Helper()

	as.Version, as.AssumeClean, as.Now = "1.2", true, time.Now()
	as.Geometry = raid.Geometry{Level: level, Layout: raid.LeftSymmetric, Disks: disks, Chunk: 128}

	stages, err := md1.Create(as, members)
	if err != nil {
		w.t.Fatal(err)
	}

	for _, m := range slices.Concat(stages...) {
		if int(m.Member) < len(set) {
			copy(set[m.Member].image[m.Sector.Bytes():], m.Data)
		}
	}
}

// plug plugs a disk in, under the next name that is free, and tells the daemon.
func (w *world) plug(disks ...*fakeDisk) {
	for _, f := range disks {
		w.plugQuietly(f)
		w.hear("add", f.Path)
	}
}

func (w *world) plugQuietly(f *fakeDisk) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for i := 0; ; i++ {
		path := "/dev/sd" + string(rune('a'+i%26))
		if i >= 26 {
			path = fmt.Sprintf("/dev/sd%c%c", 'a'+i/26-1, 'a'+i%26)
		}

		if !w.inUse(path) {
			f.Path = path

			break
		}
	}

	w.seq++
	f.Seq, f.plugged = w.seq, true
}

// inUse reports whether a name is not free: the kernel does not give it again
// while the engine holds the device open.
func (w *world) inUse(path string) bool {
	for _, f := range w.disks {
		if f.plugged && f.Path == path {
			return true
		}
	}

	for _, a := range w.arrays {
		if slices.ContainsFunc(a.members, func(m *fakeMember) bool { return m.path == path }) {
			return true
		}
	}

	return false
}

func (w *world) unplug(f *fakeDisk) {
	w.unplugQuietly(f)
	w.hear("remove", f.Path)
}

func (w *world) unplugQuietly(f *fakeDisk) {
	w.mu.Lock()
	defer w.mu.Unlock()

	f.plugged = false
}

// hang has probes of a disk not answer, until it is called again.
func (w *world) hang(f *fakeDisk) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if f.hang != nil {
		close(f.hang)
		f.hang = nil
	} else {
		f.hang = make(chan struct{})
	}
}

func (w *world) hear(action, path string) {
	if w.kill != nil {
		w.events <- uevent.Event{Action: action, Name: strings.TrimPrefix(path, "/dev/"), Subsystem: "block"}
	}
}

// run starts a daemon.
func (w *world) run() {
	w.t.Helper()

	w.events = make(chan uevent.Event, 100)

	engine := Engine(w)
	if w.engine != nil {
		engine = w.engine
	}

	d, err := New(Config{
		Policy: policy.DefaultConfig(), Host: w, Engine: engine, Events: w.events, HeldDir: w.heldDir, Hostname: w.hostname, Watchdog: w.watchdog,
		Settings: w.settings, Roster: w.roster, RosterCopy: w.copied, Machine: w.machine,
		Log: func(ev journal.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()

			w.journal = append(w.journal, ev)
		},
		Notify: func(state string) {
			w.mu.Lock()
			defer w.mu.Unlock()

			w.states = append(w.states, state)
		},
		Guarded: func() bool { return false },
		Protect: func(paths []string) {
			w.mu.Lock()
			defer w.mu.Unlock()

			w.protected = slices.Sorted(slices.Values(paths))
		},
		Run: func(_ context.Context, program string, environment []string) error {
			w.mu.Lock()
			defer w.mu.Unlock()

			w.ran = append(w.ran, program+" "+strings.Join(environment, " "))

			return nil
		},
		Warn: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()

			w.warned = append(w.warned, text)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	w.daemon = d
	w.kill = func() error {
		cancel()

		return <-done
	}

	go func() { done <- d.Run(ctx) }()
}

func (w *world) killDaemon() {
	if err := w.kill(); err != nil {
		w.t.Errorf("Run() = %v", err)
	}

	w.kill = nil
}

// pass lets time pass, and everything come to rest.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// state is the arrays that run and their members, one array a line.
func (w *world) state() string {
	w.mu.Lock()
	defer w.mu.Unlock()

	var lines []string

	for _, a := range w.list() {
		var words []string

		for _, m := range a.Members {
			slot := "S"
			if m.Slot != nil {
				slot = fmt.Sprint(*m.Slot)
			}

			words = append(words, fmt.Sprintf("%s:%s:%s", slot, m.Serial, m.State))
		}

		slices.Sort(words)
		lines = append(lines, a.Name+" "+strings.Join(words, " "))
	}

	return strings.Join(lines, "\n")
}

func (w *world) mustBe(want string) {
	w.t.Helper()

	if got := w.state(); got != want {
		w.t.Errorf("state:\n%s\nwant:\n%s\njournal:\n%s", got, want, w.history())
	}
}

// history is the journal, as text.
func (w *world) history() string {
	w.mu.Lock()
	defer w.mu.Unlock()

	var b strings.Builder
	for _, ev := range w.journal {
		fmt.Fprintf(&b, "%s: %s\n", ev.Kind.Name, ev.Message)
	}

	return b.String()
}

// Disks implements [Host].
func (w *world) Disks(news func(string) bool) ([]Disk, error) {
	time.Sleep(w.slowly)

	w.mu.Lock()
	defer w.mu.Unlock()

	var disks []Disk

	w.lists++

	if news("/dev/none") {
		w.anew++
	}

	for _, f := range w.disks {
		if f.plugged {
			disks = append(disks, f.Disk)
		}
	}

	return disks, nil
}

// Probe implements [Host].
func (w *world) Probe(disk Disk) Finding {
	w.mu.Lock()
	f := w.disks[disk.Serial]
	hang := f.hang
	f.probes++
	w.mu.Unlock()

	if hang != nil {
		<-hang
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	if !f.plugged {
		return Finding{Unreadable: "no such device"}
	}

	sb, err := probe(f.source())

	switch {
	case errors.Is(err, metadata.ErrNotFound):
		return Finding{Others: f.others}
	case err != nil:
		return Finding{Corrupt: err.Error()}
	default:
		return Finding{Superblock: sb, Others: f.others, Conflicts: f.others}
	}
}

// Content implements [Host].
func (w *world) Content(ctx context.Context, disk Disk, sample bool, progress func(int64)) (int64, error) {
	w.mu.Lock()
	f := w.disks[disk.Serial]
	w.mu.Unlock()

	if sample {
		return scan.Sample(ctx, f.source())
	}

	// A second for a tenth of it.
	for i := range int64(10) {
		select {
		case <-time.After(time.Second):
			progress(i * diskBytes / 10)
		case <-ctx.Done():
			w.mu.Lock()
			w.givenUp++
			w.mu.Unlock()

			return -1, ctx.Err()
		}
	}

	return scan.Content(ctx, f.source(), progress)
}

// FindPartitions implements [Host].
func (w *world) FindPartitions(disk Disk) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.partitioned = append(w.partitioned, disk.Serial)

	return nil
}

// SetReadOnly implements [Host].
func (w *world) SetReadOnly(device string, on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	if w.readOnly == nil {
		w.readOnly = make(map[string]bool)
	}

	w.readOnly[device] = on

	return nil
}

// Claim implements [Host].
func (w *world) Claim(disk Disk) (Claimed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()

	return fakeClaim{w.disks[disk.Serial]}, nil
}

type fakeClaim struct{ f *fakeDisk }

func (c fakeClaim) ReadAt(p []byte, off int64) (int, error) { return c.f.source().ReadAt(p, off) }
func (c fakeClaim) WriteAt(p []byte, off int64) (int, error) {
	if bytes.Count(p, []byte{0}) == len(p) {
		c.f.others = nil
	}

	return copy(c.f.image[off:], p), nil
}
func (c fakeClaim) Sync() error  { return nil }
func (c fakeClaim) Close() error { return nil }
