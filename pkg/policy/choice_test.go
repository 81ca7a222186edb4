package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"

	"github.com/google/go-cmp/cmp"
)

// TestChoices checks what the administrator's choices make of an array of which
// some members are here.
func TestChoices(t *testing.T) {
	const whole, lacking = "0@7 1@7", "0@7 (1@7)"

	chosen := func(mode Mode) Choice { return Choice{Mode: mode, By: "f:1", Deadline: DefaultDeadline} }
	deadline := func(d time.Duration) Choice { return Choice{Deadline: d, DeadlineBy: "f:2"} }
	asked := func(v *View) { v.Asked = map[raid.UUID]bool{testArray: true} }
	writable := func(v *View) { v.Writable = map[raid.UUID]bool{testArray: true} }
	forced := func(v *View) { v.Forced = map[raid.UUID]bool{testArray: true} }

	for _, tt := range []struct {
		name    string
		members string
		choice  Choice
		waited  time.Duration
		change  func(v *View)
		want    Action
		ro      bool
		cause   Cause
		reason  string
	}{
		{"started", whole, chosen(Run), 0, nil, Start, false, "", "all 2 members are here"},
		{"started read-only", whole, chosen(RunReadOnly), 0, nil, Start, true, "", "all 2 members are here"},
		{"degraded too", lacking, chosen(RunReadOnly), late, nil, Start, true, "", "slot 1 is still missing"},
		{"but the operator had it written to", whole, chosen(RunReadOnly), 0, writable, Start, false, "", "all 2"},
		{"it waits as any other", lacking, chosen(RunReadOnly), 0, nil, Wait, false, Missing, "slot 1 is missing"},
		{"not started", whole, chosen(Leave), 0, nil, LeaveAlone, false, Chosen, "it is not started unasked: f:1; raid-assembler assemble 01"},
		{"unless asked", whole, chosen(Leave), 0, asked, Start, false, "", "all 2"},
		{"left to mdadm", whole, chosen(LeaveToMdadm), 0, nil, LeaveAlone, false, Chosen, "it is left to mdadm: f:1"},
		{"unless asked, too", whole, chosen(LeaveToMdadm), 0, asked, Start, false, "", "all 2"},
		{"nobody knows", whole, Choice{Deadline: 1, Fault: "f:9: oops"}, 0, nil, LeaveAlone, false, Unsettled, "not known (f:9: oops): correct that"},
		{"nobody knows, but asked", whole, Choice{Deadline: 1, Fault: "f:9: oops"}, 0, asked, Start, false, "", "all 2"},
		{"a longer deadline", lacking, deadline(2 * late), late, nil, Wait, false, Missing, "the rest has 2m0s (f:2) from the first"},
		{"its end", lacking, deadline(2 * late), 2 * late, nil, Start, false, "", "still missing 2m0s (f:2) after the first"},
		{"a shorter deadline", lacking, deadline(time.Second), time.Second, nil, Start, false, "", "still missing 1s (f:2)"},
		{"no end", lacking, deadline(Never), 1000 * late, nil, Wait, false, Missing, "not started without the rest: Deadline in f:2"},
		{"no end, by force", lacking, deadline(Never), 0, forced, Start, false, "", "slot 1 is missing, and it was asked for"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := array(raid.Level1, 2)
			v := View{Devices: draw(t, g, tt.members).here(), Waited: map[raid.UUID]time.Duration{testArray: tt.waited}}

			if tt.change != nil {
				tt.change(&v)
			}

			cfg := DefaultConfig()
			cfg.For = func(a Identity) Choice {
				if a.UUID != testArray || a.Name != "data" {
					t.Errorf("asked about %+v", a)
				}

				return tt.choice
			}

			got := Decide(v, cfg)[0]
			if got.Action != tt.want || got.ReadOnly != tt.ro || got.Cause != tt.cause || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Decide() = %+v, want %v, read-only %v, %q, %q", got, tt.want, tt.ro, tt.cause, tt.reason)
			}

			if tt.choice.Deadline == Never && got.Action == Wait && got.Left >= 0 {
				t.Errorf("left %v, want never", got.Left)
			}
		})
	}
}

