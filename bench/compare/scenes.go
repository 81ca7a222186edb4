package main

import (
	"fmt"
	"time"

	"raid-assembler/lab"
)

// scene is something that happens to arrays.
type scene struct {
	what  string
	right []string // what the array may hold in the end
	play  func(h *host) []string
}

const mirror = "-l1 -n2 --bitmap=internal"

var newData = []string{"the new data"}

var scenes = []scene{
	{fmt.Sprintf("reaction time: %d spares pushed in, one after the other", insertions), nil, reaction},
	{"split mirror, each half ran alone: both pushed in together", nil, func(h *host) []string {
		return split(h, func(halves []*lab.GuestDisk) { h.together(halves...) })
	}},
	{"the same, half B once half A has been dealt with", nil, func(h *host) []string {
		return split(h, func(halves []*lab.GuestDisk) { h.push(halves...) })
	}},
	{"a mirror's stale half comes first, the good one after the degraded start", newData, staleFirst(aged)},
	{"the same, left behind while this machine ran the array", newData, staleFirst(leftBehind)},
	{"a mirror's good half comes after a degraded start without it", newData, late},
	{"a member is pulled, written without, and pushed in again", newData, returned},
	{"a member and its clone, made with dd", []string{"the data"}, cloned},
	{"two arrays of one name", []string{"the data", "the other data"}, namesakes},
	{"another host's mirror, without one half", []string{"the data"}, foreign},
	{"spare of one array, member lost in another", []string{"the data", "the web"}, lent},
	{"spare pushed in while nobody watches", []string{"the data"}, unwatched},
	{"spare and array come together, a member was lost while all was off", []string{"the data"}, present},
	{"blank disk where the lost member was, as configured", []string{"the data"}, blank},
	{"blank but for a btrfs signature, in the same place", []string{"the data"}, func(h *host) []string {
		return occupied(h, 65536+64, "_BHRfS_M")
	}},
	{"data from 64 KiB on, in the same place", []string{"the data"}, func(h *host) []string {
		return occupied(h, 65536, "somebody's data")
	}},
	{"a LUKS volume, in the same place", []string{"the data"}, func(h *host) []string {
		return occupied(h, 0, "LUKS\xba\xbe\x00\x02")
	}},
	{"blank disk that is one sector too small, in the same place", []string{"the data"}, small},
	{"spare pulled in the midst of its recovery, and pushed in again", []string{"the data"}, interrupted},
	{"two degraded arrays, one of three mirrors, and one blank disk", []string{"the data", "the web"}, scarce},
}

func split(h *host, push func(halves []*lab.GuestDisk)) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "what both had", mirror, disks)
	h.aged("data", "half A", disks[0])
	h.aged("data", "half B", disks[1])
	h.begin(config{}, disks...)
	push(disks)

	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after}
}

// staleFirst returns a scene that pushes in the half of a mirror first which leave has
// made the older one.
func staleFirst(leave func(h *host, disks []*lab.GuestDisk)) func(h *host) []string {
	return func(h *host) []string {
		disks := h.plugAll(2, "m")
		h.make("data", "the old data", mirror, disks)
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
	h.aged("data", "the new data", disks[0])
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
	h.make("data", "the old data", mirror, disks)
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
	h.make("data", "the old data", mirror, disks)
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

	var seen []string

	for _, a := range h.arrays(h.Guest) {
		seen = append(seen, fmt.Sprintf("%s %s", a.name, h.describe(a)))
	}

	return append(seen, fmt.Sprintf("%d arrays", len(seen)))
}

func foreign(h *host) []string {
	disks := h.plugAll(2, "m")
	h.make("data", "the data", mirror+" --homehost=elsewhere", disks)
	h.begin(config{}, disks...)
	h.push(disks[0])
	after := h.until("", grace, served)

	return []string{h.state("") + ", " + after}
}
