package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// turnMax is how long the metadata of a container may be written by other arrays
// when one is to be started.
const turnMax = time.Minute

// wait waits until no array is being started any more that was asked for before
// r and has one of its devices: if both are of one container they share them.
func (r *running) wait(ctx context.Context) error {
	for _, earlier := range r.earlier {
		select {
		case <-earlier.started:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}

	r.earlier = nil

	return nil
}

// overlaps reports whether two arrays are to have a device in common.
func overlaps(a, b []api.StartMember) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Device == y.Device {
				return true
			}
		}
	}

	return false
}

// open opens a device, or shares it with a running array of a container that has
// it. Returns that array, or nil.
func (h *Host) open(path, serial string) (*member.Device, *running, error) {
	if d, r := h.share(path, serial); d != nil {
		return d, r, nil
	}

	d, err := member.Open(path, serial)

	return d, nil, err
}

func (h *Host) share(path, serial string) (*member.Device, *running) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for _, r := range h.arrays {
		if r.container.IsZero() {
			continue
		}

		for _, d := range r.devices {
			if d.Path == path && d.Serial == serial && !d.Gone() {
				if shared := d.Share(); shared != nil {
					return shared, r
				}
			}
		}
	}

	return nil, nil
}

// quiet waits until nothing is being recorded in the container of r, and keeps
// it so until done is called: what is read then is not half-written.
func quiet(ctx context.Context, r *running) (done func(), err error) {
	if r == nil {
		return func() {}, nil
	}

	ctx, cancel := context.WithTimeout(ctx, turnMax)
	defer cancel()

	woken := make(chan struct{}, 1)
	seat := r.turns.Join(func() { woken <- struct{}{} })

	for !seat.Take() {
		select {
		case <-woken:
		case <-ctx.Done():
			seat.Leave()

			return nil, fmt.Errorf("array %s of the same container is writing its metadata: %w", r.name, ErrRefused)
		}
	}

	return seat.Leave, nil
}

// join makes r one of the arrays of a container, and returns the keepers of
// those that run.
func (h *Host) join(r *running, container raid.UUID) ([]metadata.Keeper, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if container.IsZero() {
		return nil, nil
	}

	var keepers []metadata.Keeper

	for _, other := range h.arrays {
		switch {
		case other == r || other.container != container:
		case other.loop == nil:
			return nil, fmt.Errorf("array %s of the same container is being started: %w", other.name, ErrRefused)
		default:
			keepers, r.turns = append(keepers, other.keeper), other.turns
		}
	}

	r.container = container
	if r.turns == nil {
		r.turns = new(core.Container)
	}

	return keepers, nil
}

// leave has the other arrays of its container go on without r.
func (r *running) leave() {
	if k, ok := r.keeper.(metadata.Sharing); ok {
		k.Leave()
	}
}

// beside returns the other running arrays of the container of r.
func (h *Host) beside(r *running) map[raid.UUID]*running {
	h.mu.Lock()
	defer h.mu.Unlock()

	others := make(map[raid.UUID]*running)

	for uuid, other := range h.arrays {
		if other != r && other.loop != nil && !r.container.IsZero() && other.container == r.container {
			others[uuid] = other
		}
	}

	return others
}

// failBeside fails a device in the other arrays of its container, as it did in r:
// the metadata says so for all of them. One that cannot do without it goes on
// with what it still gives.
func (h *Host) failBeside(r *running, n loop.Notice) {
	for _, other := range h.beside(r) {
		id, d, err := h.device(other, n.Member.Path)
		if err != nil || !d.Same(n.Member) {
			continue
		}

		cause := fmt.Sprintf("it failed in %s, of the same container", r.name)

		if d.Gone() {
			err = other.loop.Lost(id, cause)
		} else {
			err = other.loop.Fail(id, cause)
		}

		if err != nil && !errors.Is(err, loop.ErrEnded) {
			h.cfg.Tell(journal.Event{
				Kind: journal.Decision, Array: other.name, Member: d.Path, Serial: d.Serial,
				Reason: cause, Message: fmt.Sprintf("%s is kept in %s: %v", d.Path, other.name, err),
			})
		}
	}
}

// removeBeside lets go of a device in the other arrays of its container.
func (h *Host) removeBeside(m attached) {
	for _, other := range h.beside(m.array) {
		id, d, err := h.device(other, m.Path)
		if err == nil && d.Same(m.Device) && other.loop.Remove(id) == nil { // else it is in use there
			h.letGo(other, id, m.Path)
		}
	}
}

// addBeside gives a spare of r to the other arrays of its container that it can
// serve.
func (h *Host) addBeside(r *running, d *member.Device, source metadata.Source, device raid.UUID, cause string) {
	for uuid, other := range h.beside(r) {
		if had, err := h.has(other, d); had || err != nil {
			continue
		}

		shared := d.Share()
		if shared == nil {
			return
		}

		g := gift{uuid: uuid, array: other, dev: shared, source: source, device: device}
		if err := h.addSpare(g, cause); err != nil {
			_ = shared.Close() // it is not the last
		}
	}
}

// has reports whether an array has a device. Returns an error wrapping
// [ErrRefused] if it has it and does not use it any more.
func (h *Host) has(r *running, d *member.Device) (bool, error) {
	id, had, err := h.device(r, d.Path)
	if err != nil || !had.Same(d) {
		return false, nil
	}

	st, err := r.loop.Status()
	if err != nil {
		return false, err
	}

	if st.Successor.Device == id || slices.Contains(st.Spares, id) || slices.ContainsFunc(st.Members,
		func(m engine.Member) bool { return m.Device == id && m.State != raid.Faulty }) {
		return true, nil
	}

	return true, fmt.Errorf("%s is faulty in %s, which has not let go of it: %w", d.Path, r.name, ErrRefused)
}

// alone waits until nobody else gives path to an array, and keeps it so until
// done is called: who comes second finds what the first has done.
func (h *Host) alone(path string) (done func()) {
	for {
		h.mu.Lock()

		other, ok := h.giving[path]
		if !ok {
			break
		}

		h.mu.Unlock()
		<-other
	}

	defer h.mu.Unlock()

	mine := make(chan struct{})
	h.giving[path] = mine

	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()

		delete(h.giving, path)
		close(mine)
	}
}
