package host

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
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
		Name: r.name, UUID: uuid.String(), Metadata: r.first.Format, Container: api.Container(r.container),
		Level: r.first.Level.String(), Layout: r.first.Layout.Name(r.first.Level),
		ChunkKiB: int64(r.first.Chunk) / 2, SizeBytes: r.size.Bytes(),
		State: string(st.State), Degraded: st.Degraded,
		Device: r.loop.Device().BlockPath(), Node: "/dev/raid/" + r.name,
		Members: []api.Member{}, Scrub: describeScrub(st.Wrong), Bitmap: describeMarks(st.Marks),
		Limits: api.Limits{Minimum: st.Speed.Min.Bytes(), Maximum: st.Speed.Max.Bytes()},
		Events: st.Events, Recorded: st.Recorded,
	}

	for slot, m := range st.Members {
		a.Members = append(a.Members, r.describeMember(raid.Slot(slot), m, st))

		if raid.Slot(slot) == st.Heir && st.Successor.Device != engine.None {
			successor := r.describeMember(st.Heir, st.Successor, st)
			successor.Replaces = true
			a.Members = append(a.Members, successor)
		}
	}

	for _, id := range slices.Sorted(maps.Keys(r.devices)) {
		// A spare has its slot, and it waits to be let go of.
		if !slices.Contains(st.Spares, id) && !holdsSlot(st.Members, id) && id != st.Successor.Device {
			d := r.devices[id]
			a.Members = append(a.Members, api.Member{Device: d.Path, Serial: d.Serial, State: string(raid.Faulty)})
		}
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

// describeMember describes what holds a slot, or is to.
func (r *running) describeMember(slot raid.Slot, m engine.Member, st loop.Status) api.Member {
	number := int(slot)
	entry := api.Member{Slot: &number, State: string(m.State), BadBlocks: describeRanges(st.BadBlocks[m.Device])}

	if d := r.devices[m.Device]; d != nil && m.Device != engine.None {
		health := st.Health[m.Device]
		entry.Device, entry.Serial, entry.WriteMostly = d.Path, d.Serial, r.mostly[m.Device]
		entry.Errors, entry.Belated = health.Errors, health.Belated
		entry.SlowSeconds = int64(health.Slow / time.Second)
	}

	return entry
}

func holdsSlot(members []engine.Member, id engine.DeviceID) bool {
	return slices.ContainsFunc(members, func(m engine.Member) bool { return m.Device == id })
}

func describeSync(p loop.Progress) *api.Sync {
	s := &api.Sync{
		Action: string(p.Action), DoneBytes: p.Done.Bytes(), TotalBytes: p.Total.Bytes(),
		BytesPerSecond: p.Rate.Bytes(), SecondsLeft: -1, WaitsFor: p.Delayed,
	}

	if p.Left >= 0 {
		s.SecondsLeft = int64(p.Left / time.Second)
	}

	return s
}

// describeScrub says what was found not to be redundant, if anything looked.
func describeScrub(w core.Wrong) *api.Scrub {
	if w.Action == raid.Idle {
		return nil
	}

	s := &api.Scrub{
		Action: string(w.Action), Done: w.Done, MismatchedBytes: w.Sectors.Bytes(), Where: []api.Mismatch{},
	}

	for i, r := range w.Where {
		m := api.Mismatch{From: r.From.Bytes(), To: r.To.Bytes()}
		if slot := int(w.Slots[i]); slot >= 0 {
			m.Slot = &slot
		}

		s.Where = append(s.Where, m)
	}

	return s
}

// describeMarks says how much a bitmap marks, if there is one. Its last chunk may
// not be a whole one, which does not matter.
func describeMarks(m *core.Marks) *api.Bitmap {
	if m == nil {
		return nil
	}

	chunk := m.Chunk.Bytes()

	return &api.Bitmap{
		ChunkKiB: chunk >> 10, DirtyBytes: int64(m.Marked) * chunk, TotalBytes: int64(m.Total) * chunk,
	}
}

func describeRanges(ranges []raid.Range) []api.Range {
	out := make([]api.Range, len(ranges))
	for i, r := range ranges {
		out[i] = api.Range{From: r.From.Bytes(), To: r.To.Bytes()}
	}

	return out
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

	reason := fmt.Sprintf("%d of %d members in sync, event count %d",
		len(cfg.Setup.Members)-missing, len(cfg.Setup.Members), r.first.Events)
	if r.inherited {
		reason += "; taken over from the engine before"
	}

	if r.left != nil {
		reason += fmt.Sprintf("; %d writes to rows were done again that an engine which died had not ended",
			r.left.Writes())
	}

	h.cfg.Tell(journal.Event{
		Kind: kind, Array: r.name, UUID: uuid.String(), Reason: reason,
		Message: fmt.Sprintf("%s (%v of %d, %s) %s as %s",
			r.name, r.first.Level, r.first.Disks, r.first.Format, what, r.loop.Device().BlockPath()),
	})
}

// watch tells what happens to an array, until it ends.
func (h *Host) watch(uuid raid.UUID, r *running) {
	h.follow(uuid, r, r.loop.Done())
	h.ended(uuid, r)
}

// follow tells all that happens to an array before done is closed.
func (h *Host) follow(uuid raid.UUID, r *running, done <-chan struct{}) {
	for {
		select {
		case n := <-r.notices:
			h.notice(uuid, r, n)

			continue
		case <-done:
		}

		// What led to the end may not have been told yet.
		select {
		case n := <-r.notices:
			h.notice(uuid, r, n)
		default:
			return
		}
	}
}

// ended forgets an array that is no longer served.
func (h *Host) ended(uuid raid.UUID, r *running) {
	err := r.loop.Err()
	h.turns.forget(r)

	h.mu.Lock()
	delete(h.arrays, uuid)
	handedOver := r.stopping && r.loop.HandedOver()

	if err == nil && !handedOver {
		delete(h.served, uuid)
	}
	h.mu.Unlock()
	r.leave()

	switch {
	case err != nil:
		select {
		case h.failed <- fmt.Errorf("array %s: %w", r.name, err):
		default:
		}
	case handedOver:
		// The next engine finds the device by its claim.
	default:
		_ = h.unclaim(r.loop.Device()) // gone already, or left for udev to find nothing behind
		h.dropLog(uuid)

		h.cfg.Tell(journal.Event{
			Kind: journal.ArrayStopped, Array: r.name, UUID: uuid.String(),
			Message: fmt.Sprintf("%s is stopped, and its superblocks say clean", r.name),
		})
	}

	h.touch()
}
