package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// memberRequest is a request about some devices and a running array.
type memberRequest struct {
	uuid  raid.UUID
	name  string
	paths []string
}

// add gives a running array spares.
func (d *Daemon) add(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.changeMembers(ctx, p, "Add", func(r memberRequest, path string) (string, error) {
		dk, err := d.findDisk(path)
		if err != nil {
			return "", err
		}

		if err := d.mayAdd(r.uuid, dk, p.Force); err != nil {
			return "", err
		}

		if !p.DryRun {
			d.forgive(dk)
			delete(d.comes, dk.key())
		}

		return fmt.Sprintf("%s is a spare of %s", diskName(dk.Disk), r.name), nil
	})
}

// mayAdd says why a device is not given to an array, if it is not. A member of
// the array itself needs no force, unless it may hold data that the array
// lacks.
func (d *Daemon) mayAdd(uuid raid.UUID, dk *disk, force bool) error {
	if err := free(dk); err != nil {
		return err
	}

	diverged := slices.ContainsFunc(d.decisions, func(dec policy.Decision) bool {
		return dec.Device == dk.Path && (dec.Cause == policy.Diverged || dec.Cause == policy.Cloned)
	})

	if force || dk.of(uuid) != nil && !diverged && len(dk.found.Conflicts) == 0 {
		return nil
	}

	if what := contents(dk); what != "" {
		return fmt.Errorf("%s holds %s: with --force that is overwritten: %w", diskName(dk.Disk), what, errRefused)
	}

	return nil
}

// free says why a device cannot be written to whatever it holds, if so.
func free(dk *disk) error {
	switch {
	case dk.attached != "":
		return fmt.Errorf("%s is a member of a running array: %w", diskName(dk.Disk), errRefused)
	case dk.Ignored != "":
		return fmt.Errorf("%s cannot be a member: %s: %w", diskName(dk.Disk), dk.Ignored, errRefused)
	case dk.Claimed != "":
		return fmt.Errorf("%s is used by %s: %w", diskName(dk.Disk), dk.Claimed, errRefused)
	case !dk.probed || dk.found.Unreadable != "":
		return fmt.Errorf("%s could not be read: %s: %w", diskName(dk.Disk), dk.found.Unreadable, errRefused)
	default:
		return nil
	}
}

// contents says what would be lost if a device were overwritten, or nothing.
func contents(dk *disk) string {
	what := slices.Clone(dk.found.Others)

	for _, sb := range dk.all() {
		what = append(what, fmt.Sprintf("a member of the array %q (%v)", sb.Name, sb.Array))
	}

	if dk.found.Corrupt != "" {
		what = append(what, fmt.Sprintf("metadata that cannot be trusted (%s)", dk.found.Corrupt))
	}

	return strings.Join(what, ", ")
}

// fail takes members out as faulty. They stay out until they are added, or
// plugged in anew.
func (d *Daemon) fail(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.changeMembers(ctx, p, "Fail", func(r memberRequest, path string) (string, error) {
		d.shunDisk(p, path, "it was taken out by hand: raid-assembler add gives it back")

		return fmt.Sprintf("%s of %s is faulty", path, r.name), nil
	})
}

// remove lets go of faulty members or spares, likewise.
func (d *Daemon) remove(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error) {
	return d.changeMembers(ctx, p, "Remove", func(r memberRequest, path string) (string, error) {
		d.shunDisk(p, path, "it was removed by hand: raid-assembler add gives it back")

		return fmt.Sprintf("%s is no longer part of %s", path, r.name), nil
	})
}

func (d *Daemon) shunDisk(p api.ChangeParameters, path, reason string) {
	if dk := d.disks[path]; dk != nil && !p.DryRun {
		d.shun(dk, reason)
	}
}

// changeMembers has the engine carry out a method for each device. Prepare is
// called for all of them first, in the goroutine of Run; it says what is done,
// or why nothing is.
func (d *Daemon) changeMembers(
	ctx context.Context, p api.ChangeParameters, method string,
	prepare func(r memberRequest, path string) (string, error),
) (api.ChangeReply, error) {
	var (
		out   api.ChangeReply
		r     memberRequest
		lines []string
		bad   error
	)

	uuid, release, err := d.reserveNamed(ctx, p.Array)
	if err != nil {
		return out, err
	}

	defer release()

	err = d.do(ctx, func() {
		if r, bad = d.memberRequest(uuid, p); bad != nil {
			return
		}

		for _, path := range r.paths {
			line, err := prepare(r, path)
			if err != nil {
				bad = err

				return
			}

			lines = append(lines, line)
		}
	})
	if err != nil || bad != nil {
		return out, firstError(err, bad)
	}

	for i, path := range r.paths {
		if p.DryRun {
			out.Done = append(out.Done, "dry run: "+lines[i])

			continue
		}

		if method == "Add" && p.Force {
			if err := d.erase(ctx, path); err != nil {
				return out, err
			}
		}

		// What is given up may be data that no bitmap tells of.
		err := d.cfg.Engine.Request(ctx, method, api.MemberParameters{
			Array: r.uuid.String(), Device: path, Reason: byOperator, Anew: method == "Add" && p.Force,
		})
		if err != nil {
			return out, err
		}

		out.Done = append(out.Done, lines[i])
	}

	out.Array = d.current(ctx, r.uuid)

	return out, nil
}

// erase erases what a device holds other than metadata of ours, which would
// otherwise still be there beside it.
func (d *Daemon) erase(ctx context.Context, path string) error {
	var (
		target Disk
		others bool
	)

	err := d.do(ctx, func() {
		if dk := d.disks[path]; dk != nil {
			target, others = dk.Disk, len(dk.found.Others) > 0
		}
	})
	if err != nil || !others {
		return err
	}

	claimed, err := d.cfg.Host.Claim(target)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", diskName(target), err, errRefused)
	}

	return errors.Join(wipe(claimed, target.Size), claimed.Close())
}

// memberRequest finds what p names. A device that is gone may still be a
// member, under the name that it had.
func (d *Daemon) memberRequest(uuid raid.UUID, p api.ChangeParameters) (memberRequest, error) {
	a := d.running(uuid)
	if a == nil {
		return memberRequest{}, fmt.Errorf("%s does not run: %w", d.nameOf(uuid), errRefused)
	}

	if len(p.Devices) == 0 {
		return memberRequest{}, fmt.Errorf("no device is named: %w", errRefused)
	}

	r := memberRequest{uuid: uuid, name: a.Name}

	for _, device := range p.Devices {
		i := slices.IndexFunc(a.Members, func(m api.Member) bool {
			return m.Device == device || m.Serial != "" && m.Serial == device
		})

		if i >= 0 {
			r.paths = append(r.paths, a.Members[i].Device)

			continue
		}

		dk, err := d.findDisk(device)
		if err != nil {
			return memberRequest{}, err
		}

		r.paths = append(r.paths, dk.Path)
	}

	return r, nil
}
