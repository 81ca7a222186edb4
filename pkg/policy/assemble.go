package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/raid"
)

// assemble decides about an array that does not run: first what to do with it,
// then which of its devices are left alone.
func assemble(v View, uuid raid.UUID, devices []*Device, cfg Config) []Decision {
	var (
		usable  []*Device
		faulted []*Device
		left    []Decision
	)

	for _, d := range devices {
		if fault := d.fault(); fault != (why{}) {
			faulted = append(faulted, d)
			left = append(left, leave(d, fault))
		} else {
			usable = append(usable, d)
		}
	}

	if len(usable) == 0 {
		return left
	}

	j := judge(usable)
	left = append(left, j.left...)
	slices.SortStableFunc(left, func(a, b Decision) int { return cmp.Compare(a.Device, b.Device) })

	head := Decision{Array: uuid, Name: usable[0].Superblock.Name}
	if j.best != nil {
		head.Name = j.best.Superblock.Name
	}

	choice := cfg.choice(v, cmp.Or(j.best, usable[0]).Superblock)

	switch reason := unserved(usable, j, cfg); {
	case reason != "":
		head.Cause, head.Reason = Unserved, reason
	case v.Held[uuid]:
		head.Cause = Held
		head.Reason = fmt.Sprintf("it was stopped by hand: raid-assembler assemble %v starts it", uuid)
	case choice.Fault != "" && !v.Asked[uuid]:
		head.Cause = Unsettled
		head.Reason = fmt.Sprintf("what is wanted of it is not known (%s): correct that, then systemctl reload "+
			"raid-assembler.service; raid-assembler assemble %v starts it", choice.Fault, uuid)
	case choice.Mode == LeaveToMdadm && !v.Asked[uuid]:
		head.Cause = Chosen
		head.Reason = fmt.Sprintf("it is left to mdadm: %s", choice.By)
	case choice.Mode == Leave && !v.Asked[uuid]:
		head.Cause = Chosen
		head.Reason = fmt.Sprintf("it is not started unasked: %s; raid-assembler assemble %v starts it",
			choice.By, uuid)
	default:
		j.refuseClaimed(faulted, usable)
		j.verdict(&head, v, choice)
		head.ReadOnly = head.Action == Start && choice.Mode == RunReadOnly && !v.Writable[uuid]
	}

	return append([]Decision{head}, left...)
}

// unserved says why arrays like this one cannot be run, or returns the empty
// string.
func unserved(usable []*Device, j *judgement, cfg Config) string {
	for _, d := range usable {
		if d.Superblock.Unsupported != "" {
			return d.Superblock.Unsupported
		}
	}

	best := j.best
	if best == nil {
		best = usable[0]
	}

	if cfg.Served == nil {
		return ""
	}

	return cfg.Served(best.Superblock.Geometry)
}

// refuseClaimed refuses an array of which somebody else uses a member: it may
// be running there. Of a member that is here under another name too, as with
// multipath, the name that is free is as good as the one that is not.
func (j *judgement) refuseClaimed(faulted, usable []*Device) {
	for _, d := range faulted {
		here := slices.ContainsFunc(usable, func(u *Device) bool {
			return u.Superblock.Device == d.Superblock.Device
		})
		if d.Claimed != "" && !here {
			j.refuse(InUse, "its member %s is used by %s: stop that first", d.Path, d.Claimed)
		}
	}
}

// count is how many members an array has, and lacks.
type count struct {
	disks   int
	present int         // slots with a device, in sync or recovering
	working int         // slots that the freshest superblock fills
	lost    int         // slots without a device in sync
	missing []raid.Slot // slots that the freshest superblock fills, and nobody here
	vacant  []raid.Slot // slots that the freshest superblock leaves empty

	known map[raid.Slot]string // who last had slots
	last  Last                 // if it was newer than the members that are here
	newer []raid.Slot          // that its members had who are not here
}

// absent names the slots that nobody here has, and who had them.
func (c count) absent() string { return c.named(c.missing) }

