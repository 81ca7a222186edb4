package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"

	"github.com/google/go-cmp/cmp"
)

const late = time.Minute

// use prints whom a decision starts an array with.
func use(d Decision) string {
	var words []string

	for _, m := range d.Members {
		name := strings.TrimPrefix(m.Path, "/dev/sd")
		if m.Slot == raid.NoSlot {
			words = append(words, "S"+name)
		} else {
			words = append(words, fmt.Sprintf("%d%s", m.Slot, name))
		}
	}

	return strings.Join(words, " ")
}

// TestAssemble checks what becomes of arrays that do not run. Each case names
// a piece of the reason, so that none passes for that of its neighbour.
func TestAssemble(t *testing.T) {
	for _, tt := range []struct {
		level   raid.Level
		disks   int
		members string // see drawing
		waited  time.Duration
		want    Action
		use     string
		reason  string
	}{
		// Nothing wrong.
		{raid.Level5, 3, "0@7 1@7 2@7", 0, Start, "0a 1b 2c", "all 3 members are here"},
		{raid.Level0, 3, "2@1 0@1 1@1", 0, Start, "0b 1c 2a", "all 3 members are here"},
		{raid.Level1, 2, "0@7 1@7 S@7", 0, Start, "0a 1b Sc", "all 2 members are here"},
		{raid.Level1, 2, "0@7 1@7 S@7s S@7x", 0, Start, "0a 1b", "all 2 members are here"},

		// A crash within a round: one event behind, and still listed.
		{raid.Level5, 3, "0@8~ 1@8~ 2@7", 0, Start, "0a 1b 2c", "all 3 members are here"},
		{raid.Level5, 3, "0@8~ 1@7 2@7", 0, Start, "0a 1b 2c", "all 3 members are here"},
		// The round was about a failure: the survivor that has not heard of
		// it is used, the one that failed is not, at the same event count.
		{raid.Level1, 3, "0-2@8 1@7 2@7", 0, Start, "0a 1b", "slot 2 is recorded as missing"},

		// One missing: wait, then go on without it.
		{raid.Level5, 3, "0@7 1@7 (2@7)", 0, Wait, "", "slot 2 is missing: 2 of 3 members are here"},
		{raid.Level5, 3, "0@7 1@7 (2@7)", late, Start, "0a 1b", "slot 2 is still missing 30s after"},
		{raid.Level5, 3, "0@7 1@7 (2@7) S@7", late, Start, "0a 1b Sd", "slot 2 is still missing"},
		{raid.Level1, 4, "0@7 (1@7) (2@7) (3@7)", late, Start, "0a", "slots 1, 2 and 3 are still missing"},
		// Recorded as missing: nobody to wait for.
		{raid.Level5, 3, "0@8 1@8 (2!@7)", 0, Start, "0a 1b", "all 2 members are here that /dev/sda calls working"},
		{raid.Level5, 3, "0@8 1@8 2!@7", 0, Start, "0a 1b", "slot 2 is recorded as missing"},
		{raid.Level5, 3, "0@8 1@8 2!@5", 0, Start, "0a 1b", "slot 2 is recorded as missing"},
		// Listed, but further behind than a crash explains.
		{raid.Level5, 3, "0@8 1@8 2@6", 0, Wait, "", "slot 2 is missing"},
		{raid.Level5, 3, "0@8 1@8 2@6", late, Start, "0a 1b", "slot 2 is still missing"},

		// Too many missing: no amount of waiting helps.
		{raid.Level5, 3, "0@7 (1@7) (2@7)", late, Wait, "", "slots 1 and 2 are missing"},
		{raid.Level0, 3, "0@7 1@7 (2@7)", late, Wait, "", "raid0 survives the loss of 0"},
		{raid.Level5, 3, "0@8 1!@7 2!@7", late, Refuse, "", "only 1 of 3 members are current"},
		{raid.Level5, 3, "S@7", late, Wait, "", "only spares are here"},
		// A spare has no say, however far ahead.
		{raid.Level5, 3, "0@7 1@7 2@7 S@99", 0, Start, "0a 1b 2c Sd", "all 3 members are here"},

		// The write hole: where parity is needed and wrong.
		{raid.Level5, 3, "0@7~ 1@7~ (2@7~)", 0, Wait, "", "slot 2 is missing"},
		{raid.Level5, 3, "0@7~ 1@7~ (2@7~)", late, Refuse, "", "plug in slot 2, or accept that with"},
		{raid.Level5, 3, "0@8~ 1@8~ 2!@7~", 0, Refuse, "", "may be wrong: accept that with raid-assembler assemble --accept-loss 01000000"},
		{raid.Level5, 3, "0@7~ 1@7~ 2@7~r", 0, Refuse, "", "1 of 3 members are not in sync"},
		{raid.Level5, 3, "0@7~ 1@7~ 2@7~", 0, Start, "0a 1b 2c", "all 3 members are here"},
		{raid.Level1, 2, "0@7~ (1@7~)", late, Start, "0a", "slot 1 is still missing"},

		// Recovering members have a slot, and no redundancy.
		{raid.Level5, 3, "0@7 1@7 2@7r", 0, Start, "0a 1b 2c", "1 of them not recovered yet"},
		{raid.Level5, 3, "0@7 (1@7) 2@7r", late, Wait, "", "slot 1 is missing"},
		{raid.Level5, 3, "0@7 1@7r 2@7r", late, Refuse, "", "only 1 of 3 members are current"},
		// A spare that became a member in the round that was cut short: it
		// is written in the table of the others only.
		{raid.Level1, 2, "0@7 1@8r", 0, Start, "0a 1b", "1 of them not recovered yet"},
		{raid.Level1, 2, "0-1@7 1@8r", 0, Start, "0a 1b", "1 of them not recovered yet"},

		{raid.Level1, 3, "0@7 1@7r 2@7r", 0, Start, "0a 1b 2c", "2 of them not recovered yet"},
		// The others know it as a member, itself it knows nothing: it is for
		// the running array to take. Nobody else is waited for.
		{raid.Level1, 2, "0@8 1@7S", 0, Start, "0a", "1 of them not recovered yet"},
		{raid.Level1, 2, "0@8 1@3S", 0, Wait, "", "slot 1 is missing"},

		// One that is to replace another shares its slot, and takes its place if
		// it holds everything.
		{raid.Level1, 2, "0@7 1@7 1@7rp", 0, Start, "0a 1b 1c", "all 2 members are here"},
		{raid.Level1, 2, "0@7 1@7rp 1@7", 0, Start, "0a 1c 1b", "all 2 members are here"},
		{raid.Level1, 2, "0@7 1@7 (1@7rp)", 0, Start, "0a 1b", "all 2 members are here"},
		{raid.Level1, 2, "0@7 (1@7) 1@7rp", 0, Wait, "", "slot 1 is missing"},
		{raid.Level1, 2, "0@7 (1@7) 1@7rp", late, Start, "0a", "slot 1 is still missing"},
		{raid.Level1, 2, "0@7 (1@7) 1@7p", 0, Start, "0a 1c", "all 2 members are here"},
		{raid.Level1, 2, "0@7 1!@6 1@7p", 0, Start, "0a 1c", "all 2 members are here"},
		{raid.Level1, 2, "0@7 1@7 1@7rp 1@7rp", 0, Refuse, "", "/dev/sdb and /dev/sdd both hold slot 1"},

		// What a RAID10 survives depends on who is missing.
		{raid.Level10, 4, "0@7 (1@7) 2@7 (3@7)", late, Start, "0a 2c", "slots 1 and 3 are still missing"},
		{raid.Level10, 4, "(0@7) (1@7) 2@7 3@7", late, Wait, "", "only where a copy of each chunk is left"},
		{raid.Level10, 4, "0@8 1@8 2!@7 3!@7", late, Refuse, "", "raid10 in the layout n2 survives the loss of more than 1"},
		{raid.Level10, 4, "0@7~ (1@7~) 2@7~ 3@7~", late, Start, "0a 2c 3d", "slot 1 is still missing"},
		{raid.Level6, 4, "(0@7) (1@7) 2@7 3@7", late, Start, "2c 3d", "slots 0 and 1 are still missing"},
		{raid.Level6, 4, "(0@7) (1@7) (2@7) 3@7", late, Wait, "", "raid6 survives the loss of 2"},
		{raid.Level6, 4, "(0@7~) 1@7~ 2@7~ 3@7~", late, Refuse, "", "plug in slot 0, or accept that"},

		// Contradictions.
		{raid.Level5, 3, "0@7 1@7 2@7 2@7c", 0, Refuse, "", "/dev/sdc and /dev/sdd are copies of one member"},
		{raid.Level5, 3, "0@7 1@7 2@7 2@7", 0, Refuse, "", "/dev/sdc and /dev/sdd both hold slot 2"},
		{raid.Level5, 4, "0@7 1-3@7 2@7 (3@7)", late, Refuse, "", "disagree about device number 3"},
		{raid.Level5, 3, "0@7 1@7 5@7", late, Refuse, "", "/dev/sdc holds slot 5 of an array that has 3"},
		{raid.Level1, 3, "0-1@7 1-2@7 2-0@7", late, Refuse, "", "write each other off in a circle"},
		// Equally fresh, and only one accuses: the other missed its round.
		{raid.Level1, 2, "0-1@8 1@8~", 0, Start, "0a", "slot 1 is recorded as missing"},
		// Both went on alone, whichever is ahead.
		{raid.Level1, 2, "0-1@9 1-0@9", late, Refuse, "", "each went on without the other"},
		{raid.Level1, 2, "0-1@9 1-0@8", late, Refuse, "", "each went on without the other"},
		{raid.Level1, 2, "0-1@2 1-0@80", late, Refuse, "", "--choose followed by /dev/sdb, or by /dev/sda"},
		{raid.Level1, 3, "0-2@9 1-2@9 2-01@5", late, Refuse, "", "--choose followed by /dev/sda /dev/sdb, or by /dev/sdc"},
		// An accuser that is older than one in sync, and confirmed by it,
		// cannot be explained.
		{raid.Level1, 2, "0-1@8 1@9", late, Refuse, "", "/dev/sda writes off /dev/sdb"},
		// Stale is not diverged: what is current now was with it then.
		{raid.Level1, 3, "0-12@9 1-2@8 2@7", 0, Start, "0a", "slots 1 and 2 are recorded as missing"},

		// In use elsewhere, perhaps running there.
		{raid.Level1, 2, "0@7m 1@7", late, Refuse, "", "its member /dev/sda is used by md127"},
		// Unless it is the same member under another name, as with multipath.
		{raid.Level1, 2, "0@7m 0@7c 1@7", 0, Start, "0b 1c", "all 2 members are here"},

		// Not for us.
		{raid.LevelLinear, 2, "0@7 1@7", 0, Start, "0a 1b", "all 2 members are here"},
		{raid.Level(7), 2, "0@7 1@7", 0, LeaveAlone, "", "raid7 is not served; mdadm may"},
		{raid.Level1, 65, "0@7", 0, LeaveAlone, "", "65 slots, and at most 64"},
		{raid.Level10, 1, "0@7", 0, LeaveAlone, "", "on 1 slots: 2 near and 1 far copies"},
	} {
		t.Run(fmt.Sprintf("%v %d %s", tt.level, tt.disks, tt.members), func(t *testing.T) {
			v := View{
				Devices: draw(t, array(tt.level, tt.disks), tt.members).here(),
				Waited:  map[raid.UUID]time.Duration{testArray: tt.waited},
			}
			got := Decide(v, DefaultConfig())[0]

			wrong := got.Device != "" || got.Action != tt.want || use(got) != tt.use
			if wrong || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Decide() = %v %q (%s), want %v %q (... %s ...)",
					got.Action, use(got), got.Reason, tt.want, tt.use, tt.reason)
			}

			for _, p := range orders(v.Devices) {
				v.Devices = p
				if diff := cmp.Diff(got, Decide(v, DefaultConfig())[0]); diff != "" {
					t.Fatalf("order %v (-want +got):\n%s", p, diff)
				}
			}
		})
	}
}

