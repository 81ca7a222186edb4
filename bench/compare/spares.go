package main

import (
	"crypto/sha256"
	"os"

	"raid-assembler/lab"
)

// shared lets spares move between all arrays.
var shared = config{
	mdadm: "POLICY domain=all path=* action=spare\n",
	ours:  "[Domain all]\nSerial=*\n",
}

func lent(h *host) []string {
	data, web := h.plugAll(2, "d"), h.plugAll(3, "w")
	h.make("data", "the data", mirror, data)
	h.make("web", "the web", mirror+" -x1", web)
	h.begin(shared, append(data, web...)...)
	h.push(append(data, web...)...)
	h.until("data", limit, whole)
	h.until("web", limit, whole)
	h.watch(h.Guest, true)
	h.start()
	data[1].MustUnplug()
	h.until("data", limit, degraded)
	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after, h.of("data"), "the other array " + h.state("web")}
}

// bereft makes an array that has lost a member, and returns its spare, which is not here.
func bereft(h *host) *lab.GuestDisk {
	disks := h.plugAll(3, "m")
	h.make("data", "the data", mirror+" -x1", disks)
	h.begin(config{}, disks...)
	h.push(disks[:2]...)
	h.until("data", limit, whole)
	disks[1].MustUnplug()
	h.until("data", limit, degraded)

	return disks[2]
}

func unwatched(h *host) []string {
	spare := bereft(h)
	h.watch(h.Guest, false)
	h.MustReplugAll(spare)
	h.start()
	h.watch(h.Guest, true)
	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after}
}

func present(h *host) []string {
	disks := h.plugAll(3, "m")
	h.make("data", "the data", mirror+" -x1", disks)
	h.begin(config{}, disks...)
	h.push(disks[0], disks[2])
	after := h.until("data", grace, whole)

	return []string{h.state("data") + ", " + after}
}

// sameSlot has blank disks put to work where a member was.
var sameSlot = config{
	mdadm: "POLICY domain=all path=* action=spare-same-slot\n",
	ours:  "[Domain all]\nSerial=*\nBlank=same-slot\n",
}

// lost makes an array that has lost a member, and returns that.
func lost(h *host) *lab.GuestDisk {
	disks := h.plugAll(2, "m")
	h.make("data", "the data", mirror, disks)
	h.begin(sameSlot, disks...)
	h.push(disks...)
	h.until("data", limit, whole)
	disks[1].MustUnplug()
	h.until("data", limit, degraded)
	h.start()

	return disks[1]
}

func blank(h *host) []string {
	gone := lost(h)

	return fresh(h, gone.Bay())
}

func elsewhere(h *host) []string {
	lost(h)

	return fresh(h, 0)
}

// fresh plugs a blank disk into a bay, or if that is 0 into one where no disk was.
func fresh(h *host, bay int) []string {
	h.plug(lab.Disk{Serial: "new", Size: size, Bay: bay})
	after := h.until("data", limit, whole)

	return []string{h.state("data") + ", " + after}
}

// occupied returns a scene that plugs a disk in where a member was that holds something
// at one place.
func occupied(at int, what string) func(h *host) []string {
	return func(h *host) []string {
		image := make([]byte, size)
		copy(image[at:], what)

		return stranger(h, image, sector)
	}
}

// small plugs a blank disk in where a member was that lacks one sector of what that used.
func small(h *host) []string { return stranger(h, make([]byte, size-sector), sector) }

// large plugs a blank disk in where a member was that has larger sectors.
func large(h *host) []string { return stranger(h, make([]byte, size), 4096) }

// stranger plugs a disk in where a member was that is not to be written to.
func stranger(h *host, image []byte, sector int) []string {
	gone := lost(h)

	d := h.plugImage(lab.Disk{Serial: "new", SectorSize: sector, Bay: gone.Bay()}, image)
	after := h.until("data", limit, whole)

	now, err := os.ReadFile(d.Path())
	if err != nil {
		panic(err)
	}

	disk := "the disk is as it was"
	if sha256.Sum256(now) != sha256.Sum256(image) {
		disk = "**the disk was overwritten**"
	}

	return []string{disk, h.state("data") + ", " + after}
}

// slowly is how fast a disk is that is to be pulled in the midst of something.
const slowly = 2 << 20

func interrupted(h *host) []string {
	spare := bereft(h)
	spare.MustThrottle(lab.Speed{BytesPerSecond: slowly})
	h.push(spare)
	began := "being filled " + h.until("data", limit, syncing)
	spare.MustUnplug()
	h.until("data", limit, func(a array) bool { return !a.syncing })

	pulled := "then " + h.state("data")

	spare.MustThrottle(lab.Speed{})
	h.push(spare)
	after := h.until("data", limit, whole)

	return []string{began, pulled, "then " + h.state("data") + ", " + after}
}

// anywhere has blank disks put to work wherever they are.
var anywhere = config{
	mdadm: "POLICY domain=all path=* action=spare\n",
	ours:  "[Domain all]\nSerial=*\nBlank=yes\n",
}

func scarce(h *host) []string {
	data, web := h.plugAll(3, "d"), h.plugAll(2, "w")
	h.make("data", "the data", "-l1 -n3 --bitmap=internal", data)
	h.make("web", "the web", mirror, web)
	h.begin(anywhere, append(data, web...)...)
	h.push(append(data, web...)...)
	h.until("data", limit, whole)
	h.until("web", limit, whole)
	data[2].MustUnplug()
	web[1].MustUnplug()
	h.until("data", limit, degraded)
	h.until("web", limit, degraded)
	h.start()
	h.plug(lab.Disk{Serial: "new", Size: size})
	after := h.until("web", limit, whole)

	return []string{"the mirror of two " + h.state("web") + ", " + after, "the mirror of three " + h.state("data")}
}
