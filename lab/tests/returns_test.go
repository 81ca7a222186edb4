package tests

import (
	"fmt"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// returning are arrays whose members come back after a moment.
var returning = []kind{
	{"one", raid.Level1, "", mib(24, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(24, 3), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(24, 4), "64", 1},
	{"ten", raid.Level10, "n2", mib(24, 4), "64", 1},
}

// TestReturns pulls a member under load and pushes it in again after 50, 200 and
// 1000 ms. The kernel gives it another name, since the array has the old one open
// still. It is taken in again, and holds what it missed. The fourth time is once too
// often: it has to wait, unless the operator does not. What the daemon recorded of all
// that is decided on replay as it was.
func TestReturns(t *testing.T) {
	f := newFleet(t, returning, false)
	f.create()
	f.engineStarts()

	for i, absence := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		loads := f.loads(anyKind, 12, 100+10*i)

		for _, k := range f.kinds {
			d := f.disks[k.name][1]
			before := d.MustDev()
			d.MustUnplug()
			time.Sleep(absence)
			d.MustReplug()
			t.Logf("%s: after %v %s is %s", k.name, absence, before, d.MustDev())
		}

		endAll(loads)
		f.awaitAll("whole after a return", whole)
		f.each("exercise check -model $M /dev/raid/$A\nraid-assembler check --wait $A >/dev/null 2>&1")
	}

	for _, k := range f.kinds {
		d := f.disks[k.name][1]
		d.MustUnplug()
		d.MustReplug()
		f.MustWaitFor(patience, fmt.Sprintf("raid-assembler explain %s | grep 'came back 4 times within a day'", k.name))
		f.MustShell(fmt.Sprintf("raid-assembler plan >plan && exit 1\n"+
			"grep '^now: %[2]s .* of %[1]s is left alone: it went and came back' plan\n"+
			"raid-assembler add %[1]s %[2]s", k.name, d.MustDev()))
	}

	f.awaitAll("whole since it was added", whole)
	f.each("exercise check -model $M /dev/raid/$A")
	t.Log(f.MustShell(`cd /root
raid-assembler plan
raid-assembler record report.jsonl
raid-assembler record --hash-serials hashed.jsonl
raid-assembler replay report.jsonl >shown
grep -q 'is to be given /dev/.* and is given what it missed' shown
grep -q 'came back 4 times within a day' shown
raid-assembler replay hashed.jsonl | grep '^All is decided as it was'
grep -q '"Serial":"hash-' hashed.jsonl
if grep -q '"Serial":"[^h"]' hashed.jsonl; then exit 1; fi
ls -l *.jsonl`))

	f.note()
	f.engineStops()
	f.mdChecks()
}
