package lab_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// lsblk returns columns of what the guest says of a disk.
func lsblk(g *lab.Guest, columns, dev string) string {
	return strings.Join(strings.Fields(g.MustRun("lsblk", "-dnbo", columns, dev)), " ")
}

func TestPlugUnplugReplug(t *testing.T) {
	g := lab.Start(t)

	began := time.Now()
	d := g.MustPlug(lab.Disk{Serial: "alpha", Size: 64 * mib})
	t.Logf("plugged in after %v", time.Since(began))

	dev := d.MustDev()
	if got := lsblk(g, "SIZE,SERIAL,LOG-SEC", dev); got != "67108864 alpha 512" {
		t.Errorf("lsblk says %q", got)
	}

	g.MustShell("echo content of alpha | dd of=" + dev + " oflag=direct bs=512 conv=sync status=none")

	began = time.Now()
	d.MustUnplug()
	t.Logf("unplugged after %v", time.Since(began))

	if r, err := g.Run(context.Background(), "test", "-e", dev); err != nil || r.ExitCode != 1 {
		t.Errorf("%s is still there: %v, %v", dev, r, err)
	}

	if _, err := d.Dev(); err == nil {
		t.Error("Dev() of an unplugged disk gave no error")
	}

	want := []byte("content of alpha\n")

	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAt() = %q, %v", got, err)
	}

	d.MustReplug()

	if got := g.MustRun("head", "-n1", d.MustDev()); got != string(want) {
		t.Errorf("content is %q after the disk was pushed in again", got)
	}
}

func TestDiskKinds(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	content := bytes.Repeat([]byte("0123456789abcdef"), mib/16)

	if err := os.WriteFile(image, content, 0o644); err != nil {
		t.Fatal(err)
	}

	zst := image + ".zst"
	run(t, "zstd", "-q", image, "-o", zst)

	g := lab.Start(t, lab.Disk{Image: image}, lab.Disk{Serial: "packed", Image: zst, Size: 2 * mib})
	disks := g.MustPlugAll(
		lab.Disk{Serial: "big-sectors", Size: 8 * mib, SectorSize: 4096},
		lab.Disk{Serial: "far", Size: 8 * mib, Bay: 150},
	)

	if got := lsblk(g, "LOG-SEC,PHY-SEC", disks[0].MustDev()); got != "4096 4096" {
		t.Errorf("sector sizes are %q", got)
	}

	path := g.MustShell("udevadm info -q property --property ID_PATH --value " + disks[1].MustDev())
	if !strings.Contains(path, "0:0:150:0") {
		t.Errorf("the disk in bay 150 is at %q", path)
	}

	g.MustShell(`
		for serial in disk1 packed; do
			dev=$(lsblk -dnpo NAME,SERIAL | awk -v s=$serial '$2 == s { print $1 }')
			[ "$(head -c 1048576 $dev | tr -d 0-9a-f | wc -c)" = 0 ]
			[ "$(head -c 1048576 $dev | wc -c)" = 1048576 ]
		done`)

	if _, err := g.Plug(lab.Disk{Serial: "far", Size: mib}); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("Plug() of a known serial: %v, want an error", err)
	}

	if _, err := g.Plug(lab.Disk{Serial: "x"}); err == nil || !strings.Contains(err.Error(), "neither size nor image") {
		t.Errorf("Plug() without a size: %v, want an error", err)
	}
}

func TestMdadmMakesAnArray(t *testing.T) {
	g := lab.Start(t)
	disks := g.MustDisks(2, 64*mib, "m")

	g.MustShell("members='" + disks[0].MustDev() + " " + disks[1].MustDev() + `'
		mdadm --create /dev/md/x --run --level=1 --raid-devices=2 --assume-clean $members
		mkfs.ext4 -q /dev/md/x
		grep -q '\[UU\]' /proc/mdstat`)
	disks[0].MustUnplug()
	g.MustWaitFor(20*time.Second, `grep '\[_U\]' /proc/mdstat`)
	g.MustShell("fsck.ext4 -fn /dev/md/x; mdadm --stop /dev/md/x")
}
