package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
)

// TestASR makes a mirror with Adaptec's metadata, has a member of it fail under
// load and a spare take its place, and finds it again when its disks come back.
func TestASR(t *testing.T) {
	b := start(t)
	disks := b.MustDisks(3, 32<<20, "m")
	b.install()

	var dev []string
	for _, d := range disks {
		dev = append(dev, d.MustDev())
	}

	b.MustShell("raid-assembler create data --level 1 --devices 2 --spares 1 --metadata asr " + strings.Join(dev, " "))
	b.await("data", patience, "created and in sync", whole)

	load := b.MustGo(fmt.Sprintf(fio, "data", 42, 10))

	time.Sleep(2 * time.Second)
	b.MustShell("raid-assembler fail data " + dev[0])

	healed := func(a api.Array) bool { return whole(a) && a.Members[0].Serial == "m2" }
	b.await("data", patience, "healed", healed)
	load.MustWait(patience)

	if out := b.MustShell("blkid -p " + dev[2]); !strings.Contains(out, `TYPE="adaptec_raid_member"`) {
		t.Errorf("blkid says %s", out)
	}

	// Whoever reads what udev says is told that the disk is taken.
	if out := b.MustShell("udevadm info --query=property " + dev[1]); !strings.Contains(out, "SYSTEMD_READY=0") {
		t.Errorf("udev says %s", out)
	}

	b.MustShell("cp /dev/raid/data /root/data.data; raid-assembler stop data")
	b.pull(disks...)
	b.MustReplugAll(disks...)
	b.await("data", patience, "assembled again", healed)
	b.MustShell("cmp /root/data.data /dev/raid/data; raid-assembler stop data")
}
