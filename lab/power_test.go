package lab_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// TestReboot has the kernel panic on its way up, as it does when the emulator
// runs what the kernel has replaced; then it checks a cold boot with other disks than
// those that were there as the power was turned off.
func TestReboot(t *testing.T) {
	g := lab.Start(t, lab.Disk{Serial: "kept", Size: 16 * mib})

	boot := g.MustReadFile("/proc/sys/kernel/random/boot_id")
	g.MustShell(`touch /root/installed
cat > /etc/systemd/system/panic.service <<'END'
[Service]
ExecStart=sh -c 'mv /root/installed /root/again; sync; echo Oops: int3 > /dev/ttyS0; echo c > /proc/sysrq-trigger'
[Unit]
ConditionPathExists=/root/installed
[Install]
WantedBy=multi-user.target
END
systemctl enable panic`)
	g.MustReboot()

	if again := g.MustReadFile("/proc/sys/kernel/random/boot_id"); again == boot {
		t.Error("the guest did not boot")
	}

	g.MustShell("[ -e /root/again ]; lsblk -dno SERIAL | grep -qx kept")

	two := g.MustPlug(lab.Disk{Serial: "two", Size: 16 * mib})
	g.MustShell("[ $(lsblk -dno SERIAL | grep -c -e kept -e two) = 2 ]; touch /root/kept")
	g.MustPowerOff()

	if _, err := g.Shell("true"); err == nil || !strings.Contains(err.Error(), "power is off") {
		t.Errorf("Shell() without power: %v", err)
	}

	two.MustUnplug()
	g.MustPlug(lab.Disk{Serial: "three", Size: 16 * mib})
	g.MustPowerOn()

	if got := g.MustShell("lsblk -dno SERIAL | grep . | sort"); got != "kept\nthree\n" {
		t.Errorf("disks are %q", got)
	}

	g.MustShell("[ -e /root/kept ]")
	two.MustReplug()
}

// blocks returns 80 blocks of 4 KiB, each with a content of its own.
func blocks() []byte {
	var all []byte
	for i := range 80 {
		all = append(all, bytes.Repeat([]byte{byte(i + 1)}, 4096)...)
	}

	return all
}

// survivors counts the 20 blocks from first that are on the disk.
func survivors(t *testing.T, d *lab.GuestDisk, first int) int {
	t.Helper()

	n, want, got := 0, blocks(), make([]byte, 4096)

	for i := first; i < first+20; i++ {
		if _, err := d.ReadAt(got, int64(i)*4096); err != nil {
			t.Fatal(err)
		}

		if bytes.Equal(got, want[i*4096:][:4096]) {
			n++
		}
	}

	return n
}

// TestPowerCut writes blocks, flushes them, and writes others that it does not
// flush. After the cut the former are all there, and some of the latter are not.
func TestPowerCut(t *testing.T) {
	for _, restore := range []bool{true, false} {
		t.Run(fmt.Sprintf("restore=%t", restore), func(t *testing.T) {
			g := lab.Start(t)
			logged := g.MustPlug(lab.Disk{Serial: "logged", Size: 16 * mib, Log: true})
			plain := g.MustPlug(lab.Disk{Serial: "plain", Size: 16 * mib})

			write := func(d *lab.GuestDisk, first int, flags string) {
				g.MustWriteFile("/tmp/blocks", string(blocks()), 0o600)
				g.MustShell(fmt.Sprintf("dd if=/tmp/blocks of=%s bs=4k skip=%d seek=%d count=20 oflag=direct%s",
					d.MustDev(), first, first, flags))
			}

			write(logged, 0, " conv=fsync")
			write(logged, 20, ",dsync")
			write(logged, 40, "")
			write(plain, 0, "")

			began := time.Now()
			g.MustPowerCut(lab.PowerCut{Seed: 7, Restore: restore})
			t.Logf("power was back after %v", time.Since(began))

			for _, tt := range []struct {
				d     *lab.GuestDisk
				first int
			}{{logged, 0}, {logged, 20}, {plain, 0}} {
				if got := survivors(t, tt.d, tt.first); got != 20 {
					t.Errorf("disk %s has %d of the blocks from %d, want 20", tt.d.Serial(), got, tt.first)
				}
			}

			if got := survivors(t, logged, 40); got == 20 || got == 0 {
				t.Errorf("%d of 20 unflushed writes survived, want some", got)
			}

			// A second cut begins with what the first one left.
			write(logged, 60, ",dsync")
			g.MustPowerCut(lab.PowerCut{Seed: 8, Restore: true})

			if a, b := survivors(t, logged, 0), survivors(t, logged, 60); a != 20 || b != 20 {
				t.Errorf("after a second cut %d and %d blocks are there, want 20 and 20", a, b)
			}
		})
	}
}

// TestPowerCutUnderLoad cuts the power while many writes are in flight. What the
// guest knew to be flushed, as the file acked on its root disk says, is there.
func TestPowerCutUnderLoad(t *testing.T) {
	g := lab.Start(t)
	d := g.MustPlug(lab.Disk{Serial: "busy", Size: 64 * mib, Log: true, SectorSize: 4096})

	g.MustWriteFile("/tmp/blocks", string(blocks()), 0o600)
	g.MustGo(fmt.Sprintf("exec fio --name=x --filename=%s --ioengine=libaio --direct=1 --rw=randwrite --bs=4k"+
		" --offset=32m --iodepth=16 --time_based --runtime=60", d.MustDev()))
	g.MustGo(fmt.Sprintf(`for i in $(seq 0 79); do
		dd if=/tmp/blocks of=%s bs=4k skip=$i seek=$i count=1 oflag=direct,dsync
		echo $((i + 1)) >/root/acked.new; sync /root/acked.new; mv /root/acked.new /root/acked; sync /root
	done`, d.MustDev()))
	g.MustWaitFor(time.Minute, "[ $(cat /root/acked) -ge 10 ] && "+
		"[ $(cut -d' ' -f5 <(xargs </sys/class/block/"+filepath.Base(d.MustDev())+"/stat)) -ge 500 ]")
	g.MustPowerCut(lab.PowerCut{})

	var acked int
	if _, err := fmt.Sscan(g.MustReadFile("/root/acked"), &acked); err != nil || acked < 10 {
		t.Fatalf("%d blocks were acknowledged: %v", acked, err)
	}

	t.Logf("%d blocks had been acknowledged", acked)

	got := make([]byte, acked*4096)
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, blocks()[:len(got)]) {
		t.Errorf("of %d acknowledged blocks some are not there: %v", acked, err)
	}
}
