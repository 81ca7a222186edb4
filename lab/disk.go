package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"raid-assembler/lab/internal/qemu"
)

// Disk describes a SCSI disk.
type Disk struct {
	Serial     string // unit serial number; default "diskN"
	Size       int64  // in bytes; default that of Image
	SectorSize int    // 512 or 4096; default 512
	Image      string // file that its content is copied from, raw or .zst; default all zero
	Bay        int    // SCSI target, from 1, without a disk in it; default the first that no disk ever had
	Log        bool   // record its writes, so that a power cut can lose some
}

// GuestDisk is a disk of a guest, plugged in or not.
type GuestDisk struct {
	g      *Guest
	d      Disk
	in     bool   // in its bay
	node   string // prefix of its block nodes; empty unless in and the power is on
	faults []fault
	filter string // node that makes the faults; empty without any
	speed  Speed
}

// args are arguments of a QMP command.
type args = map[string]any

// bays is how many disks fit into a guest.
const bays = 200

// Bay returns the disk's SCSI target.
func (d *GuestDisk) Bay() int { return d.d.Bay }

// Serial returns the disk's serial number.
func (d *GuestDisk) Serial() string { return d.d.Serial }

// Path returns the raw file that holds the disk's content.
func (d *GuestDisk) Path() string { return filepath.Join(d.g.place.dir, d.d.Serial+".raw") }

// Plug plugs a new disk in, and returns when udev in the guest has dealt with it.
// Disks may be plugged and unplugged while the power is off, too.
func (g *Guest) Plug(disk Disk) (*GuestDisk, error) {
	disks, err := g.PlugAll(disk)
	if err != nil {
		return nil, err
	}

	return disks[0], nil
}

// PlugAll plugs new disks in, in this order but without waiting in between, and
// returns when udev in the guest has dealt with all of them.
func (g *Guest) PlugAll(disks ...Disk) ([]*GuestDisk, error) {
	plugged, err := g.newDisks(disks)
	if err != nil {
		return nil, err
	}

	return plugged, g.plug(plugged)
}

// plugged returns the disks that are in their bays.
func (g *Guest) plugged() []*GuestDisk {
	var in []*GuestDisk

	for _, d := range g.disks {
		if d.in {
			in = append(in, d)
		}
	}

	return in
}

// newDisks makes the files of disks, which are part of the guest from then on.
func (g *Guest) newDisks(disks []Disk) ([]*GuestDisk, error) {
	var made []*GuestDisk

	for _, disk := range disks {
		d := &GuestDisk{g: g, d: disk}
		if err := d.complete(); err != nil {
			return nil, err
		}

		if err := d.makeFile(); err != nil {
			return nil, err
		}

		g.disks, made = append(g.disks, d), append(made, d)
	}

	return made, nil
}

// complete fills in the defaults and rejects what cannot be.
func (d *GuestDisk) complete() error {
	taken, full := make(map[int]bool), make(map[int]bool)
	for _, other := range d.g.disks {
		taken[other.d.Bay] = true
		full[other.d.Bay] = full[other.d.Bay] || other.in

		if other.d.Serial == d.d.Serial {
			return fmt.Errorf("lab: a disk with serial %q exists already", d.d.Serial)
		}
	}

	for bay := 1; d.d.Bay == 0; bay++ {
		if !taken[bay] {
			d.d.Bay = bay
		}
	}

	if d.d.Serial == "" {
		d.d.Serial = fmt.Sprintf("disk%d", d.d.Bay)
	}

	if d.d.SectorSize == 0 {
		d.d.SectorSize = 512
	}

	switch {
	case strings.ContainsAny(d.d.Serial, "/, \t"):
		return fmt.Errorf("lab: serial %q holds a separator", d.d.Serial)
	case len(d.d.Serial) > 36:
		return fmt.Errorf("lab: serial %q is longer than the 36 bytes that SCSI has", d.d.Serial)
	case full[d.d.Bay] || d.d.Bay > bays:
		return fmt.Errorf("lab: bay %d is taken or above %d", d.d.Bay, bays)
	case d.d.Size == 0 && d.d.Image == "":
		return fmt.Errorf("lab: disk %s has neither size nor image", d.d.Serial)
	case d.d.Size%int64(d.d.SectorSize) != 0:
		return fmt.Errorf("lab: size %d is no multiple of the sector size %d", d.d.Size, d.d.SectorSize)
	}

	return nil
}

