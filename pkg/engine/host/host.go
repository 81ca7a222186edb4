// Package host runs the arrays of one engine process: it opens and claims their
// members, checks what they say against what was asked, starts and stops the
// threads that serve them, and answers for them over varlink.
//
// It trusts nobody's word about a disk but the disk's own, read after it was
// claimed: the assembler's request says which devices to take, and the slots
// that it expects, and if the freshest superblock says otherwise the request is
// refused with nothing written.
package host

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-multierror"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// ErrRefused says that a request is not carried out, and nothing was changed.
var ErrRefused = errors.New("refused")

// ErrNotFound says that a request names what is not there.
var ErrNotFound = errors.New("not found")

// Config is what a Host works with.
type Config struct {
	Control ublk.Control
	Formats []metadata.Format
	// RunDir is where the Host says which block device is which array, for
	// udev and for its own successor.
	RunDir string
	// Logs is where crash logs are kept for the next engine, and which arrays there are;
	// nil for nowhere.
	Logs crashlog.Shelf
	// Left is what engines that died have left.
	Left map[raid.UUID]*crashlog.Left
	// Threads is told how many arrays there are before another one gets its thread; nil if
	// nobody wants to know.
	Threads func(arrays int)
	// Tell must not block.
	Tell func(journal.Event)
}

// Host runs arrays. It is safe for concurrent use.
type Host struct {
	cfg Config

	mu      sync.Mutex
	arrays  map[raid.UUID]*running
	changed chan struct{} // closed at the next change
	failed  chan error    // a thread ended that should not have
	ending  bool          // nothing is started any more

	turns  turnstile
	giving map[string]chan struct{} // devices that are being given to an array, by path
	served map[raid.UUID]Served     // what the next engine is to take over

	noting sync.Mutex
	noted  string // what it was told last of that
}

// running is an array that is served, or is being started if loop is nil.
type running struct {
	name     string
	first    *metadata.Superblock // the freshest when it was started
	format   string               // the name of its module
	size     raid.Sectors         // of the array
	loop     *loop.Loop
	stopping bool
	devices  map[engine.DeviceID]*member.Device // that it has
	mostly   map[engine.DeviceID]bool           // that are read only if no other can be
	notices  chan loop.Notice
	earlier  []*running // that were being started when this was asked for, with a device of its
	asked    []api.StartMember
	left     *crashlog.Left // what an engine that died was writing to it, or nil
	started  chan struct{}  // closed when the start has ended, well or not

	inherited bool // it is started as an engine before has left it
	holds     bool // all its memory: see Hold

	// What follows is of the arrays of containers: set before loop is.
	container raid.UUID // zero if there is none
	turns     *core.Container
	keeper    metadata.Keeper
}

// New returns a Host without arrays.
func New(cfg Config) *Host {
	return &Host{
		cfg: cfg, arrays: make(map[raid.UUID]*running),
		changed: make(chan struct{}), failed: make(chan error, 1), giving: make(map[string]chan struct{}),
		served: make(map[raid.UUID]Served),
	}
}

// Failed yields the reason why the process should end, so that the next one
// takes its arrays over.
func (h *Host) Failed() <-chan error { return h.failed }

// Answers waits until the thread of each array has answered: none of them is stuck.
func (h *Host) Answers() {
	for _, r := range h.running() {
		_ = r.loop.Do(func() {}) // one that has ended is dealt with elsewhere
	}
}

// running returns the arrays that run.
func (h *Host) running() map[raid.UUID]*running {
	h.mu.Lock()
	defer h.mu.Unlock()

	all := make(map[raid.UUID]*running, len(h.arrays))

	for uuid, r := range h.arrays {
		if r.loop != nil {
			all[uuid] = r
		}
	}

	return all
}

// touch tells those who watch that something changed, and notes it for the next engine.
func (h *Host) touch() {
	h.noteServed()

	h.mu.Lock()
	defer h.mu.Unlock()

	close(h.changed)
	h.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change.
func (h *Host) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()

	return h.changed
}

// find returns the array that a name or a UUID names.
func (h *Host) find(array string) (raid.UUID, *running, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for uuid, r := range h.arrays {
		if r.loop == nil {
			continue
		}

		if u, err := raid.ParseUUID(array); r.name == array || (err == nil && u == uuid) {
			return uuid, r, nil
		}
	}

	return raid.UUID{}, nil, fmt.Errorf("no running array is called %q: %w", array, ErrNotFound)
}

