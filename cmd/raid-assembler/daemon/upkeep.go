package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// byOperator is the reason that the engine is given for a request.
const byOperator = "asked for by the operator"

// errand is a request to the engine about a running array, and the sentence
// that tells what it does. One without a method asks for what is so already.
type errand struct {
	method     string
	parameters any
	done       string
	// carry does what else there is to be done before and after ask; nil if
	// there is nothing.
	carry func(ask func() error) error
}

// upkeep has the engine carry out what prepare makes of a running array, which
// is called in the goroutine of Run.
func (d *Daemon) upkeep(
	ctx context.Context, p api.ChangeParameters, prepare func(uuid raid.UUID, a *api.Array) (errand, error),
) (api.ChangeReply, error) {
	var (
		out api.ChangeReply
		e   errand
		bad error
	)

	uuid, release, err := d.reserveNamed(ctx, p.Array)
	if err != nil {
		return out, err
	}

	defer release()

	err = d.do(ctx, func() {
		if a := d.running(uuid); a != nil {
			e, bad = prepare(uuid, a)
		} else {
			bad = fmt.Errorf("%s does not run: %w", d.nameOf(uuid), errRefused)
		}
	})
	if err != nil || bad != nil {
		return out, firstError(err, bad)
	}

	out.Done = []string{e.done}

	switch {
	case p.DryRun:
		out.Done[0] = "dry run: " + e.done
	case e.method != "":
		if err := e.carryOut(func() error { return d.cfg.Engine.Request(ctx, e.method, e.parameters) }); err != nil {
			return api.ChangeReply{}, err
		}
	}

	out.Array = d.current(ctx, uuid)

	return out, nil
}

func (e errand) carryOut(ask func() error) error {
	if e.carry == nil {
		return ask()
	}

	return e.carry(ask)
}

// check has the copies and the parity of an array compared.
func (d *Daemon) check(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.scrub(ctx, p, raid.Check)
}

// repair does so too, and has them made to agree.
func (d *Daemon) repair(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.scrub(ctx, p, raid.Repair)
}

func (d *Daemon) scrub(ctx context.Context, p api.ChangeParameters, action raid.SyncAction) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		if p.From < 0 || p.To < 0 || p.To > 0 && p.From >= p.To {
			return errand{}, fmt.Errorf("from byte %d to byte %d there is nothing: %w", p.From, p.To, errRefused)
		}

		if err := scrubbable(a); err != nil {
			return errand{}, err
		}

		return errand{
			method: "Sync",
			parameters: api.SyncParameters{
				Array: uuid.String(), Action: string(action), From: p.From, To: p.To, Reason: byOperator,
			},
			done: fmt.Sprintf("a %s of %s goes on", action, a.Name),
		}, nil
	})
}

// scrubbable says why an array has nothing to compare now, if so.
func scrubbable(a *api.Array) error {
	level, err := raid.ParseLevel(a.Level)
	if err != nil {
		return err
	}

	switch {
	case !level.HasRedundancy():
		return fmt.Errorf("%s is a %v, which has nothing to compare: %w", a.Name, level, errRefused)
	case a.State == string(raid.Broken):
		return fmt.Errorf("%s is broken: %w", a.Name, errRefused)
	case a.State == string(raid.ReadOnly):
		return fmt.Errorf("%s is read-only: raid-assembler readwrite %s first: %w", a.Name, a.Name, errRefused)
	case a.Sync != nil:
		return fmt.Errorf("a %s of %s goes on: wait for it, with raid-assembler wait %s: %w",
			a.Sync.Action, a.Name, a.Name, errRefused)
	case level.HasParity() && a.Degraded > 0:
		return fmt.Errorf("%s is degraded, and its parity has to stand in for what is missing: give it a disk: %w",
			a.Name, errRefused)
	default:
		return nil
	}
}

// idle ends a check or a repair. What an array does for its own sake goes on.
func (d *Daemon) idle(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		if a.Sync == nil {
			return errand{done: "nothing goes on at " + a.Name}, nil
		}

		switch action := raid.SyncAction(a.Sync.Action); action {
		case raid.Check, raid.Repair:
			return errand{
				method:     "Sync",
				parameters: api.SyncParameters{Array: uuid.String(), Action: string(raid.Idle), Reason: byOperator},
				done:       fmt.Sprintf("the %s of %s is ended", action, a.Name),
			}, nil
		case raid.Replace:
			return errand{}, fmt.Errorf("%s is having a member replaced: raid-assembler fail %s %s ends that: %w",
				a.Name, a.Name, successorOf(a), errRefused)
		case raid.Idle, raid.Resync, raid.Recover:
		}

		return errand{}, fmt.Errorf("a %s of %s goes on, without which it is not redundant; raid-assembler limit %s "+
			"makes it slower: %w", a.Sync.Action, a.Name, a.Name, errRefused)
	})
}