// orders returns every order of few devices, and some of many.
func orders(devices []Device) [][]Device {
	if len(devices) <= 4 {
		return permutations(devices)
	}

	const seed = 1

	rng := rand.New(rand.NewPCG(seed, seed))

	var some [][]Device

	for range 100 {
		p := slices.Clone(devices)
		rng.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
		some = append(some, p)
	}

	return some
}

// TestOrder checks that the order in which devices turn up, which the kernel
// does not promise, shows nowhere in any decision or explanation. The inputs
// have several devices to leave alone, several contradictions, and more than
// one candidate for a place.
func TestOrder(t *testing.T) {
	for _, members := range []string{
		"0@9 1@9 2@8 3@9 S@9",
		"0@9 1@9 2@8 3@2 4@1",
		"0@9 1@9 1@9 2@9 3@9",
		"0@9 1!@9 2!@9 3@9 4@9",
		"0-1@9 1-0@9 2-3@9 3-2@9",
		"0-1@9 1-0@9 2@9c 2@9 S@9",
		"0-34@9 1-34@9 2-34@8 3-012@8 4-012@8",
		"S@1 S@2 S@3 S@4c",
	} {
		dr := draw(t, array(raid.Level5, 5), members)
		v := View{Devices: dr.here(), Waited: map[raid.UUID]time.Duration{testArray: late}}
		want, wantLines := Decide(v, DefaultConfig()), Explain(v, DefaultConfig(), testArray)

		for _, p := range orders(v.Devices) {
			v.Devices = p
			if diff := cmp.Diff(want, Decide(v, DefaultConfig())); diff != "" {
				t.Fatalf("%s: Decide (-want +got):\n%s", members, diff)
			}

			if diff := cmp.Diff(wantLines, Explain(v, DefaultConfig(), testArray)); diff != "" {
				t.Fatalf("%s: Explain (-want +got):\n%s", members, diff)
			}
		}
	}
}

