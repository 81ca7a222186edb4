package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// refresh has all that is known be from after now. What the daemon knew before
// may be older than what the caller did just before. Decisions do not wait for a disk
// that is slow; the caller does, who may be about to write to it, for refreshMax.
func (d *Daemon) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, operationMax)
	defer cancel()

	probed, cancelProbed := context.WithTimeout(ctx, refreshMax)
	defer cancelProbed()

	var (
		asked   []*disk
		changed chan struct{}
	)

	err := d.do(ctx, func() {
		d.anew = true
		d.probeSuspects() // udev does not watch members
		d.look()

		asked, changed = d.beingProbed(), d.changed
	})

	for until := ctx; err == nil; until = probed {
		select {
		case <-changed:
		case <-until.Done():
			if until == probed {
				return nil // a disk that never answers is known as such
			}

			return errors.New("the devices or raid-engine do not answer")
		}

		err = d.do(ctx, func() {
			asked, changed = slices.DeleteFunc(asked, func(dk *disk) bool { return !dk.running }), d.changed
		})

		if err == nil && len(asked) == 0 {
			return nil
		}
	}

	return err
}

// beingProbed returns the disks that are being read, but for those that have not
// answered for long.
func (d *Daemon) beingProbed() []*disk {
	var all []*disk

	for _, dk := range d.disks {
		if dk.running && !dk.slow {
			all = append(all, dk)
		}
	}

	return all
}

// reserve waits until nothing is being done to an array, and keeps the daemon
// from doing anything to it until release is called. All that is known then is
// from after that.
func (d *Daemon) reserve(ctx context.Context, uuid raid.UUID) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, operationMax)
	defer cancel()

	for {
		var (
			got     bool
			changed chan struct{}
		)

		err := d.do(ctx, func() {
			got, changed = !d.busy[uuid], d.changed
			d.busy[uuid] = true
		})
		if err != nil {
			return nil, err
		}

		if got {
			return d.reserved(ctx, uuid)
		}

		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// reserveNamed is reserve for the array that a name or a UUID names.
func (d *Daemon) reserveNamed(ctx context.Context, array string) (uuid raid.UUID, release func(), err error) {
	var bad error

	if err := d.do(ctx, func() { uuid, bad = d.find(array) }); err != nil || bad != nil {
		return uuid, nil, firstError(err, bad)
	}

	release, err = d.reserve(ctx, uuid)

	return uuid, release, err
}

// reserved completes reserve.
func (d *Daemon) reserved(ctx context.Context, uuid raid.UUID) (release func(), err error) {
	release = func() {
		d.post(func() {
			delete(d.busy, uuid)
			delete(d.retry, uuid)
			d.look()
		})
	}

	if err := d.refresh(ctx); err != nil {
		release()

		return nil, err
	}

	return release, nil
}

// find returns the array that a name or a UUID names. Preconditions: the
// goroutine of Run calls.
func (d *Daemon) find(array string) (raid.UUID, error) {
	given, err := raid.ParseUUID(array)

	for _, uuid := range d.known() {
		if err == nil && uuid == given || d.nameOf(uuid) == array {
			return uuid, nil
		}
	}

	return raid.UUID{}, fmt.Errorf("no array is called %q: %w", array, errNotFound)
}

// known returns the UUIDs of the arrays that run or that have a device here.
func (d *Daemon) known() []raid.UUID {
	set := make(map[raid.UUID]bool)

	for _, a := range d.arrays {
		if uuid, err := raid.ParseUUID(a.UUID); err == nil {
			set[uuid] = true
		}
	}

	for _, dk := range d.disks {
		for _, sb := range dk.all() {
			set[sb.Array] = true
		}

		delete(set, raid.UUID{}) // of spares of containers
	}

	return slices.SortedFunc(maps.Keys(set), func(a, b raid.UUID) int { return slices.Compare(a[:], b[:]) })
}

// findDisk returns the device that a path, a link or a serial names. What is
// no longer there may still be a member. Preconditions: the goroutine of Run
// calls.
func (d *Daemon) findDisk(name string) (*disk, error) {
	path := name
	if real, err := filepath.EvalSymlinks(name); err == nil {
		path = real
	}

	if dk := d.disks[path]; dk != nil {
		return dk, nil
	}

	var found *disk

	for _, dk := range d.sortedDisks() {
		switch {
		case dk.Serial == "" || dk.Serial != name:
		case found != nil:
			return nil, fmt.Errorf("%s and %s both have the serial %q: %w", found.Path, dk.Path, name, errRefused)
		default:
			found = dk
		}
	}

	if found == nil {
		return nil, fmt.Errorf("no device is called %q, by its path or by its serial: %w", name, errNotFound)
	}

	return found, nil
}

// targets returns the arrays that a request is about: the one named, those that
// the first device is a member of, or all.
func (d *Daemon) targets(p api.ChangeParameters) ([]raid.UUID, error) {
	if p.Array != "" {
		uuid, err := d.find(p.Array)

		return []raid.UUID{uuid}, err
	}

	if len(p.Devices) == 0 {
		return d.known(), nil
	}

	dk, err := d.findDisk(p.Devices[0])
	if err != nil {
		return nil, err
	}

	var of []raid.UUID

	for _, sb := range dk.all() {
		if !sb.Array.IsZero() {
			of = append(of, sb.Array)
		}
	}

	if len(of) == 0 {
		return nil, fmt.Errorf("%s belongs to no array: %w", dk.Path, errRefused)
	}

	return of, nil
}

// assemble starts the array named, or all.
func (d *Daemon) assemble(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	var (
		out     api.ChangeReply
		targets []raid.UUID
		bad     error
	)

	if err := d.refresh(ctx); err != nil {
		return out, err
	}

	if err := d.do(ctx, func() { targets, bad = d.targets(p) }); err != nil || bad != nil {
		return out, firstError(err, bad)
	}

	all := p.Array == "" && len(p.Devices) == 0

	for _, uuid := range targets {
		line, err := d.assembleOne(ctx, uuid, p)
		if err != nil && !all {
			return out, err
		}

		if err != nil {
			line = err.Error()
		}

		out.Done = append(out.Done, line)
	}

	if !all {
		out.Array = d.current(ctx, targets[0])
	}

	return out, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}

	return nil
}