// successorOf returns the device that is to take a member's place.
func successorOf(a *api.Array) string {
	i := slices.IndexFunc(a.Members, func(m api.Member) bool { return m.Replaces })
	if i < 0 {
		return "SUCCESSOR"
	}

	return a.Members[i].Device
}

// replace has a member copied to another device that takes its place.
func (d *Daemon) replace(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		if len(p.Devices) < 1 || len(p.Devices) > 2 {
			return errand{}, fmt.Errorf("the member to be replaced is to be named, and perhaps its successor: %w",
				errRefused)
		}

		old, err := d.replaceable(a, p.Devices[0])
		if err != nil {
			return errand{}, err
		}

		r := api.ReplaceParameters{Array: uuid.String(), Device: old.Device, Reason: byOperator}
		e := errand{method: "Replace"}
		by := "a spare"

		if len(p.Devices) == 2 {
			dk, err := d.successor(uuid, a, p.Devices[1], p.Force)
			if err != nil {
				return errand{}, err
			}

			if !p.DryRun {
				d.forgive(dk)
			}

			r.With, by = dk.Path, diskName(dk.Disk)
			if p.Force {
				e.carry = func(ask func() error) error {
					if err := d.erase(ctx, dk.Path); err != nil {
						return err
					}

					return ask()
				}
			}
		} else if !slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.State == string(raid.Spare) }) {
			return errand{}, fmt.Errorf("%s has no spare: name the device that replaces %s: %w",
				a.Name, old.Device, errRefused)
		}

		e.parameters = r
		e.done = fmt.Sprintf("%s in slot %d of %s is being replaced by %s", memberName(old), *old.Slot, a.Name, by)

		return e, nil
	})
}

// memberName is how people are told of a member.
func memberName(m api.Member) string { return diskName(Disk{Path: m.Device, Serial: m.Serial}) }

// replaceable returns the member that a path or a serial names, if it can be
// copied from.
func (d *Daemon) replaceable(a *api.Array, name string) (api.Member, error) {
	level, err := raid.ParseLevel(a.Level)
	if err != nil {
		return api.Member{}, err
	}

	if !level.HasRedundancy() {
		return api.Member{}, fmt.Errorf("%s is a %v, whose members cannot be replaced while it runs: %w",
			a.Name, level, errRefused)
	}

	path := name
	if dk, err := d.findDisk(name); err == nil {
		path = dk.Path
	}

	i := slices.IndexFunc(a.Members, func(m api.Member) bool {
		return m.Device != "" && (m.Device == path || m.Serial != "" && m.Serial == name)
	})

	switch {
	case i < 0:
		return api.Member{}, fmt.Errorf("%s has no member %s: %w", a.Name, name, errNotFound)
	case a.Members[i].State != string(raid.InSync) || a.Members[i].Slot == nil:
		return api.Member{}, fmt.Errorf("%s of %s is %s: only a member in sync can be copied from: %w",
			memberName(a.Members[i]), a.Name, a.Members[i].State, errRefused)
	case slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.Replaces }):
		return api.Member{}, fmt.Errorf("%s is having a member replaced already: %w", a.Name, errRefused)
	}

	return a.Members[i], nil
}

// successor returns the device that is to take a member's place: a spare of
// the array, or one that may be added to it.
func (d *Daemon) successor(uuid raid.UUID, a *api.Array, name string, force bool) (*disk, error) {
	dk, err := d.findDisk(name)
	if err != nil {
		return nil, err
	}

	spare := slices.ContainsFunc(a.Members, func(m api.Member) bool {
		return m.Device == dk.Path && m.State == string(raid.Spare)
	})

	if spare {
		return dk, nil
	}

	return dk, d.mayAdd(uuid, dk, force)
}

// limit sets how fast an array syncs.
func (d *Daemon) limit(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		if p.Minimum == nil && p.Maximum == nil {
			return errand{}, fmt.Errorf("no limit is named: %w", errRefused)
		}

		low, high := a.Limits.Minimum, a.Limits.Maximum
		if p.Minimum != nil {
			low = *p.Minimum
		}

		if p.Maximum != nil {
			high = *p.Maximum
		}

		if low < 0 || high < 0 || low > 0 && high > 0 && low > high {
			return errand{}, fmt.Errorf("at least %d and at most %d bytes a second cannot be: %w",
				low, high, errRefused)
		}

		return errand{
			method:     "Limit",
			parameters: api.LimitParameters{Array: uuid.String(), Minimum: p.Minimum, Maximum: p.Maximum},
			done:       "the limits of " + a.Name + " are set, until it is stopped",
		}, nil
	})
}

