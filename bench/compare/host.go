package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"raid-assembler/lab"
)

// host is a guest in which one of the two is to see to the arrays.
type host struct {
	*lab.Guest
	side

	right []string // what an array may hold in the end
	set   string   // the format of the containers that its arrays lie in; empty if they lie in none
	play  int      // tells its disks from those of other plays
	disks []*lab.GuestDisk
	began time.Duration
}

// limit is how long something may take that is to happen by itself, and grace how long an
// array may take to be started without a member: both do that after 30 s, and mdadm's
// timer has systemd's accuracy of a minute.
const (
	limit = 45 * time.Second
	grace = 100 * time.Second
)

// size is that of a disk, held how much of an array's content is told apart, and reserved
// what a disk has for the metadata of a container, in bytes.
const (
	sector   = 512
	size     = 32 << 20
	held     = 8 << 20
	reserved = 48 << 20
)

// plug plugs a new disk in, with a serial number of this play.
func (h *host) plug(d lab.Disk) *lab.GuestDisk {
	d.Serial = fmt.Sprintf("%s-%d", d.Serial, h.play)
	disk := h.MustPlug(d)
	h.disks = append(h.disks, disk)

	return disk
}

// plugImage plugs a new disk in that holds an image.
func (h *host) plugImage(d lab.Disk, image []byte) *lab.GuestDisk {
	dir, err := os.MkdirTemp("", "raid-assembler-compare-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	d.Image = filepath.Join(dir, "image")
	if err := os.WriteFile(d.Image, image, 0o600); err != nil {
		panic(err)
	}

	return h.plug(d)
}

// plugAll plugs n new disks in: a0, a1 and so on.
func (h *host) plugAll(n int, prefix string) []*lab.GuestDisk {
	large := int64(size)
	if h.set != "" {
		large += reserved
	}

	all := make([]*lab.GuestDisk, 0, n)
	for i := range n {
		all = append(all, h.plug(lab.Disk{Serial: fmt.Sprint(prefix, i), Size: large}))
	}

	return all
}

// make has mdadm make an array of disks and fill it with what is called by label.
func (h *host) make(name, label, args string, disks []*lab.GuestDisk) {
	members := nodes(disks)

	if h.set != "" {
		h.MustShell(withoutPlatform + fmt.Sprintf("mdadm --create /dev/md/%s-set --run --quiet -e %s -n%d %s\n"+
			"udevadm settle", name, h.set, len(disks), members))

		members = "/dev/md/" + name + "-set"
	}

	h.MustShell(withoutPlatform + fmt.Sprintf("mkdir -p /root/data\n"+
		"mdadm --create /dev/md/%s --run --quiet --assume-clean %s %s; udevadm settle", name, args, members))
	h.write("/dev/md/"+name, label)
	h.MustShell("mdadm --stop --scan --quiet; udevadm settle")
}

// mirror returns how mdadm is asked for a mirror of two.
func (h *host) mirror() string {
	if h.set != "" {
		return "-l1 -n2"
	}

	return mirror
}

// withoutPlatform has mdadm take disks of IMSM on a machine without Intel's firmware.
const withoutPlatform = "export IMSM_NO_PLATFORM=1\n"

// run has mdadm run the array called data on some of its disks only, and returns its device.
func (h *host) run(disks []*lab.GuestDisk) string {
	if h.set == "" {
		h.MustShell(fmt.Sprintf("mdadm --assemble /dev/md/data --run %s 2>&1; udevadm settle", nodes(disks)))

		return "/dev/md/data"
	}

	h.MustShell(withoutPlatform + fmt.Sprintf("for d in %s; do mdadm --incremental --run $d; done\n"+
		"udevadm settle", nodes(disks)))

	return md{}.arrays(h.Guest)[0].node
}

// aged has mdadm run the array called data on some of its disks only, and write to it.
func (h *host) aged(label string, disks ...*lab.GuestDisk) {
	h.write(h.run(disks), label)
	h.MustShell("mdadm --stop --scan --quiet; udevadm settle")
}

// write fills an array with what will be known by label.
func (h *host) write(node, label string) {
	h.MustShell(fmt.Sprintf(`head -c %[1]d /dev/urandom >'/root/data/%[3]s'
dd if='/root/data/%[3]s' of=%[2]s bs=1M oflag=direct conv=fsync status=none`, held, node, label))
}

func nodes(disks []*lab.GuestDisk) string {
	all := make([]string, 0, len(disks))
	for _, d := range disks {
		all = append(all, d.MustDev())
	}

	return strings.Join(all, " ")
}

// begin pulls all disks and gives them to the one who is to see to them from now on.
func (h *host) begin(c config, disks ...*lab.GuestDisk) {
	for _, d := range disks {
		d.MustUnplug()
	}

	h.take(h.Guest, c)
}

// push plugs disks in, each once udev has dealt with the one before; what follows is
// timed from the last one on.
func (h *host) push(disks ...*lab.GuestDisk) {
	for _, d := range disks {
		h.start()
		d.MustReplug()
	}
}

// together plugs disks in without waiting in between.
func (h *host) together(disks ...*lab.GuestDisk) {
	h.start()
	h.MustReplugAll(disks...)
}

// start begins to take the time.
func (h *host) start() { h.began = time.Duration(h.MustMonotonicNow()) * time.Microsecond }

// until waits until ok says so of an array, and returns when that was, or until limit is
// over.
func (h *host) until(name string, limit time.Duration, ok func(array) bool) string {
	for {
		took := time.Duration(h.MustMonotonicNow())*time.Microsecond - h.began

		if a, found := h.find(name); found && ok(a) {
			return fmt.Sprintf("after %.1f s", took.Seconds())
		}

		if took > limit {
			return fmt.Sprintf("%.0f s later", limit.Seconds())
		}

		time.Sleep(100 * time.Millisecond)
	}
}

// find returns an array by its name, or if that is empty whatever there is. mdadm takes no
// name from a container as it is.
func (h *host) find(name string) (array, bool) {
	all := h.arrays(h.Guest)
	i := slices.IndexFunc(all, func(a array) bool {
		return name == "" || a.name == name || h.set != "" && a.name == name+"_0"
	})

	if i < 0 {
		return array{}, false
	}

	return all[i], true
}

func served(array) bool { return true }

func whole(a array) bool { return a.degraded == 0 && !a.syncing }

func degraded(a array) bool { return a.degraded > 0 }

func syncing(a array) bool { return a.syncing }

// state says what an array is like, and whether it holds what it may.
func (h *host) state(name string) string {
	a, ok := h.find(name)
	if !ok {
		return "not served"
	}

	return h.describe(a)
}

// all says what there is.
func (h *host) all() []string {
	var seen []string

	for _, a := range h.arrays(h.Guest) {
		seen = append(seen, fmt.Sprintf("%s %s", a.name, h.describe(a)))
	}

	return append(seen, fmt.Sprintf("%d arrays", len(seen)))
}

func (h *host) describe(a array) string {
	holds := h.content(a.node)
	if slices.Contains(h.right, holds) {
		return fmt.Sprintf("serves %s, %v", holds, a)
	}

	return fmt.Sprintf("**serves %s**, %v", holds, a)
}

// content returns what an array's content is known by.
func (h *host) content(node string) string {
	label := strings.TrimSpace(h.MustShell(fmt.Sprintf(`cd /root/data
for f in *; do if cmp -s -n %d "$f" %s; then echo "$f"; exit; fi; done`, held, node)))
	if label == "" {
		return "what nobody wrote"
	}

	return label
}

// of says which disks an array consists of.
func (h *host) of(name string) string {
	a, ok := h.find(name)
	if !ok {
		return "of no disks"
	}

	return "of " + strings.ReplaceAll(strings.Join(a.members, ", "), fmt.Sprintf("-%d", h.play), "")
}
