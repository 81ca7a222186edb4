package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/raid"
)

// world is a host with some disks of one array, on the shelf or plugged in, and
// a model of the engine that is true to the order of writes and to nothing
// else: a failure is recorded on the survivors before a write is acknowledged,
// and each round gives every working member the same event count.
type world struct {
	uuid    raid.UUID
	name    string
	g       raid.Geometry
	disks   map[string]*disk // by path; on the shelf too
	running *modelArray
	waited  time.Duration
	clock   *time.Duration // several worlds may have one
	held    bool
	forced  bool
	writes  int // ever acknowledged
	numbers int // the highest ever used

	made map[string]Device // the disks as they were first, by path

	remembers bool   // somebody remembers how the array last ran
	last      Last   // as they do
	noted     string // the data that there was then
}

// disk is a disk and what is on it.
type disk struct {
	Device
	plugged bool
	gone    bool            // from an array that runs
	back    []time.Duration // when it came back, by the clock
	// data is the writes that it holds, in their order: one word each.
	data string
	// errors is how many of its operations failed of late.
	errors int
}

// modelArray is the array that the model engine runs.
type modelArray struct {
	members []modelMember
	events  uint64
	dirty   bool
	data    string // what was acknowledged
	settled bool   // all members have what the array has recorded
}

type modelMember struct {
	*disk
	slot  raid.Slot
	state raid.MemberState
}

func newWorld(dr drawing) *world {
	w := &world{
		uuid: testArray, name: "data", g: dr.geometry, numbers: len(dr.words) - 1, clock: new(time.Duration),
		disks: make(map[string]*disk), made: make(map[string]Device),
	}
	for _, d := range dr.devices() {
		w.disks[d.Path] = &disk{Device: d}
		w.made[d.Path] = d
	}

	return w
}

func (w *world) sorted() []*disk {
	var ds []*disk
	for _, d := range w.disks {
		ds = append(ds, d)
	}

	slices.SortFunc(ds, func(a, b *disk) int { return strings.Compare(a.Path, b.Path) })

	return ds
}

// plug plugs a disk in, or pulls it.
func (w *world) plug(d *disk, in bool) {
	switch {
	case !in && d.plugged && w.running != nil:
		d.gone = d.gone || slices.ContainsFunc(w.running.members, func(m modelMember) bool { return m.disk == d })
	case in && d.gone:
		d.gone, d.back = false, append(d.back, *w.clock)
	}

	d.plugged = in
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.waited += d
	*w.clock += d
}

func (w *world) view() View {
	v := View{
		Returned: make(map[string][]time.Duration),
		Waited:   map[raid.UUID]time.Duration{w.uuid: w.waited},
		Held:     map[raid.UUID]bool{w.uuid: w.held},
		Forced:   map[raid.UUID]bool{w.uuid: w.forced},
	}

	for _, d := range w.sorted() {
		if d.plugged {
			v.Devices = append(v.Devices, d.Device)
		}

		for _, at := range d.back {
			v.Returned[d.Path] = append(v.Returned[d.Path], *w.clock-at)
		}
	}

	if w.running != nil {
		v.Running = []Running{w.status()}
	}

	if w.last.Events > 0 {
		v.Last = map[raid.UUID]Last{w.uuid: w.last}
		v.Known = map[raid.UUID]map[raid.Slot]string{w.uuid: {}}

		for _, m := range w.last.Members {
			v.Known[w.uuid][m.Slot] = "serial " + m.Serial
		}
	}

	return v
}

// note has it remembered how the array runs, as the daemon does.
func (w *world) note() {
	a := w.running
	if !w.remembers || a == nil {
		return
	}

	if a.events < w.last.Events {
		w.last, w.noted = Last{}, ""
	}

	if !a.settled || w.status().State == raid.Broken {
		return
	}

	w.last, w.noted = Last{Events: a.events, Seen: time.Unix(1e9, 0)}, a.data

	for _, m := range a.members {
		if m.state == raid.InSync {
			w.last.Members = append(w.last.Members, LastMember{Serial: m.Serial, Slot: m.slot})
		}
	}

	slices.SortFunc(w.last.Members, func(a, b LastMember) int { return int(a.Slot - b.Slot) })
}

// status is what the model engine says.
func (w *world) status() Running {
	r := Running{UUID: w.uuid, Name: w.name, Level: w.g.Level, State: raid.Clean}
	filled := make(map[raid.Slot]bool)
	lost := w.g.Disks

	for _, m := range w.running.members {
		r.Members = append(r.Members, RunningMember{Path: m.Path, Serial: m.Serial, Slot: m.slot, State: m.state})

		if m.slot != raid.NoSlot && m.state != raid.Faulty {
			filled[m.slot] = true
		}

		if m.state == raid.InSync {
			lost--
		}
	}

	for slot := range raid.Slot(w.g.Disks) {
		if !filled[slot] {
			r.Members = append(r.Members, RunningMember{Slot: slot, State: raid.Missing})
		}
	}

	if lost > w.g.Level.Redundancy(w.g.Disks) {
		r.State = raid.Broken
	}

	return r
}

