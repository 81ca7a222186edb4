package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/raid"
)

// files are the attributes of a device, by their path below it.
type files map[string]string

// add puts the device at dir, below /sys/devices, into sys.
func add(sys fstest.MapFS, dir string, attributes files) {
	for name, text := range attributes {
		sys["devices/"+dir+"/"+name] = &fstest.MapFile{Data: []byte(text)}
	}

	sys["class/block/"+path.Base(dir)] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../devices/" + dir)}
}

// page80 is what vpd_pg80 of a disk with the serial holds.
func page80(serial string) string {
	return "\x00\x80\x00" + string(rune(len(serial))) + serial
}

// host is a host with one device of each sort. The values are those of QEMU's
// devices on Linux 6.12, and of an ATA disk.
func host() (sys, udev fstest.MapFS) {
	sys = fstest.MapFS{}
	queue := func(f files) files {
		all := files{
			"queue/logical_block_size": "512\n", "queue/physical_block_size": "4096\n", "queue/rotational": "1\n",
			"removable": "0\n", "ro": "0\n",
		}
		maps.Copy(all, f)

		return all
	}

	add(sys, "pci0/ata1/block/sda", queue(files{
		"dev": "8:0\n", "size": "2000409264\n", "diskseq": "7\n", "hidden": "0\n",
		"device/vpd_pg80": page80("  WD-WCC4M1234567   "), "device/wwid": "naa.50014ee2b1c2d3e4\n",
		"device/vendor": "ATA     \n", "device/model": "WDC WD10EZEX-08W\n", "holders/.keep": "",
	}))
	delete(sys, "devices/pci0/ata1/block/sda/holders/.keep")
	add(sys, "pci0/ata1/block/sda/sda2", files{
		"dev": "8:2\n", "size": "1024\n", "partition": "2\n", "ro": "1\n", "holders/dm-0/dev": "254:0\n",
	})
	add(sys, "pci0/ata1/block/sda/sda1", files{
		"dev": "8:1\n", "size": "2048\n", "partition": "1\n", "ro": "0\n",
		"holders/dm-0/dev": "254:0\n", "holders/md127/dev": "9:127\n",
	})
	add(sys, "virtual/block/dm-0", queue(files{"dev": "254:0\n", "size": "8\n"}))
	add(sys, "virtual/block/loop0", queue(files{"dev": "7:0\n", "size": "0\n"}))
	add(sys, "virtual/block/ublkb0", queue(files{"dev": "259:9\n", "size": "64\n"}))
	add(sys, "pci0/nvme/nvme0/nvme0n1", queue(files{
		"dev": "259:0\n", "size": "8388608\n", "wwid": "eui.0025388b01b2c3d4\n", "queue/rotational": "0\n",
		"device/serial": "S4EVNF0M123456      \n", "device/model": "Samsung SSD 970 EVO Plus 1TB   \n",
	}))
	add(sys, "pci0/virtio2/block/vdb", queue(files{
		"dev": "253:16\n", "size": "131072\n", "serial": "raid-1", "device/vendor": "0x1af4\n",
	}))
	add(sys, "pci0/cciss0/block/cciss!c0d0", queue(files{"dev": "104:0\n", "size": "8\n"}))
	add(sys, "pci0/usb/block/sdb", queue(files{"dev": "8:16\n", "size": "0\n", "removable": "1\n"}))

	return sys, fstest.MapFS{
		"b8:0": {Data: []byte("S:disk/by-id/x\nI:1\nE:ID_SERIAL_SHORT=0x50014ee2b1c2d3e4\n" +
			"E:ID_PATH=pci-0000:00:1f.2-ata-1\nE:ID_WWN=0x0\nE:broken\nG:systemd\n")},
		"b8:16": {Data: []byte("E:ID_SERIAL_SHORT=4C530001\nE:ID_MODEL=Cruzer=Blade\nE:ID_VENDOR=SanDisk\n" +
			"E:ID_WWN=0x5000c50012345678\n")},
	}
}

