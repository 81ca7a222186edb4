package uevent

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree returns a /sys with the block devices given, by their path below
// /devices, with the text of their uevent files.
func tree(devices map[string]string) fstest.MapFS {
	sys := fstest.MapFS{}

	for path, text := range devices {
		name := path[strings.LastIndex(path, "/")+1:]
		sys["devices/"+path+"/uevent"] = &fstest.MapFile{Data: []byte(text)}
		sys["class/block/"+name] = &fstest.MapFile{
			Mode: fs.ModeSymlink,
			Data: []byte("../../devices/" + path),
		}
	}

	return sys
}

func TestColdplugYieldsWhatTheKernelSends(t *testing.T) {
	sys := tree(map[string]string{
		"pci0/virtio2/block/vdb": "MAJOR=253\nMINOR=16\nDEVNAME=vdb\nDEVTYPE=disk\nDISKSEQ=9\n",
		"pci0/virtio2/block/vdb/vdb1": "MAJOR=253\nMINOR=17\nDEVNAME=vdb1\nDEVTYPE=partition\n" +
			"DISKSEQ=9\nPARTN=1\nPARTNAME=a=b\n",
		"pci0/cciss0/block/cciss!c0d0":   "MAJOR=104\nMINOR=0\nDEVNAME=cciss/c0d0\nDEVTYPE=disk\n",
		"platform/soc@0/mmc/block/mmcb1": "MAJOR=179\nMINOR=0\nDEVNAME=mmcb1\nDEVTYPE=disk",
	})

	var got []string

	for ev, err := range Coldplug(sys) {
		got = append(got, describe(ev, err))
	}

	want := []string{`add block cciss/c0d0 /devices/pci0/cciss0/block/cciss!c0d0
  ACTION=add
  DEVNAME=cciss/c0d0
  DEVPATH=/devices/pci0/cciss0/block/cciss!c0d0
  DEVTYPE=disk
  MAJOR=104
  MINOR=0
  SUBSYSTEM=block
`, `add block mmcb1 /devices/platform/soc@0/mmc/block/mmcb1
  ACTION=add
  DEVNAME=mmcb1
  DEVPATH=/devices/platform/soc@0/mmc/block/mmcb1
  DEVTYPE=disk
  MAJOR=179
  MINOR=0
  SUBSYSTEM=block
`, `add block vdb /devices/pci0/virtio2/block/vdb
  ACTION=add
  DEVNAME=vdb
  DEVPATH=/devices/pci0/virtio2/block/vdb
  DEVTYPE=disk
  DISKSEQ=9
  MAJOR=253
  MINOR=16
  SUBSYSTEM=block
`, `add block vdb1 /devices/pci0/virtio2/block/vdb/vdb1
  ACTION=add
  DEVNAME=vdb1
  DEVPATH=/devices/pci0/virtio2/block/vdb/vdb1
  DEVTYPE=partition
  DISKSEQ=9
  MAJOR=253
  MINOR=17
  PARTN=1
  PARTNAME=a=b
  SUBSYSTEM=block
`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Coldplug() (-want +got):\n%s", diff)
	}
}

// A partition's name is whatever the disk says, newlines included.
func TestColdplugTakesNoPairsFromAPartitionName(t *testing.T) {
	sys := tree(map[string]string{
		"block/sdb/sdb1": "MAJOR=8\nMINOR=17\nDEVNAME=sdb1\nPARTN=1\n" +
			"PARTNAME=x\nDEVNAME=sda\nMAJOR=1\nDEVPATH=/devices/block/sda\nACTION=remove\nSUBSYSTEM=net\n",
	})

	for ev, err := range Coldplug(sys) {
		if err != nil || ev.Name != "sdb1" || ev.Env["MAJOR"] != "8" || ev.Action != "add" ||
			ev.Path != "/devices/block/sdb/sdb1" || ev.Subsystem != "block" {
			t.Errorf("Coldplug() yields %+v, %v, want the kernel's own pairs", ev, err)
		}
	}
}

// failingFS answers err to whoever opens the file named.
type failingFS struct {
	fstest.MapFS

	name string
	err  error
}

func (f failingFS) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: f.err}
	}

	return f.MapFS.Open(name)
}

func TestColdplugSkipsWhatVanishesAndGoesOn(t *testing.T) {
	sys := tree(map[string]string{
		"block/sda": "DEVNAME=sda\n", "block/sdb": "DEVNAME=sdb\n", "block/sdc": "DEVNAME=sdc\n",
	})
	delete(sys, "devices/block/sda/uevent")

	for _, c := range []struct {
		err  error
		want []string
	}{
		{syscall.ENODEV, []string{"sdc"}},
		{syscall.EIO, []string{"uevent: sdb: open class/block/sdb/uevent: input/output error", "sdc"}},
	} {
		var got []string

		for ev, err := range Coldplug(failingFS{MapFS: sys, name: "class/block/sdb/uevent", err: c.err}) {
			if err != nil {
				got = append(got, err.Error())
			} else {
				got = append(got, ev.Name)
			}
		}

		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("Coldplug() with %v (-want +got):\n%s", c.err, diff)
		}
	}
}

func TestColdplugWithoutSysfsIsAnError(t *testing.T) {
	n := 0

	for ev, err := range Coldplug(fstest.MapFS{}) {
		n++

		if !errors.Is(err, fs.ErrNotExist) || ev.Env != nil {
			t.Errorf("Coldplug(empty) yields %v, %v, want fs.ErrNotExist", ev, err)
		}
	}

	if n != 1 {
		t.Errorf("Coldplug(empty) yields %d times, want 1", n)
	}
}

// TestColdplugOfThisHost holds that the walk agrees with the kernel: every
// device it yields is the one that its path leads to.
func TestColdplugOfThisHost(t *testing.T) {
	if _, err := os.Stat("/sys/class/block"); err != nil {
		t.Skipf("no block devices in sysfs: %v", err)
	}

	for ev, err := range Coldplug(os.DirFS("/sys")) {
		if err != nil {
			t.Error(err)

			continue
		}

		dev, err := os.ReadFile("/sys" + ev.Path + "/dev")
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}

		if want := ev.Env["MAJOR"] + ":" + ev.Env["MINOR"] + "\n"; err != nil || string(dev) != want {
			t.Errorf("%s: dev = %q, %v, want %q", ev.Path, dev, err, want)
		}
	}
}
