// Package sysfs reads what the kernel, and udev's database, say of a block
// device: its size, who it is, where it is, and who holds it. It opens no
// device.
//
// What it returns is true of the moment it was read. Devices come and go
// meanwhile; one that has gone is [ErrGone], which is normal.
package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"raid-assembler/pkg/raid"
)

// ErrGone says that there is no such device, or not any longer.
var ErrGone = errors.New("no such block device")

const classBlock = "class/block"

// Tree is where to read.
type Tree struct {
	Sys fs.FS // rooted at /sys

	// Udev is rooted at /run/udev/data. Nil, or empty before udevd has run,
	// leaves out what only udev knows: the location, and the serials of
	// devices that do not tell the kernel.
	Udev fs.FS
}

// Host returns the tree of this host.
func Host() Tree {
	return Tree{Sys: os.DirFS("/sys"), Udev: os.DirFS("/run/udev/data")}
}

// Device is a block device: a whole one, or a partition of one. The texts are
// the device's own words, without blanks around them and with ? for what does
// not print.
type Device struct {
	Name  string // in sysfs: sda, cciss!c0d0
	Node  string // /dev/sda, /dev/cciss/c0d0
	Path  string // below /sys, with a leading slash, as in a uevent
	Major uint32
	Minor uint32
	Kind  Kind // of the whole device

	Parent     string   // the name of the whole device, or empty if this is it
	Partition  int      // the number of the partition, from 1, or 0
	Partitions []string // the names of the partitions, if this is a whole device

	// Holders are the names of the devices that are made of this one or of
	// one of its partitions: a running array, a mapping. Mounts and processes
	// hold a device too and are not among them; opening with O_EXCL tells.
	Holders []string

	Sectors       raid.Sectors // of 512 bytes; 0 if there is no medium
	LogicalBlock  int          // bytes
	PhysicalBlock int          // bytes
	ReadOnly      bool
	Removable     bool // the medium, not the device
	Rotational    bool
	Hidden        bool // one path of several, without a node

	// DiskSeq is a number that no other disk has had since the host booted, so
	// it tells a disk from its successor of the same name. 0 if the kernel
	// has none.
	DiskSeq uint64

	Serial   string // as printed on the disk
	WWN      string // as udev has it: 0x5000c500a1b2c3d4, eui.0025388b01b2c3d4
	Vendor   string
	Model    string
	Location string // the port, as in /dev/disk/by-path

	// MultipathMember says that the device is one path to another, which is to
	// be used in its stead.
	MultipathMember bool
}

// List yields every block device of t by its name. A device that vanishes
// meanwhile is left out; one that cannot be read yields an error, and the list
// goes on.
func List(t Tree) iter.Seq2[Device, error] {
	return func(yield func(Device, error) bool) {
		entries, err := fs.ReadDir(t.Sys, classBlock)
		if err != nil {
			yield(Device{}, fmt.Errorf("sysfs: list block devices: %w", err))

			return
		}

		for _, entry := range entries {
			d, err := Read(t, entry.Name())
			if errors.Is(err, ErrGone) {
				continue
			}

			if !yield(d, err) {
				return
			}
		}
	}
}

// Read reads the device that sysfs calls name, or whose node it is below /dev.
//
// Returns an error wrapping [ErrGone] if there is no such device.
func Read(t Tree, name string) (Device, error) {
	name = strings.ReplaceAll(name, "/", "!")
	if name == "" || name == "." || name == ".." {
		return Device{}, fmt.Errorf("sysfs: %q: %w", name, ErrGone)
	}

	d, err := read(t, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return Device{}, fmt.Errorf("sysfs: %s: %w", name, ErrGone)
	}

	if err != nil {
		return Device{}, fmt.Errorf("sysfs: %s: %w", name, err)
	}

	return d, nil
}

func read(t Tree, name string) (Device, error) {
	own, whole, partition, err := find(t, name)
	if err != nil {
		return Device{}, err
	}

	d := Device{
		Name: name, Node: "/dev/" + strings.ReplaceAll(name, "!", "/"), Path: "/" + own.path, Partition: partition,
	}

	if own.path != whole.path {
		d.Parent = path.Base(whole.path)
	}

	d.Kind = kindOf(path.Base(whole.path))

	if err := d.readNumbers(own, whole); err != nil {
		return Device{}, err
	}

	d.readRelatives(own)

	numbers, err := whole.need("dev")
	if err != nil {
		return Device{}, err
	}

	d.readIdentity(whole, readUdev(t.Udev, numbers))

	return d, nil
}

// find returns where the device that sysfs calls name is, and the whole device that it
// is the partition of with the number returned, or is itself.
func find(t Tree, name string) (own, whole dir, partition int, err error) {
	target, err := fs.ReadLink(t.Sys, path.Join(classBlock, name))
	if err != nil {
		return own, whole, 0, err
	}

	// A link that leads out of sysfs is not the kernel's.
	own = dir{t.Sys, path.Join(classBlock, target)}
	if !fs.ValidPath(own.path) {
		return own, whole, 0, fmt.Errorf("link leads to %q", target)
	}

	n, ok, err := own.number("partition")
	whole = own

	if ok {
		whole.path = path.Dir(own.path)
	}

	return own, whole, int(n), err
}