func (d *GuestDisk) makeFile() error {
	switch {
	case d.d.Image == "":
	case strings.HasSuffix(d.d.Image, ".zst"):
		if err := command("zstd", "-dqf", "--sparse", d.d.Image, "-o", d.Path()); err != nil {
			return err
		}
	default:
		if err := copySparse(d.Path(), d.d.Image); err != nil {
			return err
		}
	}

	f, err := os.OpenFile(d.Path(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = f.Close() }()

	if d.d.Size == 0 {
		return nil
	}

	if err := f.Truncate(d.d.Size); err != nil {
		return fmt.Errorf("lab: disk %s: %w", d.d.Serial, err)
	}

	return nil
}

// plug plugs disks in.
func (g *Guest) plug(disks []*GuestDisk) error {
	for _, d := range disks {
		if d.in {
			return fmt.Errorf("lab: disk %s is plugged in already", d.d.Serial)
		}

		d.in = true

		if g.m == nil {
			continue
		}

		if err := d.attach(); err != nil {
			return err
		}
	}

	return g.appeared(disks)
}

// appeared waits until udev in the guest has dealt with disks that are new.
func (g *Guest) appeared(disks []*GuestDisk) error {
	return g.await(disks, `
until set -- $disk && [ -b "/dev/${1##*/}" ] && read -r number <"$1/dev" && [ -e "/run/udev/data/b$number" ]; do
	pause
done`)
}

// await waits for a shell loop for each disk, see onTargets, if the power is on: not for
// all at once, for many take longer than one command may.
func (g *Guest) await(disks []*GuestDisk, loop string) error {
	const some = 8

	if g.m == nil {
		return nil
	}

	for part := range slices.Chunk(disks, some) {
		if err := g.onTargets(part, loop); err != nil {
			return err
		}
	}

	return nil
}

// onTargets runs a shell loop for each disk. In it, $disk is a pattern that
// matches the disk's directory in sysfs while there is one, and pause waits without
// starting a process: that takes more of the guest than what is waited for.
func (g *Guest) onTargets(disks []*GuestDisk, loop string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	argv := []string{"bash", "-c", `exec {never}<> <(:)
pause() { read -rt 0.02 -u $never || :; }
for target; do disk=` + sysfsTarget + loop + "\ndone", "bash"}
	for _, d := range disks {
		argv = append(argv, fmt.Sprint(d.d.Bay))
	}

	r, err := g.Run(ctx, argv...)
	if err != nil {
		return fmt.Errorf("lab: the guest did not follow a disk coming or going: %w", err)
	}

	return checked(argv, r, err)
}

// sysfsTarget is the directory of the disk at SCSI target $target.
const sysfsTarget = `"/sys/bus/virtio/drivers/virtio_scsi/virtio*/host*/target*:0:$target/*:0:$target:0/block/*"`

// Dev returns the disk's device node, such as /dev/sda, as it is now: a disk
// that was pulled and pushed in again may have another.
func (d *GuestDisk) Dev() (string, error) {
	out, err := d.g.output([]string{"sh", "-c", fmt.Sprintf("target=%d; echo "+sysfsPath, d.d.Bay)})
	if err != nil {
		return "", err
	}

	if strings.Contains(out, "*") {
		return "", fmt.Errorf("lab: disk %s is not in the guest", d.d.Serial)
	}

	return "/dev/" + filepath.Base(strings.TrimSpace(out)), nil
}

// sysfsPath is sysfsTarget, expanded.
var sysfsPath = strings.Trim(sysfsTarget, `"`)

// Unplug pulls the disk, as one pulls it out of a running machine: what it had
// not yet done fails. It returns when the guest has noticed.
func (d *GuestDisk) Unplug() error { return d.g.UnplugAll(d) }

// UnplugAll pulls disks, in this order but without waiting in between.
func (g *Guest) UnplugAll(disks ...*GuestDisk) error {
	for _, d := range disks {
		if !d.in {
			return fmt.Errorf("lab: disk %s is not plugged in", d.d.Serial)
		}

		d.in = false

		if g.m == nil {
			continue
		}

		if err := d.detach(); err != nil {
			return err
		}
	}

	return g.await(disks, `
while set -- $disk && [ -e "$1" ]; do pause; done`)
}

// Replug pushes the disk in again, into the same bay and with its content.
func (d *GuestDisk) Replug() error { return d.g.ReplugAll(d) }

// ReplugAll pushes disks in again, in this order but without waiting in between.
func (g *Guest) ReplugAll(disks ...*GuestDisk) error { return g.plug(disks) }

// attach makes the disk's stack of block nodes and its device. From the top:
//
//	scsi-hd    what the guest sees
//	throttle   slowness; a filter that can be given another node below it
//	[blkdebug  errors, only while there are any]
//	[blklogwrites  the log of a disk that can lose power]
//	file       the image
func (d *GuestDisk) attach() error {
	d.g.names++
	node := fmt.Sprintf("d%d", d.g.names)

	if err := d.addNodes(node); err != nil {
		return err
	}

	device := args{
		"driver": "scsi-hd", "id": node, "bus": qemu.SCSIBus, "scsi-id": d.d.Bay, "lun": 0,
		"drive": node + "-top", "serial": d.d.Serial, "wwn": wwn(d.d.Serial), "write-cache": "on",
		"logical_block_size": d.d.SectorSize, "physical_block_size": d.d.SectorSize,
	}
	if err := d.g.m.Execute("device_add", device, nil); err != nil {
		return err
	}

	d.node = node

	if err := d.setSpeed(); err != nil || len(d.faults) == 0 {
		return err
	}

	return d.setFaults()
}

func (d *GuestDisk) addNodes(node string) error {
	m := d.g.m
	file := func(name, path string) args {
		return args{
			"driver": "file", "node-name": name, "filename": path, "discard": "unmap",
			// The host has no power cut to fear, and fsync takes its time.
			"cache": args{"no-flush": true},
		}
	}

	if err := m.Execute("blockdev-add", file(node+"-file", d.Path()), nil); err != nil {
		return err
	}

	if d.d.Log {
		if err := d.addLog(node, file); err != nil {
			return err
		}
	}

	if err := m.Execute("object-add", args{"qom-type": "throttle-group", "id": node + "-speed"}, nil); err != nil {
		return err
	}

	return m.Execute("blockdev-add", d.top(node, d.bottom(node)), nil)
}

// top is the node that the device uses, above the node named below.
func (d *GuestDisk) top(node, below string) args {
	return args{
		"driver": "throttle", "node-name": node + "-top", "throttle-group": node + "-speed", "file": below,
	}
}

// bottom is the node below those that misbehave.
func (d *GuestDisk) bottom(node string) string {
	if d.d.Log {
		return node + "-log"
	}

	return node + "-file"
}

// detach is the mirror of attach.
func (d *GuestDisk) detach() error {
	m, node := d.g.m, d.node
	if err := m.Execute("device_del", args{"id": node}, nil); err != nil {
		return err
	}

	if err := d.delNode(node + "-top"); err != nil {
		return err
	}

	names := []string{node + "-file"}
	if d.d.Log {
		names = []string{node + "-log", node + "-logfile", node + "-file"}
	}

	if d.filter != "" {
		names = append([]string{d.filter}, names...)
	}

	d.node, d.filter = "", ""

	errs := []error{m.Execute("object-del", args{"id": node + "-speed"}, nil)}
	for _, name := range names {
		errs = append(errs, m.Execute("blockdev-del", args{"node-name": name}, nil))
	}

	return errors.Join(errs...)
}

// delNode deletes the node that a device used, once the device is gone. That
// takes until its last request has ended.
func (d *GuestDisk) delNode(name string) error {
	const limit = 30 * time.Second

	for deadline := time.Now().Add(limit); ; {
		err := d.g.m.Execute("blockdev-del", args{"node-name": name}, nil)
		if err == nil || time.Now().After(deadline) {
			return err
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// ReadAt reads from the disk's content on the host.
func (d *GuestDisk) ReadAt(p []byte, offset int64) (int, error) {
	f, err := os.Open(d.Path())
	if err != nil {
		return 0, fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = f.Close() }()

	return f.ReadAt(p, offset)
}

// wwn makes a world wide name, NAA type 5, of a serial number.
func wwn(serial string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(serial))

	return 5<<60 | h.Sum64()>>4
}

// copySparse copies a file, leaving holes where it can.
func copySparse(to, from string) error {
	return command("cp", "--sparse=always", "--reflink=auto", from, to)
}

// command runs a program on the host.
func command(name string, arg ...string) error {
	if out, err := exec.Command(name, arg...).CombinedOutput(); err != nil {
		return fmt.Errorf("lab: %s: %w: %s", name, err, out)
	}

	return nil
}
