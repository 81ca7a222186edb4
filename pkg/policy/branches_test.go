package policy

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestActionText reads each action that is written.
func TestActionText(t *testing.T) {
	for a := range Prove + 1 {
		var read Action

		text, err := a.MarshalText()
		if err != nil || string(text) != a.String() || read.UnmarshalText(text) != nil || read != a {
			t.Errorf("%v is written %q, %v, and read %v", a, text, err, read)
		}
	}

	if new(Action).UnmarshalText([]byte("jump")) == nil {
		t.Error("an action is called jump")
	}
}

// TestRareCases checks what nothing else comes to.
func TestRareCases(t *testing.T) {
	unsupported := func(v *View) { v.Devices[0].Superblock.Unsupported = "it is being reshaped" }
	runs := func(members ...RunningMember) func(v *View) {
		return func(v *View) {
			v.Running = []Running{{UUID: testArray, Name: "data", Level: raid.Level1, State: raid.Clean, Members: members}}
		}
	}

	for _, tt := range []struct {
		name, members string
		change        func(v *View)
		cfg           Config
		want          string
	}{
		{"all members are in use", "0@7m 1@7m", nil, DefaultConfig(), "leave-alone sda: it is used by md127"},
		{"what is not supported", "0@7 1@7", unsupported, DefaultConfig(), "leave-alone: it is being reshaped"},
		{"nobody says what is served", "0@7 1@7", nil, Config{}, "start [0a 1b]"},
		{"one that is to be replaced", "0@9 1@9 1@9rp", nil, DefaultConfig(), "start [0a 1b 1c]"},
		{"faulty by its own word", "0@7 F@7", nil, DefaultConfig(), "leave-alone sdb: its own superblock calls it faulty"},
		{"a slot that there is not", "0@7 5@7", nil, DefaultConfig(), "refuse: /dev/sdb holds slot 5 of an array that has 2"},
		{
			"another slot for the freshest", "0@7 1@7", func(v *View) {
				v.Devices[0].Superblock.Events, v.Devices[1].Superblock.Roles = 8, []raid.Role{1, 0}
			}, DefaultConfig(), "refuse: /dev/sdb holds slot 0 by its own superblock and slot 1 by that of /dev/sda",
		},
		{
			"who is missing is known", "0@7 (1@7)", func(v *View) {
				v.Known = map[raid.UUID]map[raid.Slot]string{testArray: {1: "serial K7"}}
			}, DefaultConfig(), "wait left=30s: slot 1 (serial K7) is missing",
		},
		{
			"of another shape", "0@7 1@7", func(v *View) { v.Devices[1].Superblock.Layout = 3 }, DefaultConfig(),
			"refuse: /dev/sda and /dev/sdb disagree about level, layout, chunk or number of members",
		},
		{
			"read-only", "0@7 1@7", func(v *View) {
				runs(RunningMember{Path: "/dev/sda", Serial: "serial-a", State: raid.InSync}, RunningMember{Slot: 1, State: raid.Missing})(v)
				v.Running[0].State = raid.ReadOnly
			}, DefaultConfig(), "leave-alone sdb: the array is read-only",
		},
		{
			"a number beyond the table", "0@7 1@7", func(v *View) { v.Devices[1].Superblock.Number = 9 },
			DefaultConfig(), "wait left=30s: slot 1 is missing",
		},
		{
			"not supported while it runs", "0@7 1@7", func(v *View) {
				runs(RunningMember{Path: "/dev/sda", Serial: "serial-a", State: raid.InSync}, RunningMember{Slot: 1, State: raid.Missing})(v)
				v.Devices[1].Superblock.Unsupported = "it is being reshaped"
			}, DefaultConfig(), "leave-alone sdb: it is being reshaped",
		},
		{
			"a slot whose disk is gone for good", "0@7", runs(RunningMember{Path: "/dev/sda", Serial: "serial-a", State: raid.InSync},
				RunningMember{Path: "/dev/sdq", Slot: 1, State: raid.Missing}), DefaultConfig(), "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := View{Devices: draw(t, array(raid.Level1, 2), tt.members).here()}
			if tt.change != nil {
				tt.change(&v)
			}

			var lines []string
			for _, d := range Decide(v, tt.cfg) {
				lines = append(lines, brief(d))
			}

			got := strings.Join(lines, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("Decide() = %s\nwant %q", got, tt.want)
			}
		})
	}
}

// TestEvidence checks what is said of the rarer states of a member.
func TestEvidence(t *testing.T) {
	v := View{Devices: draw(t, array(raid.Level1, 2), "0@7~ 1@7rp S@7x 2@7m").here()}
	other := v.Devices[0]
	other.Superblock = nil
	v.Devices = append(v.Devices, other)
	sb := v.Devices[1].Superblock
	sb.WriteMostly, sb.Bad, sb.Unsupported = true, 8, "it is being reshaped"
	v.Devices[2].Superblock.Roles = []raid.Role{raid.RoleSpare}

	text := strings.Join(Explain(v, DefaultConfig(), testArray), "\n")

	for _, want := range []string{
		"not clean (redundancy is right up to sector 0)", "to replace another in its slot, write-mostly, 8 sectors bad, it is being reshaped",
		"/dev/sdc (serial serial-c): it was removed by hand.", "its table says that nobody holds a slot",
		"/dev/sdd (serial serial-d): it is used by md127.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("Explain() lacks %q:\n%s", want, text)
		}
	}
}

// TestEveryBranch has the other tests run without those that are random, and checks that
// they come to each statement of the policy: each decision is shown by a case that
// somebody wrote.
func TestEveryBranch(t *testing.T) {
	if os.Getenv("POLICY_EVERY_BRANCH") != "" {
		return // it is the run below
	}

	profile := filepath.Join(t.TempDir(), "cover")
	cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-skip", "^(TestWalk|TestFleet)$", "-coverprofile", profile, ".")
	cmd.Env = append(os.Environ(), "POLICY_EVERY_BRANCH=1")

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test: %v\n%s", err, out)
	}

	f, err := os.Open(profile)
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = f.Close() }()

	blocks := 0

	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		blocks++

		// FILE:FROM,TO STATEMENTS COUNT
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] != "0" && fields[2] == "0" {
			t.Errorf("no case comes to %s", fields[0])
		}
	}

	if blocks < 100 {
		t.Errorf("only %d blocks in the profile", blocks)
	}
}
