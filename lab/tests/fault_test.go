package tests

import (
	"fmt"
	"testing"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// TestDiskFaults has sectors that cannot be read, which cost no member and are
// good again once they can be written, and then a disk that cannot be written,
// which costs one.
func TestDiskFaults(t *testing.T) {
	for _, a := range []array{
		{name: "one", level: 1, members: 2, size: 32 << 20},
		{name: "five", level: 5, members: 3, size: 32 << 20, args: "-c64"},
	} {
		t.Run(a.name, func(t *testing.T) {
			b := start(t)
			disks := b.MustDisks(a.members, a.size, "m")
			b.make(a, disks)
			b.install()
			b.await(a.name, patience, "assembled at start", whole)

			// Behind the superblock and what is read when the device appears.
			if err := disks[0].InjectReadError(lab.Sectors{First: 20104, Count: 64}); err != nil {
				t.Fatal(err)
			}

			b.MustShell(fmt.Sprintf(`echo 3 > /proc/sys/vm/drop_caches; cmp /root/%[1]s.data /dev/raid/%[1]s`, a.name))

			// They stay so when they are written anew, and are recorded as bad.
			b.await(a.name, patience, "whole, with bad blocks", func(got api.Array) bool {
				return whole(got) && len(got.Members[0].BadBlocks) > 0
			})

			if err := disks[0].ClearErrors(); err != nil {
				t.Fatal(err)
			}

			b.MustShell(fmt.Sprintf(
				`dd if=/root/%[1]s.data of=/dev/raid/%[1]s bs=1M oflag=direct conv=fsync status=none`, a.name))
			b.await(a.name, patience, "whole, without bad blocks", func(got api.Array) bool {
				return whole(got) && len(got.Members[0].BadBlocks) == 0
			})

			if err := disks[1].InjectWriteError(lab.Sectors{}); err != nil {
				t.Fatal(err)
			}

			b.MustShell(fmt.Sprintf(
				`dd if=/dev/urandom of=/dev/raid/%[1]s bs=64k count=40 seek=9 oflag=direct conv=fsync status=none`, a.name))

			got := b.await(a.name, patience, "degraded", func(a api.Array) bool { return a.Degraded == 1 })
			if got.Members[1].State != "faulty" {
				t.Errorf("the member that cannot be written is %+v, want it faulty", got.Members[1])
			}

			b.MustShell(fmt.Sprintf("cp /dev/raid/%[1]s /root/%[1]s.data; raid-assembler stop %[1]s", a.name))

			if err := disks[1].ClearErrors(); err != nil {
				t.Fatal(err)
			}

			// Md too leaves the failed one out, by what the others say.
			b.mdRuns(a, disks, 1)
		})
	}
}

// TestBigSectors runs an array of disks with 4096-byte sectors.
func TestBigSectors(t *testing.T) {
	a := array{name: "five", level: 5, members: 3, size: 32 << 20, args: "-c64 --metadata=1.1"}
	b := start(t)

	var disks []*lab.GuestDisk
	for i := range a.members {
		disks = append(disks, b.MustPlug(lab.Disk{Serial: fmt.Sprintf("k%d", i), Size: a.size, SectorSize: 4096}))
	}

	b.make(a, disks)
	b.install()
	b.await("five", patience, "assembled at start", whole)
	b.MustShell(`test $(blockdev --getss /dev/raid/five) = 4096
cmp /root/five.data /dev/raid/five
dd if=/dev/urandom of=/dev/raid/five bs=20k count=500 oflag=direct status=none
cp /dev/raid/five /root/five.data
raid-assembler stop five`)
	b.mdRuns(a, disks, 0)
}