// device returns the device of r that a path or a serial names.
func (h *Host) device(r *running, name string) (engine.DeviceID, *member.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	real := name
	if p, err := filepath.EvalSymlinks(name); err == nil {
		real = p
	}

	found := engine.None

	for id, d := range r.devices {
		named := d.Path == real || d.Path == "/dev/"+name || (d.Serial != "" && d.Serial == name)
		// What is gone may have left its name to another.
		if named && (found == engine.None || r.devices[found].Gone()) {
			found = id
		}
	}

	if found == engine.None {
		return found, nil, fmt.Errorf("array %s has no device %q: %w", r.name, name, ErrNotFound)
	}

	return found, r.devices[found], nil
}

// attached is a device that an array has.
type attached struct {
	*member.Device

	id    engine.DeviceID
	uuid  raid.UUID // of the array
	array *running
}

// findMember returns the device that a request names.
func (h *Host) findMember(array, device string) (attached, error) {
	uuid, r, err := h.find(array)
	if err != nil {
		return attached{}, err
	}

	id, d, err := h.device(r, device)

	return attached{d, id, uuid, r}, err
}

// mustBe checks that a member is in a state, to answer truly what became of a
// request.
func (m attached) mustBe(want raid.MemberState) error {
	st, err := m.array.loop.Status()
	if err != nil {
		return err
	}

	for slot, s := range st.Members {
		if s.Device == m.id && s.State != want {
			return fmt.Errorf("%s in slot %d of %s is %s", m.Path, slot, m.array.name, s.State)
		}
	}

	return nil
}

// Stop stops an array. Returns an error wrapping [ErrRefused] while it is in
// use.
func (h *Host) Stop(ctx context.Context, array string) error {
	_, r, err := h.find(array)
	if err != nil {
		return err
	}

	if user := inUse(r.loop.Device()); user != "" {
		return fmt.Errorf("array %s is in use: %s: %w", r.name, user, ErrRefused)
	}

	h.mu.Lock()
	busy := r.stopping
	r.stopping = true
	h.mu.Unlock()

	if busy {
		return fmt.Errorf("array %s is being stopped already: %w", r.name, ErrRefused)
	}

	return r.loop.Stop(ctx) // watch forgets it
}

// Shutdown stops all arrays, also those that are being started. One that is in use is left
// to the next engine: its requests wait in the kernel.
func (h *Host) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.ending = true

	all := slices.Collect(maps.Values(h.arrays))
	for _, r := range all {
		r.stopping = true
	}
	h.mu.Unlock()

	var group multierror.Group

	for _, r := range all {
		group.Go(func() error { return h.end(ctx, r) })
	}

	return group.Wait().ErrorOrNil()
}

// end stops an array or hands it over, when it has started.
func (h *Host) end(ctx context.Context, r *running) error {
	select {
	case <-r.started:
	case <-ctx.Done():
		return fmt.Errorf("array %s is still being started: %w", r.name, context.Cause(ctx))
	}

	h.mu.Lock()
	l := r.loop
	h.mu.Unlock()

	if l == nil {
		return nil // it has not
	}

	// There is no way to ask who has a device open, but requests tell.
	st, err := l.Status()
	if err == nil && (st.Busy || inUse(l.Device()) != "") {
		return l.HandOver(ctx)
	}

	return l.Stop(ctx)
}

// Fail takes a member out as faulty.
func (h *Host) Fail(array, device, cause string) error {
	m, err := h.findMember(array, device)
	if err != nil {
		return err
	}

	if cause == "" {
		cause = "asked for"
	}

	if m.Gone() {
		err = m.array.loop.Lost(m.id, cause)
	} else {
		err = refusal(m.array, m.array.loop.Fail(m.id, cause))
	}

	if err != nil {
		return err
	}

	return m.mustBe(raid.Faulty)
}

// Remove lets go of a faulty member or a spare, and so do the other arrays of its
// container that do not use it.
func (h *Host) Remove(array, device, cause string) error {
	m, err := h.findMember(array, device)
	if err != nil {
		return err
	}

	if err := refusal(m.array, m.array.loop.Remove(m.id)); err != nil {
		return err
	}

	h.letGo(m.array, m.id, m.Path)
	h.removeBeside(m)
	h.cfg.Tell(journal.Event{
		Kind: journal.MemberRemoved, Array: m.array.name, UUID: m.uuid.String(), Member: m.Path, Serial: m.Serial,
		Reason: cause, Message: fmt.Sprintf("%s was let go of by %s", m.Path, m.array.name),
	})
	h.touch()

	return nil
}