// carryOut does what was decided, as far as the engine has a part in it.
func (w *world) carryOut(ds []Decision) {
	for _, d := range ds {
		switch d.Action {
		case Start:
			w.start(d)
		case AddSpare:
			w.add(w.disks[d.Device])
		case FailMember:
			w.fail(d.Device)
			w.record(nil)
		case RemoveMember:
			w.running.members = slices.DeleteFunc(w.running.members,
				func(m modelMember) bool { return m.Path == d.Device })
			w.record(nil)
		case Replace:
			w.replace(d.Device)
		case LeaveAlone, Wait, Refuse, Prove:
		}
	}
}

// replace copies a member to a spare, which has its slot then.
func (w *world) replace(path string) {
	a := w.running
	old := slices.IndexFunc(a.members, func(m modelMember) bool { return m.Path == path })
	spare := slices.IndexFunc(a.members, func(m modelMember) bool { return m.state == raid.Spare && m.plugged })

	if spare < 0 {
		return // the engine refuses
	}

	a.members[spare].slot, a.members[spare].state, a.members[spare].data = a.members[old].slot, raid.InSync, a.data
	a.members[old].slot, a.members[old].state = raid.NoSlot, raid.Faulty
	w.record(nil)
}

func (w *world) start(d Decision) {
	w.running = &modelArray{data: "?"}
	w.waited, w.forced = 0, false

	for _, use := range d.Members {
		dk := w.disks[use.Path]
		m := modelMember{dk, use.Slot, raid.InSync}
		w.running.events = max(w.running.events, dk.Superblock.Events)

		switch {
		case use.Slot == raid.NoSlot:
			m.state = raid.Spare
		case !dk.inSync():
			m.state = raid.Recovering
		case w.running.data == "?":
			w.running.data = dk.data
		}

		w.running.members = append(w.running.members, m)
	}

	w.activate()
}

// add attaches a disk as a spare, under a number that no other ever had. A
// number that is used again for another makes two histories look like one.
func (w *world) add(d *disk) {
	w.numbers++

	sb := *d.Superblock
	sb.Number = w.numbers
	d.Superblock = &sb

	w.running.members = append(w.running.members, modelMember{d, raid.NoSlot, raid.Spare})
	w.activate()
	w.record(nil)
}

// activate lets spares take vacant slots.
func (w *world) activate() {
	for _, missing := range w.status().Members {
		if missing.State != raid.Missing {
			continue
		}

		for i := range w.running.members {
			if m := &w.running.members[i]; m.state == raid.Spare && m.plugged {
				m.slot, m.state, m.data = missing.Slot, raid.Recovering, "?"

				break
			}
		}
	}
}

func (w *world) fail(path string) {
	for i := range w.running.members {
		if m := &w.running.members[i]; m.Path == path {
			m.state = raid.Faulty
		}
	}
}

// record is one round of superblock writes. With only given, a crash lets no
// others happen than those for which it returns true.
func (w *world) record(only func() bool) {
	a := w.running
	a.events++
	a.settled = only == nil

	roles := make([]raid.Role, 128)
	for n := range roles {
		roles[n] = raid.RoleSpare
	}

	for _, m := range a.members {
		switch n := m.Superblock.Number; {
		case m.state == raid.Faulty:
			roles[n] = raid.RoleFaulty
		case m.slot != raid.NoSlot:
			roles[n] = raid.Role(m.slot)
		}
	}

	for _, m := range a.members {
		if m.state == raid.Faulty || !m.plugged || only != nil && !only() {
			continue
		}

		sb := *m.Superblock
		sb.Roles, sb.Events = roles, a.events
		sb.ResyncOffset, sb.RecoveryOffset = raid.MaxSectors, raid.MaxSectors

		if m.state == raid.Recovering {
			sb.RecoveryOffset = 0
		}

		if a.dirty {
			sb.ResyncOffset = 0
		}

		m.Superblock = &sb
	}
}

// write writes once through the array. Members that turn out to be gone are
// failed, and that is recorded, before the write is acknowledged. It reports
// whether it was.
func (w *world) write() bool {
	a := w.running
	wasDirty := a.dirty
	a.dirty = true
	failed := false

	for _, m := range a.members {
		if !m.plugged && m.state != raid.Faulty {
			w.fail(m.Path)

			failed = true
		}
	}

	w.activate()

	if failed || !wasDirty {
		w.record(nil)
	}

	if w.status().State == raid.Broken {
		return false
	}

	w.writes++
	a.data += fmt.Sprintf(" %d", w.writes)

	for _, m := range a.members {
		if m.state == raid.InSync {
			m.data = a.data
		}
	}

	return true
}

// recovered ends the recoveries that go on.
func (w *world) recovered() {
	for i := range w.running.members {
		if m := &w.running.members[i]; m.state == raid.Recovering && m.plugged {
			m.state, m.data = raid.InSync, w.running.data
		}
	}

	w.record(nil)
}

// stop stops the array cleanly.
func (w *world) stop() {
	if w.running.dirty {
		w.running.dirty = false
		w.record(nil)
	}

	w.running = nil
}

func (w *world) describe() string {
	if w.running == nil {
		return "not running\n"
	}

	var b strings.Builder

	r := w.status()
	fmt.Fprintf(&b, "%s", r.State)

	for _, m := range r.Members {
		slot := "S"
		if m.Slot != raid.NoSlot {
			slot = fmt.Sprint(int(m.Slot))
		}

		fmt.Fprintf(&b, " %s=%s:%s", slot, strings.TrimPrefix(m.Path, "/dev/"), m.State)
	}

	b.WriteString("\n")

	return b.String()
}
