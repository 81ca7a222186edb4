package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"raid-assembler/lab"
)

// scene is something that happens to arrays.
type scene struct {
	what  string
	right []string // what the array may hold in the end
	play  func(h *host) []string
}

// The arrays that mdadm makes.
const (
	mirror = "-l1 -n2 --bitmap=internal"
	ten    = "-l10 -n4 -c64 --bitmap=internal"
	six    = "-l6 -n4 -c64 --bitmap=internal"
	five   = "-l5 -n3 -c64 --consistency-policy=resync"
	logged = "-l5 -n3 -c64 --consistency-policy=ppl"
)

var newData = []string{"the new data"}

var scenes = slices.Concat([]scene{
	{fmt.Sprintf("reaction time: %d spares pushed in, one after the other", insertions), nil, reaction},
}, halves("", ""), []scene{
	{"split RAID10, each half ran alone: all pushed in together", nil, func(h *host) []string {
		return split(h, ten, 4, func(disks []*lab.GuestDisk) { h.together(disks...) })
	}},
	{"a RAID6 ran on without two members: these come first, the others at once", newData, func(h *host) []string {
		return behind(h, false)
	}},
	{"the same, the others after the degraded start", newData, func(h *host) []string { return behind(h, true) }},
	{"RAID5 that was being written to as the power failed, without one member", []string{"the data"}, dirty(five)},
	{"the same, with a partial parity log", []string{"the data"}, dirty(logged)},
	{"a member and its clone, made with dd", []string{"the data"}, cloned},
	{"a mirror, and a disk that was in one of the same name before", []string{"the data", "the older data"}, older},
	{"two arrays of one name", []string{"the data", "the other data"}, namesakes},
	{"another host's mirror, without one half", []string{"the data"}, foreign},
	{"spare of one array, member lost in another", []string{"the data", "the web"}, lent},
	{"spare pushed in while nobody watches", []string{"the data"}, unwatched},
	{"spare and array come together, a member was lost while all was off", []string{"the data"}, present},
	{"blank disk where the lost member was, as configured", []string{"the data"}, blank},
	{"blank disk elsewhere, as configured", []string{"the data"}, elsewhere},
	{"blank but for a btrfs signature, in the same place", []string{"the data"}, occupied(65536+64, "_BHRfS_M")},
	{"blank but for a LUKS signature", []string{"the data"}, occupied(0, "LUKS\xba\xbe\x00\x02")},
	{"blank but for a ZFS signature", []string{"the data"}, occupied(128<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00")},
	{"blank but for an LVM signature", []string{"the data"}, occupied(sector, "LABELONE")},
	{"blank but for a bcache signature", []string{"the data"}, occupied(
		4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")},
	{"blank but for an ISO 9660 signature", []string{"the data"}, occupied(32769, "CD001")},
	{"data from 64 KiB on", []string{"the data"}, occupied(65536, "somebody's data")},
	{"blank disk that is one sector too small", []string{"the data"}, small},
	{"blank disk with sectors of 4096 bytes", []string{"the data"}, large},
	{"spare pulled in the midst of its recovery, and pushed in again", []string{"the data"}, interrupted},
	{"two degraded arrays, one of three mirrors, and one blank disk", []string{"the data", "the web"}, scarce},
}, halves("imsm", "IMSM: "), halves("ddf", "DDF: "))

// halves are the scenes of mirrors whose halves are not of one age, in containers of a
// format.
func halves(format, of string) []scene {
	all := []scene{
		{"split mirror, each half ran alone: both pushed in together", nil, func(h *host) []string {
			return split(h, h.mirror(), 2, func(disks []*lab.GuestDisk) { h.together(disks...) })
		}},
		{"the same, half B once half A has been dealt with", nil, func(h *host) []string {
			return split(h, h.mirror(), 2, func(disks []*lab.GuestDisk) { h.push(disks...) })
		}},
		{"a mirror's stale half comes first, the good one after the degraded start", newData, staleFirst(aged)},
		{"the same, left behind while this machine ran the array", newData, staleFirst(leftBehind)},
		{"a mirror's good half comes after a degraded start without it", newData, late},
		{"a member is pulled, written without, and pushed in again", newData, returned},
	}

	for i := range all {
		all[i].what = of + all[i].what
		play := all[i].play
		all[i].play = func(h *host) []string {
			h.set = format

			return play(h)
		}
	}

	return all
}

// split runs the even and the odd ones of n disks apart.
func split(h *host, args string, n int, push func(disks []*lab.GuestDisk)) []string {
	disks := h.plugAll(n, "m")
	h.make("data", "what both had", args, disks)

	var even, odd []*lab.GuestDisk

	for i, d := range disks {
		if i%2 == 0 {
			even = append(even, d)
		} else {
			odd = append(odd, d)
		}
	}

	h.aged("half A", even...)
	h.aged("half B", odd...)
	h.begin(config{}, disks...)
	push(slices.Concat(even, odd))

	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after}
}

// behind pushes the two members of a RAID6 in first that it ran on without.
func behind(h *host, wait bool) []string {
	disks := h.plugAll(4, "m")
	h.make("data", "the old data", six, disks)
	h.aged("the new data", disks[:2]...)
	h.begin(config{}, disks...)
	h.push(disks[2:]...)

	var seen []string

	if wait {
		after := h.until("data", grace, served)
		seen = append(seen, "the two: "+h.state("data")+", "+after)
	}

	h.push(disks[:2]...)
	after := h.until("data", limit, whole)

	return append(seen, "all: "+h.state("data")+", "+after)
}

// dirty returns a scene in which members are as they were while something was written
// behind what is told apart, and one of them is not there.
func dirty(args string) func(h *host) []string {
	return func(h *host) []string {
		disks := h.plugAll(3, "m")
		h.make("data", "the data", args, disks)
		node := h.run(disks)
		h.MustShell(fmt.Sprintf(`echo 60 >/sys/block/$(basename $(readlink -f %[1]s))/md/safe_mode_delay
head -c 64K /dev/urandom | dd of=%[1]s bs=64K seek=%[2]d oflag=direct status=none`, node, 2*held/(64<<10)))

		var now [][]byte

		for _, d := range disks[:2] {
			image, err := os.ReadFile(d.Path())
			if err != nil {
				panic(err)
			}

			now = append(now, image)
		}

		h.MustShell("mdadm --stop --scan --quiet")
		h.begin(config{}, disks...)
		h.start()

		for i, image := range now {
			h.plugImage(lab.Disk{Serial: fmt.Sprint("n", i)}, image)
		}

		after := h.until("data", grace, served)

		return []string{h.state("data") + ", " + after}
	}
}

// older pushes a mirror in, and what has been a half of one of its name before the other
// half was used anew.
func older(h *host) []string {
	disks := h.plugAll(3, "m")
	h.make("data", "the older data", mirror, disks[1:])
	h.make("data", "the data", mirror, disks[:2])
	h.begin(config{}, disks...)
	h.push(disks...)
	time.Sleep(grace)

	return h.all()
}

// staleFirst returns a scene that pushes in the half of a mirror first which leave has
// made the older one.
func staleFirst(leave func(h *host, disks []*lab.GuestDisk)) func(h *host) []string {
	return func(h *host) []string {
		disks := h.plugAll(2, "m")
		h.make("data", "the old data", h.mirror(), disks)
		leave(h, disks)
		h.push(disks[1])
		after := h.until("data", grace, served)
		first := "stale half: " + h.state("data") + ", " + after
		h.push(disks[0])
		after = h.until("data", limit, whole)

		return []string{first, "then " + h.state("data") + ", " + after}
	}
}

// aged has mdadm write to one half before the other side comes to see it.
func aged(h *host, disks []*lab.GuestDisk) {
	h.aged("the new data", disks[0])
	h.begin(config{}, disks...)
}

// leftBehind has the array run, lose a half and be written to, and its disks go.
func leftBehind(h *host, disks []*lab.GuestDisk) {
	h.begin(config{}, disks...)
	h.push(disks...)
	h.until("data", limit, whole)
	disks[1].MustUnplug()
	h.until("data", limit, degraded)

	if a, ok := h.find("data"); ok {
		h.write(a.node, "the new data")
	}

	h.stop(h.Guest, "data")
	disks[0].MustUnplug()
}

func late(h *host) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "the old data", h.mirror(), disks)
	h.begin(config{}, disks...)
	h.push(disks[0])
	after := h.until("data", grace, served)

	a, ok := h.find("data")
	if !ok {
		return []string{"not served " + after}
	}

	first := "alone: served " + after

	h.write(a.node, "the new data")
	h.push(disks[1])
	after = h.until("data", limit, whole)

	return []string{first, "then " + h.state("data") + ", " + after}
}

func cloned(h *host) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "the data", mirror, disks)
	h.begin(config{}, disks...)
	h.start()
	h.plug(lab.Disk{Serial: "clone", Image: disks[0].Path()})
	h.MustReplugAll(disks...)
	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after, h.of("data")}
}

func returned(h *host) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "the old data", h.mirror(), disks)
	h.begin(config{}, disks...)
	h.push(disks...)
	h.until("data", limit, whole)
	disks[1].MustUnplug()
	h.until("data", limit, degraded)

	if a, ok := h.find("data"); ok {
		h.write(a.node, "the new data")
	}

	h.push(disks[1])
	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after}
}

func namesakes(h *host) []string {
	disks := h.plugAll(4, "m")
	h.make("data", "the data", mirror, disks[:2])
	h.make("data", "the other data", mirror, disks[2:])
	h.begin(config{}, disks...)
	h.push(disks...)
	time.Sleep(limit)

	return h.all()
}

func foreign(h *host) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "the data", mirror+" --homehost=elsewhere", disks)
	h.begin(config{}, disks...)
	h.push(disks[0])
	after := h.until("", grace, served)

	return []string{h.state("") + ", " + after}
}
