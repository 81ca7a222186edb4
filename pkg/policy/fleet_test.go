package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestFleet lets the disks of several arrays, their spares and blank disks come and go
// at random, while the machine and whoever asks policy crash, also half-way through
// what was decided, and the engine refuses things now and then. It checks all that
// TestWalk does, and that
//
//   - no disk is given away that holds data: neither one that has a slot of another
//     array nor one that is not blank,
//   - no array lacks a member at rest while a spare or a blank disk is idle that fits,
//   - and none has a member that fails while a spare of its own is idle,
//   - no disk is given to an array again that was replaced since it failed.
func TestFleet(t *testing.T) {
	happened := make(map[string]int)

	for seed := range uint64(120) {
		f := newFleet(t, seed)
		f.happened = happened

		for range 80 {
			f.step(t, seed)
		}
	}

	for _, what := range []string{
		"moved", "moved from nobody", "given other metadata", "half moved", "blank used", "blank disproved", "refused", "own spare", "taken back", "healed",
		"flapped",
		"failing", "replaced", "replaced by a blank one", "let go of",
	} {
		if happened[what] == 0 {
			t.Errorf("never %s: %v", what, happened)
		}
	}
}

// fleet is several arrays in one domain, each a world of its own, and disks that are
// of none.
type fleet struct {
	rng      *rand.Rand
	worlds   []*world
	loose    []*disk
	clock    time.Duration
	refused  map[raid.UUID]map[string]bool
	numbers  int // of devices
	log      []string
	happened map[string]int
}

func newFleet(t *testing.T, seed uint64) *fleet {
	t.Helper()

	formats := []string{"1.2", "0.90", "1.2"}
	f := &fleet{rng: rand.New(rand.NewPCG(seed, 1)), refused: make(map[raid.UUID]map[string]bool)}

	for i, tt := range []struct {
		level   raid.Level
		disks   int
		members string
	}{{raid.Level1, 2, "0@7 1@7 S@7"}, {raid.Level5, 3, "0@7 1@7 2@7"}, {raid.Level6, 4, "0@7 1@7 2@7 3@7 S@7"}} {
		w := newWorld(draw(t, array(tt.level, tt.disks), tt.members))
		w.clock = &f.clock
		w.uuid, w.name = raid.UUID{byte(i + 1)}, string(rune('a'+i))
		disks := w.disks
		w.disks = make(map[string]*disk)

		for _, d := range disks {
			d.Path = strings.Replace(d.Path, "sd", "sd"+w.name, 1)
			d.Serial += w.name
			d.Superblock.Array, d.Superblock.Name = w.uuid, w.name
			d.Superblock.Format = formats[i]
			d.Superblock.Device[2] = byte(i)
			d.Domains = []string{"d"}
			d.back = make([]time.Duration, flapFree) // the next time is once too often
			w.disks[d.Path] = d
		}

		f.worlds = append(f.worlds, w)
	}

	for i := range 3 {
		d := &disk{Device: Device{
			Path: fmt.Sprintf("/dev/sdx%d", i), Serial: fmt.Sprint("x", i), Size: memberSize + 2048 + raid.Sectors(f.rng.IntN(3)-1),
			Domains: []string{"d"}, Fills: []string{"d"}, Blank: Unproven,
		}}
		if i == 0 {
			d.data = "somebody's"
		}

		f.loose = append(f.loose, d)
	}

	return f
}

func (f *fleet) view() View {
	v := View{Waited: make(map[raid.UUID]time.Duration), Refused: f.refused, Returned: make(map[string][]time.Duration)}

	for _, w := range f.worlds {
		one := w.view()
		v.Devices = append(v.Devices, one.Devices...)

		for i := range one.Running {
			one.Running[i].Format = w.running.members[0].Superblock.Format
		}

		v.Running = append(v.Running, one.Running...)

		for _, r := range one.Running {
			for i, m := range r.Members {
				if m.Path != "" {
					r.Members[i].Errors = f.find(m.Path).errors
				}
			}
		}

		v.Waited[w.uuid] = w.waited
		maps.Copy(v.Returned, one.Returned)
	}

	for _, d := range f.loose {
		if d.plugged {
			v.Devices = append(v.Devices, d.Device)
		}
	}

	f.rng.Shuffle(len(v.Devices), func(i, k int) { v.Devices[i], v.Devices[k] = v.Devices[k], v.Devices[i] })

	return v
}

// config has members replaced of which two operations failed.
func (f *fleet) config() Config {
	cfg := DefaultConfig()
	cfg.For = func(Identity) Choice { return Choice{Limits: Limits{Errors: 1}} }

	return cfg
}

func (f *fleet) world(uuid raid.UUID) *world {
	return f.worlds[slices.IndexFunc(f.worlds, func(w *world) bool { return w.uuid == uuid })]
}