func TestReadDevices(t *testing.T) {
	sys, udev := host()
	tree := Tree{Sys: sys, Udev: udev}
	queue := Device{LogicalBlock: 512, PhysicalBlock: 4096, Rotational: true}

	for _, c := range []struct {
		name string
		want func(*Device)
	}{
		{"sda", func(d *Device) {
			d.Path, d.Major, d.Sectors, d.DiskSeq = "/devices/pci0/ata1/block/sda", 8, 2000409264, 7
			d.Partitions, d.Holders = []string{"sda1", "sda2"}, []string{"dm-0", "md127"}
			d.Serial, d.WWN = "WD-WCC4M1234567", "0x50014ee2b1c2d3e4"
			d.Vendor, d.Model, d.Location = "ATA", "WDC WD10EZEX-08W", "pci-0000:00:1f.2-ata-1"
		}},
		{"sda2", func(d *Device) {
			d.Path, d.Major, d.Minor, d.Sectors = "/devices/pci0/ata1/block/sda/sda2", 8, 2, 1024
			d.Parent, d.Partition, d.ReadOnly, d.DiskSeq = "sda", 2, true, 7
			d.Holders = []string{"dm-0"}
			d.Serial, d.WWN = "WD-WCC4M1234567", "0x50014ee2b1c2d3e4"
			d.Vendor, d.Model, d.Location = "ATA", "WDC WD10EZEX-08W", "pci-0000:00:1f.2-ata-1"
		}},
		{"nvme0n1", func(d *Device) {
			d.Path, d.Major, d.Sectors = "/devices/pci0/nvme/nvme0/nvme0n1", 259, 8388608
			d.Serial, d.WWN, d.Model = "S4EVNF0M123456", "eui.0025388b01b2c3d4", "Samsung SSD 970 EVO Plus 1TB"
			d.Rotational = false
		}},
		{"vdb", func(d *Device) {
			d.Path, d.Major, d.Minor, d.Sectors = "/devices/pci0/virtio2/block/vdb", 253, 16, 131072
			d.Serial = "raid-1"
		}},
		{"cciss/c0d0", func(d *Device) {
			d.Name, d.Node = "cciss!c0d0", "/dev/cciss/c0d0"
			d.Path, d.Major, d.Sectors = "/devices/pci0/cciss0/block/cciss!c0d0", 104, 8
		}},
		{"sdb", func(d *Device) {
			d.Path, d.Major, d.Minor, d.Removable = "/devices/pci0/usb/block/sdb", 8, 16, true
			d.Serial, d.Vendor, d.Model, d.WWN = "4C530001", "SanDisk", "Cruzer=Blade", "0x5000c50012345678"
		}},
		{"dm-0", func(d *Device) {
			d.Path, d.Major, d.Sectors, d.Kind = "/devices/virtual/block/dm-0", 254, 8, Mapper
		}},
	} {
		want := queue
		want.Name, want.Node = c.name, "/dev/"+c.name
		c.want(&want)

		got, err := Read(tree, c.name)
		if err != nil {
			t.Error(err)
		}

		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Read(%s) (-want +got):\n%s", c.name, diff)
		}

		if serial := Serial(tree, got.Name); serial != want.Serial {
			t.Errorf("Serial(%s) = %q, want %q", got.Name, serial, want.Serial)
		}

		if want.Parent == "" {
			want.Parent = want.Name
		}

		if whole := Whole(tree, got.Name); whole != want.Parent {
			t.Errorf("Whole(%s) = %q, want %q", got.Name, whole, want.Parent)
		}
	}
}

func TestListYieldsAllDevicesByName(t *testing.T) {
	var got []string

	sys, udev := host()

	for d, err := range List(Tree{Sys: sys, Udev: udev}) {
		if err != nil {
			t.Error(err)
		}

		got = append(got, fmt.Sprintf("%s: %s", d.Name, d.IgnoreReason()))
	}

	want := []string{
		"cciss!c0d0: ", "dm-0: ", "loop0: it is a loop device", "nvme0n1: ", "sda: ", "sda1: ", "sda2: ",
		"sdb: it has no medium", "ublkb0: it is a ublk device", "vdb: ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List() (-want +got):\n%s", diff)
	}
}

// failing answers err to whoever opens one of the files.
type failing struct {
	fstest.MapFS

	name string
	err  error
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: f.err}
	}

	return f.MapFS.Open(name)
}

