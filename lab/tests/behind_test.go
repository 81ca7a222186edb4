package tests

import (
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// TestStaleAlone pulls a half of a mirror, writes on, and takes both disks away: what was
// left behind is not served when it comes alone, long after its deadline. The newer half
// is, as it was, and the other one recovered from it. Then the same again, and the operator
// has the older half served: that is not asked again.
func TestStaleAlone(t *testing.T) {
	takesLong(t)

	for _, metadata := range []string{"1.2", "imsm", "ddf"} {
		t.Run(metadata, func(t *testing.T) { staleAlone(t, metadata) })
	}
}

func staleAlone(t *testing.T, metadata string) {
	t.Helper()

	b := start(t)
	b.MustWriteFile("/root/tell", "#!/bin/sh\necho $RAID_ALARM $RAID_ALARM_STATE $RAID_REASON >>/root/told\n", 0o755)
	b.MustWriteFile("/etc/raid-assembler.conf", "[Alerts]\nProgram=/root/tell\n", 0o644)
	disks := b.MustDisks(2, 64<<20, "m")
	b.install()
	b.MustShell("raid-assembler create one --level 1 --devices 2 --size 16M --metadata " + metadata + " " + devices(disks))
	b.await("one", patience, "made", whole)

	b.leaveBehind(disks)
	b.staleWaits("m0")
	disks[0].MustReplug()
	b.await("one", patience, "served from the newer half", whole)
	b.MustShell("cmp /root/one.data /dev/raid/one")
	b.MustWaitFor(patience, "grep '^waiting over' /root/told")

	old := b.MustShell("sha256sum </dev/raid/one")
	b.leaveBehind(disks)
	b.staleWaits("m0")
	b.MustShell(`raid-assembler assemble --force --dry-run one | grep 'is missing, and it was asked for'
test ! -e /dev/raid/one
raid-assembler assemble --force one`)
	b.await("one", patience, "served by force", degradedBy(1))

	if served := b.MustShell("sha256sum </dev/raid/one"); served != old {
		t.Errorf("by force it serves %s, want %s as it was left behind", served, old)
	}

	b.MustWaitFor(patience, "journalctl -t raid-assembler | grep 'one has gone back: it was at event'")
	b.MustShell("raid-assembler stop one")
	disks[1].MustUnplug()
	disks[1].MustReplug()
	b.await("one", patience, "served once more", degradedBy(1))
}

// leaveBehind has the mirror go on without its second half, which alone is here afterwards.
func (b *box) leaveBehind(disks []*lab.GuestDisk) {
	b.t.Helper()
	disks[1].MustUnplug()
	b.await("one", patience, "one member is lost", func(a api.Array) bool { return a.Degraded == 1 && a.Recorded > 0 })
	b.MustShell(`dd if=/dev/urandom of=/dev/raid/one bs=1M count=4 oflag=direct conv=fsync status=none
cp /dev/raid/one /root/one.data
raid-assembler stop one`)
	disks[0].MustUnplug()
	disks[1].MustReplug()
}

// staleWaits checks that the mirror waits for the half with a serial number, and says so,
// well after its deadline.
func (b *box) staleWaits(serial string) {
	b.t.Helper()
	b.MustWaitFor(patience, "grep '^waiting on slot 0 (serial "+serial+",.*) is missing, and newer' /root/told")
	time.Sleep(45 * time.Second)

	st := b.status()
	if len(st.Arrays) > 0 || len(st.Waiting) != 1 || st.Waiting[0].SecondsLeft != -1 ||
		!strings.Contains(st.Waiting[0].Reason, "slot 0 (serial "+serial) {
		b.t.Errorf("status %+v, want that it waits for %s", st, serial)
	}

	b.MustShell(`test ! -e /dev/raid/one
raid-assembler plan >/root/plan || [ $? = 1 ]
grep 'and newer: the array was at event' /root/plan
raid-assembler explain one | grep 'in sync were slot 0 (serial ` + serial + `)'
rm /root/told`)
}