func (f *fleet) step(t *testing.T, seed uint64) {
	t.Helper()

	f.log = append(f.log, f.move())

	for range 40 {
		ds := Decide(f.view(), f.config())
		todo := slices.DeleteFunc(slices.Clone(ds), func(d Decision) bool {
			return d.Action == LeaveAlone || d.Action == Wait || d.Action == Refuse
		})

		if slices.ContainsFunc(ds, func(d Decision) bool { return d.Cause == Flapping }) {
			f.happened["flapped"]++
		}

		if len(todo) == 0 {
			if wrong := f.idle(); wrong != "" {
				t.Fatalf("seed %d: %s\n%s", seed, wrong, f.history(ds))
			}

			return
		}

		// Whoever carries it out may die before the end, and the next one looks anew.
		if f.rng.IntN(8) == 0 {
			todo = todo[:f.rng.IntN(len(todo)+1)]
		}

		for _, d := range todo {
			f.log = append(f.log, "    "+brief(d))

			if wrong := f.check(d); wrong != "" {
				t.Fatalf("seed %d: %s\n%s", seed, wrong, f.history(ds))
			}

			f.carryOut(d)
		}
	}

	t.Fatalf("seed %d: no end of decisions\n%s", seed, f.history(nil))
}

func (f *fleet) history(ds []Decision) string {
	lines := f.log[max(0, len(f.log)-60):]

	for _, d := range ds {
		lines = append(lines, "decided: "+brief(d))
	}

	for _, w := range f.worlds {
		lines = append(lines, w.name+": "+strings.TrimSpace(w.describe()))
	}

	return strings.Join(lines, "\n")
}

// move does one random thing and returns what.
func (f *fleet) move() string {
	switch f.rng.IntN(12) {
	case 0: // of the machine
		for _, w := range f.worlds {
			w.running, w.waited = nil, 0
		}

		clear(f.refused)

		return "crash of the machine"
	case 1:
		clear(f.refused)

		dt := [...]time.Duration{30 * time.Second, 5 * time.Minute, 20 * time.Hour}[f.rng.IntN(9)/4]
		f.clock += dt
		for _, w := range f.worlds {
			w.waited += dt
		}

		return fmt.Sprint("pass ", dt)
	case 2, 3, 4:
		d := f.loose[f.rng.IntN(len(f.loose)+1)%len(f.loose)]
		f.worlds[0].plug(d, !d.plugged)

		if d.Superblock == nil {
			d.Blank, d.Content = Unproven, "" // nobody knows where it was
		}

		return fmt.Sprintf("plug %s: %v", d.Path, d.plugged)
	case 5:
		disks := f.worlds[f.rng.IntN(len(f.worlds))].sorted()
		if len(disks) == 0 {
			return "nothing"
		}

		d := disks[f.rng.IntN(len(disks))]
		d.errors += 2
		f.happened["failing"]++

		return fmt.Sprintf("%s fails, %d times so far", d.Path, d.errors)
	default:
		w := walker{world: f.worlds[f.rng.IntN(len(f.worlds))], rng: f.rng}
		if len(w.disks) == 0 {
			return "nothing"
		}

		return w.name + ": " + w.move()
	}
}

// check says what is wrong about carrying out d, or returns the empty string.
func (f *fleet) check(d Decision) string {
	w := f.world(d.Array)
	own := w.disks[d.Device]

	switch {
	case d.Action == AddSpare && f.find(d.Device).Worn != "":
		return d.Device + " is worn"
	case d.Action == AddSpare && own == nil:
		dk := f.find(d.Device)
		if dk.Superblock == nil {
			return map[bool]string{true: d.Device + " is not blank"}[dk.data != ""]
		}

		if _, holds := dk.Superblock.slot(dk.Superblock.Number); holds {
			return d.Device + " has a slot of another array"
		}

		return ""
	case d.Action == Prove:
		return ""
	default:
		walk := walker{world: w}

		return walk.check(d)
	}
}

func (f *fleet) find(path string) *disk {
	for _, w := range f.worlds {
		if d := w.disks[path]; d != nil {
			return d
		}
	}

	return f.loose[slices.IndexFunc(f.loose, func(d *disk) bool { return d.Path == path })]
}

func (f *fleet) carryOut(d Decision) {
	w := f.world(d.Array)

	switch {
	case d.Action == Prove:
		dk := f.find(d.Device)
		dk.Blank = Proven

		if dk.data != "" {
			dk.Blank, dk.Content = Disproved, "byte 0 is not zero"
			f.happened["blank disproved"]++
		}
	case d.Action == AddSpare && w.disks[d.Device] == nil:
		f.give(w, d)
	case d.Action == Replace:
		f.happened["replaced"]++
		f.find(d.Device).Worn = d.Fault

		w.carryOut([]Decision{d})
	default:
		if d.Action == RemoveMember && f.find(d.Device).Worn != "" && f.find(d.Device).plugged {
			f.happened["let go of"]++
		}

		if d.Action == AddSpare {
			f.happened[map[bool]string{true: "own spare", false: "taken back"}[strings.Contains(d.Reason, "a spare")]]++
		}

		w.carryOut([]Decision{d})

		if w.running != nil && w.status().State != raid.Broken {
			w.activate() // as the engine does by itself
		}
	}
}

