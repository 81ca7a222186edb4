package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// attempt is what was tried last for an array, and did not work.
type attempt struct {
	what string // the decisions, as text
	wait time.Duration
	next time.Time
	err  string // why it did not
}

// decide asks policy what to do about all that is known, tells it, and does it.
func (d *Daemon) decide() {
	now := time.Now()

	d.released()
	d.noteMembers(now)
	view := d.view(now)
	d.decisions, d.decided = policy.Decide(view, d.policy), now

	d.tell()
	d.alarm(policy.Alarms(view, d.decisions, d.policy), now)

	for uuid, todo := range byArray(d.decisions) {
		d.carryOut(uuid, todo, now)
	}

	d.record(view) // nobody waits for it
	d.prove()
	d.arm(now)

	close(d.changed)
	d.changed = make(chan struct{})

	d.cfg.Notify("STATUS=" + d.summary())
	d.isReady()
}

// view translates what is known into what policy asks for.
func (d *Daemon) view(now time.Time) policy.View {
	d.choose()

	v := policy.View{
		Waited: d.clocks(now), Returned: d.returned(now),
		Held: make(map[raid.UUID]bool), Told: make(map[raid.UUID]bool),
		Ours: make(map[raid.UUID]bool), Writable: d.writable, Refused: d.refusals(now),
		Known: d.members.known(), Ports: d.members.ports(), Last: d.last(),
	}

	for uuid := range d.held.arrays {
		v.Held[uuid] = true
	}

	for uuid := range d.ours() {
		v.Ours[uuid] = true
	}

	for _, text := range d.told {
		if uuid, err := raid.ParseUUID(text); err == nil {
			v.Told[uuid] = true
		}
	}

	// What has not been read yet is there all the same: the engine may have it.
	for _, dk := range d.sortedDisks() {
		v.Devices = append(v.Devices, d.devices(dk)...)
	}

	for _, a := range d.arrays {
		if r, err := d.runs(a); err == nil {
			v.Running = append(v.Running, r)
		}
	}

	return v
}

// devices translates a device, which is there once for each array that it is a member
// of.
func (d *Daemon) devices(dk *disk) []policy.Device {
	devices := []policy.Device{d.device(dk, dk.found.Superblock)}

	if sb := dk.found.Superblock; sb != nil {
		for _, other := range sb.Others {
			devices = append(devices, d.device(dk, other))
		}
	}

	return devices
}

func (d *Daemon) device(dk *disk, sb *metadata.Superblock) policy.Device {
	domains := d.domains(dk)
	blank, content := dk.blank()
	fills, fillsSlot := d.settings.Blanks(domains)

	return policy.Device{
		Blank: blank, Content: content, Fills: fills, FillsSlot: fillsSlot,
		Path: dk.Path, Serial: dk.Serial, DiskSeq: dk.Seq, Size: dk.Size, Block: dk.Block,
		Rotational: dk.Rotational, Port: dk.Port, Domains: domains,
		Superblock: superblock(sb),
		Corrupt:    dk.found.Corrupt, Unreadable: dk.found.Unreadable,
		Foreign: dk.found.Foreign, Conflicts: dk.found.Conflicts,
		Claimed: dk.Claimed, Shunned: d.shuns.reasons[dk.Seq], Worn: d.worn(dk),
	}
}

// superblock translates a superblock, if there is one.
func superblock(sb *metadata.Superblock) *policy.Superblock {
	if sb == nil {
		return nil
	}

	return &policy.Superblock{
		Array: sb.Array, Device: sb.Device, Name: sb.Name, Format: sb.Format, Host: sb.Host, Geometry: sb.Geometry,
		Number: sb.Number, Roles: sb.Roles, Events: sb.Events, Updated: sb.Updated,
		DataOffset: sb.DataOffset, DataSize: sb.DataSize,
		ResyncOffset: sb.ResyncOffset, RecoveryOffset: sb.RecoveryOffset, Unsupported: sb.Unsupported,
		Log: sb.PPL != nil, Container: sb.Container, Everywhere: sb.Everywhere,
		Replacement: sb.Replacement, WriteMostly: sb.WriteMostly, Bad: length(sb.BadBlocks),
	}
}

