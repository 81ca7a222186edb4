package host

import (
	"fmt"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
)

// describe returns an array as it is now.
func (h *Host) describe(uuid raid.UUID, r *running) (api.Array, error) {
	st, err := r.loop.Status()
	if err != nil {
		return api.Array{}, err
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	a := api.Array{
		Name: r.name, UUID: uuid.String(), Metadata: r.first.Format,
		Level: r.first.Level.String(), Layout: r.first.Layout.Name(r.first.Level),
		ChunkKiB: int64(r.first.Chunk) / 2, SizeBytes: r.size.Bytes(),
		State: string(st.State), Degraded: st.Degraded,
		Device: r.loop.Device().BlockPath(), Node: "/dev/raid/" + r.name,
		Members: []api.Member{}, Reason: r.reason,
	}

	for slot, m := range st.Members {
		entry := api.Member{Slot: &slot, State: string(m.State)}
		if d := r.devices[m.Device]; d != nil && m.Device != engine.None {
			entry.Device, entry.Serial = d.Path, d.Serial
		}

		a.Members = append(a.Members, entry)
	}

	for _, id := range st.Spares {
		if d := r.devices[id]; d != nil {
			a.Members = append(a.Members, api.Member{Device: d.Path, Serial: d.Serial, State: string(raid.Spare)})
		}
	}

	if st.Sync.Action != raid.Idle {
		a.Sync = describeSync(st.Sync)
	}

	return a, nil
}

func describeSync(p loop.Progress) *api.Sync {
	s := &api.Sync{
		Action: string(p.Action), DoneBytes: p.Done.Bytes(), TotalBytes: p.Total.Bytes(),
		BytesPerSecond: p.Rate.Bytes(), SecondsLeft: -1,
	}

	if p.Rate > 0 {
		s.SecondsLeft = int64((p.Total - p.Done) / p.Rate)
	}

	return s
}

// tellStarted puts the start of an array into the journal.
func (h *Host) tellStarted(uuid raid.UUID, r *running, cfg loop.Config) {
	kind, what := journal.ArrayAssembled, "runs"

	missing := 0
	for _, m := range cfg.Setup.Members {
		if m.State != raid.InSync {
			missing++
		}
	}

	if missing > 0 {
		kind, what = journal.ArrayStartedDegraded, "runs degraded"
	}

	h.cfg.Tell(journal.Event{
		Kind: kind, Array: r.name, UUID: uuid.String(),
		Reason: fmt.Sprintf("%d of %d members in sync, event count %d",
			len(cfg.Setup.Members)-missing, len(cfg.Setup.Members), r.first.Events),
		Message: fmt.Sprintf("%s (%v of %d, %s) %s as %s",
			r.name, r.first.Level, r.first.Disks, r.first.Format, what, r.loop.Device().BlockPath()),
	})
}

// watch tells what happens to an array, until it ends.
func (h *Host) watch(uuid raid.UUID, r *running) {
	for {
		select {
		case n := <-r.notices:
			h.notice(uuid, r, n)
		case <-r.loop.Done():
			h.ended(uuid, r)

			return
		}
	}
}

// ended forgets an array that is no longer served.
func (h *Host) ended(uuid raid.UUID, r *running) {
	err := r.loop.Err()

	h.mu.Lock()
	delete(h.arrays, uuid)
	asked := r.stopping
	h.mu.Unlock()

	switch {
	case err != nil:
		select {
		case h.failed <- fmt.Errorf("array %s: %w", r.name, err):
		default:
		}
	case asked && r.loop.HandedOver():
		// The next engine finds the device by its claim.
	default:
		_ = h.unclaim(r.loop.Device()) // gone already, or left for udev to find nothing behind

		h.cfg.Tell(journal.Event{
			Kind: journal.ArrayStopped, Array: r.name, UUID: uuid.String(),
			Message: fmt.Sprintf("%s is stopped, and its superblocks say clean", r.name),
		})
	}

	h.touch()
}

// notice puts what the engine says into the journal.
func (h *Host) notice(uuid raid.UUID, r *running, n loop.Notice) {
	h.mu.Lock()
	d := r.devices[n.Device]
	h.mu.Unlock()

	if d == nil {
		d = &member.Device{Path: "a member"}
	}

	ev := journal.Event{
		Array: r.name, UUID: uuid.String(), Reason: n.Cause,
	}
	if n.Slot != raid.NoSlot {
		ev.Slot = &n.Slot
	}

	if n.Device != engine.None {
		ev.Member, ev.Serial = d.Path, d.Serial
	}

	where := fmt.Sprintf("%s (serial %s)", d.Path, d.Serial)
	if n.Slot != raid.NoSlot {
		where += fmt.Sprintf(" in slot %d", n.Slot)
	}

	switch n.Note {
	case engine.NoteFailed:
		ev.Kind, ev.Message = journal.MemberFailed, fmt.Sprintf("%s of %s failed", where, r.name)
		if ev.Reason == "" {
			ev.Reason = "input/output error"
		}
	case engine.NoteBroken:
		ev.Kind, ev.Message = journal.ArrayBroken, fmt.Sprintf("%s is broken: %s was one too many", r.name, where)
	case engine.NoteSpareActive:
		ev.Kind, ev.Message = journal.SpareActivated, fmt.Sprintf("spare %s of %s is put to work", where, r.name)
	case engine.NoteNoSpare:
		ev.Kind, ev.Message = journal.NoSpareLeft, fmt.Sprintf("%s is degraded and has no spare", r.name)
	case engine.NoteRecoverStart:
		ev.Kind, ev.Message = journal.RecoveryStarted,
			fmt.Sprintf("recovery of %s onto %s starts at %d MiB", r.name, where, n.Offset.Bytes()>>20)
	case engine.NoteRecoverDone:
		ev.Kind, ev.Message = journal.RecoveryFinished, fmt.Sprintf("%s of %s is in sync", where, r.name)
	case engine.NoteRecoverFailed:
		ev.Kind, ev.Message = journal.RecoveryFinished,
			fmt.Sprintf("recovery of %s onto %s was given up at %d MiB: what it needs cannot be read",
				r.name, where, n.Offset.Bytes()>>20)
	case engine.NoteResyncStart:
		ev.Kind, ev.Message = journal.ResyncStarted, fmt.Sprintf("resync of %s starts", r.name)
		ev.Reason = "the array was not stopped cleanly"
	case engine.NoteResyncDone:
		ev.Kind, ev.Message = journal.ResyncFinished, fmt.Sprintf("resync of %s is done", r.name)
	case engine.NoteResyncFailed:
		ev.Kind, ev.Message = journal.ResyncFinished,
			fmt.Sprintf("resync of %s was given up at %d MiB", r.name, n.Offset.Bytes()>>20)
	}

	h.cfg.Tell(ev)
	h.touch()
}