// give gives an array a disk that is not its own. Its owner may let go of it, and then
// whoever sees to that dies, or the engine refuses.
func (f *fleet) give(w *world, d Decision) {
	dk := f.find(d.Device)

	if !d.From.IsZero() {
		f.world(d.From).carryOut([]Decision{{Action: RemoveMember, Array: d.From, Device: d.Device}})

		if f.rng.IntN(4) == 0 {
			f.happened["half moved"]++

			return
		}
	}

	if f.rng.IntN(6) == 0 {
		f.happened["refused"]++

		if f.refused[w.uuid] == nil {
			f.refused[w.uuid] = make(map[string]bool)
		}

		f.refused[w.uuid][d.Device] = true

		return
	}

	switch {
	case dk.Superblock == nil:
		f.happened["blank used"]++

		if strings.Contains(d.Reason, "is failing") {
			f.happened["replaced by a blank one"]++
		}
	case d.From.IsZero():
		f.happened["moved from nobody"]++
	default:
		f.happened["moved"]++
	}

	if strings.Contains(d.Reason, "gives way") {
		f.happened["given other metadata"]++
	}

	for _, other := range f.worlds {
		delete(other.disks, d.Device)
	}

	f.loose = slices.DeleteFunc(f.loose, func(l *disk) bool { return l == dk })
	if len(f.loose) == 0 {
		f.loose = append(f.loose, &disk{Device: Device{Path: "/dev/sdy", Serial: "y"}})
	}

	f.numbers++
	sb := *w.running.members[0].Superblock
	sb.Device = raid.UUID{0xee, byte(f.numbers), byte(f.numbers >> 8)}
	dk.Superblock, dk.Blank, dk.data = &sb, NotKnown, "?"
	w.disks[d.Device] = dk
	w.add(dk)
}

// idle says which array lacks a member though a disk that could be one is idle, or
// returns the empty string. What the engine refused a moment ago does not count, nor
// does what came back more often than it may, as long as it has to wait.
func (f *fleet) idle() string {
	var whole, lacking []*world

	for _, w := range f.worlds {
		switch {
		case w.running == nil || w.status().State == raid.Broken:
		case f.lacks(w) > 0:
			lacking = append(lacking, w)
		default:
			f.happened["healed"]++
			whole = append(whole, w)

			if failing := f.failing(w); failing != "" {
				return failing
			}
		}
	}

	for _, w := range lacking {
		for _, d := range f.loose {
			fits := d.plugged && d.Superblock == nil && d.data == "" && d.Size >= memberSize+2048 && len(d.Fills) > 0
			if fits && !f.refused[w.uuid][d.Path] {
				return fmt.Sprintf("%s lacks a member, and %s is blank", w.name, d.Path)
			}
		}

		for _, other := range append(whole, w) {
			for _, d := range other.disks {
				fits := d.plugged && d.Superblock.role(d.Superblock.Number) == raid.RoleSpare && f.spare(other, d)
				if fits && f.pausedFor(d) <= 0 && !f.refused[w.uuid][d.Path] && d.Size >= memberSize+2048 {
					return fmt.Sprintf("%s lacks a member, and %s is a spare of %s", w.name, d.Path, other.name)
				}
			}
		}
	}

	return ""
}

// pausedFor returns how long d is left alone yet, by going through its returns in order.
func (f *fleet) pausedFor(d *disk) time.Duration {
	if len(d.back) == 0 {
		return 0
	}

	last := d.back[len(d.back)-1]
	pause := time.Duration(0)

	for i, at := range slices.Backward(d.back) {
		nth := len(d.back) - i
		if last-at >= 24*time.Hour {
			break
		}

		switch {
		case nth < 4:
		case nth == 4:
			pause = time.Minute
		default:
			pause = min(2*pause, time.Hour)
		}
	}

	return last + pause - f.clock
}

// failing says which member of an array fails that lacks none and has a spare.
func (f *fleet) failing(w *world) string {
	failing, spare := "", false

	for _, m := range w.running.members {
		switch {
		case m.state == raid.Recovering:
			return "" // that comes first
		case m.state == raid.InSync && m.errors > 1:
			failing = m.Path
		case m.state == raid.Spare && m.plugged:
			spare = true
		}
	}

	if failing == "" || !spare {
		return ""
	}

	return fmt.Sprintf("%s of %s fails, and has a spare", failing, w.name)
}

// lacks returns how many slots nobody has or is being filled for.
func (f *fleet) lacks(w *world) int {
	n := w.g.Disks

	for _, m := range w.running.members {
		if m.slot != raid.NoSlot && m.state != raid.Faulty && m.state != raid.Spare {
			n--
		}
	}

	return n
}

// spare reports whether the model engine has d as a spare in w, or not at all.
func (f *fleet) spare(w *world, d *disk) bool {
	for _, m := range w.running.members {
		if m.disk == d {
			return m.state == raid.Spare
		}
	}

	return true
}
