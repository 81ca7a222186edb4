package policy

import (
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"

	"github.com/google/go-cmp/cmp"
)

// engineHas returns an array that runs with the first n of devices, in the
// slots of their superblocks.
func engineHas(g raid.Geometry, devices []Device, n int) Running {
	r := Running{UUID: testArray, Name: "data", Level: g.Level, State: raid.Clean}

	for _, d := range devices[:n] {
		m := RunningMember{Path: d.Path, Serial: d.Serial, Slot: raid.NoSlot, State: raid.Spare}
		if slot, ok := d.Superblock.slot(d.Superblock.Number); ok {
			m.Slot, m.State = slot, raid.InSync
		}

		r.Members = append(r.Members, m)
	}

	for slot := range raid.Slot(g.Disks) {
		if !slices.ContainsFunc(r.Members, func(m RunningMember) bool { return m.Slot == slot }) {
			r.Members = append(r.Members, RunningMember{Slot: slot, State: raid.Missing})
		}
	}

	return r
}

// TestTend checks what becomes of devices while their array runs. The engine
// has the first of those drawn; the change makes the case.
func TestTend(t *testing.T) {
	for _, tt := range []struct {
		name    string
		level   raid.Level
		disks   int
		members string
		has     int
		change  func(v *View)
		want    []string // a decision a line: action, device, a piece of the reason
	}{
		{"nothing to do", raid.Level5, 3, "0@7 1@7 2@7", 3, nil, nil},
		{
			"a member vanishes", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) { v.Devices = v.Devices[1:] },
			[]string{"fail-member /dev/sda removed from the bus"},
		},
		{
			"its name is another disk's", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) { v.Devices[0] = Device{Path: "/dev/sda", Serial: "new"} },
			[]string{"fail-member /dev/sda removed from the bus"},
		},
		{
			"it was unplugged and plugged in under its name", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) { v.Running[0].Members[0].DiskSeq, v.Devices[0].DiskSeq = 1, 2 },
			[]string{"fail-member /dev/sda removed", "leave-alone /dev/sda has not let go"},
		},
		{
			"a faulty one and a spare vanish", raid.Level5, 3, "0@7 1@7 2@7 S@7", 4,
			func(v *View) {
				v.Running[0].Members[0].State = raid.Faulty
				v.Devices = v.Devices[1:3]
			},
			[]string{"remove-member /dev/sda removed", "remove-member /dev/sdd removed"},
		},
		{
			"a broken array keeps its names", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) {
				v.Running[0].State = raid.Broken
				v.Running[0].Members[0].State = raid.Faulty
				v.Devices = v.Devices[2:]
			},
			[]string{"fail-member /dev/sdb removed from the bus"},
		},
		{
			"a faulty one that is here stays", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) { v.Running[0].Members[0].State = raid.Faulty }, nil,
		},
		{
			"a spare for a whole array", raid.Level5, 3, "0@7 1@7 2@7 S@1", 3, nil,
			[]string{"add-spare /dev/sdd which is whole"},
		},
		{
			"a spare for a vacant slot", raid.Level5, 3, "0@7 1@7 S@1", 2, nil,
			[]string{"add-spare /dev/sdc slot 2 is vacant"},
		},
		{
			"a spare that is too small", raid.Level5, 3, "0@7 1@7 S@1s", 2, nil,
			[]string{"leave-alone /dev/sdc too small"},
		},
		{
			"a spare that is shunned", raid.Level5, 3, "0@7 1@7 S@1x", 2, nil,
			[]string{"leave-alone /dev/sdc removed by hand"},
		},
		{
			"a spare that is claimed", raid.Level5, 3, "0@7 1@7 S@1m", 2, nil,
			[]string{"leave-alone /dev/sdc used by md127"},
		},
		{
			"a late member", raid.Level5, 3, "0@8 1@8 2!@7", 2, nil,
			[]string{"add-spare /dev/sdc stale: slot 2 at event 7"},
		},
		{
			"a late member that looks fresh", raid.Level5, 3, "0@7 1@7 2@7", 2, nil,
			[]string{"add-spare /dev/sdc stale: slot 2 at event 7"},
		},
		{
			"a late member and a spare: the spare is meant for it", raid.Level5, 3, "0@8 1@8 2!@7 S@1", 2, nil,
			[]string{"add-spare /dev/sdd slot 2 is vacant", "leave-alone /dev/sdc a spare takes its slot"},
		},
		{
			"a late member whose slot is taken", raid.Level5, 3, "0@8 1@8 2@8 2!@7", 3, nil,
			[]string{"leave-alone /dev/sdd its slot is taken"},
		},
		{
			"a late member that went on alone", raid.Level1, 2, "0-1@9 1-0@12", 1, nil,
			[]string{"leave-alone /dev/sdb went on without any member that runs now, to event 12"},
		},
		{
			"a late member of which nothing is known", raid.Level1, 2, "0@9 1@9", 1,
			func(v *View) { v.Devices[0].Superblock = nil },
			[]string{"leave-alone /dev/sdb went on without"},
		},
		{"a copy of a member", raid.Level1, 2, "0@9 0@9c", 1, nil, []string{"leave-alone /dev/sdb copy of /dev/sda"}},
		{
			"a member comes back before it is given up", raid.Level5, 3, "0@7 1@7 2@7", 3,
			func(v *View) { v.Devices[2].Path = "/dev/sdx" },
			[]string{"fail-member /dev/sdc removed", "leave-alone /dev/sdx has not let go"},
		},
		{"no redundancy", raid.Level0, 2, "0@1 1@1 S@1", 2, nil, []string{"leave-alone /dev/sdc raid0 has no use"}},
		{
			"a broken array", raid.Level5, 3, "0@7 1@7 2@7", 2,
			func(v *View) { v.Running[0].State = raid.Broken },
			[]string{"leave-alone /dev/sdc the array is broken"},
		},
		{
			"no member of the array is here", raid.Level1, 2, "0@7 1@7", 2,
			func(v *View) { v.Devices = nil },
			[]string{"fail-member /dev/sda removed", "fail-member /dev/sdb removed"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := array(tt.level, tt.disks)
			v := View{Devices: draw(t, g, tt.members).here()}
			v.Running = []Running{engineHas(g, v.Devices, tt.has)}

			if tt.change != nil {
				tt.change(&v)
			}

			got := Decide(v, DefaultConfig())
			if len(got) != len(tt.want) {
				t.Fatalf("Decide() = %v, want %q", got, tt.want)
			}

			for i, want := range tt.want {
				head, piece, _ := strings.Cut(want, got[i].Device+" ")
				if head != got[i].Action.String()+" " || !strings.Contains(got[i].Reason, piece) {
					t.Errorf("decision %d = %v, want %q", i, got[i], want)
				}
			}

			for _, p := range orders(v.Devices) {
				v.Devices = p
				if diff := cmp.Diff(got, Decide(v, DefaultConfig())); diff != "" {
					t.Fatalf("order %v (-want +got):\n%s", p, diff)
				}
			}
		})
	}
}

