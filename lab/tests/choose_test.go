package tests

import (
	"fmt"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestChoose has md run each half of a mirror without the other, and write to it.
// When both are here, neither is served, whichever comes first. The half that is
// chosen is served as it was, the other is filled anew, and md finds both alike.
func TestChoose(t *testing.T) {
	takesLong(t)

	a := array{name: "one", level: 1, members: 2, size: 24 << 20, args: "--bitmap=internal"}
	b := start(t)
	disks := b.MustDisks(a.members, a.size, "m")
	b.make(a, disks)

	for i, d := range disks {
		b.MustShell(fmt.Sprintf(`
mdadm --assemble /dev/md/one --run %[1]s 2>&1
udevadm settle
dd if=/dev/urandom of=/dev/md/one bs=1M count=2 seek=%[2]d oflag=direct status=none
cp /dev/md/one /root/half%[3]d
mdadm --stop --quiet /dev/md/one
udevadm settle`, d.MustDev(), 2+i, i))
	}

	b.install()

	for _, order := range [][]int{{0, 1}, {1, 0}} {
		b.MustShell("systemctl stop raid-assembler.service")
		b.pull(disks...)
		b.pushInOrder(disks, order)
		b.MustShell("systemctl start raid-assembler.service")
		b.MustWaitFor(patience, `raid-assembler explain one | grep -q 'each went on without the other'`)

		if st, ok := b.array("one"); !ok || st.State != string(raid.Inactive) {
			t.Errorf("in the order %v: %+v, want it inactive", order, st)
		}
	}

	before := b.MustShell("sha256sum " + devices(disks))
	lines := b.MustShell("raid-assembler explain one; test ! -e /dev/raid/one")

	for _, d := range disks {
		if !strings.Contains(lines, "--choose "+d.MustDev()+" keeps it") {
			t.Errorf("explain: %s\nwant the history of %s", lines, d.MustDev())
		}
	}

	b.MustShell(fmt.Sprintf(`
raid-assembler assemble one --choose %[1]s --dry-run | grep 'would be started'
rc=0; raid-assembler assemble one --choose %[1]s %[2]s || rc=$?; [ $rc = 3 ]
test ! -e /dev/raid/one`, disks[1].MustDev(), disks[0].MustDev()))

	if after := b.MustShell("sha256sum " + devices(disks)); after != before {
		t.Errorf("what was only looked at holds:\n%s\nand held:\n%s", after, before)
	}

	b.MustShell("raid-assembler assemble one --choose " + disks[1].Serial())
	b.await("one", patience, "recovered", whole)
	b.MustShell("cmp /root/half1 /dev/raid/one; raid-assembler stop one; cp /root/half1 /root/one.data")
	b.mdRuns(a, disks, 0)
}
