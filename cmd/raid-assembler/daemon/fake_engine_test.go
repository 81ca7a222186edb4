package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

// fakeArray is an array that the fake engine runs. Its superblocks are kept by
// the real keeper.
type fakeArray struct {
	api.StartParameters

	keeper   metadata.Keeper
	first    *metadata.Superblock
	members  []*fakeMember
	recorded bool
}

type fakeMember struct {
	id     metadata.MemberID
	disk   *fakeDisk
	path   string
	record metadata.MemberRecord
}

func refused(format string, args ...any) error {
	return varlink.NewError(api.EngineInterface+"."+api.ErrRefused,
		api.ErrorParameters{Reason: fmt.Sprintf(format, args...)})
}

// List implements [Engine].
func (w *world) List(context.Context) (api.ListReply, error) {
	time.Sleep(w.slowly)

	w.mu.Lock()
	defer w.mu.Unlock()

	if w.down {
		return api.ListReply{}, errors.New("connection refused")
	}

	return api.ListReply{Arrays: w.list()}, nil
}

func (w *world) list() []api.Array {
	list := []api.Array{}

	for _, uuid := range slices.SortedFunc(maps.Keys(w.arrays), func(a, b raid.UUID) int {
		return slices.Compare(a[:], b[:])
	}) {
		a := w.arrays[uuid].describe()
		if w.tweak != nil {
			w.tweak(&a)
		}

		list = append(list, a)
	}

	return list
}

func (a *fakeArray) describe() api.Array {
	out := api.Array{
		Name: a.Name, UUID: a.UUID, Level: a.first.Level.String(), State: string(raid.Clean), Device: "/dev/ublkb0",
		Metadata: a.first.Format, Container: api.Container(a.first.Container),
		Events: a.keeper.Events(),
	}
	if a.recorded {
		out.Recorded = out.Events
	}

	filled := make(map[raid.Slot]bool)

	for _, m := range a.members {
		member := api.Member{Device: m.path, Serial: m.disk.Serial, State: string(m.record.State)}

		if m.record.Slot != raid.NoSlot {
			slot := int(m.record.Slot)
			member.Slot = &slot
			filled[m.record.Slot] = true
		}

		out.Members = append(out.Members, member)
	}

	for slot := range a.first.Disks {
		if !filled[raid.Slot(slot)] {
			out.Members = append(out.Members, api.Member{Slot: &slot, State: string(raid.Missing)})
		}
	}

	out.Degraded = a.first.Disks
	for _, m := range out.Members {
		if m.Slot != nil && m.State == string(raid.InSync) {
			out.Degraded--
		}
	}

	if out.Degraded > a.first.Level.Redundancy(a.first.Disks) {
		out.State = string(raid.Broken)
	}

	return out
}

// Start implements [Engine].
func (w *world) Start(_ context.Context, p api.StartParameters) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.starts++

	uuid, err := raid.ParseUUID(p.UUID)

	switch {
	case err != nil:
		return err
	case w.refuse != "":
		return refused("%s", w.refuse)
	case w.noGrowth != "" && p.GrowTo != nil:
		return refused("%s", w.noGrowth)
	case w.arrays[uuid] != nil:
		return refused("it runs already")
	}

	for _, other := range w.arrays {
		if other.Name == p.Name {
			return refused("another array is called %q", p.Name)
		}
	}

	a := &fakeArray{StartParameters: p}

	var attachments []metadata.Attachment

	for i, m := range p.Members {
		f := w.at(m.Device)
		if f == nil || f.Serial != m.Serial {
			return refused("%s is not %s", m.Device, m.Serial)
		}

		sb := readingOf(f.source(), uuid)
		if sb == nil {
			return refused("%s is of another array", m.Device)
		}

		if a.first == nil {
			a.first = sb
		}

		record := metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
		if m.Slot != nil {
			record = metadata.MemberRecord{State: raid.InSync, Slot: raid.Slot(*m.Slot)}
			if sb.RecoveryOffset != raid.MaxSectors {
				record.State = raid.Recovering
			}
		}

		attachments = append(attachments, metadata.Attachment{Superblock: sb, Source: f.source()})
		a.members = append(a.members, &fakeMember{metadata.MemberID(i), f, m.Device, record})
	}

	format, _, err := scan.Creates(a.first.Format)
	if err != nil {
		return refused("%v", err)
	}

	if a.keeper, err = format.Keep(attachments, w.beside(a.first)...); err != nil {
		return refused("%v", err)
	}

	w.arrays[uuid] = a
	if !w.idle {
		a.activate()
		a.write()
	}

	return nil
}

