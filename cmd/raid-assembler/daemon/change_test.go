package daemon

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// mustRefuse checks that an error is a refusal with a piece of a reason.
func mustRefuse(t *testing.T, err error, piece string) {
	t.Helper()

	got := reply(err)
	if got == nil || !strings.Contains(got.Error(), ".Refused: ") || !strings.Contains(got.Error(), piece) {
		t.Errorf("error = %v, want a refusal: ... %s ...", got, piece)
	}
}

func array(name string, devices ...string) api.ChangeParameters {
	return api.ChangeParameters{Array: name, Devices: devices}
}

// TestHold checks that an array that was stopped stays stopped, over a restart
// of the daemon too, until somebody asks for it.
func TestHold(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		w.plug(set...)
		w.run()
		w.pass(time.Second)

		dry := array("data")
		dry.DryRun = true

		if _, err := w.daemon.stop(t.Context(), dry); err != nil || w.state() == "" {
			t.Errorf("a dry run stopped it, or did not work: %v", err)
		}

		if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
			t.Error(err)
		}

		w.pass(5 * time.Minute)
		w.mustBe("")

		st, _ := w.daemon.status(t.Context())
		if len(st.Arrays) != 1 || st.Arrays[0].State != "inactive" || !strings.Contains(st.Arrays[0].Reason, "by hand") {
			t.Errorf("arrays = %+v, want data, inactive", st.Arrays)
		}

		w.killDaemon()
		w.run()
		w.pass(5 * time.Minute)
		w.mustBe("")

		// One is gone, and it is asked for.
		w.unplug(set[0])
		w.pass(time.Second)

		out, err := w.daemon.assemble(t.Context(), array("data"))
		if err != nil || !strings.Contains(out.Done[0], "slot 0 is missing") {
			t.Errorf("assemble = %q, %v, want it to wait", out.Done, err)
		}

		w.pass(29 * time.Second)
		w.mustBe("")

		force := array("data")
		force.Force = true

		out, err = w.daemon.assemble(t.Context(), force)
		if err != nil || out.Array == nil || out.Array.Name != "data" {
			t.Errorf("assemble --force = %+v, %v", out, err)
		}

		w.mustBe("data 0::missing 1:data1:in-sync 2:data2:in-sync")
	})
}

// TestHoldEnds checks that an array that was stopped is a new one when its disks
// are plugged in anew.
func TestHoldEnds(t *testing.T) {
	for name, act := range map[string]func(w *world, set []*fakeDisk){
		"a member": func(w *world, set []*fakeDisk) {
			w.unplug(set[1])
			w.pass(time.Second)
			w.mustBe("")
			w.plug(set[1])
		},
		"all": func(w *world, set []*fakeDisk) {
			for _, f := range set {
				w.unplug(f)
			}

			w.pass(time.Second)
			w.killDaemon()
			w.run()
			w.pass(time.Second)

			if entries, err := os.ReadDir(w.heldDir); err != nil || len(entries) != 0 {
				w.t.Errorf("held: %v, %v, want nothing", entries, err)
			}

			w.plug(set...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				set := w.set("data", raid.Level1, 2, 0)
				w.plug(set...)
				w.run()
				w.pass(time.Second)

				if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
					t.Error(err)
				}

				w.pass(time.Second)
				w.mustBe("")
				act(w, set)
				w.pass(time.Second)
				w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
			})
		})
	}
}

// TestByHand checks that a member that was taken out by hand stays out, until
// it is added or plugged in anew.
func TestByHand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		w.plug(set...)
		w.run()
		w.pass(time.Second)

		_, err := w.daemon.remove(t.Context(), array("data", "data1"))
		mustRefuse(t, err, "in-sync")

		for _, f := range []changeFunc{w.daemon.fail, w.daemon.remove} {
			if _, err := f(t.Context(), array("data", "data1")); err != nil {
				t.Error(err)
			}
		}

		w.pass(5 * time.Minute)
		w.killDaemon()
		w.run()
		w.pass(5 * time.Minute)
		w.mustBe("data 0:data0:in-sync 1::missing")

		out, err := w.daemon.add(t.Context(), array("data", set[1].Path))
		if err != nil || out.Array == nil {
			t.Errorf("add = %+v, %v", out, err)
		}

		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
		w.recovered()

		for _, f := range []changeFunc{w.daemon.fail, w.daemon.remove} {
			if _, err := f(t.Context(), array("data", "data1")); err != nil {
				t.Error(err)
			}
		}

		w.unplug(set[1])
		w.pass(time.Second)
		w.plug(set[1])
		w.pass(time.Second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
	})
}