// assembleOne starts one array if policy lets it.
func (d *Daemon) assembleOne(ctx context.Context, uuid raid.UUID, p api.ChangeParameters) (string, error) {
	release, err := d.reserve(ctx, uuid)
	if err != nil {
		return "", err
	}

	defer release()

	var (
		name string
		head policy.Decision
		runs bool
		bad  error
	)

	if p.Choose {
		return d.keep(ctx, uuid, p)
	}

	err = d.do(ctx, func() {
		name, runs = d.nameOf(uuid), d.running(uuid) != nil
		if !runs {
			head, bad = d.consider(uuid, p)
		}
	})
	if err != nil || bad != nil {
		return "", firstError(err, bad)
	}

	sentence := fmt.Sprintf("%s: %s", name, head.Reason)

	switch {
	case runs:
		return name + " runs already", nil
	case head.Action == policy.Start && p.DryRun:
		return fmt.Sprintf("%s would be started with %s: %s", name, memberList(head.Members), head.Reason), nil
	case head.Action == policy.Start:
		ctx, cancel := context.WithTimeout(ctx, operationMax)
		defer cancel()

		if err := d.startAsAsked(ctx, startParameters(name, head, p.ReadOnly || head.ReadOnly)); err != nil {
			return "", err
		}

		return fmt.Sprintf("%s was started with %s: %s", name, memberList(head.Members), head.Reason), nil
	case head.Action == policy.Wait && !p.Force && !p.AcceptLoss:
		return sentence, nil
	default:
		return "", fmt.Errorf("%s: %w", sentence, errRefused)
	}
}

