package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// status tells of all arrays and of the devices that no array uses.
func (d *Daemon) status(ctx context.Context) (api.Status, error) {
	list, err := d.cfg.Engine.List(ctx)
	if err != nil {
		return api.Status{}, fmt.Errorf("raid-engine does not answer: %w", err)
	}

	st := api.Status{
		Version: api.StatusVersion,
		Arrays:  list.Arrays, Spares: []api.Idle{}, Waiting: []api.Waiting{}, Unused: []api.Idle{},
		Guard: d.cfg.Guarded(),
	}

	err = d.do(ctx, func() { d.addIdle(&st) })

	return st, err
}

// addIdle adds what the engine does not know of.
func (d *Daemon) addIdle(st *api.Status) {
	for _, dec := range d.decisions {
		if byUUID(st.Arrays, dec.Array) != nil && dec.Device == "" {
			continue // it runs by now
		}

		switch {
		case dec.Device != "" && dec.Action == policy.LeaveAlone:
			d.addUnused(st, dec)
		case dec.Action == policy.Prove:
			d.addProving(st, dec)
		case dec.Device != "":
		case dec.Action == policy.Wait:
			st.Waiting = append(st.Waiting, api.Waiting{
				Name: d.nameOf(dec.Array), UUID: dec.Array.String(), Present: dec.Present, Needed: dec.Needed,
				SecondsLeft: d.secondsLeft(dec), Reason: dec.Reason,
			})
		default:
			st.Arrays = append(st.Arrays, d.inactive(dec))
		}
	}

	for _, dec := range d.decisions {
		d.addRefused(st, dec)
	}

	d.addSpares(st)
	d.addAbsent(st)
}

// addSpares adds the spares that no array has.
func (d *Daemon) addSpares(st *api.Status) {
	for _, dk := range d.sortedDisks() {
		if sb := dk.found.Superblock; sb != nil && dk.attached == "" && isSpare(sb) && !listed(st.Unused, dk) {
			st.Spares = append(st.Spares, api.Idle{
				Device: dk.Path, Serial: dk.Serial, Array: d.nameOf(sb.Array), Reason: "its array does not have it yet",
			})
		}
	}
}

func isSpare(sb *metadata.Superblock) bool { return sb.Role(sb.Number) == raid.RoleSpare }

func listed(idle []api.Idle, dk *disk) bool {
	return slices.ContainsFunc(idle, func(i api.Idle) bool { return i.Device == dk.Path })
}

// addUnused adds a device that is left alone, unless the engine has it by now.
func (d *Daemon) addUnused(st *api.Status, dec policy.Decision) {
	for _, a := range st.Arrays {
		if slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.Device == dec.Device }) &&
			a.State != string(raid.Inactive) {
			return
		}
	}

	idle := api.Idle{Device: dec.Device, Serial: dec.Serial, Reason: dec.Reason}
	if !dec.Array.IsZero() {
		idle.Array = d.nameOf(dec.Array)
	}

	st.Unused = append(st.Unused, idle)
}

// addRefused adds the devices of an array that is not started, though nobody
// asked for that.
func (d *Daemon) addRefused(st *api.Status, dec policy.Decision) {
	refused := dec.Action == policy.Refuse || dec.Action == policy.LeaveAlone
	if dec.Device != "" || dec.Cause == policy.Held || dec.Cause == policy.Chosen || !refused {
		return
	}

	for _, dk := range d.sortedDisks() {
		if dk.of(dec.Array) != nil && dk.attached == "" && !listed(st.Unused, dk) {
			st.Unused = append(st.Unused, api.Idle{
				Device: dk.Path, Serial: dk.Serial, Array: d.nameOf(dec.Array), Reason: dec.Reason,
			})
		}
	}
}

// secondsLeft returns how long an array still waits, or -1 if for ever.
func (d *Daemon) secondsLeft(dec policy.Decision) int64 {
	if dec.Left < 0 {
		return -1
	}

	left := max(0, dec.Left-time.Since(d.decided))

	return int64((left + time.Second - 1) / time.Second)
}