// TestHeldAndForced checks what the operator's wishes change.
func TestHeldAndForced(t *testing.T) {
	forced, held := map[raid.UUID]bool{testArray: true}, map[raid.UUID]bool{testArray: true}

	for _, tt := range []struct {
		name, members string
		view          View
		want          Action
		reason        string
	}{
		{"held", "0@7 1@7 2@7", View{Held: held}, LeaveAlone, "it was stopped by hand"},
		{"forced", "0@7 1@7 (2@7)", View{Forced: forced}, Start, "slot 2 is missing, and it was asked for"},
		{"forced over a hole", "0@7~ 1@7~ (2@7)", View{Forced: forced}, Refuse, "accept that with"},
		{"loss accepted", "0@7~ 1@7~ (2@7)", View{LossAccepted: forced}, Start, "slot 2 is missing, and it was asked for"},
		{"loss accepted beside a log", "0@7~l 1@7~l (2@7)", View{LossAccepted: forced}, Start, "it was asked for"},
		{"a log", "0@7~l 1@7~l 2@7~rl", View{}, Start, "1 of them not recovered yet"},
		{"a log, and one missing", "0@7~l 1@7~l (2@7)", View{Forced: forced}, Start, "slot 2 is missing"},
		{"an engine told", "0@7~ 1@7~ (2@7)", View{Told: forced, Forced: forced}, Start, "slot 2 is missing"},
		{"an engine told, and it may come yet", "0@7~ 1@7~ (2@7)", View{Told: forced}, Wait, "slot 2 is missing"},
		{"an engine told, recovering", "0@7~ 1@7~ 2@7~r", View{Told: forced}, Start, "1 of them not recovered yet"},
		{"loss accepted, recovering", "0@7~ 1@7~ 2@7~r", View{LossAccepted: forced}, Start, "1 of them not recovered yet"},
		{"no loss to accept", "0@7~ 1@7~ 2@7~", View{LossAccepted: forced}, Start, "all 3 members are here"},
		{"forced cannot do", "0@7 (1@7) (2@7)", View{Forced: forced}, Wait, "slots 1 and 2 are missing"},
		{"forced and diverged", "0-12@9 1-0@8 2-0@8", View{Forced: forced}, Refuse, "each went on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.view.Devices = draw(t, array(raid.Level5, 3), tt.members).here()

			got := Decide(tt.view, DefaultConfig())[0]
			if got.Action != tt.want || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Decide() = %v (%s), want %v (... %s ...)", got.Action, got.Reason, tt.want, tt.reason)
			}

			if want := strings.HasPrefix(tt.name, "loss accepted"); got.Loss != want {
				t.Errorf("Decide() accepts a loss: %v, want %v", got.Loss, want)
			}
		})
	}
}

