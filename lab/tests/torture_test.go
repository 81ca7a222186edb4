package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// tortured are arrays large enough for file systems.
var tortured = []kind{
	{"one", raid.Level1, "", mib(80, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(40, 4), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(40, 5), "64", 2},
	{"ten", raid.Level10, "n2", mib(40, 5), "64", 1},
}

// mountScript makes a file system on an array, xfs or ext4, and mounts it.
const mountScript = `case $A in
one | five) mkfs.xfs -q -f --unsupported /dev/raid/$A ;;
*) mkfs.ext4 -q -F /dev/raid/$A ;;
esac
mkdir -p /srv/$A
mount /dev/raid/$A /srv/$A`

// TestFileSystems has xfs and ext4 on arrays, and on them fio, which verifies what
// it wrote, and fsx, while members fail, return and are replaced: no error, no
// byte that differs.
func TestFileSystems(t *testing.T) {
	f := newFleet(t, tortured, false)
	spares := f.plugSpares(false)

	f.create()
	f.engineStarts()
	f.each(mountScript)

	var loads []*lab.Job

	for i, k := range f.kinds {
		loads = append(loads,
			f.MustGo(fmt.Sprintf("fio --name=load --directory=/srv/%s --size=12M --direct=1 --ioengine=libaio --iodepth=8 "+
				"--rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_backlog=32 --do_verify=1 --randseed=%d "+
				"--time_based --runtime=45 >/run/%[1]s.fio 2>&1 || { cat /run/%[1]s.fio; exit 1; }", k.name, 80+i)),
			f.MustGo(fmt.Sprintf("exercise fsx -seed %d -for 45s /srv/%s/fsx", 90+i, k.name)))
	}

	for _, k := range f.kinds {
		f.disks[k.name][1].MustUnplug()
	}

	f.awaitAll("degraded", degradedBy(1))
	time.Sleep(3 * time.Second)

	for _, k := range f.kinds {
		f.disks[k.name][1].MustReplug()
	}

	f.awaitAll("whole after a return", whole)

	for _, k := range f.kinds {
		spare := spares[k.name]
		f.MustShell(fmt.Sprintf("raid-assembler replace --force %s %s %s", k.name, f.disks[k.name][0].MustDev(),
			spare.MustDev()))
		f.disks[k.name][0], spares[k.name] = spare, f.disks[k.name][0]
	}

	f.awaitAll("whole after a replacement", func(a api.Array) bool {
		return whole(a) && a.Members[0].Serial == a.Name+".spare"
	})
	f.note()
	f.each(`set -- $D
raid-assembler fail $A $2 >/dev/null
raid-assembler remove $A $2 >/dev/null
raid-assembler add --force $A $2 >/dev/null`)

	for _, load := range loads {
		if out := load.MustWait(patience); strings.Contains(out, "verify:") {
			t.Error(out)
		}
	}

	f.awaitAll("whole in the end", whole)
	f.each(`umount /srv/$A
case $A in
one | five) xfs_repair -n /dev/raid/$A ;;
*) fsck.ext4 -f -n /dev/raid/$A ;;
esac
raid-assembler stop $A`)
	f.MustShell("systemctl stop raid-assembler.service")
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.mdIsContent()
}

// TestPulledDuringARecord pulls a second member while the loss of the first is
// being written to it. The survivors know of both before anything is acknowledged
// that the two missed.
func TestPulledDuringARecord(t *testing.T) {
	f := newFleet(t, []kind{
		{"one-3", raid.Level1, "", mib(9, 3), "", 2},
		{"six", raid.Level6, "left-symmetric", mib(9, 5), "64", 2},
	}, false)
	f.create()
	f.engineStarts()

	loads := f.loads(anyKind, 10, 110)

	for _, k := range f.kinds {
		first, second := f.disks[k.name][0], f.disks[k.name][1]
		second.MustThrottle(lab.Speed{IOPS: 2})
		first.MustUnplug()
		second.MustUnplug()
	}

	f.awaitAll("without two members", degradedBy(2))
	endAll(loads)
	f.each("exercise check -model $M /dev/raid/$A\nraid-assembler stop $A >/dev/null")

	for _, k := range f.kinds {
		left := f.disks[k.name][2:]
		out := f.MustShell("systemctl stop raid-assembler.service; mdadm --assemble --run /dev/md/" + k.name + " " +
			devices(left) + " 2>&1; exercise check -model /dev/shm/" + k.name + ".model /dev/md/" + k.name +
			"; mdadm --stop --quiet /dev/md/" + k.name)
		t.Log(out)

		// The two say that they were members, and that is what they may not be now.
		for _, d := range f.disks[k.name][:2] {
			d.MustThrottle(lab.Speed{})
			d.MustReplug()
		}

		all := f.MustShell("mdadm --assemble --run /dev/md/" + k.name + " " + devices(f.disks[k.name]) + " 2>&1")
		if !strings.Contains(all, fmt.Sprintf("started with %d drive", len(left))) {
			t.Errorf("md takes %s to be %s", k.name, all)
		}

		f.MustShell("exercise check -model /dev/shm/" + k.name + ".model /dev/md/" + k.name +
			"; mdadm --stop --quiet /dev/md/" + k.name)
	}
}