// TestAdd checks what is given to an array, and what is not without force.
func TestAdd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		blank, ext, used := w.disk("blank"), w.disk("ext"), w.disk("used")
		ext.others, used.Claimed = []string{"ext"}, "the mount /home"
		w.plug(blank, ext, used)
		w.plug(w.set("web", raid.Level1, 2, 0)[0])
		w.run()
		w.pass(time.Second)

		for device, piece := range map[string]string{
			"ext":   "holds ext: with --force",
			"used":  "used by the mount /home",
			"web0":  `a member of the array "web"`,
			"data0": "member of a running array",
		} {
			_, err := w.daemon.add(t.Context(), array("data", device))
			mustRefuse(t, err, piece)
		}

		_, err := w.daemon.add(t.Context(), array("data", "nothing"))
		if got := reply(err); got == nil || !strings.Contains(got.Error(), "NotFound: no device is called") {
			t.Errorf("add = %v, want not found", got)
		}

		force := array("data", "blank", "ext")
		force.Force = true

		if _, err := w.daemon.add(t.Context(), force); err != nil {
			t.Error(err)
		}

		w.pass(time.Second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync S:blank:spare S:ext:spare")

		if ext.others != nil {
			t.Errorf("it holds %q as well now", ext.others)
		}

		if !slices.Contains(w.asked, "fill anew ext") {
			t.Errorf("the engine was asked for %q, want what was added by force filled anew", w.asked)
		}
	})
}

// TestCreate checks that a new array runs, and that nothing is overwritten that
// was not given up.
func TestCreate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		disks := []*fakeDisk{w.disk("a"), w.disk("b"), w.disk("c"), w.disk("d")}
		disks[1].others = []string{"gpt"}
		w.plug(disks...)
		w.run()
		w.pass(time.Second)

		p := api.CreateParameters{Name: "data", Level: "raid5", Disks: 3, Devices: []string{"a", "b", "c", "d"}}

		_, err := w.daemon.create(t.Context(), p)
		mustRefuse(t, err, "holds gpt: with --force")

		p.Force, p.DryRun = true, true

		out, err := w.daemon.create(t.Context(), p)
		if err != nil || out.Done[0] != "would create data, a raid5 of 3 with metadata 1.2 on a b c d" {
			t.Errorf("create = %q, %v", out.Done, err)
		}

		w.pass(time.Second)
		w.mustBe("")

		p.DryRun = false

		out, err = w.daemon.create(t.Context(), p)
		if err != nil || out.Array == nil || out.Array.Level != "raid5" {
			t.Errorf("create = %+v, %v", out, err)
		}

		w.mustBe("data 0:a:in-sync 1:b:in-sync 2:c:in-sync S:d:spare")

		w.plug(w.disk("e"), w.disk("f"))
		w.pass(time.Second)

		for piece, change := range map[string]func(p *api.CreateParameters){
			"there is an array called data":  func(*api.CreateParameters) {},
			"member of a running array":      func(p *api.CreateParameters) { p.Name, p.Devices = "new", []string{"e", "a"} },
			"is named twice":                 func(p *api.CreateParameters) { p.Name, p.Devices = "new", []string{"e", "e"} },
			`name "a b"`:                     func(p *api.CreateParameters) { p.Name = "a b" },
			"unknown level":                  func(p *api.CreateParameters) { p.Level = "7" },
			"2 slots, raid6 needs 4":         func(p *api.CreateParameters) { p.Level = "6" },
			"on 2 slots: 3 near and 1 far":   func(p *api.CreateParameters) { p.Level, p.Layout = "10", "n3" },
			"raid10 has nN, fN and oN":       func(p *api.CreateParameters) { p.Level, p.Layout = "10", "far" },
			"bitmap \"external\"":            func(p *api.CreateParameters) { p.Bitmap = "external" },
			"no redundancy that could be":    func(p *api.CreateParameters) { p.Level, p.Bitmap = "0", "internal" },
			"chunk of 3 KiB: a power of two": func(p *api.CreateParameters) { p.Level, p.ChunkKiB = "0", 3 },
			"chunk of 12 KiB: a power of":    func(p *api.CreateParameters) { p.Level, p.ChunkKiB = "5", 12 },
			"chunk of 131072 KiB":            func(p *api.CreateParameters) { p.Level, p.ChunkKiB = "5", 131072 },
			"chunk: raid1 has none":          func(p *api.CreateParameters) { p.ChunkKiB = 64 },
			"only raid5 has them":            func(p *api.CreateParameters) { p.PPL = true },
			"and then no bitmap": func(p *api.CreateParameters) {
				p.Level, p.PPL, p.Bitmap = "5", true, "internal"
			},
			`metadata "1.3"`:                func(p *api.CreateParameters) { p.Metadata = "1.3" },
			`layout "near": raid1 has none`: func(p *api.CreateParameters) { p.Layout = "near" },
			"sectors of each member":        func(p *api.CreateParameters) { p.Name, p.SizeBytes = "new", 1<<30 },
		} {
			q := api.CreateParameters{Name: "data", Level: "1", Disks: 2, Devices: []string{"e", "f"}, Force: true}
			change(&q)

			_, err := w.daemon.create(t.Context(), q)
			mustRefuse(t, err, piece)
		}
	})
}