// beside returns the keepers of what runs of the container of an array.
func (w *world) beside(sb *metadata.Superblock) []metadata.Keeper {
	var all []metadata.Keeper

	for _, a := range w.arrays {
		if !sb.Container.IsZero() && a.first.Container == sb.Container {
			all = append(all, a.keeper)
		}
	}

	return all
}

// readingOf returns what a disk says of an array in whichever format, or nil.
func readingOf(src metadata.Source, array raid.UUID) *metadata.Superblock {
	for _, format := range scan.Formats() {
		if sb, err := format.Probe(src); err == nil && sb.Of(array) != nil {
			return sb.Of(array)
		}
	}

	return nil
}

// probe returns what the first format says that knows a disk.
func probe(src metadata.Source) (*metadata.Superblock, error) {
	for _, format := range scan.Formats() {
		if sb, err := format.Probe(src); !errors.Is(err, metadata.ErrNotFound) {
			return sb, err
		}
	}

	return nil, metadata.ErrNotFound
}

// at returns the disk that a path names.
func (w *world) at(path string) *fakeDisk {
	for _, f := range w.disks {
		if f.plugged && f.Path == path {
			return f
		}
	}

	return nil
}

// activate lets spares take slots that nobody has.
func (a *fakeArray) activate() {
	for slot := range raid.Slot(a.first.Disks) {
		i := slices.IndexFunc(a.members, func(m *fakeMember) bool {
			return m.record.Slot == slot && m.record.State != raid.Faulty
		})
		spare := slices.IndexFunc(a.members, func(m *fakeMember) bool { return m.record.State == raid.Spare })

		if i < 0 && spare >= 0 {
			a.members[spare].record = metadata.MemberRecord{State: raid.Recovering, Slot: slot}
		}
	}
}

// write records what is, where it reaches, unless nothing may be written.
func (a *fakeArray) write() {
	if a.ReadOnly {
		return
	}

	a.recorded = true
	st := metadata.State{
		ResyncOffset: raid.MaxSectors, Members: make(map[metadata.MemberID]metadata.MemberRecord), Now: time.Now(),
	}
	for _, m := range a.members {
		st.Members[m.id] = m.record
	}

	for _, stage := range a.keeper.Record(st) {
		for _, wr := range stage {
			for _, m := range a.members {
				if m.id == wr.Member && m.disk.plugged && m.disk.Path == m.path {
					copy(m.disk.image[wr.Sector.Bytes():], wr.Data)
				}
			}
		}
	}
}

// Request implements [Engine].
func (w *world) Request(_ context.Context, method string, parameters any) error {
	switch p := parameters.(type) {
	case api.ArrayParameters:
		return w.stop(p.Array)
	case api.MemberParameters:
		return w.change(method, p)
	default:
		w.mu.Lock()
		defer w.mu.Unlock()

		w.asked = append(w.asked, fmt.Sprintf("%s %+v", method, parameters))

		return w.answer
	}
}

func (w *world) stop(array string) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	uuid, _ := raid.ParseUUID(array)
	if w.arrays[uuid] == nil {
		return refused("no such array")
	}

	w.arrays[uuid].write()

	if k, shares := w.arrays[uuid].keeper.(metadata.Sharing); shares {
		k.Leave()
	}

	delete(w.arrays, uuid)

	return nil
}

