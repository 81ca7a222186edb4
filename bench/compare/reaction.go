package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// insertions is how many spares are pushed in to see how soon one is put to work.
const insertions = 10

// quiet is how long nobody asks how far it is after that: to ask takes an emulated
// processor longer than what is asked for. A spare is pushed in as long after the pull:
// what that set going, alarms included, is over, as it is before anybody could do so.
const quiet = 4 * time.Second

// reaction pushes one spare after the other in beside a mirror's last member, and says
// how long after the kernel's uevent, and after udev's, each recovery began.
func reaction(h *host) []string {
	disks := h.plugAll(2+insertions, "m")
	h.make("data", "the data", fmt.Sprintf("%s -x%d", mirror, insertions), disks)
	h.begin(config{}, disks...)
	h.MustGo("udevadm monitor --kernel --udev --subsystem-match=block >/root/uevents")
	h.push(disks[:2]...)
	h.until("data", limit, whole)

	member := disks[1]

	var fromKernel, fromUdev []time.Duration

	for _, spare := range disks[2:] {
		member.MustUnplug()
		h.until("data", limit, degraded)
		time.Sleep(quiet)
		h.push(spare)
		time.Sleep(quiet)

		after := h.until("data", limit, whole)

		if a, ok := h.find("data"); !ok || !whole(a) {
			return []string{fmt.Sprintf("%v %s", a, after)}
		}

		began := h.at("journalctl -q -o short-monotonic -n1 " + h.recoveries() + " | tr -d '[]'")
		fromKernel = append(fromKernel, began-h.at(added("KERNEL")))
		fromUdev = append(fromUdev, began-h.at(added("UDEV")))
		member = spare
	}

	return []string{
		"recovery began " + spread(fromKernel) + " after the kernel's uevent",
		spread(fromUdev) + " after udev's",
	}
}

// added is a script that prints when the last disk was there, for the kernel or for udev.
func added(who string) string {
	return fmt.Sprintf(`sed -n 's,^%s *\[\([0-9.]*\)\] add .*/block/sd[a-z]* .*,\1,p' /root/uevents | tail -1`, who)
}

// at returns the time that is the first word of what a script prints, in seconds.
func (h *host) at(script string) time.Duration {
	word, _, _ := strings.Cut(strings.TrimSpace(h.MustShell(script)), " ")

	d, err := time.ParseDuration(word + "s")
	if err != nil {
		panic(err)
	}

	return d
}

// spread names the median and the maximum.
func spread(all []time.Duration) string {
	slices.Sort(all)

	return fmt.Sprintf("%d ms (median, at most %d ms)", all[len(all)/2].Milliseconds(), all[len(all)-1].Milliseconds())
}