// lender is a host of arrays that run, each with its disks: a letter a disk, its
// slot or S for a spare, and flags. All are in the domain "d" but for some.
//
//	a:0 a:1 a:S     an array with a spare
//	b:0 b:-         another that lacks a member
//	a:Su            a spare that its array has not got yet
//	b:Sx            shunned; o: in no domain; t: turns; s: smaller; k: of 4096-byte blocks; v: of version 1.0
//	a:Sl            larger; p: where the members of b were; e: in their enclosure; n: just refused by b
//	a:0c            in a container, as the array is; g: of that container and no array; h: of any container
type lender struct{ View }

func lending(tb testing.TB, level raid.Level, disks int, text string) lender {
	tb.Helper()

	l := lender{View{Ports: map[raid.UUID]map[raid.Slot]string{
		{'b'}: {0: "pci-1-sas-exp0x5-phy0-lun-0", 1: "pci-1-sas-exp0x5-phy1-lun-0"},
		{'c'}: {1: "pci-3-nvme-1"},
	}}}

	running := make(map[byte]*Running)

	for i, word := range strings.Fields(text) {
		name, what, _ := strings.Cut(word, ":")
		if name == "blank" {
			l.Devices = append(l.Devices, blankDisk(i, what))

			continue
		}

		uuid := raid.UUID{name[0]}

		r := running[name[0]]
		if r == nil {
			r = &Running{UUID: uuid, Name: name, Level: level, State: raid.Clean, Format: "1.2"}
			running[name[0]] = r
		}

		slot := raid.Slot(len(r.Members))
		if what == "-" {
			r.Members = append(r.Members, RunningMember{Slot: slot, State: raid.Missing})

			continue
		}

		d := Device{
			Path: fmt.Sprintf("/dev/sd%c", 'a'+i), Serial: fmt.Sprint(i), Size: 1100, Block: 512, Domains: []string{"c", "d"},
			Superblock: &Superblock{
				Array: uuid, Device: raid.UUID{0xdd, byte(i)}, Name: name, Format: "1.2", DataSize: 1050, Number: int(slot),
				Geometry: raid.Geometry{Level: level, Disks: disks, Size: 1000}, ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
			},
		}

		for n := range raid.Role(10) {
			d.Superblock.Roles = append(d.Superblock.Roles, n)
		}

		m := RunningMember{Path: d.Path, Serial: d.Serial, Slot: slot, State: raid.InSync}
		if what[0] == 'S' {
			m.Slot, m.State = raid.NoSlot, raid.Spare
			d.Superblock.Roles[slot] = raid.RoleSpare
		}

		held := true

		for _, flag := range what[1:] {
			switch flag {
			case 'u':
				held = false
			case 'x':
				d.Shunned = "it was removed by hand"
			case 'o':
				d.Domains = []string{"other"}
			case 't':
				d.Rotational = true
			case 's':
				d.Size = 1049 // 1050 is what a member needs
			case 'l':
				d.Size = 5000
			case 'k':
				d.Block = 4096
			case 'v':
				d.Superblock.Format = "1.0"
			case 'p':
				d.Port = "pci-1-sas-exp0x5-phy1-lun-0"
			case 'e':
				d.Port = "pci-1-sas-exp0x5-phy2-lun-0"
			case 'q':
				d.Port = "pci-2-nvme-1"
			case 'n':
				l.Refused = map[raid.UUID]map[string]bool{{'b'}: {d.Path: true}}
			case 'r':
				m.State = raid.Recovering
			case 'c':
				r.Container, d.Superblock.Container = raid.UUID{5}, raid.UUID{5}
			case 'g':
				d.Superblock.Array, d.Superblock.Container = raid.UUID{}, raid.UUID{5}
			case 'h':
				d.Superblock.Array = raid.UUID{}
			}
		}

		if held {
			r.Members = append(r.Members, m)
		}

		l.Devices = append(l.Devices, d)
	}

	for _, name := range slices.Sorted(maps.Keys(running)) {
		l.Running = append(l.Running, *running[name])
	}

	return l
}

