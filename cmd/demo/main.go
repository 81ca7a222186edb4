// Command demo shows the main job of raid-assembler while it really happens: in
// a Debian guest, on disks that are plugged in and pulled out, with arrays that
// mdadm made. It says what it does and checks each claim; its exit status is
// not 0 if one is false.
//
// Run it with "make demo", which builds what it needs.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

func main() { os.Exit(run()) }

// demo is a guest, and what was said of it.
type demo struct {
	*lab.Guest

	began  time.Time
	claims int
}

func run() (code int) {
	stage, err := os.MkdirTemp("", "raid-assembler-demo-")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "demo:", err)

		return 1
	}

	defer func() { _ = os.RemoveAll(stage) }()

	if out, err := exec.Command("make", "-s", "install", "DESTDIR="+stage).CombinedOutput(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "demo: make install: %v\n%s", err, out)

		return 1
	}

	g, err := lab.New(lab.Options{Name: "demo"})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "demo:", err)

		return 1
	}

	d := &demo{Guest: g, began: time.Now()}

	// A claim that is false, or a guest that does not do as it is told, ends
	// the show where it is.
	defer func() {
		if reason := recover(); reason != nil {
			d.Keep()

			code = 1
			_, _ = fmt.Fprintf(os.Stderr, "\nFALSE: %v\n", reason)
		}

		if kept := d.Close(); kept != "" {
			_, _ = fmt.Fprintln(os.Stderr, "console, journal and disks are kept in", kept)
		}
	}()

	d.show(stage)

	return 0
}