func length(ranges []raid.Range) raid.Sectors {
	var n raid.Sectors
	for _, r := range ranges {
		n += r.Len()
	}

	return n
}

// runs translates an array that the engine has.
func (d *Daemon) runs(a api.Array) (policy.Running, error) {
	uuid, err := raid.ParseUUID(a.UUID)
	if err != nil {
		return policy.Running{}, err
	}

	level, err := raid.ParseLevel(a.Level)
	if err != nil {
		return policy.Running{}, err
	}

	now := time.Now()
	r := policy.Running{UUID: uuid, Name: a.Name, Level: level, State: raid.ArrayState(a.State), Format: a.Metadata}

	if a.Container != "" {
		if r.Container, err = raid.ParseUUID(a.Container); err != nil {
			return policy.Running{}, err
		}
	}

	for _, m := range a.Members {
		slot := raid.NoSlot
		if m.Slot != nil && !m.Replaces { // a successor has none before it takes over
			slot = raid.Slot(*m.Slot)
		}

		member := policy.RunningMember{
			Path: m.Device, Serial: m.Serial, DiskSeq: d.memberSeq(a, m), Slot: slot, State: raid.MemberState(m.State),
			Slow: time.Duration(m.SlowSeconds) * time.Second,
		}
		member.Errors, member.Belated = d.health.recent(memberKey(a, m))
		member.Asked = now.Before(d.health[memberKey(a, m)].until)
		r.Members = append(r.Members, member)
	}

	return r, nil
}

// byArray returns what is to be done, for each array in order.
func byArray(ds []policy.Decision) map[raid.UUID][]policy.Decision {
	todo := make(map[raid.UUID][]policy.Decision)

	for _, dec := range ds {
		switch dec.Action {
		case policy.Start, policy.AddSpare, policy.FailMember, policy.RemoveMember, policy.Replace:
			todo[dec.Array] = append(todo[dec.Array], dec)
		case policy.LeaveAlone, policy.Wait, policy.Refuse, policy.Prove:
		}
	}

	return todo
}

// carryOut has the engine do what was decided about one array, unless something
// is being done to it, to the lender of a spare or with a device that it is to be
// given, or the same has just failed.
func (d *Daemon) carryOut(uuid raid.UUID, todo []policy.Decision, now time.Time) {
	what := fmt.Sprint(todo)
	tried := d.retry[uuid]

	taken := slices.ContainsFunc(todo, func(dec policy.Decision) bool {
		return d.busy[dec.From] || d.given[dec.Device]
	})

	if d.busy[uuid] || taken || tried != nil && tried.what == what && now.Before(tried.next) {
		return
	}

	d.busy[uuid] = true
	d.asks(todo, now)

	name, blanks := d.nameOf(uuid), d.blanks(todo)
	d.names[uuid] = name

	var given []string

	for _, dec := range todo {
		if dec.Action == policy.AddSpare {
			given = append(given, dec.Device)
			d.given[dec.Device] = true
		}
	}

	go func() {
		failed, err := d.perform(name, todo, blanks)
		d.post(func() {
			delete(d.busy, uuid)
			delete(d.names, uuid)

			for _, path := range given {
				delete(d.given, path)
			}

			d.refusedBy(failed, err)
			d.performed(uuid, what, err)
		})
	}()
}

// perform has the engine do what was decided, in order, until something fails,
// which it returns. Blanks are those of its devices that are to be blank, by path.
func (d *Daemon) perform(
	name string, todo []policy.Decision, blanks map[string]Disk,
) (failed policy.Decision, err error) {
	ctx, cancel := context.WithTimeout(d.ctx, operationMax)
	defer cancel()

	for _, dec := range todo {
		if err := d.performOne(ctx, name, dec, blanks); err != nil {
			return dec, err
		}
	}

	return policy.Decision{}, nil
}