// TestLend checks which spares move between arrays of a domain, and to whom.
func TestLend(t *testing.T) {
	for _, tt := range []struct {
		name  string
		level raid.Level
		disks int
		text  string
		want  string // "device array<owner", "<" alone if none has it
	}{
		{"a spare that another has", raid.Level1, 2, "a:0 a:1 a:S b:0 b:-", "/dev/sdc b<a"},
		{"one that nobody has yet", raid.Level1, 2, "a:0 a:1 a:Su b:0 b:-", "/dev/sdc b<"},
		{"its own comes first", raid.Level1, 2, "a:0 a:1 a:S b:0 b:- b:Su", "/dev/sdf b<"},
		{"nobody needs it", raid.Level1, 2, "a:0 a:1 a:S b:0 b:1", ""},
		{"its owner needs it", raid.Level1, 2, "a:0 a:- a:Su b:0 b:-", "/dev/sdc a<"},
		{"in no common domain", raid.Level1, 2, "a:0 a:1 a:So b:0 b:-", ""},
		{"a member is elsewhere", raid.Level1, 3, "a:0 a:1 a:2 a:S b:0 b:1o b:-", ""},
		{"the owner's members may be", raid.Level1, 2, "a:0o a:1o a:S b:0 b:-", "/dev/sdc b<a"},
		{"another kind of medium", raid.Level1, 2, "a:0 a:1 a:St b:0 b:-", ""},
		{"too small", raid.Level1, 2, "a:0 a:1 a:Ss b:0 b:-", ""},
		{"its blocks are too large", raid.Level1, 2, "a:0 a:1 a:Sk b:0 b:-", ""},
		{"but not for large ones", raid.Level1, 2, "a:0 a:1 a:Sk b:0k b:-", "/dev/sdc b<a"},
		{"with other metadata", raid.Level1, 2, "a:0 a:1 a:Sv b:0 b:-", "/dev/sdc b<a"},
		{"which comes second", raid.Level1, 2, "a:0 a:1 a:Sv a:S b:0 b:-", "/dev/sdd b<a"},
		{"unless it is smaller", raid.Level1, 2, "a:0 a:1 a:Sv a:Sl b:0 b:-", "/dev/sdc b<a"},
		{"of a container", raid.Level1, 2, "a:0c a:1c a:Sgu b:0 b:-", "/dev/sdc b<"},
		{"of one with two arrays", raid.Level1, 2, "a:0c a:1c a:Sgu c:0c c:1c b:0 b:-", "/dev/sdc b<"},
		{"which an array of it has", raid.Level1, 2, "a:0c a:1c a:Sg b:0 b:-", "/dev/sdc b<a"},
		{"which is needed there", raid.Level1, 2, "a:0c a:- a:Sgu b:0 b:-", "/dev/sdc a<"},
		{"which another array needs", raid.Level1, 3, "a:0c a:1c a:2c a:Sgs c:0c c:1c c:- b:0 b:1 b:-", ""},
		{"of one that does not run", raid.Level1, 2, "a:0 a:1 a:Sgu b:0 b:-", ""},
		{"of any container", raid.Level1, 2, "a:0 a:1 a:Shuv b:0 b:-", "/dev/sdc b<"},
		{"to a container", raid.Level1, 2, "a:0 a:1 a:S b:0c b:-", "/dev/sdc b<a"},
		{"where blocks are to be alike", raid.Level1, 2, "a:0 a:1 a:S b:0ck b:-", ""},
		{"one for both arrays of it", raid.Level1, 2, "a:0 a:1 a:S a:S b:0c b:- c:0c c:-", "/dev/sdc b<a"},
		{"removed by hand", raid.Level1, 2, "a:0 a:1 a:Sx b:0 b:-", ""},
		{"the smallest that fits", raid.Level1, 2, "a:0 a:1 a:Sl a:S b:0 b:-", "/dev/sdd b<a"},
		{"of who has most", raid.Level1, 2, "a:0 a:1 a:S c:0 c:1 c:S c:S b:0 b:-", "/dev/sdf b<c"},
		{"one for each", raid.Level1, 2, "a:0 a:1 a:S a:S b:0 b:- c:0 c:-", "/dev/sdc b<a, /dev/sdd c<a"},
		{"the most endangered first", raid.Level6, 4, "a:0 a:1 a:2 a:3 a:S b:0 b:1 b:2 b:- c:0 c:1 c:- c:-", "/dev/sde c<a"},
		{"no more than are needed", raid.Level6, 4, "a:0 a:1 a:2 a:3 a:S a:S a:S b:0 b:1 b:- b:-", "/dev/sde b<a, /dev/sdf b<a"},
		{"what is being recovered is in need of none", raid.Level1, 2, "a:0 a:1 a:S b:0 b:1r", ""},
		{"where the lost one was, though it is larger", raid.Level1, 2, "a:0 a:1 a:S a:Slp b:0 b:-", "/dev/sdd b<a"},
		{"in its enclosure", raid.Level1, 2, "a:0 a:1 a:S a:Sle b:0 b:-", "/dev/sdd b<a"},
		{"where it was before its enclosure", raid.Level1, 2, "a:0 a:1 a:Se a:Sp b:0 b:-", "/dev/sdd b<a"},
		{"elsewhere, where nobody has neighbours", raid.Level1, 2, "a:0 a:1 a:Sq a:Sl c:0 c:-", "/dev/sdc c<a"},
		{"not one that was just refused", raid.Level1, 2, "a:0 a:1 a:Sn a:Sl b:0 b:-", "/dev/sdd b<a"},
		{"which is its owner's", raid.Level1, 2, "a:0 a:1 a:Snu b:0 b:-", "/dev/sdc a<"},
		{"no redundancy to restore", raid.Level0, 2, "a:0 a:1 a:S b:0 b:-", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := lending(t, tt.level, tt.disks, tt.text).View

			var got []string

			for _, dec := range Decide(v, DefaultConfig()) {
				if dec.Action == AddSpare {
					got = append(got, fmt.Sprintf("%s %c<%s", dec.Device, dec.Array[0], strings.Trim(string(dec.From[:1]), "\x00")))
				}
			}

			if text := strings.Join(got, ", "); text != tt.want {
				t.Errorf("Decide() moves %q, want %q", text, tt.want)
			}

			want := Decide(v, DefaultConfig())
			for range len(v.Devices) {
				v.Devices = append(v.Devices[1:], v.Devices[0])
				if diff := cmp.Diff(want, Decide(v, DefaultConfig())); diff != "" {
					t.Fatalf("in another order (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestLendNot checks in which states arrays neither lend nor borrow.
func TestLendNot(t *testing.T) {
	for name, change := range map[string]func(v *View){
		"a broken lender":      func(v *View) { v.Running[0].State = raid.Broken },
		"a read-only borrower": func(v *View) { v.Running[1].State = raid.ReadOnly },
		"no member is here":    func(v *View) { v.Devices = v.Devices[:3] },
		"the spare is gone":    func(v *View) { v.Devices = append(v.Devices[:2], v.Devices[3]) },
		"the spare is of no array, and not understood": func(v *View) {
			v.Running[0].Members = v.Running[0].Members[:2]
			v.Devices[2].Superblock.Array, v.Devices[2].Superblock.Unsupported = raid.UUID{}, "it is from the future"
		},
		"the spare has a file system as well": func(v *View) {
			v.Devices[2].Conflicts = []string{"ext4"}
		},
	} {
		v := lending(t, raid.Level1, 2, "a:0 a:1 a:S b:0 b:-").View
		change(&v)

		for _, dec := range Decide(v, DefaultConfig()) {
			if dec.Action == AddSpare {
				t.Errorf("%s: %v", name, dec)
			}
		}
	}
}

// TestLendOfContainer: a spare of a container stays while an array that may have it has
// not been started, and one of any container while there is any such array.
func TestLendOfContainer(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		container  raid.UUID // of the array that has not been started
		format     string
		want       bool
	}{
		{"of this one", "a:0c a:1c a:Sgu b:0 b:-", raid.UUID{5}, "1.2", false},
		{"of another", "a:0c a:1c a:Sgu b:0 b:-", raid.UUID{6}, "1.2", true},
		{"for one of any", "a:0c a:1c a:Shu b:0 b:-", raid.UUID{6}, "1.2", false},
		{"of another format", "a:0c a:1c a:Shu b:0 b:-", raid.UUID{6}, "other", true},
	} {
		v := lending(t, raid.Level1, 2, tt.text).View
		waits := *v.Devices[0].Superblock
		waits.Array, waits.Device, waits.Container, waits.Format = raid.UUID{7}, raid.UUID{7}, tt.container, tt.format
		v.Devices = append(v.Devices, Device{Path: "/dev/sdz", Superblock: &waits})

		got := slices.ContainsFunc(Decide(v, DefaultConfig()), func(dec Decision) bool {
			return dec.Action == AddSpare && dec.Device == "/dev/sdc"
		})
		if got != tt.want {
			t.Errorf("an array waits %s: the spare is lent: %v", tt.name, got)
		}
	}
}