// letGo notes that an array does not have a device any more.
func (h *Host) letGo(r *running, id engine.DeviceID, path string) {
	h.turns.lost(r, path)

	h.mu.Lock()
	defer h.mu.Unlock()

	delete(r.devices, id)
	delete(r.mostly, id)
}

// gift is a device that an array is to be given.
type gift struct {
	uuid   raid.UUID // of the array
	array  *running
	dev    *member.Device
	source metadata.Source
	device raid.UUID // that it has as a spare
	anew   bool      // whatever it holds
}

// Add gives an array a device. One that was a member before and missed only
// what the bitmap tells has its slot back, unless it is to be filled anew; any
// other is a spare. A spare of one array of a container is one of all of them.
func (h *Host) Add(p api.MemberParameters) error {
	uuid, r, err := h.find(p.Array)
	if err != nil {
		return err
	}

	path, serial := resolve(p.Device)

	defer h.alone(path)()

	d, neighbour, err := h.open(path, serial)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrRefused)
	}

	if had, err := h.has(r, d); had || err != nil {
		return errors.Join(err, d.Close()) // else it came with another array of the container
	}

	if neighbour != nil && neighbour.container != r.container {
		return errors.Join(fmt.Errorf("%s is in use by array %s: %w", path, neighbour.name, ErrRefused), d.Close())
	}

	if st, err := r.loop.Status(); err != nil || st.State == raid.Broken {
		return errors.Join(fmt.Errorf("array %s is broken: %w", r.name, ErrRefused), err, d.Close())
	}

	err = d.Preload(func(src metadata.Source) error {
		return h.give(gift{uuid: uuid, array: r, dev: d, source: src, anew: p.Anew}, p.Reason)
	}, h.cfg.Formats...)
	if err != nil {
		return errors.Join(refusal(r, err), d.Close())
	}

	h.touch()

	return nil
}

// give gives a device to an array, and to those beside it.
func (h *Host) give(g gift, cause string) error {
	err := h.giveBack(g)
	if !errors.Is(err, core.ErrStale) {
		return err
	}

	binary.NativeEndian.PutUint64(g.device[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(g.device[8:], rand.Uint64())

	cause += "; " + err.Error()

	if err := h.addAlone(g, cause); err != nil {
		return err
	}

	h.addBeside(g.array, g.dev, g.source, g.device, cause)

	return nil
}

// giveBack gives a device its slot back. Returns an error wrapping
// [core.ErrStale] if it has none, or it is not known what it missed.
func (h *Host) giveBack(g gift) error {
	r := g.array

	if g.anew {
		return fmt.Errorf("it is to be filled anew: %w", core.ErrStale)
	}

	for _, f := range h.cfg.Formats {
		// What is wrong with its metadata does not matter to a spare.
		found, err := f.Probe(g.source)
		if err != nil {
			continue
		}

		sb := found.Of(g.uuid)
		if sb != nil && sb.Format == r.first.Format && sb.Unsupported == "" {
			id, err := r.loop.Readd(g.dev, metadata.Attachment{Superblock: sb, Source: g.source})
			if err == nil {
				h.keep(g, id, sb.WriteMostly)
			}

			return err
		}
	}

	return fmt.Errorf("it was no member of %s: %w", r.name, core.ErrStale)
}

// addSpare gives an array a spare.
func (h *Host) addSpare(g gift, cause string) error {
	id, err := g.array.loop.Add(g.dev, g.source, g.device)
	if err != nil {
		return err
	}

	h.keep(g, id, false)
	h.cfg.Tell(journal.Event{
		Kind: journal.SpareAdded, Array: g.array.name, UUID: g.uuid.String(), Member: g.dev.Path, Serial: g.dev.Serial,
		Reason: cause, Message: fmt.Sprintf("%s is a spare of %s now", g.dev.Path, g.array.name),
	})

	return nil
}

// keep notes that an array has a device.
func (h *Host) keep(g gift, id engine.DeviceID, mostly bool) {
	h.turns.has(g.array, g.dev.Path)

	h.mu.Lock()
	defer h.mu.Unlock()

	g.array.devices[id], g.array.mostly[id] = g.dev, mostly

	go h.hidePartitions(g.array, g.uuid, g.dev)
}

// List returns the arrays that run, by name.
func (h *Host) List() []api.Array {
	all := h.running()
	list := make([]api.Array, 0, len(all))

	for uuid, r := range all {
		if a, err := h.describe(uuid, r); err == nil { // else it has just ended
			list = append(list, a)
		}
	}

	slices.SortFunc(list, func(a, b api.Array) int { return cmp.Compare(a.Name, b.Name) })

	return list
}
