package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// making are arrays that grow, arrays that are made of new disks, and one that is
// made of the disks of another.
var making = []kind{
	{"grown-one", raid.Level1, "", mib(9, 2), "", 1},
	{"grown-five", raid.Level5, "left-symmetric", mib(9, 3), "64", 1},
	{"new-one", raid.Level1, "", mib(9, 2), "", 1},
	{"new-five", raid.Level5, "left-symmetric", mib(9, 3), "64", 1},
	{"over-ten", raid.Level10, "n2", mib(9, 3), "64", 1},
}

// TestPowerCutWhileMaking cuts the power while new superblocks are on some of the
// members: of arrays that are made, and of arrays that are to use more of each
// member. Each member is afterwards one of the old array, one of the new, or none;
// what runs is right; and what was begun can be done again.
func TestPowerCutWhileMaking(t *testing.T) {
	takesLong(t)

	f := newFleet(t, making, true)
	f.keepModels()

	grown := func(k kind) bool { return strings.HasPrefix(k.name, "grown-") }
	made := func(k kind) bool { return !grown(k) }

	f.note()
	f.eachOf(grown, "C=\"$C --size=4096\"\n"+createScript)
	f.eachOf(func(k kind) bool { return k.name == "over-ten" }, "A=older\n"+createScript)
	f.MustInstall(stage)
	f.MustShell("udevadm settle; mdadm --stop --scan --quiet; systemctl start raid-engine.socket raid-assembler.service")

	before := make(map[string][]super)

	var all []*held

	for _, k := range f.kinds {
		for _, d := range f.disks[k.name] {
			before[k.name] = append(before[k.name], f.superOf(d))
		}

		h := &held{name: k.name, disks: f.disks[k.name], of: func(s super) any { return s.array }}

		switch {
		case k.name == "over-ten": // whose old superblocks are wiped first
			older := before[k.name][0].array
			h.of = func(s super) any { return s.array != older && s.array != [16]byte{} }
		case grown(k):
			h.of = func(s super) any { return s.size }
			f.await(k.name, patience, "assembled", whole)
		}

		all = append(all, h)
	}

	f.eachOf(grown, "dd if=/dev/raid/$A of=/models/$A.data bs=1M iflag=direct oflag=direct status=none")
	f.await("older", patience, "assembled", whole)
	f.MustShell("raid-assembler stop older")

	f.hold("growing and making", all, func() {
		for _, k := range f.kinds {
			script := makeScript
			if grown(k) {
				script = "raid-assembler grow $A --size max"
			}

			f.MustGo(fmt.Sprintf(". /run/%s.is\n%s", k.name, script))
		}
	})
	f.loseThePower(0)

	for _, k := range f.kinds {
		f.judgeMembers(k, before[k.name])
	}

	f.MustShell("systemctl start raid-engine.socket raid-assembler.service")
	f.eachOf(grown, "there /dev/raid/$A\ncmp -n $(stat -c %s /models/$A.data) /models/$A.data /dev/raid/$A")

	for _, k := range f.kinds {
		if a := f.settled(k); grown(k) && a.Degraded > 0 {
			t.Errorf("%s lost a member when it grew: %+v", k.name, a)
		}
	}

	f.eachOf(grown, `raid-assembler grow $A --size max >/run/$A.grow 2>&1 || grep -q "has room for" /run/$A.grow || {
	cat /run/$A.grow
	exit 1
}`)
	f.eachOf(made, `[ ! -e /dev/raid/$A ] || exercise fill -model $M /dev/raid/$A
[ ! -e /dev/raid/$A ] || exercise check -model $M /dev/raid/$A
[ ! -e /dev/raid/$A ] || raid-assembler stop $A
wipefs -aq $D
udevadm settle
`+makeScript)
	f.awaitAll("whole when it was done again", whole)
	f.eachOf(grown, "cmp -n $(stat -c %s /models/$A.data) /models/$A.data /dev/raid/$A")
	f.each("exercise fill -model $M /dev/raid/$A")
	f.engineStops()
	f.mdChecks()
}

// makeScript makes an array as mdadm's arguments in C say.
const makeScript = `set -- $C
O=()
for word; do
	case $word in
	-l*) O+=(--level "${word#-l}") ;;
	-n*) O+=(--devices "${word#-n}") ;;
	-c*) O+=(--chunk "${word#-c}K") ;;
	*) O+=("$word") ;;
	esac
done
raid-assembler create $A "${O[@]}" --force $D`

// judgeMembers checks that each member of an array is what it was, what it was to
// be, or none at all.
func (f *fleet) judgeMembers(k kind, before []super) {
	f.t.Helper()

	var is []string

	for i, d := range f.disks[k.name] {
		now := f.superOf(d)

		res, err := f.Shell("mdadm --examine " + d.MustDev())
		if err != nil {
			f.t.Fatal(err)
		}

		switch old := before[i]; {
		case !strings.Contains(res.Stdout, "- correct"): // its checksum
			is = append(is, "none")
		case now.array == old.array && now.size == old.size:
			is = append(is, "old")
		default:
			is = append(is, "new")
		}
	}

	f.t.Logf("%s: after the cut its members are %v", k.name, is)

	if strings.HasPrefix(k.name, "grown-") && slices.Contains(is, "none") {
		f.t.Errorf("%s: a member of an array that grew is none any more", k.name)
	}
}

// settled waits until it is clear what becomes of an array: it runs and nothing goes
// on, it waits for members without an end, or there is no such array.
func (f *fleet) settled(k kind) api.Array {
	f.t.Helper()

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		st := f.status()

		waits := slices.ContainsFunc(st.Waiting, func(w api.Waiting) bool {
			return strings.HasSuffix(w.Name, k.name) && w.SecondsLeft >= 0
		})
		i := slices.IndexFunc(st.Arrays, func(a api.Array) bool { return a.Name == k.name })

		switch {
		case i >= 0 && st.Arrays[i].Sync == nil:
			f.t.Logf("%s: %s, lacks %d", k.name, st.Arrays[i].State, st.Arrays[i].Degraded)

			return st.Arrays[i]
		case i < 0 && !waits:
			f.t.Logf("%s: does not run, %+v", k.name, st.Waiting)

			return api.Array{}
		}
	}

	f.t.Fatalf("%s is not settled: %+v", k.name, f.status())

	return api.Array{}
}