// TestReaddOff checks that the operator can keep former members out.
func TestReaddOff(t *testing.T) {
	g := array(raid.Level5, 3)
	v := View{Devices: draw(t, g, "0@8 1@8 2!@7 S@1").here()}
	v.Running = []Running{engineHas(g, v.Devices, 2)}
	cfg := DefaultConfig()
	cfg.Readd = false

	v.Devices = v.Devices[:3]
	if got := Decide(v, cfg); len(got) != 1 || got[0].Action != LeaveAlone ||
		!strings.Contains(got[0].Reason, "raid-assembler add") {
		t.Errorf("Decide() = %v, want the late member left alone, and the command named", got)
	}
}

// TestExplainDevice checks that a device is explained by what it says and by
// what is decided about it, and about its array.
func TestExplainDevice(t *testing.T) {
	v := View{Devices: draw(t, array(raid.Level5, 3), "0@8 1@8 2!@7").here()}
	v.Devices = append(v.Devices, Device{Path: "/dev/sdz"})

	for path, pieces := range map[string][]string{
		"/dev/sda": {"slot 0 by its own word, event 8, clean", "2: faulty", "Decision: start"},
		"/dev/sdc": {"event 7", "Decision: start", "Decision: leave-alone /dev/sdc"},
		"/dev/sdz": {"holds no RAID metadata"},
		"/dev/sdy": {"/dev/sdy is not there"},
	} {
		got := strings.Join(ExplainDevice(v, DefaultConfig(), path), "\n")
		for _, piece := range pieces {
			if !strings.Contains(got, piece) {
				t.Errorf("ExplainDevice(%s) = %s\nwant ... %s ...", path, got, piece)
			}
		}
	}
}