// TestCreateInContainer makes a further array on devices that are a container's, all of
// them, of which none runs. By force it is a new container, in which nothing is left.
func TestCreateInContainer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, serial := range []string{"a", "b", "c"} {
			f := w.disk(serial)
			f.image = make([]byte, 2*diskBytes)
			f.Size *= 2
			w.plug(f)
		}

		w.run()
		w.pass(time.Second)

		p := api.CreateParameters{
			Name: "one", Level: "raid1", Disks: 2, Metadata: "imsm", SizeBytes: 1 << 20, AssumeClean: true,
			Devices: []string{"a", "b"},
		}
		if _, err := w.daemon.create(t.Context(), p); err != nil {
			t.Fatal(err)
		}

		p.Name, p.Level = "two", "raid0"

		_, err := w.daemon.create(t.Context(), p)
		mustRefuse(t, err, "member of a running array")

		if _, err := w.daemon.stop(t.Context(), array("one")); err != nil {
			t.Fatal(err)
		}

		w.pass(time.Second)

		for piece, change := range map[string]func(p *api.CreateParameters){
			`holds a member of the array "one"`:    func(p *api.CreateParameters) { p.Metadata = "1.2" },
			`a) holds a member of the array "one"`: func(p *api.CreateParameters) { p.Devices = []string{"c", "a"} },
			"a further volume needs all":           func(p *api.CreateParameters) { p.Disks, p.Devices = 1, []string{"a"} },
			"there is room for":                    func(p *api.CreateParameters) { p.SizeBytes = 16 << 20 },
		} {
			q := p
			change(&q)

			_, err := w.daemon.create(t.Context(), q)
			mustRefuse(t, err, piece)
		}

		out, err := w.daemon.create(t.Context(), p)
		if want := "created two, a raid0 of 2 with metadata imsm on a b, beside one"; err != nil || out.Done[0] != want {
			t.Fatalf("create = %q, %v, want %q", out.Done, err, want)
		}

		if _, err := w.daemon.assemble(t.Context(), array("one")); err != nil {
			t.Error(err)
		}

		w.pass(time.Second)

		both := strings.Split(w.state(), "\n")
		slices.Sort(both)

		if want := []string{"one 0:a:in-sync 1:b:in-sync", "two 0:a:in-sync 1:b:in-sync"}; !slices.Equal(both, want) {
			t.Errorf("state: %q, want %q", both, want)
		}

		for _, name := range []string{"one", "two"} {
			if _, err := w.daemon.stop(t.Context(), array(name)); err != nil {
				t.Error(err)
			}
		}

		w.pass(time.Second)

		p.Name, p.Force = "three", true
		if _, err := w.daemon.create(t.Context(), p); err != nil {
			t.Error(err)
		}

		w.mustBe("three 0:a:in-sync 1:b:in-sync")

		if sb := w.daemon.disks[w.disks["a"].Path].found.Superblock; sb == nil || sb.Name != "three" || len(sb.Others) > 0 {
			t.Errorf("the device says %+v", sb)
		}
	})
}

