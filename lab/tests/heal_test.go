package tests

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// fio verifies what it wrote, and fails at the first error.
const fio = "fio --name=load --filename=/dev/raid/%s --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite " +
	"--bsrange=4k-128k --size=100%% --verify=crc32c --verify_backlog=64 --do_verify=1 --randseed=%d " +
	"--time_based --runtime=%d"

// TestHeal pulls a disk under load and pushes a spare in: no error, and nobody
// types anything.
func TestHeal(t *testing.T) {
	var reactions []time.Duration

	for _, a := range []array{
		{name: "one", level: 1, members: 2, size: 48 << 20},
		{name: "five", level: 5, members: 4, size: 32 << 20, args: "-c64"},
	} {
		t.Run(a.name, func(t *testing.T) {
			b := start(t)
			disks := b.MustDisks(a.members, a.size, "m")
			b.make(a, disks)
			spare := b.makeSpare(a, "s0")
			b.install()
			b.await(a.name, patience, "assembled", whole)

			load := b.MustGo(fmt.Sprintf(fio, a.name, 42, 20))

			time.Sleep(2 * time.Second)
			disks[1].MustUnplug()
			b.await(a.name, patience, "degraded", degradedBy(1))

			spare.MustReplug()
			b.MustWaitFor(patience, "journalctl -b RAID_EVENT=RecoveryStarted | grep -q recovery")

			began := b.told("RecoveryStarted", 1)
			took := began[len(began)-1].at() - b.pluggedAt()
			t.Logf("recovery began %v after the spare was there", took.Round(time.Millisecond))

			reactions = append(reactions, took)

			load.MustWait(patience)

			whole := b.await(a.name, patience, "healed", whole)
			if m := whole.Members[1]; m.State != "in-sync" || m.Serial != "s0" {
				t.Errorf("slot 1 holds %+v, want the spare, in sync", m)
			}

			b.MustShell(fmt.Sprintf("cp /dev/raid/%[1]s /root/%[1]s.data; raid-assembler stop %[1]s", a.name))
			disks[1] = spare
			b.mdRuns(a, disks, 0)
		})
	}

	if len(reactions) > 0 && slices.Min(reactions) > soon {
		t.Errorf("recoveries began %v after their spares were there, want %v", reactions, soon)
	}
}

// makeSpare returns an unplugged disk that carries our metadata as a spare of
// a, put there by mdadm.
func (b *box) makeSpare(a array, serial string) *lab.GuestDisk {
	b.t.Helper()

	spare := b.MustPlug(lab.Disk{Serial: serial, Size: a.size})
	// mdadm makes a spare's superblock only by adding it to an array that runs.
	b.MustShell(fmt.Sprintf(`
mdadm --assemble --scan --quiet || true
md=$(mdadm --detail --scan | sed -n 's/^ARRAY \([^ ]*\) .*/\1/p' | head -1)
mdadm $md --add %s
mdadm --wait-clean $md || true
mdadm --stop --quiet $md
udevadm settle`, spare.MustDev()))
	spare.MustUnplug()

	return spare
}

// TestSpareThatWaits has the spare there from the start.
func TestSpareThatWaits(t *testing.T) {
	a := array{name: "five", level: 5, members: 3, size: 32 << 20, args: "-c32 --metadata=1.0"}
	b := start(t)
	disks := b.MustDisks(a.members, a.size, "m")
	b.make(a, disks)
	spare := b.makeSpare(a, "s0")
	b.pull(disks...)
	b.install()
	b.MustReplugAll(append(disks, spare)...)

	got := b.await("five", patience, "assembled with its spare", func(a api.Array) bool {
		return whole(a) && len(a.Members) == 4
	})
	if m := got.Members[3]; m.State != "spare" || m.Slot != nil || m.Serial != "s0" {
		t.Errorf("the spare is %+v", m)
	}

	disks[2].MustUnplug()
	b.await("five", patience, "healed", func(a api.Array) bool {
		return whole(a) && a.Members[2].Serial == "s0"
	})

	b.MustShell("cmp /root/five.data /dev/raid/five; raid-assembler stop five")
	disks[2] = spare
	b.mdRuns(a, disks, 0)
}

// TestCommands goes the administrator's way: fail, remove, add.
func TestCommands(t *testing.T) {
	b := start(t)
	disks := b.MustDisks(4, 32<<20, "m")
	b.install()

	dev := make([]string, len(disks))
	for i, d := range disks {
		dev[i] = d.MustDev()
	}

	out := b.MustShell("raid-assembler create data --level 5 --devices 3 --chunk 64 --dry-run " + strings.Join(dev[:3], " "))
	if _, found := b.array("data"); found || out == "" {
		t.Errorf("a dry run made an array, or said nothing: %q", out)
	}

	b.MustShell("raid-assembler create data --level 5 --devices 3 --chunk 64 --bitmap internal " + strings.Join(dev[:3], " "))
	b.await("data", patience, "created and in sync", whole)
	b.MustShell("mkfs.ext4 -q /dev/raid/data; mount /dev/raid/data /mnt; head -c 20M /dev/urandom | tee /root/x > /mnt/x; sync")

	// What a bit stands for changes under load, and mdadm finds it so on the members.
	load := b.MustGo("for i in $(seq 40); do cp /root/x /mnt/y; sync; done")
	for _, chunk := range []string{"4", "256"} {
		b.MustShell("raid-assembler bitmap data --chunk " + chunk + "K")

		said := b.MustShell("mdadm --examine-bitmap " + dev[0])
		if !regexp.MustCompile(`Chunksize : ` + chunk + ` KB`).MatchString(said) {
			t.Errorf("bitmap with a chunk of %s KiB: mdadm says:\n%s", chunk, said)
		}
	}

	load.MustWait(patience)

	if res, err := b.Shell("raid-assembler remove data " + dev[1]); err != nil || res.ExitCode != 3 {
		t.Errorf("remove of a working member: %v %+v, want exit 3", err, res)
	}

	b.MustShell("raid-assembler fail data " + dev[1])
	b.await("data", patience, "degraded", degradedBy(1))

	if res, err := b.Shell("raid-assembler status"); err != nil || res.ExitCode != 1 || !strings.Contains(res.Stdout, "[U_U]") {
		t.Errorf("status of a degraded array: %v %+v, want exit 1 and [U_U]", err, res)
	}

	b.MustShell("raid-assembler remove data " + dev[1])
	b.MustShell("raid-assembler add data " + dev[3])
	b.mustErase(dev[0], dev[1])
	b.await("data", patience, "healed", func(a api.Array) bool {
		return whole(a) && a.Members[1].Serial == "m3"
	})
	b.MustShell(`cmp /root/x /mnt/x; umount /mnt; fsck.ext4 -f -n /dev/raid/data; cp /dev/raid/data /root/data.data
raid-assembler stop data`)

	disks[1] = disks[3]
	b.mdRuns(array{name: "data", level: 5, members: 3}, disks[:3], 0)
}

// mustErase erases what a member was, and finds that one at work is refused.
func (b *box) mustErase(working, was string) {
	b.t.Helper()

	if res, err := b.Shell("raid-assembler erase --force " + working); err != nil || res.ExitCode != 3 {
		b.t.Errorf("erase of a working member: %v %+v, want exit 3", err, res)
	}

	b.MustShell("raid-assembler erase --force " + was)

	if res, err := b.Shell("blkid -p " + was); err != nil || res.ExitCode != 2 {
		b.t.Errorf("blkid of what was erased: %v %+v, want exit 2", err, res)
	}
}