// bitmap has a bit of an array's write-intent bitmap stand for another chunk.
func (d *Daemon) bitmap(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		done := fmt.Sprintf("a bit of the bitmap of %s stands for %d KiB", a.Name, p.Chunk>>10)

		switch {
		case a.Bitmap == nil:
			return errand{}, fmt.Errorf("%s has no bitmap: %w", a.Name, errRefused)
		case a.State == string(raid.Broken) || a.State == string(raid.ReadOnly):
			return errand{}, fmt.Errorf("%s is %s: %w", a.Name, a.State, errRefused)
		case a.Sync != nil:
			return errand{}, fmt.Errorf("a %s of %s goes on: wait for its end: %w", a.Sync.Action, a.Name, errRefused)
		case p.Chunk < 4096 || p.Chunk&(p.Chunk-1) != 0:
			return errand{}, fmt.Errorf("a bit cannot stand for %d bytes: a power of two from 4096 on: %w",
				p.Chunk, errRefused)
		case a.Bitmap.ChunkKiB == p.Chunk>>10:
			return errand{done: done + " already"}, nil
		}

		return errand{
			method: "Bitmap", parameters: api.BitmapParameters{Array: uuid.String(), Chunk: p.Chunk}, done: done,
		}, nil
	})
}

// access makes an array read-only, or writable again.
func (d *Daemon) access(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		what := a.Name + " is writable"
		if p.ReadOnly {
			what = a.Name + " is read-only"
		}

		switch {
		case a.State == string(raid.Broken):
			return errand{}, fmt.Errorf("%s is broken: %w", a.Name, errRefused)
		case (a.State == string(raid.ReadOnly)) == p.ReadOnly:
			return errand{done: what + " already"}, nil
		}

		return errand{
			method: "Access", parameters: api.AccessParameters{Array: uuid.String(), ReadOnly: p.ReadOnly}, done: what,
			carry: func(ask func() error) error { return d.setReadOnly(a.Device, p.ReadOnly, ask) },
		}, nil
	})
}

// setReadOnly has the kernel refuse writes to a block device, so that none is on
// its way when the engine is asked to do so too, or has it take them again
// afterwards.
func (d *Daemon) setReadOnly(device string, on bool, ask func() error) error {
	if on {
		if err := d.cfg.Host.SetReadOnly(device, true); err != nil {
			return err
		}
	}

	err := ask()
	if on && err != nil || !on && err == nil {
		err = errors.Join(err, d.cfg.Host.SetReadOnly(device, false))
	}

	return err
}

// grow has an array use more of each member. The kernels that are served cannot
// change the size of a block device of this kind, so the array is stopped and
// started again.
func (d *Daemon) grow(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.upkeep(ctx, p, func(uuid raid.UUID, a *api.Array) (errand, error) {
		if err := growable(a, p.Size); err != nil {
			return errand{}, err
		}

		of := "all that its smallest member has"
		if p.Size > 0 {
			of = fmt.Sprintf("%d KiB of each member", p.Size>>10)
		}

		name := a.Name

		return errand{
			method: "Stop", parameters: api.ArrayParameters{Array: uuid.String()},
			done: fmt.Sprintf("%s is started again, and uses %s", name, of),
			carry: func(stop func() error) error {
				if err := stop(); err != nil {
					return err
				}

				return d.restart(ctx, uuid, name, p.Size)
			},
		}, nil
	})
}

// growable says why an array cannot use more of its members now, if so.
func growable(a *api.Array, size int64) error {
	level, err := raid.ParseLevel(a.Level)

	switch {
	case err != nil:
		return err
	case size < 0:
		return fmt.Errorf("%d bytes are no size: %w", size, errRefused)
	case !level.HasRedundancy():
		return fmt.Errorf("%s is a %v, which uses all of its members: %w", a.Name, level, errRefused)
	case a.State == string(raid.Broken) || a.State == string(raid.ReadOnly):
		return fmt.Errorf("%s is %s: %w", a.Name, a.State, errRefused)
	case a.Degraded > 0:
		return fmt.Errorf("%s is degraded: give it a disk first: %w", a.Name, errRefused)
	case a.Sync != nil:
		return fmt.Errorf("a %s of %s goes on: wait for it, with raid-assembler wait %s: %w",
			a.Sync.Action, a.Name, a.Name, errRefused)
	default:
		return nil
	}
}

// restart starts an array that was stopped a moment ago, with so much of each
// member. If that does not work it starts by itself as it was.
func (d *Daemon) restart(ctx context.Context, uuid raid.UUID, name string, size int64) error {
	if err := d.refresh(ctx); err != nil {
		return err
	}

	var (
		head policy.Decision
		bad  error
	)

	err := d.do(ctx, func() { head, bad = d.consider(uuid, api.ChangeParameters{}) })
	if err != nil || bad != nil {
		return firstError(err, bad)
	}

	if head.Action != policy.Start || head.Degraded {
		return fmt.Errorf("%s is not complete any more: %s: %w", name, head.Reason, errRefused)
	}

	p := startParameters(name, head, false)
	p.GrowTo = &size

	return d.cfg.Engine.Start(ctx, p)
}