// TestPossible checks which geometries an array may have, whatever its devices.
func TestPossible(t *testing.T) {
	for _, tt := range []struct {
		level  raid.Level
		layout string
		disks  int
		chunk  raid.Sectors
	}{
		{raid.LevelLinear, "", 2, 0},
		{raid.Level0, "", 2, 24},
		{raid.Level0, "alternate", 3, 1 << 17},
		{raid.Level1, "", 1, 0},
		{raid.Level4, "", 3, 8},
		{raid.Level5, "parity-first", 2, 8},
		{raid.Level6, "left-symmetric-6", 4, 1 << 17},
		{raid.Level6, "ddf-zero-restart", 5, 128},
		{raid.Level10, "", 3, 128},
		{raid.Level10, "f3", 3, 128},
		{raid.Level10, "o2", 5, 128},
		{raid.Level6, "", 64, 1024},
	} {
		layout, err := raid.ParseLayout(tt.level, tt.layout)
		if err != nil {
			t.Fatal(err)
		}

		if err := possible(raid.Geometry{Level: tt.level, Layout: layout, Disks: tt.disks, Chunk: tt.chunk}); err != nil {
			t.Errorf("%v %s of %d with chunks of %d: %v", tt.level, tt.layout, tt.disks, tt.chunk, err)
		}
	}

	if policy.DisksMax != stripe.MaxDisks {
		t.Errorf("%d slots are promised, %d are served", policy.DisksMax, stripe.MaxDisks)
	}
}

// TestExplain checks that arrays and devices are explained by every name that
// they have.
func TestExplain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		other := w.disk("other")
		other.others = []string{"xfs"}
		w.plug(set[0], set[1], other)
		w.run()
		w.pass(time.Second)

		for what, pieces := range map[string][]string{
			"data":                             {"data is the array", "slot 0 by its own word", "Decision: wait"},
			"64000000000000000000000000000000": {"data is the array"},
			"data1":                            {"/dev/sdb", "slot 1 by its own word"},
			"/dev/sda":                         {"serial data0"},
			"other":                            {"it holds xfs", "no RAID metadata"},
		} {
			lines, err := w.daemon.explain(t.Context(), what)
			text := strings.Join(lines, "\n")

			for _, piece := range pieces {
				if err != nil || !strings.Contains(text, piece) {
					t.Errorf("explain %s = %s, %v\nwant ... %s ...", what, text, err, piece)
				}
			}
		}

		if _, err := w.daemon.explain(t.Context(), "nothing"); reply(err) == nil {
			t.Error("nothing was explained")
		}
	})
}

// TestNames checks that arrays of one name get names of their own, the same
// ones whatever comes first.
func TestNames(t *testing.T) {
	for _, order := range [][]string{{"x", "y"}, {"y", "x"}} {
		inWorld(t, func(t *testing.T, w *world) {
			one, two := w.set("x", raid.Level1, 2, 0), w.set("y", raid.Level1, 2, 0)
			sets := map[string][]*fakeDisk{"x": one, "y": two}
			w.run()
			w.pass(time.Second)

			// Both are called "data" by their metadata.
			probe := w.daemon.cfg.Host
			w.daemon.cfg.Host = renamed{probe}

			for _, name := range order {
				w.plug(sets[name]...)
			}

			w.pass(time.Second)

			names := []string{}
			for line := range strings.SplitSeq(w.state(), "\n") {
				names = append(names, strings.Fields(line)[0])
			}

			if !slices.Equal(names, []string{"data", "data_79000000"}) {
				t.Errorf("names = %q", names)
			}
		})
	}
}

// renamed is a host on which all arrays are called "data".
type renamed struct{ Host }

func (r renamed) Probe(disk Disk) Finding {
	f := r.Host.Probe(disk)
	if f.Superblock != nil {
		f.Superblock.Name = "data"
	}

	return f
}

// TestBusy checks that a change waits for what is being done to the array.
func TestBusy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()
		w.pass(time.Second)

		release, err := w.daemon.reserve(t.Context(), raid.UUID{'d'})
		if err != nil {
			t.Fatal(err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		if _, err := w.daemon.stop(ctx, array("data")); err == nil {
			t.Error("stop did not wait")
		}

		go func() {
			time.Sleep(time.Second)
			release()
		}()

		if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
			t.Errorf("stop = %v", err)
		}

		w.mustBe("")
	})
}