// Whole returns the name of the device that the one called name is a partition of, or
// name, if it is none or nobody knows.
func Whole(t Tree, name string) string {
	own, whole, _, err := find(t, name)
	if err != nil || own.path == whole.path {
		return name
	}

	return path.Base(whole.path)
}

// Again returns d with what may change without a uevent of the device read anew:
// its holders, and those of its partitions. What else there is, which is most, it
// takes for what it was.
//
// Returns false if the device is gone or another one, or its size has changed, or
// nothing tells whether it is still the same.
func Again(t Tree, d Device) (Device, bool) {
	own := dir{t.Sys, strings.TrimPrefix(d.Path, "/")}

	whole := own
	if d.Parent != "" {
		whole.path = path.Dir(own.path)
	}

	if seq, _, err := whole.number("diskseq"); err != nil || seq == 0 || uint64(seq) != d.DiskSeq {
		return Device{}, false
	}

	if size, ok, err := own.number("size"); err != nil || !ok || raid.Sectors(size) != d.Sectors {
		return Device{}, false
	}

	d.Partitions, d.Holders = nil, nil
	d.readRelatives(own)

	return d, true
}

// readNumbers reads what has a number for a value. The queue, the medium and
// the sequence number are those of the whole device.
func (d *Device) readNumbers(own, whole dir) error {
	numbers, err := own.need("dev")
	if err != nil {
		return err
	}

	major, minor, _ := strings.Cut(numbers, ":")

	for _, field := range []struct {
		text string
		to   *uint32
	}{{major, &d.Major}, {minor, &d.Minor}} {
		n, err := strconv.ParseUint(field.text, 10, 32)
		if err != nil {
			return fmt.Errorf("dev is %q", numbers)
		}

		*field.to = uint32(n)
	}

	size, ok, err := own.number("size")
	if err == nil && !ok {
		err = fs.ErrNotExist
	}

	if err != nil {
		return err
	}

	d.Sectors = raid.Sectors(size)

	for _, field := range []struct {
		from dir
		file string
		set  func(int64)
	}{
		{own, "ro", func(n int64) { d.ReadOnly = n != 0 }},
		{whole, "removable", func(n int64) { d.Removable = n != 0 }},
		{whole, "hidden", func(n int64) { d.Hidden = n != 0 }},
		{whole, "diskseq", func(n int64) { d.DiskSeq = uint64(n) }},
		{whole, "queue/rotational", func(n int64) { d.Rotational = n != 0 }},
		{whole, "queue/logical_block_size", func(n int64) { d.LogicalBlock = int(n) }},
		{whole, "queue/physical_block_size", func(n int64) { d.PhysicalBlock = int(n) }},
	} {
		n, _, err := field.from.number(field.file)
		if err != nil {
			return err
		}

		field.set(n)
	}

	return nil
}

// readRelatives finds the partitions and the holders.
func (d *Device) readRelatives(own dir) {
	d.Holders = own.names("holders")

	for _, name := range own.names(".") {
		if !strings.HasPrefix(name, d.Name) {
			continue // an attribute
		}

		if _, ok, err := own.below(name).number("partition"); err != nil || !ok {
			continue
		}

		d.Partitions = append(d.Partitions, name)
		d.Holders = append(d.Holders, own.below(name).names("holders")...)
	}

	// A mapping may be made of several partitions.
	slices.Sort(d.Holders)
	d.Holders = slices.Compact(d.Holders)
}

// dir is a directory in sysfs.
type dir struct {
	sys  fs.FS
	path string
}

func (d dir) below(name string) dir { return dir{d.sys, path.Join(d.path, name)} }

// names returns the names of what is in the directory name, or nothing if it
// cannot be read.
func (d dir) names(name string) []string {
	entries, _ := fs.ReadDir(d.sys, path.Join(d.path, name))

	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}

	return names
}

// need returns the line in the file name.
func (d dir) need(name string) (string, error) {
	b, err := readFile(d.sys, path.Join(d.path, name))

	return strings.TrimSuffix(string(b), "\n"), err
}

// text returns the words of the device in the file name, or nothing if it
// cannot be read: a disk that is dying may not say who it is.
func (d dir) text(name string) string {
	b, err := readFile(d.sys, path.Join(d.path, name))
	if err != nil {
		return ""
	}

	return clean(b)
}

// number returns the number in the file name, which is not negative. Returns
// false if there is no such file.
func (d dir) number(name string) (int64, bool, error) {
	text, err := d.need(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}

	if err != nil {
		return 0, false, err
	}

	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, false, fmt.Errorf("%s is %q", name, text)
	}

	return n, true, nil
}