// TestActionString checks that every action has its own name.
func TestActionString(t *testing.T) {
	seen := make(map[string]bool)
	for a := LeaveAlone; a <= RemoveMember; a++ {
		seen[a.String()] = true
	}

	if len(seen) != int(RemoveMember)+1 {
		t.Errorf("names = %v, want %d", seen, int(RemoveMember)+1)
	}
}

// TestSecondArrayOfDevices has one array of two devices run, and a second on the
// same devices start, whatever the order in which they are told.
func TestSecondArrayOfDevices(t *testing.T) {
	one, two := raid.UUID{1}, raid.UUID{2}

	member := func(path string, array raid.UUID, number int) Device {
		return Device{Path: path, Serial: path, Superblock: &Superblock{
			Array: array, Device: raid.UUID{9, byte(number)}, Number: number, Roles: []raid.Role{0, 1}, Events: 5,
			Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 100}, DataSize: 100,
			ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
		}}
	}

	v := View{
		Devices: []Device{member("a", one, 0), member("b", one, 1), member("b", two, 1), member("a", two, 0)},
		Running: []Running{{UUID: one, Level: raid.Level1, State: raid.Clean, Members: []RunningMember{
			{Path: "a", Serial: "a", Slot: 0, State: raid.InSync}, {Path: "b", Serial: "b", Slot: 1, State: raid.InSync},
		}}},
	}

	for range 4 {
		ds := Decide(v, DefaultConfig())
		if len(ds) != 1 || ds[0].Action != Start || ds[0].Array != two || len(ds[0].Members) != 2 {
			t.Errorf("decided %v, want the second array to be started, and nothing else", ds)
		}

		v.Devices = append(v.Devices[1:], v.Devices[0])
	}
}

// TestSpareOfAContainer leaves a spare alone that is of no array, and says why.
func TestSpareOfAContainer(t *testing.T) {
	v := View{Devices: []Device{{Path: "a", Superblock: &Superblock{Device: raid.UUID{9}}}}}

	ds := Decide(v, DefaultConfig())
	if len(ds) != 1 || ds[0].Action != LeaveAlone || ds[0].Cause != Unneeded || ds[0].Device != "a" {
		t.Errorf("decided %v, want the device to be left alone", ds)
	}
}

