package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

var arrays = []struct {
	array
	orders [][]int
}{
	{array{name: "zero", level: 0, members: 3, size: 32 << 20, args: "-c64"}, [][]int{{0, 1, 2}, {2, 0, 1}}},
	{array{name: "one", level: 1, members: 2, size: 32 << 20}, [][]int{{0, 1}, {1, 0}}},
	{
		array{name: "five", level: 5, members: 4, size: 32 << 20, args: "-c64"},
		[][]int{{3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}},
	},
}

// soon is less than any deadline of the policy: what is done so soon was done
// because of its event. How soon exactly depends on the machine below the guest.
const soon = 15 * time.Second

// TestAssemble pulls the disks of an array of mdadm's and pushes them in again
// in some order: it is there soon after the last, has its content, takes writes,
// and md finds nothing wrong with it afterwards.
func TestAssemble(t *testing.T) {
	for _, tt := range arrays {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t)
			disks := b.MustDisks(tt.members, tt.size, "m")
			b.make(tt.array, disks)
			b.pull(disks...)
			b.install()

			var took []time.Duration

			for i, order := range tt.orders {
				if i > 0 {
					b.MustShell("raid-assembler stop " + tt.name)
					b.pull(disks...)
				}

				b.pushInOrder(disks, order)
				took = append(took, b.arrives(tt.name, i+1))
				b.MustShell(fmt.Sprintf("cmp /root/%[1]s.data /dev/raid/%[1]s", tt.name))
			}

			if slices.Min(took) > soon {
				t.Errorf("%s was assembled %v after its last disk, want %v", tt.name, took, soon)
			}

			b.useAndHandBack(tt.array, disks)
		})
	}
}

// pull unplugs disks.
func (b *box) pull(disks ...*lab.GuestDisk) {
	b.t.Helper()

	for _, d := range disks {
		d.MustUnplug()
	}
}

// pushInOrder plugs disks in again.
func (b *box) pushInOrder(disks []*lab.GuestDisk, order []int) {
	b.t.Helper()

	shuffled := make([]*lab.GuestDisk, 0, len(disks))
	for _, i := range order {
		shuffled = append(shuffled, disks[i])
	}

	b.MustReplugAll(shuffled...)
}

// arrives checks that an array was assembled for the nth time, and returns how
// long after its last disk.
func (b *box) arrives(name string, n int) time.Duration {
	b.t.Helper()
	b.MustWaitFor(patience, "test -e /dev/raid/"+name)

	assembled := b.told("ArrayAssembled", n)
	if len(assembled) != n {
		b.t.Fatalf("%d times assembled, want %d: %+v", len(assembled), n, assembled)
	}

	took := assembled[n-1].at() - b.pluggedAt()
	b.t.Logf("%s: assembled %v after its last disk", name, took.Round(time.Millisecond))

	return took
}

// useAndHandBack puts a file system on the array, writes through us, and has
// md and fsck look at the result.
func (b *box) useAndHandBack(a array, disks []*lab.GuestDisk) {
	b.t.Helper()
	b.MustShell(fmt.Sprintf(`
mkfs.ext4 -q -F /dev/raid/%[1]s
mount /dev/raid/%[1]s /mnt
cp -r /usr/lib/udev /mnt/
sync -f /mnt
find /mnt/udev -type f -exec sha256sum {} + | sort > /root/files
umount /mnt`, a.name))

	if res, err := b.Shell("mount /dev/raid/" + a.name + " /mnt; raid-assembler stop " + a.name); err != nil ||
		res.ExitCode != 3 || !strings.Contains(res.Stderr, "the mount /mnt") {
		b.t.Errorf("stop of a mounted array: %v %+v, want exit 3 and a reason", err, res)
	}

	b.MustShell(fmt.Sprintf(`umount /mnt
cp /dev/raid/%[1]s /root/%[1]s.data
raid-assembler stop %[1]s
test ! -e /dev/raid/%[1]s`, a.name))

	for _, d := range disks {
		if out := b.MustShell("mdadm --examine " + d.MustDev()); !strings.Contains(out, "State : clean") ||
			!strings.Contains(out, "- correct") {
			b.t.Errorf("after the stop, mdadm says of %s: %s", d.Serial(), out)
		}
	}

	b.mdRuns(a, disks, 0)
	b.MustShell(fmt.Sprintf(`
mdadm --assemble /dev/md/%[1]s %[2]s
fsck.ext4 -f -n /dev/md/%[1]s
mount -o ro /dev/md/%[1]s /mnt
find /mnt/udev -type f -exec sha256sum {} + | sort | cmp - /root/files
umount /mnt
mdadm --stop /dev/md/%[1]s`, a.name, devices(disks)))
}

// TestNobodyElseAssembles checks that mdadm, whose own rules are in place,
// keeps its hands off what is ours, also when asked.
func TestNobodyElseAssembles(t *testing.T) {
	a := array{name: "one", level: 1, members: 2, size: 32 << 20}
	b := start(t)
	disks := b.MustDisks(a.members, a.size, "m")
	b.make(a, disks)
	b.install()
	b.await("one", patience, "assembled at start", whole)

	b.MustShell(`
! grep -q active /proc/mdstat
! mdadm --assemble --scan
! mdadm --zero-superblock ` + disks[0].MustDev() + `
! mkfs.ext4 -F -q ` + disks[1].MustDev() + `
udevadm trigger -c add -s block; udevadm settle
! grep -q active /proc/mdstat
cmp /root/one.data /dev/raid/one
ls /dev/disk/by-id/raid-name-one /dev/disk/by-id/raid-uuid-$(cat /root/one.uuid)
varlinkctl introspect /run/raid-engine/io.raidassembler.Engine io.raidassembler.Engine
varlinkctl introspect /run/raid-assembler/io.raidassembler.Assembler io.raidassembler.Assembler
raid-assembler doctor || [ $? = 1 ]
raid-assembler explain one
raid-assembler examine --json ` + disks[0].MustDev() + `
journalctl -x -b --no-pager SYSLOG_IDENTIFIER=raid-engine > /root/explained
grep -q "Subject: " /root/explained`)

	st, ok := b.array("one")
	if !ok || st.Level != "raid1" || st.Metadata != "1.2" || len(st.Members) != 2 || st.Members[1].Serial != "m1" {
		t.Errorf("status of the array: %+v", st)
	}
}

// TestPartitions has a partition table on an array, which udev reads in the
// kernel's place.
func TestPartitions(t *testing.T) {
	a := array{name: "one", level: 1, members: 2, size: 32 << 20}
	b := start(t)
	b.make(a, b.MustDisks(a.members, a.size, "m"))
	b.install()
	b.await("one", patience, "assembled at start", whole)

	// One partition of type Linux, from sector 2048, of 20480 sectors.
	mbr := make([]byte, 512)
	copy(mbr[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x50, 0, 0})
	mbr[510], mbr[511] = 0x55, 0xaa

	b.MustWriteFile("/root/mbr", string(mbr), 0o600)
	b.MustShell("dd if=/root/mbr of=/dev/raid/one oflag=direct status=none; raid-assembler stop one; " +
		"raid-assembler assemble one")
	b.MustWaitFor(patience, "test -b /dev/raid/one-part1 && test -L /dev/disk/by-id/raid-name-one-part1")
	b.MustShell("mkfs.ext4 -q /dev/raid/one-part1; mount /dev/raid/one-part1 /mnt; ! raid-assembler stop one; " +
		"umount /mnt; raid-assembler stop one")
}

func degradedBy(n int) func(api.Array) bool {
	return func(a api.Array) bool { return a.Degraded == n }
}
