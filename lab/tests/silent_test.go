package tests

import (
	"testing"
	"time"
)

// TestSilentDisk has a disk whose commands time out, and the error handling of
// the kernel with them.
func TestSilentDisk(t *testing.T) {
	b := start(t)
	b.MustInstall(tools)
	b.MustShell(`modprobe scsi_debug add_host=3 per_host_store=1 dev_size_mb=16 sector_size=512 delay=0
udevadm settle
for h in /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*; do
	echo 3 >$h/device/timeout
	echo 3 >$h/device/eh_timeout
	echo -n "/dev/$(basename $h) "
done >/run/devices
mdadm --create /dev/md/five --run --quiet --assume-clean --homehost=%none -l5 -n3 $(cat /run/devices)
udevadm settle
exercise fill -model /dev/shm/five.model /dev/md/five
mdadm --stop --quiet /dev/md/five`)
	b.install()
	b.await("five", patience, "assembled", whole)
	b.MustShell(`mount -t debugfs none /sys/kernel/debug 2>/dev/null || true
set -- $(cat /run/devices)
hctl=$(basename $(readlink -f /sys/block/$(basename $2)/device))
for op in 0x2a 0x28; do echo "0 -1000 $op" >/sys/kernel/debug/scsi_debug/$hctl/error; done`)

	began := time.Now()
	job := b.MustGo("exercise run -model /dev/shm/five.model -mix random -ops 200 -seed 71 /dev/raid/five")
	b.await("five", patience, "rid of a disk that does not answer", degradedBy(1))
	t.Logf("rid of it after %v", time.Since(began).Round(time.Second))
	job.MustWait(patience)

	t.Log(b.MustShell("exercise check -model /dev/shm/five.model /dev/raid/five; raid-assembler status || true"))
}