// TestFaults checks that a device with something wrong about it is left alone,
// with the reason, and is not counted on.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(*Device)
		reason string
	}{
		{"claimed", func(d *Device) { d.Claimed = "/dev/md127" }, "it is used by /dev/md127"},
		{"unreadable", func(d *Device) { d.Unreadable = "EIO" }, "it could not be read: EIO"},
		{"corrupt", func(d *Device) { d.Superblock, d.Corrupt = nil, "checksum" }, "cannot be trusted: checksum"},
		{"foreign", func(d *Device) { d.Superblock, d.Foreign = nil, "md 0.90" }, "it holds md 0.90, which is not for us"},
		{"conflict", func(d *Device) { d.Conflicts = []string{"gpt", "ext4"} }, "something else too (ext4 and gpt)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := View{Devices: draw(t, array(raid.Level5, 3), "0@7 1@7 2@7").here()}
			tt.spoil(&v.Devices[1])

			ds := Decide(v, DefaultConfig())
			if ds[0].Action == Start {
				t.Errorf("Decide() starts the array: %s", ds[0].Reason)
			}

			i := slices.IndexFunc(ds, func(d Decision) bool { return d.Device == "/dev/sdb" })
			if i < 0 || ds[i].Action != LeaveAlone || !strings.Contains(ds[i].Reason, tt.reason) {
				t.Errorf("Decide() = %v, want /dev/sdb left alone: %s", ds, tt.reason)
			}
		})
	}
}