func TestReadTellsGoneFromUnreadable(t *testing.T) {
	const sda = "devices/pci0/ata1/block/sda/"

	for _, c := range []struct {
		file string
		err  error
		gone bool
		want string // a piece of the error, or nothing if there is none
	}{
		{sda + "size", fs.ErrNotExist, true, "no such block device"},
		{sda + "size", syscall.ENODEV, true, "no such block device"},
		{sda + "size", syscall.EIO, false, "input/output error"},
		{sda + "dev", fs.ErrNotExist, true, "no such block device"},
		{sda + "ro", syscall.ENODEV, true, "no such block device"},
		{sda + "diskseq", fs.ErrNotExist, false, ""}, // kernels before 5.15
		{sda + "device/vpd_pg80", syscall.EIO, false, ""},
		{sda + "device/model", syscall.EIO, false, ""},
	} {
		sys, udev := host()

		d, err := Read(Tree{Sys: failing{MapFS: sys, name: c.file, err: c.err}, Udev: udev}, "sda")
		if c.want == "" {
			if err != nil || d.Sectors == 0 {
				t.Errorf("%s %v: Read() = %+v, %v, want the device", c.file, c.err, d, err)
			}

			continue
		}

		if errors.Is(err, ErrGone) != c.gone || err == nil || !strings.Contains(err.Error(), c.want) || d.Name != "" {
			t.Errorf("%s %v: Read() = %+v, %v, want an error about %q", c.file, c.err, d, err, c.want)
		}
	}
}

func TestListLeavesOutWhatVanishesAndGoesOn(t *testing.T) {
	for _, c := range []struct {
		err                 error
		devicesN, failuresN int
	}{
		{nil, 10, 0},
		{syscall.ENODEV, 9, 0},
		{syscall.EIO, 9, 1},
	} {
		sys, _ := host()
		devices, failures := 0, 0
		tree := Tree{Sys: sys}

		if c.err != nil {
			tree.Sys = failing{MapFS: sys, name: "devices/pci0/nvme/nvme0/nvme0n1/size", err: c.err}
		}

		for d, err := range List(tree) {
			if err != nil {
				failures++
			} else if d.Name != "" {
				devices++
			}
		}

		if devices != c.devicesN || failures != c.failuresN {
			t.Errorf("%v: List() yields %d devices and %d errors, want %d and %d",
				c.err, devices, failures, c.devicesN, c.failuresN)
		}
	}
}

func TestReadRefusesWhatTheKernelDoesNotWrite(t *testing.T) {
	const sda = "devices/pci0/ata1/block/sda/"

	for _, c := range []struct{ file, text, want string }{
		{sda + "size", "-1\n", `size is "-1"`},
		{sda + "size", "", `size is ""`},
		{sda + "size", "9223372036854775808\n", `size is "9223372036854775808"`},
		{sda + "dev", "8\n", `dev is "8"`},
		{sda + "dev", "8:x\n", `dev is "8:x"`},
		{sda + "ro", "yes\n", `ro is "yes"`},
		{sda + "queue/logical_block_size", "4k\n", `queue/logical_block_size is "4k"`},
	} {
		sys, udev := host()
		sys[c.file] = &fstest.MapFile{Data: []byte(c.text)}

		d, err := Read(Tree{Sys: sys, Udev: udev}, "sda")
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrGone) {
			t.Errorf("%s = %q: Read() = %+v, %v, want an error about %q", c.file, c.text, d, err, c.want)
		}
	}

	for _, name := range []string{"", ".", "..", "../..", "/", "sdz", "sda/size"} {
		sys, udev := host()
		if d, err := Read(Tree{Sys: sys, Udev: udev}, name); !errors.Is(err, ErrGone) {
			t.Errorf("Read(%q) = %+v, %v, want ErrGone", name, d, err)
		}
	}

	yields := 0

	for d, err := range List(Tree{Sys: fstest.MapFS{}}) {
		yields++

		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List() without sysfs yields %+v, %v, want fs.ErrNotExist", d, err)
		}
	}

	if yields != 1 {
		t.Errorf("List() without sysfs yields %d times, want 1", yields)
	}
}