// change adds, fails or removes a member.
func (w *world) change(method string, p api.MemberParameters) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	uuid, _ := raid.ParseUUID(p.Array)

	a := w.arrays[uuid]
	if a == nil {
		return refused("no such array")
	}

	i := slices.IndexFunc(a.members, func(m *fakeMember) bool { return m.path == p.Device })

	switch {
	case method == "Add" && i >= 0:
		return refused("%s is a member", p.Device)
	case method == "Add" && w.takeNone == a.Name:
		return refused("%s takes no member", a.Name)
	case method == "Add":
		f := w.at(p.Device)
		if f == nil {
			return refused("no device %s", p.Device)
		}

		id, _, _, err := a.keeper.Add(f.source(), raid.UUID{f.Serial[0], 0xee, byte(w.seq), byte(len(f.Serial))})
		if err != nil {
			return refused("%v", err)
		}

		if p.Anew {
			w.asked = append(w.asked, "fill anew "+f.Serial)
		}

		a.members = append(a.members,
			&fakeMember{id, f, p.Device, metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}})
	case i < 0:
		return refused("no member %s", p.Device)
	case method == "Fail":
		a.members[i].record.State = raid.Faulty
	case method == "Remove":
		if s := a.members[i].record.State; s != raid.Faulty && s != raid.Spare {
			return refused("%s is %s", p.Device, s)
		}

		a.keeper.Forget(a.members[i].id)
		a.members = slices.Delete(a.members, i, i+1)
	}

	a.activate()
	a.write()

	return nil
}

// recovered ends the recoveries that go on.
func (w *world) recovered() {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, a := range w.arrays {
		for _, m := range a.members {
			if m.record.State == raid.Recovering {
				m.record.State = raid.InSync
			}
		}

		a.write()
	}
}

// other is a method that the fake engine only notes.
func other[P any](w *world, name string) varlink.Method {
	return varlink.Method{Handle: func(ctx context.Context, call *varlink.Call) (any, error) {
		var p P
		if err := call.Parameters(&p); err != nil {
			return nil, err
		}

		return nil, w.Request(ctx, name, p)
	}}
}

// engineInterface is the fake engine as it is served on a socket.
func (w *world) engineInterface() varlink.Interface {
	change := func(method string) varlink.Method {
		return varlink.Method{Handle: func(_ context.Context, call *varlink.Call) (any, error) {
			var p api.MemberParameters
			if err := call.Parameters(&p); err != nil {
				return nil, err
			}

			return nil, w.change(method, p)
		}}
	}
	list := func(ctx context.Context, _ *varlink.Call) (any, error) {
		return w.List(ctx)
	}

	return varlink.Interface{
		Name: api.EngineInterface, Description: api.EngineDescription,
		Methods: map[string]varlink.Method{
			"List": {Access: varlink.Read, Handle: list},
			"Watch": {Access: varlink.Read, Handle: func(ctx context.Context, call *varlink.Call) (any, error) {
				out, err := list(ctx, call)
				if err == nil {
					err = call.Send(out)
				}

				<-ctx.Done()

				return out, err
			}},
			"Start": {Handle: func(ctx context.Context, call *varlink.Call) (any, error) {
				var p api.StartParameters
				if err := call.Parameters(&p); err != nil {
					return nil, err
				}

				return api.ArrayReply{}, w.Start(ctx, p)
			}},
			"Stop": {Handle: func(_ context.Context, call *varlink.Call) (any, error) {
				var p api.ArrayParameters
				if err := call.Parameters(&p); err != nil {
					return nil, err
				}

				return nil, w.stop(p.Array)
			}},
			"Add": change("Add"), "Fail": change("Fail"), "Remove": change("Remove"),
			"Sync": other[api.SyncParameters](w, "Sync"), "Replace": other[api.ReplaceParameters](w, "Replace"),
			"Limit": other[api.LimitParameters](w, "Limit"), "Access": other[api.AccessParameters](w, "Access"),
			"Bitmap": other[api.BitmapParameters](w, "Bitmap"),
		},
	}
}