// inactive describes an array that does not run, as its devices tell it.
func (d *Daemon) inactive(dec policy.Decision) api.Array {
	a := api.Array{
		Name: d.nameOf(dec.Array), UUID: dec.Array.String(), State: string(raid.Inactive),
		Members: []api.Member{}, Reason: dec.Reason,
	}
	a.Node = "/dev/raid/" + a.Name

	if tried := d.retry[dec.Array]; tried != nil && tried.err != "" {
		a.Reason = tried.err
	}

	best := d.freshest(dec.Array)
	if best == nil {
		return a
	}

	a.Container = api.Container(best.Container)
	a.Metadata, a.Level, a.Layout = best.Format, best.Level.String(), best.Layout.Name(best.Level)
	a.ChunkKiB = int64(best.Chunk) / 2

	if m, err := geometry.New(best.Geometry); err == nil {
		a.SizeBytes = m.ArraySectors().Bytes()
	}

	filled := make(map[int]bool)

	for _, dk := range d.sortedDisks() {
		if sb := dk.of(dec.Array); sb != nil {
			m := d.inactiveMember(dk, sb)
			if m.Slot != nil && m.State != string(raid.Stale) {
				filled[*m.Slot] = true
			}

			a.Members = append(a.Members, m)
		}
	}

	for slot := range best.Disks {
		if !filled[slot] {
			a.Members = append(a.Members, api.Member{Slot: &slot, State: string(raid.Missing)})
			a.Degraded++
		}
	}

	return a
}

// inactiveMember describes a device of an array that does not run.
func (d *Daemon) inactiveMember(dk *disk, sb *metadata.Superblock) api.Member {
	m := api.Member{Device: dk.Path, Serial: dk.Serial, State: string(raid.Spare)}

	if slot, ok := sb.Role(sb.Number).Slot(); ok {
		n := int(slot)
		m.Slot, m.State = &n, string(raid.InSync)

		if sb.RecoveryOffset != raid.MaxSectors {
			m.State = string(raid.Recovering)
		}
	}

	if slices.ContainsFunc(d.decisions, func(dec policy.Decision) bool {
		return dec.Device == dk.Path && dec.Action == policy.LeaveAlone
	}) {
		m.State = string(raid.Stale)
	}

	return m
}

// freshest returns the superblock of an array with the highest event count.
func (d *Daemon) freshest(uuid raid.UUID) *metadata.Superblock {
	var best *metadata.Superblock

	for _, dk := range d.sortedDisks() {
		sb := dk.of(uuid)
		if sb == nil {
			continue
		}

		if best == nil || isSpare(best) && !isSpare(sb) || isSpare(best) == isSpare(sb) && sb.Events > best.Events {
			best = sb
		}
	}

	return best
}

// explain returns the chain of evidence about an array or a device.
func (d *Daemon) explain(ctx context.Context, what string) ([]string, error) {
	var (
		lines []string
		bad   error
	)

	err := d.do(ctx, func() { lines, bad = d.explainNow(what) })

	return lines, firstError(err, bad)
}

func (d *Daemon) explainNow(what string) ([]string, error) {
	now := time.Now()

	uuid, err := d.find(what)
	if err != nil {
		dk, diskErr := d.findDisk(what)
		if gone := d.members.roster.FindNamed(what); diskErr != nil && gone != nil {
			lines := []string{fmt.Sprintf("%s is the array %v. No member of it is here; it last ran on %s.",
				gone.Name, gone.UUID, gone.Seen.UTC().Format(time.RFC3339))}

			return append(lines, explainAbsent(gone, func(raid.Slot) bool { return true })...), nil
		}

		if diskErr != nil {
			return nil, fmt.Errorf("neither an array nor a device is called %q: %w", what, errNotFound)
		}

		lines := policy.ExplainDevice(d.view(now), d.policy, dk.Path)
		if others := strings.Join(dk.found.Others, ", "); others != "" {
			lines = append([]string{fmt.Sprintf("%s: it holds %s.", diskName(dk.Disk), others)}, lines...)
		}

		if a := dk.attached; a != "" {
			lines = append(lines, fmt.Sprintf("%s: the engine has it (%s).", diskName(dk.Disk), a))
		}

		return lines, nil
	}

	lines := []string{fmt.Sprintf("%s is the array %v.", d.nameOf(uuid), uuid)}
	lines = append(lines, policy.Explain(d.view(now), d.policy, uuid)...)
	lines = append(lines, d.explainMissing(uuid, now)...)

	if tried := d.retry[uuid]; tried != nil {
		lines = append(lines, fmt.Sprintf("The engine refused: %s. It is asked again in %v.",
			tried.err, max(0, tried.next.Sub(now)).Round(time.Second)))
	}

	return lines, nil
}
