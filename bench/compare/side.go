package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// side is one of the two that are compared.
type side interface {
	name() string
	// take has it see to all disks from now on, as configured.
	take(g *lab.Guest, c config)
	// arrays returns those that are served.
	arrays(g *lab.Guest) []array
	// stop has it stop an array.
	stop(g *lab.Guest, name string)
	// watch has it watch over arrays, or no longer.
	watch(g *lab.Guest, on bool)
	// recoveries are arguments with which journalctl prints the starts of recoveries.
	recoveries() string
}

// config is what the administrator wrote for each of the two.
type config struct{ mdadm, ours string }

// array is a block device that is served.
type array struct {
	name     string
	node     string
	degraded int
	syncing  bool
	members  []string // serial numbers of those that have a slot
}

// tell is what both call when there is something to tell.
const tell = "#!/bin/sh\necho ${RAID_ALARM:-$1} >>/root/told\n"

// md is mdadm, its udev rules, its monitor, and the kernel's md.
type md struct{}

func (md) name() string { return "mdadm 4.4, md 6.12" }

func (md) take(g *lab.Guest, c config) {
	g.MustWriteFile("/root/tell", tell, 0o755)
	g.MustWriteFile("/etc/mdadm/mdadm.conf", "HOMEHOST <system>\nPROGRAM /root/tell\n"+c.mdadm, 0o644)

	// As on a machine with Intel's firmware.
	g.MustWriteFile("/etc/udev/rules.d/00-platform.rules", `ENV{IMSM_NO_PLATFORM}="1"`+"\n", 0o644)
	g.MustShell("systemctl set-environment IMSM_NO_PLATFORM=1; udevadm control --reload")

	if strings.Contains(c.mdadm, "POLICY") {
		g.MustShell("mdadm --udev-rules=/etc/udev/rules.d/65-md-bare.rules; udevadm control --reload")
	}
}

func (md) stop(g *lab.Guest, _ string) { g.MustShell("mdadm --stop --scan --quiet") }

func (md) watch(g *lab.Guest, on bool) {
	verb := "stop"
	if on {
		verb = "start"
	}

	g.MustShell("systemctl " + verb + " mdmonitor.service")
}

func (md) recoveries() string { return "-k --grep 'md: recover.* of RAID array'" }

// mdState prints each array that runs, and then its members.
const mdState = `shopt -s nullglob
declare -A serial
while read -r disk s; do serial[$disk]=$s; done < <(lsblk -dnro KNAME,SERIAL)
for md in /sys/block/md*/md; do
	case $(<$md/array_state) in clear|inactive) continue;; esac
	k=${md%/md}; k=${k##*/}
	name=$(udevadm info -q property --property=MD_DEVNAME --value /dev/$k)
	degraded=0; action=idle
	[ ! -e $md/degraded ] || degraded=$(<$md/degraded)
	[ ! -e $md/sync_action ] || action=$(<$md/sync_action)
	echo "array ${name:--} /dev/$k $degraded $action"
	for m in $md/dev-*; do
		slot=$(<$m/slot) || continue
		[ "$slot" = none ] || echo "member ${serial[${m##*/dev-}]:--}"
	done
done`

func (md) arrays(g *lab.Guest) []array {
	var all []array

	for line := range strings.Lines(g.MustShell(mdState)) {
		switch f := strings.Fields(line); f[0] {
		case "array":
			degraded, err := strconv.Atoi(f[3])
			if err != nil {
				panic(err)
			}

			all = append(all, array{name: f[1], node: f[2], degraded: degraded, syncing: f[4] != "idle"})
		case "member":
			a := &all[len(all)-1]
			a.members = append(a.members, f[1])
		}
	}

	return all
}

// ours is raid-assembler and raid-engine.
type ours struct{ stage string }

func (ours) name() string { return "raid-assembler" }

func (o ours) take(g *lab.Guest, c config) {
	g.MustWriteFile("/root/tell", tell, 0o755)
	g.MustWriteFile("/etc/raid-assembler.conf", "[Alerts]\nProgram=/root/tell\n"+c.ours, 0o644)
	g.MustInstall(o.stage)
	g.MustShell("systemctl start raid-engine.socket")
	o.watch(g, true)
}

func (ours) stop(g *lab.Guest, name string) { g.MustShell("raid-assembler stop " + name) }

func (ours) watch(g *lab.Guest, on bool) {
	verb := "stop"
	if on {
		verb = "start"
	}

	g.MustShell("systemctl " + verb + " raid-assembler.service")
}

func (ours) recoveries() string { return "RAID_EVENT=RecoveryStarted" }

func (ours) arrays(g *lab.Guest) []array {
	var st api.Status
	if err := json.Unmarshal([]byte(g.MustShell("raid-assembler status --json || [ $? -le 2 ]")), &st); err != nil {
		panic(err)
	}

	var all []array

	for _, a := range st.Arrays {
		if a.Device == "" {
			continue
		}

		seen := array{name: a.Name, node: a.Device, degraded: a.Degraded, syncing: a.Sync != nil}

		for _, m := range a.Members {
			if m.Slot != nil && m.Device != "" && m.State != string(raid.Faulty) {
				seen.members = append(seen.members, m.Serial)
			}
		}

		all = append(all, seen)
	}

	return all
}

func (a array) String() string {
	state := "whole"

	switch {
	case a.syncing:
		state = "being recovered"
	case a.degraded > 0:
		state = fmt.Sprintf("%d missing", a.degraded)
	}

	return state
}