func (c count) named(missing []raid.Slot) string {
	words := make([]string, len(missing))

	for i, slot := range missing {
		words[i] = fmt.Sprint(int(slot))
		if who := c.known[slot]; who != "" {
			words[i] += fmt.Sprintf(" (%s)", who)
		}
	}

	if len(words) == 1 {
		return "slot " + words[0] + " is"
	}

	return "slots " + list(words) + " are"
}

func (j *judgement) count() count {
	best := j.best.Superblock
	c := count{disks: best.Disks, present: len(j.use), lost: best.Disks}

	for _, d := range j.use {
		if d.inSync() {
			c.lost--
		}
	}

	filled := make(map[raid.Slot]bool)

	for _, n := range best.members() {
		slot, _ := best.slot(n)
		if filled[slot] {
			continue // one of the two is to replace the other
		}

		filled[slot] = true

		// One that was made a member in the last round, and has not heard of
		// it, is here as a spare: there is nobody else to wait for.
		spare := slices.ContainsFunc(j.spares, func(d *Device) bool {
			return d.Superblock.Number == n && d.Superblock.Events+1 == best.Events
		})
		if j.use[slot] == nil && !spare {
			c.missing = append(c.missing, slot)
		}
	}

	c.working = len(filled)

	for slot := range raid.Slot(best.Disks) {
		if !filled[slot] {
			c.vacant = append(c.vacant, slot)
		}
	}

	slices.Sort(c.missing)

	return c
}

// verdict decides whether to start the array. The cases are ordered: each
// holds only where those above it do not.
func (j *judgement) verdict(dec *Decision, v View, choice Choice) {
	switch {
	case j.refusal != (why{}):
		dec.Action, dec.Cause, dec.Reason = Refuse, j.refusal.cause, j.refusal.text

		return
	case j.best == nil:
		dec.Action, dec.Left, dec.Cause = Wait, -1, Missing
		dec.Reason = "only spares are here"

		return
	}

	c, best := j.count(), j.best.Superblock
	c.known = v.Known[dec.Array]
	c.compare(v.Last[dec.Array], best, v.Devices)
	survives := best.Geometry.Survives(func(slot raid.Slot) bool { return j.use[slot] != nil && j.use[slot].inSync() })
	left := choice.Deadline - v.Waited[dec.Array]
	accepted := v.LossAccepted[dec.Array]
	forced := v.Forced[dec.Array] || accepted
	doubtful := c.doubtful(best)
	dec.Present, dec.Needed, dec.Missing = c.present, c.working, c.missing
	dec.Degraded = c.lost > 0

	switch {
	case !survives && len(c.missing) == 0:
		dec.Action, dec.Cause, dec.Reason = Refuse, Missing, c.brokenFor(best.Geometry)
	case !survives:
		dec.Action, dec.Left, dec.Cause = Wait, -1, Missing
		dec.Reason = fmt.Sprintf("%s missing: %d of %d members are here, and %s",
			c.absent(), c.present, c.disks, tolerance(best.Geometry))
	case c.awaits(left) && !forced:
		dec.Action, dec.Left, dec.Cause = Wait, choice.shown(left), Missing
		dec.Reason = c.waitFor(choice)

		if len(c.newer) > 0 {
			dec.Left, dec.Cause, dec.Reason = -1, Stale, c.behindFor(best)
		}
	case doubtful && !v.tells(best) && !accepted:
		dec.Action, dec.Cause, dec.Reason = Refuse, Hole, c.holeFor(j.best)
	default:
		dec.Action, dec.Reason = Start, c.startFor(j.best, forced, choice)+c.aged(best)
		dec.Members, dec.Loss = j.members(), doubtful && accepted
	}
}

// tells reports whether something may make the parity of an array right. Whether it
// does is for the engine to see.
func (v View) tells(sb *Superblock) bool { return sb.Log || v.Told[sb.Array] }

// deadline names the deadline, and who chose it, if anybody did.
func (c Choice) deadline() string {
	if c.DeadlineBy == "" {
		return c.Deadline.String()
	}

	return fmt.Sprintf("%v (%s)", c.Deadline, c.DeadlineBy)
}