// TestStatus checks that everything that is here and not in use is shown, with
// the reason, and that what is in use is not.
func TestStatus(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		six := w.set("six", raid.Level10, 4, 0) // in a layout that has no copies
		five := w.set("five", raid.Level5, 3, 1)
		blank := w.disk("blank")
		w.plug(six...)
		w.plug(five[3], blank)
		w.plug(w.set("data", raid.Level1, 2, 1)...)
		w.run()
		w.pass(time.Second)

		st, err := w.daemon.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		if len(st.Arrays) != 2 || st.Arrays[0].Name != "data" || st.Arrays[1].Name != "six" {
			t.Fatalf("arrays = %+v, want data and six", st.Arrays)
		}

		a := st.Arrays[1]
		if a.State != "inactive" || a.Level != "raid10" || len(a.Members) != 4 || a.Metadata != "1.2" ||
			!strings.Contains(a.Reason, "2 near and 0 far copies") {
			t.Errorf("six = %+v", a)
		}

		if len(st.Waiting) != 1 || st.Waiting[0].Name != "five" || st.Waiting[0].SecondsLeft != -1 {
			t.Errorf("waiting = %+v, want five, for ever", st.Waiting)
		}

		if len(st.Spares) != 1 || st.Spares[0].Serial != "five3" || st.Spares[0].Array != "five" {
			t.Errorf("spares = %+v, want five3", st.Spares)
		}

		serials := []string{}
		for _, idle := range st.Unused {
			serials = append(serials, idle.Serial)
		}

		slices.Sort(serials)

		if !slices.Equal(serials, []string{"six0", "six1", "six2", "six3"}) {
			t.Errorf("unused = %q, want those of six", serials)
		}

		out, err := w.daemon.assemble(t.Context(), api.ChangeParameters{})
		if err != nil || len(out.Done) != 3 || !strings.Contains(out.Done[0], "data runs already") {
			t.Errorf("assemble all = %q, %v", out.Done, err)
		}
	})
}

// TestStopAssemble checks that what is asked for in one breath is answered by
// how things are, not by how they were: the members' superblocks have changed
// since the daemon read them, and not all by as much.
func TestStopAssemble(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		w.run()
		w.plug(set[:2]...)
		w.pass(31 * time.Second)
		w.plug(set[2])
		w.pass(time.Second)

		for range 5 {
			w.recovered()
		}

		w.hear("change", set[0].Path) // one of them is read again
		w.pass(time.Second)
		w.recovered()

		if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
			t.Error(err)
		}

		out, err := w.daemon.assemble(t.Context(), array("data"))
		if err != nil || !strings.Contains(out.Done[0], "was started with sda as 0, sdb as 1, sdc as 2") {
			t.Errorf("assemble = %q, %v", out.Done, err)
		}

		if _, err := w.daemon.fail(t.Context(), array("data", "data1")); err != nil {
			t.Error(err)
		}

		w.pass(time.Second)
		w.mustBe("data 0:data0:in-sync 1:data1:faulty 2:data2:in-sync")
	})
}

// TestCreateLooksAnew checks that a member which somebody erased is free to be used
// at once: udev does not watch members, and tells nothing of it.
func TestCreateLooksAnew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("old", raid.Level5, 3, 0)
		w.plug(set[:2]...)
		w.run()
		w.pass(time.Second)

		p := api.CreateParameters{Name: "new", Level: "raid1", Disks: 2, Devices: []string{"old0", "old1"}}

		_, err := w.daemon.create(t.Context(), p)
		mustRefuse(t, err, `holds a member of the array "old"`)

		w.mu.Lock()
		clear(set[0].image)
		clear(set[1].image)
		w.mu.Unlock()

		if _, err := w.daemon.create(t.Context(), p); err != nil {
			t.Error(err)
		}

		w.pass(time.Second)
		w.mustBe("new 0:old0:in-sync 1:old1:in-sync")
	})
}

// TestCreateOnABusyHost checks that what is asked for waits for disks that take longer
// to be read than decisions wait, and not for one that never answers.
func TestCreateOnABusyHost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("old", raid.Level5, 3, 0)
		w.plug(set...)
		w.hang(set[2])
		w.run()
		w.pass(2 * patience)

		w.mu.Lock()
		clear(set[0].image)
		clear(set[1].image)
		w.mu.Unlock()

		w.hang(set[0])
		w.hang(set[1])
		time.AfterFunc(2*patience, func() {
			w.hang(set[0])
			w.hang(set[1])
		})

		p := api.CreateParameters{Name: "new", Level: "raid1", Disks: 2, Devices: []string{"old0", "old1"}}
		if _, err := w.daemon.create(t.Context(), p); err != nil {
			t.Error(err)
		}

		w.pass(time.Second)
		w.mustBe("new 0:old0:in-sync 1:old1:in-sync")
	})
}