// TestSpareOfAContainerIsGiven to the first array of its container that lacks a
// member, and to no other.
func TestSpareOfAContainerIsGiven(t *testing.T) {
	one, two, container := raid.UUID{1}, raid.UUID{2}, raid.UUID{7}
	running := func(uuid raid.UUID, state raid.MemberState) Running {
		return Running{
			UUID: uuid, Format: "kind", Container: container, Level: raid.Level1, State: raid.Clean,
			Members: []RunningMember{
				{Path: "x", Serial: "x", Slot: 0, State: raid.InSync}, {Slot: 1, State: state},
			},
		}
	}
	member := Device{Path: "x", Serial: "x", Block: 512, Superblock: &Superblock{
		Format: "kind", Array: two, Device: raid.UUID{8}, Container: container, Geometry: raid.Geometry{Size: 100},
		DataOffset: 20, DataSize: 100,
	}}

	for name, tt := range map[string]struct {
		spare Superblock
		block int
		array raid.UUID
	}{
		"given":               {Superblock{Container: container, DataSize: 100}, 512, two},
		"too small":           {Superblock{Container: container, DataSize: 99}, 512, raid.UUID{}},
		"another container":   {Superblock{Container: raid.UUID{6}, DataSize: 100}, 512, raid.UUID{}},
		"failed in container": {Superblock{Container: container, DataSize: 100, Unsupported: "it failed"}, 512, raid.UUID{}},
		"of any container":    {Superblock{Format: "kind", DataSize: 120}, 512, two},
		"of any, too small":   {Superblock{Format: "kind", DataSize: 119}, 512, raid.UUID{}},
		"of another format":   {Superblock{Format: "other", DataSize: 120}, 512, raid.UUID{}},
		"of any, but 4Kn":     {Superblock{Format: "kind", DataSize: 120}, 4096, raid.UUID{}},
	} {
		tt.spare.Device = raid.UUID{9}
		v := View{
			Running: []Running{running(one, raid.Recovering), running(two, raid.Missing)},
			Devices: []Device{{Path: "b", Block: tt.block, Superblock: &tt.spare}, member, {Path: "c", Superblock: &Superblock{
				Container: container, Device: raid.UUID{10}, DataSize: 100, Unsupported: "it failed as well",
			}}},
		}

		ds := slices.DeleteFunc(Decide(v, DefaultConfig()), func(d Decision) bool { return d.Device != "b" })
		want := LeaveAlone

		if !tt.array.IsZero() {
			want = AddSpare
		}

		if len(ds) != 1 || ds[0].Action != want || ds[0].Array != tt.array {
			t.Errorf("%s: decided %v, want %v of %v", name, ds, want, tt.array)
		}
	}
}

// TestFollow gives an array what another of its container has got that is to have the
// same members, unless it had that, or has no use for it.
func TestFollow(t *testing.T) {
	one, two, container := raid.UUID{1}, raid.UUID{2}, raid.UUID{7}

	for name, tt := range map[string]struct {
		change func(v *View)
		given  bool
	}{
		"given":             {func(*View) {}, true},
		"not to be of both": {func(v *View) { v.Devices[1].Superblock.Everywhere = false }, false},
		"another container": {func(v *View) { v.Running[1].Container = raid.UUID{8} }, false},
		"failed there":      {func(v *View) { v.Running[0].Members[1].State = raid.Faulty }, false},
		"failed here":       {func(v *View) { v.Running[1].Members[1].Path = "new" }, false},
		"of no use":         {func(v *View) { v.Running[1].Members[1] = RunningMember{Slot: 1, State: raid.Recovering} }, false},
		"held":              {func(v *View) { v.Devices[1].Shunned = "it was removed by hand" }, false},
		"was one before": {func(v *View) {
			v.Devices = append(v.Devices, Device{Path: "new", Superblock: &Superblock{
				Array: two, Container: container, Roles: []raid.Role{raid.RoleFaulty},
			}})
		}, false},
	} {
		sb := func(device byte) *Superblock {
			return &Superblock{Array: one, Device: raid.UUID{device}, Name: "one", Container: container, Everywhere: true}
		}
		v := View{
			Running: []Running{
				{UUID: one, Container: container, Level: raid.Level1, State: raid.Clean, Members: []RunningMember{
					{Path: "old", Slot: 0, State: raid.InSync}, {Path: "new", Slot: 1, State: raid.Recovering},
				}},
				{UUID: two, Container: container, Level: raid.Level1, State: raid.Clean, Members: []RunningMember{
					{Path: "old", Slot: 0, State: raid.InSync}, {Slot: 1, State: raid.Missing},
				}},
			},
			Devices: []Device{{Path: "old", Superblock: sb(8)}, {Path: "new", Superblock: sb(9)}},
		}
		tt.change(&v)

		ds := slices.DeleteFunc(Decide(v, DefaultConfig()), func(d Decision) bool { return d.Action != AddSpare })
		if given := len(ds) == 1 && ds[0].Array == two && ds[0].Device == "new"; given != tt.given || !given && len(ds) > 0 {
			t.Errorf("%s: decided %v", name, ds)
		}
	}
}