// brokenFor says why an array is refused that nobody's arrival can complete.
func (c count) brokenFor(g raid.Geometry) string {
	return fmt.Sprintf("only %d of %d members are current, and %s: "+
		"no other device that the freshest superblock calls working is missing",
		c.disks-c.lost, c.disks, tolerance(g))
}

// tolerance says what an array survives that does not survive what is.
func tolerance(g raid.Geometry) string {
	if g.Level == raid.Level10 {
		return fmt.Sprintf("%v in the layout %s survives the loss of more than %d only where "+
			"a copy of each chunk is left", g.Level, g.Layout.Name(g.Level), g.Redundancy())
	}

	return fmt.Sprintf("%v survives the loss of %d", g.Level, g.Redundancy())
}

// shown is what is left until the deadline, as [Decision] has it.
func (c Choice) shown(left time.Duration) time.Duration {
	if c.Deadline == Never {
		return -1
	}

	return left
}

// waitFor says whom an array waits for.
func (c count) waitFor(choice Choice) string {
	here := fmt.Sprintf("%s missing: %d of %d members are here", c.absent(), c.present, c.disks)

	if choice.Deadline == Never {
		return fmt.Sprintf("%s, and it is not started without the rest: Deadline in %s", here, choice.DeadlineBy)
	}

	return fmt.Sprintf("%s, the rest has %s from the first", here, choice.deadline())
}

// doubtful reports whether parity is needed and may be wrong.
func (c count) doubtful(best *Superblock) bool {
	return best.Level.HasParity() && best.ResyncOffset != raid.MaxSectors && c.lost > 0
}

// holeFor says why an array is refused whose parity is needed and wrong.
func (c count) holeFor(best *Device) string {
	way := ""
	if len(c.missing) > 0 {
		way = fmt.Sprintf("plug in %s, or ", slotNames(c.missing))
	}

	return fmt.Sprintf("it was not stopped cleanly and %d of %d members are not in sync, so that what %v computes "+
		"in their place may be wrong: %saccept that with raid-assembler assemble --accept-loss %v",
		c.lost, c.disks, best.Superblock.Level, way, best.Superblock.Array)
}

// startFor says why an array is started.
func (c count) startFor(best *Device, forced bool, choice Choice) string {
	switch {
	case len(c.missing) > 0 && forced:
		return fmt.Sprintf("%s missing, and it was asked for", c.absent())
	case len(c.missing) > 0:
		return fmt.Sprintf("%s still missing %s after the first member", c.absent(), choice.deadline())
	case len(c.vacant) > 0:
		return fmt.Sprintf("all %d members are here that %s calls working; %s %s recorded as missing",
			c.working, best.Path, slotNames(c.vacant), are(c.vacant))
	case c.lost > 0:
		return fmt.Sprintf("all %d members are here, %d of them not recovered yet", c.disks, c.lost)
	default:
		return fmt.Sprintf("all %d members are here", c.disks)
	}
}

// members returns whom to start the array with: by slot, then those that are to
// replace one of them, then those spares that the freshest superblock knows as
// such. The others can be given to the array when it runs.
func (j *judgement) members() []Member {
	var ms []Member

	for _, slot := range slots(j.use) {
		d := j.use[slot]
		ms = append(ms, Member{Path: d.Path, Serial: d.Serial, Slot: slot})
	}

	for _, slot := range slots(j.successors) {
		d := j.successors[slot]
		ms = append(ms, Member{Path: d.Path, Serial: d.Serial, Slot: slot})
	}

	for _, d := range j.spares {
		known := j.best.Superblock.role(d.Superblock.Number) == raid.RoleSpare
		if known && d.Shunned == "" && d.Worn == "" && d.fits(j.best.Superblock.Size) {
			ms = append(ms, Member{Path: d.Path, Serial: d.Serial, Slot: raid.NoSlot})
		}
	}

	return ms
}

// fits reports whether d has room for what each member of its array holds, by the
// superblock that is believed: it may have been away when the array grew.
func (d *Device) fits(size raid.Sectors) bool { return d.Superblock.DataSize >= size }