// say tells what happens now.
func (d *demo) say(format string, args ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// claim tells what was found to be true, or ends the demo.
func (d *demo) claim(ok bool, text string) {
	if !ok {
		panic(text)
	}

	d.claims++
	fmt.Printf("        ok: %s\n", text)
}

func (d *demo) show(stage string) {
	fmt.Print("A Debian 13 guest: stock kernel, systemd, udev, mdadm. Nothing of ours is in it yet.\n\n")

	five, mirror := d.mdadmMakes()
	d.assemble(stage, five, mirror)
	spare := d.heal(five)
	d.reboot()
	d.history()
	d.handBack(append([]*lab.GuestDisk{five[0], spare}, five[2:]...))

	fmt.Printf("\nAll %d claims hold. It took %.0f s.\n", d.claims, time.Since(d.began).Seconds())
}

// mdadmMakes has mdadm make two arrays with data on them, and lets go.
func (d *demo) mdadmMakes() (five, mirror []*lab.GuestDisk) {
	d.say("Six disks are pushed in. mdadm makes a RAID5 of four and a RAID1 of two, with data on them.")

	five = d.MustDisks(4, 24<<20, "five")
	mirror = d.MustDisks(2, 24<<20, "mirror")

	d.MustShell(fmt.Sprintf(`
mdadm --create /dev/md/five --quiet --run --assume-clean --homehost=%%none -l5 -n4 -c64 %s
mdadm --create /dev/md/mirror --quiet --run --assume-clean --homehost=%%none -l1 -n2 %s
udevadm settle
head -c 20M /dev/urandom > /root/five.data
dd if=/root/five.data of=/dev/md/five bs=1M oflag=direct status=none
mkfs.ext4 -q /dev/md/mirror
mount /dev/md/mirror /mnt
head -c 4M /dev/urandom > /mnt/file
sha256sum < /mnt/file > /root/file.sum
umount /mnt
mdadm --stop --quiet /dev/md/five /dev/md/mirror
udevadm settle`, nodes(five), nodes(mirror)))

	d.say("mdadm lets go, and the disks are pulled.")

	for _, disk := range append(five, mirror...) {
		disk.MustUnplug()
	}

	return five, mirror
}

func nodes(disks []*lab.GuestDisk) string {
	var all []string
	for _, disk := range disks {
		all = append(all, disk.MustDev())
	}

	return strings.Join(all, " ")
}

// assemble pushes the disks in, in any order.
func (d *demo) assemble(stage string, five, mirror []*lab.GuestDisk) {
	d.say("raid-assembler is installed and started, as its package would do at boot.")
	d.MustInstall(stage)
	d.MustShell("systemctl start raid-engine.socket raid-assembler.service")

	all := append(append([]*lab.GuestDisk(nil), five...), mirror...)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	serials := make([]string, 0, len(all))
	for _, disk := range all {
		serials = append(serials, disk.Serial())
	}

	d.say("The six disks are pushed in, in the order %s.", strings.Join(serials, ", "))
	d.MustReplugAll(all...)

	d.await("five", "assembled", func(a api.Array) bool { return a.Degraded == 0 })
	d.await("mirror", "assembled", func(a api.Array) bool { return a.Degraded == 0 })
	d.claim(true, "both arrays are there, and nobody typed anything")

	d.MustShell("cmp -n 20971520 /root/five.data /dev/raid/five")
	d.claim(true, "the RAID5 holds what mdadm's array held")

	d.MustShell("mount /dev/raid/mirror /mnt; sha256sum < /mnt/file | cmp - /root/file.sum")
	d.claim(true, "the file system on the RAID1 is mounted, and its file is right")
}

// heal lets a disk die under load, and pushes a spare in. Returns the spare.
func (d *demo) heal(five []*lab.GuestDisk) *lab.GuestDisk {
	spare := d.MustPlug(lab.Disk{Serial: "spare", Size: 24 << 20})
	d.MustShell("raid-assembler add five " + spare.MustDev())
	d.claim(true, "a disk was made a spare of the RAID5, and is pulled to lie on the shelf")
	spare.MustUnplug()

	d.say("fio writes to the RAID5 and verifies what it wrote.")

	load := d.MustGo("fio --name=load --filename=/dev/raid/five --direct=1 --ioengine=libaio --iodepth=8 " +
		"--rw=randwrite --bs=16k --offset=20m --verify=crc32c --verify_backlog=32 --time_based --runtime=10")

	time.Sleep(2 * time.Second)
	d.say("The disk with serial %s dies under load: it is pulled.", five[1].Serial())
	five[1].MustUnplug()

	a := d.await("five", "degraded", func(a api.Array) bool { return a.Degraded == 1 })
	d.claim(a.State != "broken", "the RAID5 lives on without it")

	d.say("The cold spare is pushed in.")
	spare.MustReplug()

	shown := int64(-1)
	a = d.await("five", "healed", func(a api.Array) bool {
		if a.Sync != nil && a.Sync.DoneBytes != shown {
			shown = a.Sync.DoneBytes
			d.say("  %s: %d of %d KiB, %d KiB/s, %d s left", a.Sync.Action, shown>>10, a.Sync.TotalBytes>>10,
				a.Sync.BytesPerSecond>>10, a.Sync.SecondsLeft)
		}

		return a.Degraded == 0 && a.Sync == nil
	})
	d.claim(a.Members[1].Serial == "spare" && a.Members[1].State == "in-sync",
		"the spare was put to work by itself, and slot 1 is in sync again")

	load.MustWait(time.Minute)
	d.claim(true, "fio saw no error, and all it read back was right")

	d.MustShell("cmp -n 20971520 /root/five.data /dev/raid/five")
	d.claim(true, "what mdadm's array held is still there")

	return spare
}

// reboot shows that all comes back.
func (d *demo) reboot() {
	d.say("The guest reboots, with the file system in fstab by its UUID.")
	d.MustShell(`umount /mnt
echo "UUID=$(blkid -o value -s UUID /dev/raid/mirror) /mnt ext4 defaults 0 2" >> /etc/fstab
cp /dev/raid/five /root/five.data`)

	if err := d.Reboot(); err != nil {
		panic(err)
	}

	d.await("five", "back", func(a api.Array) bool { return a.Degraded == 0 && a.Sync == nil })
	d.MustShell("cmp /root/five.data /dev/raid/five; sha256sum < /mnt/file | cmp - /root/file.sum")
	d.claim(true, "both arrays and the mount are back, and every byte is in place")

	resyncs := d.MustJournal("-b", "RAID_EVENT=ResyncStarted")
	d.claim(resyncs == "", "nothing had to be resynced")
}

// history shows what the journal knows.
func (d *demo) history() {
	d.say("The history, from journalctl:")

	lines := d.MustJournal("--no-pager", "-o", "short-monotonic", "--no-hostname",
		"RAID_EVENT=ArrayAssembled", "RAID_EVENT=MemberFailed", "RAID_EVENT=SpareAdded", "RAID_EVENT=SpareActivated",
		"RAID_EVENT=RecoveryStarted", "RAID_EVENT=RecoveryFinished", "RAID_EVENT=ArrayStopped")
	for line := range strings.Lines(lines) {
		fmt.Print("        ", line)
	}

	told := strings.Contains(lines, "failed") && strings.Contains(lines, "is put to work") &&
		strings.Contains(lines, "is in sync")
	d.claim(told, "the journal tells of the failure, the spare and the recovery")
}

// handBack has md look at what we leave.
func (d *demo) handBack(five []*lab.GuestDisk) {
	d.say("raid-assembler stops the RAID5, and md runs its own check over it.")

	out := d.MustShell(`raid-assembler stop five > /dev/null
systemctl stop raid-assembler.service
mdadm --assemble --quiet /dev/md/five ` + nodes(five) + `
cmp /root/five.data /dev/md/five
md=$(basename $(readlink -f /dev/md/five))
echo check > /sys/block/$md/md/sync_action
until [ $(cat /sys/block/$md/md/sync_action) = idle ]; do sleep 0.2; done
cat /sys/block/$md/md/degraded /sys/block/$md/md/mismatch_cnt
mdadm --stop --quiet /dev/md/five`)
	d.claim(out == "0\n0\n", "md assembles it with all members, content right, mismatch count 0")
}

// await waits until an array is as it should be.
func (d *demo) await(name, what string, ok func(api.Array) bool) api.Array {
	var last api.Array

	for deadline := time.Now().Add(45 * time.Second); time.Now().Before(deadline); {
		if a, found := d.array(name); found {
			if last = a; ok(a) {
				// Udev makes the link a moment after the device.
				d.MustWaitFor(10*time.Second, "test -b "+a.Node)

				return a
			}
		}
	}

	panic(fmt.Sprintf("array %s is %s within 45 s: it is %+v", name, what, last))
}

// array returns what raid-assembler status says of an array.
func (d *demo) array(name string) (api.Array, bool) {
	var st api.Status

	res, err := d.Shell("raid-assembler status --json || true")
	if err != nil || json.Unmarshal([]byte(res.Stdout), &st) != nil {
		return api.Array{}, false
	}

	for _, a := range st.Arrays {
		if a.Name == name {
			return a, true
		}
	}

	return api.Array{}, false
}
