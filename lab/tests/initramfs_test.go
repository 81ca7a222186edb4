package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// TestInitramfs has /var/lib on a mirror, and boots with what the guest's initramfs-tools
// make. With a copy of the roster that is out of date and both halves /var/lib is mounted
// as ever. Then the mirror loses a half, goes on, and the initramfs is made anew: that half
// alone is not started by it, though nobody can read the roster. Without the copy it is.
func TestInitramfs(t *testing.T) {
	takesLong(t)

	b := start(t)
	b.MustWriteFile("/root/tell", "#!/bin/sh\necho $RAID_ALARM $RAID_ALARM_STATE $RAID_REASON >>/root/told\n", 0o755)
	b.MustWriteFile("/etc/raid-assembler.conf", "[Alerts]\nProgram=/root/tell\n", 0o644)
	disks := b.MustDisks(2, 128<<20, "m")
	out := b.MustPlug(lab.Disk{Serial: "out", Size: 128 << 20})
	b.install()
	b.MustShell("raid-assembler create one --level 1 --devices 2 " + devices(disks))
	b.await("one", patience, "made", whole)
	b.moveLibrary()
	b.SetInitrd(b.makeInitramfs(out))

	// There is more to know since.
	disks[1].MustUnplug()
	b.await("one", patience, "one member is lost", func(a api.Array) bool { return a.Degraded == 1 && a.Recorded > 0 })
	disks[1].MustReplug()
	b.await("one", patience, "healed", whole)
	b.MustWaitFor(patience, "! cmp -s /root/copied /var/lib/raid-assembler/roster.json")
	b.MustPowerOff()
	b.MustPowerOn()
	b.copyIs("findmnt /var/lib")
	b.await("one", patience, "assembled at boot", whole)

	if out := b.MustShell("raid-assembler doctor || true"); !strings.Contains(out, "ok    initramfs: knows") {
		t.Errorf("the doctor says:\n%s", out)
	}

	b.leaveAtWork(disks)

	if out := b.MustShell("raid-assembler doctor || true"); !strings.Contains(out, "warn  initramfs: does not know who has the newest data of one") {
		t.Errorf("the doctor says:\n%s", out)
	}

	b.SetInitrd(b.makeInitramfs(out))
	b.MustPowerOff()
	disks[0].MustUnplug()
	disks[1].MustReplug()
	b.MustPowerOn()
	b.copyIs("! findmnt /var/lib")
	b.staleWaits("m0")
	b.MustShell(`raid-assembler explain one | grep 'says the copy in the initramfs'
systemctl stop raid-assembler.service
rm /run/raid-assembler/roster.json
systemctl start raid-assembler.service`)
	b.await("one", patience, "served, as nobody knows better", degradedBy(1))
}

// moveLibrary has /var/lib on the array, from fstab; below there is nothing of ours.
func (b *box) moveLibrary() {
	b.t.Helper()
	b.MustShell(`mkfs.ext4 -q -F /dev/raid/one
mount /dev/raid/one /mnt
cp -a /var/lib/. /mnt
umount /mnt
udevadm settle
rm -r /var/lib/raid-assembler
echo "UUID=$(blkid -o value -s UUID /dev/raid/one) /var/lib ext4 nofail,x-systemd.device-timeout=60s 0 2" >>/etc/fstab
systemctl daemon-reload
mount /var/lib
test -e /var/lib/raid-assembler/roster.json
printf 'virtio_pci\nvirtio_blk\next4\n' >>/etc/initramfs-tools/modules`)
}

// makeInitramfs has the guest make its initramfs, and returns a copy of it on the host. What
// that has of the roster is in the guest's /root/copied.
func (b *box) makeInitramfs(out *lab.GuestDisk) string {
	b.t.Helper()

	began := time.Now()
	said := b.MustGo(fmt.Sprintf(`
sync
cp /var/lib/raid-assembler/roster.json /root/copied
image=/boot/initrd.img-$(uname -r)
rm -f $image
update-initramfs -c -k $(uname -r) >&2
cmp /root/copied /var/lib/raid-assembler/roster.json
lsinitramfs $image | grep raid-assembler >&2
dd if=$image of=%s bs=1M conv=fsync status=none
stat -c %%s $image`, out.MustDev())).MustWait(2 * patience)

	var size int
	if _, err := fmt.Sscan(said, &size); err != nil {
		b.t.Fatalf("the size of the initramfs: %v in %q", err, said)
	}

	text, err := os.ReadFile(out.Path())
	file := filepath.Join(b.t.TempDir(), "initrd")

	if err == nil {
		err = os.WriteFile(file, text[:size], 0o600)
	}

	if err != nil {
		b.t.Fatal(err)
	}

	b.t.Logf("an initramfs of %d MiB in %v", size>>20, time.Since(began).Round(time.Second))

	return file
}

// copyIs checks that the initramfs left its copy of the roster, for root alone, and something
// else of the host.
func (b *box) copyIs(also string) {
	b.t.Helper()
	b.MustShell(`cmp /root/copied /run/raid-assembler/roster.json
test "$(stat -c '%a %U' /run/raid-assembler/roster.json)" = "600 root"
test "$(stat -c '%a %U' /run/raid-assembler)" = "755 root"
` + also)
}

// leaveAtWork has the mirror, which is in use, go on without its second half, and that be
// known.
func (b *box) leaveAtWork(disks []*lab.GuestDisk) {
	b.t.Helper()
	disks[1].MustUnplug()
	b.await("one", patience, "one member is lost", func(a api.Array) bool { return a.Degraded == 1 && a.Recorded > 0 })
	b.MustShell("dd if=/dev/urandom of=/var/lib/x bs=1M count=4 conv=fsync status=none")
	b.MustWaitFor(patience, "[ $(grep -c newest /var/lib/raid-assembler/roster.json) = 1 ]")
}