func TestSerialComesFromTheFirstThatKnows(t *testing.T) {
	t10 := "t10.ATA     " + fmt.Sprintf("%-40s%-20s", "QEMU HARDDISK", "QM00005")

	for _, c := range []struct {
		what string
		sys  files
		udev string
		want string
	}{
		{"the page before all", files{"device/vpd_pg80": page80("P"), "device/serial": "D", "serial": "S"}, "", "P"},
		{"an empty page", files{"device/vpd_pg80": page80(""), "device/serial": "D"}, "", "D"},
		{"a page of blanks", files{"device/vpd_pg80": page80("   "), "device/serial": "D"}, "", "D"},
		{"a cut page", files{"device/vpd_pg80": "\x00\x80\x00", "device/serial": "D"}, "", "D"},
		{"a page that lies about its length", files{"device/vpd_pg80": "\x00\x80\xff\xffP"}, "", "P"},
		{"another page", files{"device/vpd_pg80": "\x00\x83\x00\x01P", "device/serial": "D"}, "", "D"},
		{"of virtio", files{"serial": "S", "device/wwid": t10}, "", "S"},
		{"of an ATA disk's name", files{"device/wwid": t10}, "E:ID_SERIAL_SHORT=U\n", "QM00005"},
		{"of a name too short for it", files{"device/wwid": "t10.ATA     QEMU"}, "E:ID_SERIAL_SHORT=U\n", "U"},
		{"of udev, the unit's own", nil, "E:ID_SERIAL_SHORT=U\nE:ID_SCSI_SERIAL=C\n", "C"},
		{"of nobody", nil, "", ""},
		{"with what does not print", files{"serial": "\x00a\x1b\xffÄ b\n"}, "", "a??? b"},
	} {
		sys := fstest.MapFS{}
		add(sys, "block/sda", files{"dev": "8:0\n", "size": "1\n"})
		add(sys, "block/sda", c.sys)

		got, err := Read(Tree{Sys: sys, Udev: fstest.MapFS{"b8:0": {Data: []byte(c.udev)}}}, "sda")
		if err != nil || got.Serial != c.want {
			t.Errorf("%s: Serial = %q, %v, want %q", c.what, got.Serial, err, c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	for name, want := range map[string]Kind{
		"sda": Disk, "vda": Disk, "nvme0n1": Disk, "mmcblk0": Disk, "zd0": Disk, "loopy": Disk, "ram": Disk,
		"mdx": Disk,
		"fd0": Floppy, "loop12": Loop, "md127": MD, "md_home": MD, "md_d0": MD, "dm-3": Mapper, "nbd1": NBD,
		"sr0": Optical, "ram0": RAM, "ublkb0": Ublk, "ublkc0": Disk, "zram0": Zram,
	} {
		if got := kindOf(name); got != want {
			t.Errorf("kindOf(%s) = %v, want %v", name, got, want)
		}
	}

	texts := make(map[string]bool)
	for kind := Disk; kind <= Zram; kind++ {
		texts[kind.String()] = true
	}

	if len(texts) != int(Zram)+1 || texts[""] {
		t.Errorf("texts of the kinds = %v, want one each", texts)
	}
}

func TestIgnoreReason(t *testing.T) {
	for _, c := range []struct {
		d       Device
		allowed []Kind
		want    string
	}{
		{Device{Sectors: 1}, nil, ""},
		{Device{Sectors: 1, Kind: Mapper}, nil, ""},
		{Device{}, nil, "it has no medium"},
		{Device{Sectors: 1, Kind: Loop}, nil, "it is a loop device"},
		{Device{Sectors: 1, Kind: Loop}, []Kind{Loop}, ""},
		{Device{Sectors: 1, Kind: RAM}, []Kind{Loop}, "it is a RAM disk"},
		{Device{Kind: Loop}, []Kind{Loop}, "it has no medium"},
		{Device{Sectors: 1, Hidden: true}, nil, "it is one path of several, and hidden"},
		{Device{Sectors: 1, MultipathMember: true}, nil, "it is one path of several"},
	} {
		if got := c.d.IgnoreReason(c.allowed...); got != c.want {
			t.Errorf("%+v: IgnoreReason(%v) = %q, want %q", c.d, c.allowed, got, c.want)
		}
	}
}

func TestUdevMayBeMissing(t *testing.T) {
	sys, udev := host()

	d, err := Read(Tree{Sys: sys}, "sda")
	if err != nil || d.Serial != "WD-WCC4M1234567" || d.Location != "" {
		t.Errorf("Read() without udev = %+v, %v, want what the kernel knows", d, err)
	}

	udev["b8:0"] = &fstest.MapFile{Data: []byte("E:DM_MULTIPATH_DEVICE_PATH=1\n")}

	if d, err := Read(Tree{Sys: sys, Udev: udev}, "sda2"); err != nil || !d.MultipathMember {
		t.Errorf("Read() of a path = %+v, %v, want MultipathMember", d, err)
	}
}

// TestThisHostAgreesWithProcPartitions asks the kernel a second way.
func TestThisHostAgreesWithProcPartitions(t *testing.T) {
	text, err := os.ReadFile("/proc/partitions")
	if err != nil {
		t.Skipf("no second opinion: %v", err)
	}

	n := 0

	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] == "major" {
			continue
		}

		d, err := Read(Host(), fields[3])
		if errors.Is(err, ErrGone) {
			continue // since
		}

		kib, parseErr := strconv.ParseInt(fields[2], 10, 64)
		if err != nil || parseErr != nil || d.Sectors/2 != raid.Sectors(kib) ||
			fmt.Sprintf("%d:%d", d.Major, d.Minor) != fields[0]+":"+fields[1] {
			t.Errorf("%s: Read() = %+v, %v, want %v", fields[3], d, err, fields)
		}

		n++
	}

	t.Logf("%d devices compared", n)
}

// FuzzIdentity holds that what a disk says of itself comes out printable,
// whatever it is.
func FuzzIdentity(f *testing.F) {
	f.Add([]byte(page80("x")), "t10.ATA     x", "E:ID_PATH=x\n")
	f.Fuzz(func(t *testing.T, page []byte, wwid, udev string) {
		sys := fstest.MapFS{}
		add(sys, "block/sda", files{
			"dev": "8:0\n", "size": "1\n", "device/vpd_pg80": string(page), "device/wwid": wwid,
		})

		d, err := Read(Tree{Sys: sys, Udev: fstest.MapFS{"b8:0": {Data: []byte(udev)}}}, "sda")
		if err != nil {
			t.Fatal(err)
		}

		for _, text := range []string{d.Serial, d.WWN, d.Vendor, d.Model, d.Location} {
			for _, r := range text {
				if r < ' ' || r > '~' {
					t.Fatalf("%+v has %U", d, r)
				}
			}
		}
	})
}

// TestAgain checks that a device is what it was but for who holds it, unless it is
// another.
func TestAgain(t *testing.T) {
	const sda = "devices/pci0/ata1/block/sda/"

	for _, tt := range []struct {
		name    string
		change  func(sys fstest.MapFS)
		same    bool
		holders string
	}{
		{"nothing", func(fstest.MapFS) {}, true, "[dm-0 md127]"},
		{"a holder more", func(sys fstest.MapFS) {
			sys[sda+"sda2/holders/dm-7/dev"] = &fstest.MapFile{}
		}, true, "[dm-0 dm-7 md127]"},
		{"a partition less", func(sys fstest.MapFS) {
			for name := range sys {
				if strings.HasPrefix(name, sda+"sda1/") {
					delete(sys, name)
				}
			}
		}, true, "[dm-0]"},
		{"another disk", func(sys fstest.MapFS) { sys[sda+"diskseq"].Data = []byte("8\n") }, false, ""},
		{"none that says so", func(sys fstest.MapFS) { delete(sys, sda+"diskseq") }, false, ""},
		{"larger", func(sys fstest.MapFS) { sys[sda+"size"].Data = []byte("2000409272\n") }, false, ""},
		{"gone", func(sys fstest.MapFS) {
			for name := range sys {
				if strings.HasPrefix(name, sda) {
					delete(sys, name)
				}
			}
		}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sys, udev := host()
			tree := Tree{Sys: sys, Udev: udev}

			before, err := Read(tree, "sda")
			if err != nil {
				t.Fatal(err)
			}

			tt.change(sys)

			got, same := Again(tree, before)
			if same != tt.same || same && fmt.Sprint(got.Holders) != tt.holders {
				t.Errorf("Again() = %v, %v", got.Holders, same)
			}

			if want, err := Read(tree, "sda"); same && (err != nil || !cmp.Equal(want, got)) {
				t.Errorf("Again() is not what Read() is: %s", cmp.Diff(want, got))
			}
		})
	}

	// A partition is the same as long as its disk is.
	sys, udev := host()

	before, err := Read(Tree{Sys: sys, Udev: udev}, "sda2")
	if got, same := Again(Tree{Sys: sys}, before); err != nil || !same || !cmp.Equal(before, got) {
		t.Errorf("Again(sda2) = %+v, %v, %v", got, same, err)
	}

	sys[sda+"diskseq"].Data = []byte("8\n")

	if _, same := Again(Tree{Sys: sys}, before); same {
		t.Error("a partition of another disk is the same")
	}
}