// startAsAsked starts an array. The kernel is to know as well that it is
// read-only, if so.
func (d *Daemon) startAsAsked(ctx context.Context, p api.StartParameters) error {
	if err := d.cfg.Engine.Start(ctx, p); err != nil || !p.ReadOnly {
		return err
	}

	uuid, err := raid.ParseUUID(p.UUID)
	if err != nil {
		return err
	}

	if a := d.current(ctx, uuid); a != nil {
		return d.cfg.Host.SetReadOnly(a.Device, true)
	}

	return nil
}

// consider asks policy about one array as the operator wants it: not held,
// perhaps by force, perhaps from some of its devices only. Unless it is a dry
// run the array is held no longer. Preconditions: the goroutine of Run calls.
func (d *Daemon) consider(uuid raid.UUID, p api.ChangeParameters) (policy.Decision, error) {
	v := d.wanted(uuid, p)

	if len(p.Devices) > 0 {
		chosen, err := d.paths(p.Devices)
		if err != nil {
			return policy.Decision{}, err
		}

		v.Devices = slices.DeleteFunc(v.Devices, func(dev policy.Device) bool {
			return dev.Superblock != nil && dev.Superblock.Array == uuid && !slices.Contains(chosen, dev.Path)
		})
	}

	for _, dec := range policy.Decide(v, d.policy) {
		if dec.Array == uuid && dec.Device == "" {
			return dec, nil
		}
	}

	return policy.Decision{}, fmt.Errorf("no device of %s that could be used is here: %w", d.nameOf(uuid), errRefused)
}

// wanted is what is known, with one array as the operator wants it. Unless it is a
// dry run the array is held no longer.
func (d *Daemon) wanted(uuid raid.UUID, p api.ChangeParameters) policy.View {
	now := time.Now()

	if _, held := d.held.arrays[uuid]; held && !p.DryRun {
		d.held.release(uuid)
		d.first[uuid] = now
	}

	v := d.view(now)
	delete(v.Held, uuid)
	v.Asked = map[raid.UUID]bool{uuid: true}
	v.Writable = nil
	v.Forced = map[raid.UUID]bool{uuid: p.Force}
	v.LossAccepted = map[raid.UUID]bool{uuid: p.AcceptLoss}

	return v
}

// paths returns the paths of devices that are named by path or by serial.
func (d *Daemon) paths(names []string) ([]string, error) {
	paths := make([]string, 0, len(names))

	for _, name := range names {
		dk, err := d.findDisk(name)
		if err != nil {
			return nil, err
		}

		paths = append(paths, dk.Path)
	}

	return paths, nil
}

// current returns an array as the engine has it now, or nil.
func (d *Daemon) current(ctx context.Context, uuid raid.UUID) *api.Array {
	list, err := d.cfg.Engine.List(ctx)
	if err != nil {
		return nil
	}

	return byUUID(list.Arrays, uuid)
}

// stop stops an array, and keeps it stopped.
func (d *Daemon) stop(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	var (
		out  api.ChangeReply
		name string
		runs bool
		bad  error
	)

	uuid, release, err := d.reserveNamed(ctx, p.Array)
	if err != nil {
		return out, err
	}

	defer release()

	// It is held before it is stopped: what dies in between leaves it as it was
	// asked for.
	err = d.do(ctx, func() {
		name, runs = d.nameOf(uuid), d.running(uuid) != nil
		if !p.DryRun {
			delete(d.writable, uuid)

			bad = d.held.hold(uuid, d.seqsOf(uuid))
		}
	})
	if err != nil || bad != nil {
		return out, firstError(err, bad)
	}

	if p.DryRun {
		out.Done = []string{name + " would be stopped, and stay so until it is asked for or plugged in anew"}

		return out, nil
	}

	if runs {
		if err := d.cfg.Engine.Request(ctx, "Stop", api.ArrayParameters{Array: uuid.String()}); err != nil {
			d.post(func() { d.held.release(uuid) })

			return out, err
		}
	}

	out.Done = []string{name + " is stopped, and stays so until it is asked for or plugged in anew"}

	return out, nil
}
