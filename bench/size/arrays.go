package main

import (
	"fmt"
	"strings"

	"raid-assembler/lab"
)

// arraysMax is how many arrays there are in the end.
const arraysMax = 9

// arrays prints what the engine and its guardian have locked in memory: without an array,
// with some that are idle, with all of them busy, after restarts, and with an engine that
// stands by.
func arrays(g *lab.Guest, tree string) error {
	if _, err := measure(g, tree, variant{name: "all formats"}); err != nil {
		return err
	}

	disks := make([]lab.Disk, 2*arraysMax)
	for i := range disks {
		disks[i] = lab.Disk{Serial: fmt.Sprintf("size.%d", i), Size: 32 << 20}
	}

	plugged, err := g.PlugAll(disks...)
	if err != nil {
		return err
	}

	devices := make([]string, len(plugged))
	for i, d := range plugged {
		if devices[i], err = d.Dev(); err != nil {
			return err
		}
	}

	fmt.Println("Locked memory of the engine and its guardian, in KiB, what they share counted once; " +
		"and what the kernel charges their service with")

	// What nobody uses any more is given back within 15 s.
	const idle = "sleep 20\n"

	for _, step := range []struct{ what, script string }{
		{"no array", ""},
		{"1 idle array", create(devices, 0, 1) + idle},
		{"after a restart", restart + idle},
		{fmt.Sprintf("%d idle arrays", arraysMax), create(devices, 1, arraysMax) + idle},
		{"all of them busy", busy},
		{"and at rest", idle},
		{"and after a restart", restart + idle},
		{"with one that stands by", standby + idle},
	} {
		out, err := shell(g, step.script+lockedNow)
		if err != nil {
			return err
		}

		fmt.Printf("%-24s %s\n", step.what, strings.TrimSpace(out))
	}

	return nil
}

// create is a script that makes arrays of two devices each, and waits until they are idle.
func create(devices []string, first, last int) string {
	var script strings.Builder

	for i := first; i < last; i++ {
		_, _ = fmt.Fprintf(&script, "raid-assembler create a%d --level 1 --devices 2 %s %s >/dev/null\n"+
			"raid-assembler wait a%[1]d >/dev/null\n", i, devices[2*i], devices[2*i+1])
	}

	script.WriteString("udevadm settle\n")

	return script.String()
}

// busy is a script that writes and reads all arrays at a time.
const busy = `for a in /dev/raid/*; do dd if=/dev/zero of=$a bs=1M count=16 oflag=direct status=none & done
wait
for a in /dev/raid/*; do dd if=$a of=/dev/null bs=1M iflag=direct status=none & done
wait
`

// restart is a script that has an engine take all arrays over: none was used since.
const restart = "systemctl restart raid-engine.service\n"

// standby is a script that has an engine stand by, which begins when the other has served
// for a while.
const standby = `mkdir -p /run/systemd/system/raid-engine.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/raid-engine --standby always\n' \
	>/run/systemd/system/raid-engine.service.d/size.conf
systemctl daemon-reload
` + restart + `
came=
for i in $(seq 60); do
	[ $(wc -l </sys/fs/cgroup/system.slice/raid-engine.service/cgroup.procs) -gt 2 ] && came=1 && break
	sleep 1
done
[ $came ] || { echo "no engine stands by" >&2; exit 1; }
`

// lockedNow prints what the processes of the service have locked.
const lockedNow = `
service=/sys/fs/cgroup/system.slice/raid-engine.service
for p in $(cat $service/cgroup.procs); do
	printf '%s %s\n' $p $(sed -n 's/^Locked: *\([0-9]*\) kB/\1/p' /proc/$p/smaps_rollup)
done | awk '{sum += $2; each = each " " $2} END {printf "%d locked (%s)", sum, substr(each, 2)}'
echo ", $(($(cat $service/memory.current) / 1024)) charged"
`