// TestBlank checks that a device that holds nothing is not worth a word.
func TestBlank(t *testing.T) {
	if got := Decide(View{Devices: []Device{{Path: "/dev/sda"}}}, DefaultConfig()); len(got) != 0 {
		t.Errorf("Decide() = %v, want nothing", got)
	}
}

// TestLeft checks that the time left runs down, while the reason stays the
// same: who logs decisions compares them.
func TestLeft(t *testing.T) {
	v := View{Devices: draw(t, array(raid.Level1, 2), "0@7 (1@7)").here()}

	var reasons []string

	for _, waited := range []time.Duration{0, 10 * time.Second, 29 * time.Second} {
		v.Waited = map[raid.UUID]time.Duration{testArray: waited}
		d := Decide(v, DefaultConfig())[0]

		if want := DefaultDeadline - waited; d.Left != want {
			t.Errorf("after %v: Left = %v, want %v", waited, d.Left, want)
		}

		reasons = append(reasons, d.Reason)
	}

	if distinct := slices.Compact(slices.Clone(reasons)); len(distinct) != 1 {
		t.Errorf("reasons differ: %q", reasons)
	}
}

// TestTwoArrays checks that arrays do not disturb each other, and come in the
// order of their UUIDs.
func TestTwoArrays(t *testing.T) {
	one := draw(t, array(raid.Level1, 2), "0@7 1@7").here()
	two := draw(t, array(raid.Level1, 2), "0@3 (1@3)").here()
	two[0].Path, two[0].Superblock.Array = "/dev/sdz", raid.UUID{2}

	got := Decide(View{Devices: append(two, one...)}, DefaultConfig())
	if len(got) != 2 || got[0].Array != testArray || got[0].Action != Start || got[1].Action != Wait {
		t.Errorf("Decide() = %v, want start, then wait", got)
	}
}

// TestCause checks that the kind of a reason is told, for who sorts decisions
// without reading prose.
func TestCause(t *testing.T) {
	for members, want := range map[string][]Cause{
		"0@7 1@7 (2@7)":       {Missing},
		"0@8~ 1@8~ 2!@7~":     {Hole, Stale},
		"0@7 1@7 2@7 2@7c":    {Cloned},
		"0@7 1@7 2@7 1@7":     {Cloned},
		"0-2@9 1@9 2@9":       {Conflict},
		"0-2@9 1-2@9 2-01@5":  {Diverged},
		"0@7 1@7m (2@7)":      {InUse, InUse},
		"0@8 1@8 (2@8) 2!@3":  {Missing, Stale},
		"S@7":                 {Missing},
		"0-1@7 1-2@7 2-0@7":   {Diverged},
		"0@7 1!@6 2!@6 (3@1)": {Missing, Stale, Stale},
	} {
		v := View{Devices: draw(t, array(raid.Level5, 3), members).here()}

		var got []Cause
		for _, d := range Decide(v, DefaultConfig()) {
			got = append(got, d.Cause)
		}

		if !slices.Equal(got, want) {
			t.Errorf("%s: causes = %q, want %q", members, got, want)
		}
	}
}