func (d *Daemon) performOne(
	ctx context.Context, name string, dec policy.Decision, blanks map[string]Disk,
) error {
	p := api.MemberParameters{Array: dec.Array.String(), Device: dec.Device, Anew: dec.Anew, Reason: dec.Reason}

	switch dec.Action {
	case policy.Start:
		return d.startAsAsked(ctx, startParameters(name, dec, dec.ReadOnly))
	case policy.AddSpare:
		if !dec.From.IsZero() {
			return d.move(ctx, dec)
		}

		if disk, ok := blanks[dec.Device]; ok {
			return d.addBlank(ctx, disk, p)
		}

		return d.cfg.Engine.Request(ctx, "Add", p)
	case policy.FailMember:
		return d.cfg.Engine.Request(ctx, "Fail", p)
	case policy.RemoveMember:
		return d.cfg.Engine.Request(ctx, "Remove", p)
	case policy.Replace:
		err := d.cfg.Engine.Request(ctx, "Replace", api.ReplaceParameters{
			Array: dec.Array.String(), Device: dec.Device, Reason: dec.Reason,
		})
		if err == nil {
			d.post(func() { d.wearOut(dec) })
		}

		return err
	case policy.LeaveAlone, policy.Wait, policy.Refuse, policy.Prove:
	}

	return nil
}

func startParameters(name string, dec policy.Decision, readOnly bool) api.StartParameters {
	p := api.StartParameters{
		UUID: dec.Array.String(), Name: name, Degraded: dec.Degraded, ReadOnly: readOnly, AcceptLoss: dec.Loss,
	}

	for _, m := range dec.Members {
		member := api.StartMember{Device: m.Path, Serial: m.Serial}

		if m.Slot != raid.NoSlot {
			slot := int(m.Slot)
			member.Slot = &slot
		}

		p.Members = append(p.Members, member)
	}

	return p
}

// performed takes in how it went. What failed is tried again, for the reason
// may pass, but ever less often while it is the same.
func (d *Daemon) performed(uuid raid.UUID, what string, err error) {
	if err == nil {
		delete(d.retry, uuid)
		d.look()

		return
	}

	if d.ctx.Err() != nil {
		return
	}

	last := d.retry[uuid]
	if last == nil || last.what != what {
		last = &attempt{what: what, wait: retryMin / 2}
	}

	last.wait = min(2*last.wait, retryMax)
	last.next = time.Now().Add(last.wait)
	d.retry[uuid] = last

	if last.err != err.Error() {
		last.err = err.Error()
		d.tellFailed(uuid, err)
	}

	// What the engine was asked for may rest on an old look at the devices.
	for _, dk := range d.disks {
		if sb := dk.of(uuid); sb != nil && (dk.attached == "" || !sb.Container.IsZero()) {
			d.probe(dk)
		}
	}

	d.after(last.wait, d.look)
	d.look()
}

// arm sets the timer for the next deadline, if there is one.
func (d *Daemon) arm(now time.Time) {
	d.deadline.Stop()

	next := time.Duration(-1)

	for _, dec := range d.decisions {
		ends := dec.Action == policy.Wait || dec.Cause == policy.Flapping
		if ends && dec.Left >= 0 && (next < 0 || dec.Left < next) {
			next = dec.Left
		}
	}

	if next >= 0 {
		d.deadline.Reset(next - time.Since(now))
	}
}

// running returns the array that the engine has under a UUID, or nil.
func (d *Daemon) running(uuid raid.UUID) *api.Array { return byUUID(d.arrays, uuid) }

func byUUID(arrays []api.Array, uuid raid.UUID) *api.Array {
	i := slices.IndexFunc(arrays, func(a api.Array) bool { return a.UUID == uuid.String() })
	if i < 0 {
		return nil
	}

	return &arrays[i]
}

// summary is one line for the service manager.
func (d *Daemon) summary() string {
	waiting, refused, degraded := 0, 0, 0

	for _, dec := range d.decisions {
		switch dec.Action {
		case policy.Wait:
			waiting++
		case policy.Refuse:
			refused++
		case policy.LeaveAlone, policy.Start, policy.AddSpare, policy.FailMember, policy.RemoveMember,
			policy.Prove, policy.Replace:
		}
	}

	for _, a := range d.arrays {
		if a.Degraded > 0 {
			degraded++
		}
	}

	return fmt.Sprintf("%d arrays run, %d of them degraded; %d wait, %d are refused",
		len(d.arrays), degraded, waiting, refused)
}
