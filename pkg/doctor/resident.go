package doctor

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Flags of a thread in its stat, which PR_SET_IO_FLUSHER sets.
const ioFlusher = 1<<19 | 1<<20 // allocates without I/O, and is not throttled

// Fields of a thread's stat, counted from the one after its name, the third.
const (
	statFlags  = 9 - 3
	statMinor  = 10 - 3
	statMajor  = 12 - 3
	statNice   = 19 - 3
	statPolicy = 41 - 3
	statFields = statPolicy
)

// roundRobin is a real-time policy, as the kernel numbers it.
const roundRobin = 2

// niceOfIO is the priority that the service has, which is that of the kernel's own
// threads for I/O.
const niceOfIO = -20

// guardian is the process that starts engines. All of its threads are real-time ones; an
// engine's are for a while after it took arrays over.
const guardian = "guardian"

// thread is what is told of one.
type thread struct {
	flags, minor, major, policy uint64
	nice                        int
}

// resident looks at the engine that runs, one that stands by, and their guardian: none
// may ever wait for memory that only they could free, nor be ended for want of it.
func resident(h Host) []Finding {
	pid, engines := h.engines()
	if pid == "" {
		return nil // units tells whether it should run
	}

	findings := append(h.limits(pid), h.process(guardian, pid)...)

	switch len(engines) {
	case 0:
		findings = append(findings, warn("engine", "does not run just now", "journalctl -u raid-engine"))
	case 1:
		findings = append(findings, h.process("engine", engines[0])...)
	default: // one serves, the other stands by
		for _, engine := range engines {
			findings = append(findings, h.process("engine "+engine, engine)...)
		}
	}

	return findings
}

// engines returns the process of the guardian, empty if none runs, and those of its engines.
func (h Host) engines() (guardian string, engines []string) {
	pid, err := h.Run("systemctl", "show", "--property=MainPID", "--value", "raid-engine.service")
	if pid = strings.TrimSpace(pid); err != nil || pid == "0" {
		return "", nil
	}

	// Any of its threads may have started one.
	files, _ := fs.Glob(h.FS, path.Join("proc", pid, "task", "*", "children"))
	for _, file := range files {
		text, _ := h.read(file)
		engines = append(engines, strings.Fields(text)...)
	}

	return pid, engines
}

// limits looks at how much memory the control groups of a process let it have. What is
// above that has to wait, or is ended, though none of it can be given back.
func (h Host) limits(pid string) []Finding {
	var findings []Finding

	text, _ := h.read(path.Join("proc", pid, "cgroup"))
	_, group, _ := strings.Cut(text, "0::/")

	for ; group != "" && group != "."; group = path.Dir(group) {
		for _, property := range []string{"MemoryHigh", "MemoryMax"} {
			limit, _ := h.read(path.Join("sys/fs/cgroup", group, "memory."+strings.ToLower(property[len("Memory"):])))
			if limit == "" || limit == "max" {
				continue
			}

			unit := path.Base(group)
			findings = append(findings, fail(unit,
				fmt.Sprintf("the engine may have to wait for memory: %s is %s", property, limit),
				fmt.Sprintf("systemctl set-property %s %s=infinity", unit, property)))
		}
	}

	return findings
}

// process looks at one process. What is wrong with it is told, or that nothing is.
func (h Host) process(name, pid string) []Finding {
	var findings []Finding

	bad := func(text, remedy string) { findings = append(findings, fail(name, text, remedy)) }

	locked, found := h.memory(pid, "VmLck")
	swapped, _ := h.memory(pid, "VmSwap")
	held, _ := h.memory(pid, "VmRSS")

	if !found {
		return []Finding{warn(name, "has just ended", "raid-assembler doctor")}
	}

	if locked == 0 {
		bad("its memory is not locked", "set LimitMEMLOCK=infinity in raid-engine.service, and restart it")
	}

	if swapped > 0 {
		bad(fmt.Sprintf("%d KiB of it are swapped out", swapped), "swapoff -a, and systemctl restart raid-engine")
	}

	if score, _ := h.read(path.Join("proc", pid, "oom_score_adj")); score != "-1000" {
		bad("it may be ended when memory runs out: its oom_score_adj is "+score,
			"set OOMScoreAdjust=-1000 in raid-engine.service, and restart it")
	}

	threads, total := h.threads(pid), thread{}
	slow, unprotected, usual := 0, 0, 0

	for _, t := range threads {
		total.minor, total.major = total.minor+t.minor, total.major+t.major

		if t.nice != niceOfIO {
			slow++
		}

		if t.flags&ioFlusher != ioFlusher {
			unprotected++
		}

		if t.policy != roundRobin {
			usual++
		}
	}

	if unprotected > 0 {
		bad(fmt.Sprintf("%d of %d threads may wait for their own I/O when they need memory", unprotected, len(threads)),
			"leave CAP_SYS_RESOURCE to raid-engine.service, and restart it")
	}

	if slow > 0 {
		findings = append(findings, warn(name,
			fmt.Sprintf("%d of %d threads do not have nice %d", slow, len(threads), niceOfIO),
			"set Nice=-20 in raid-engine.service, and restart it"))
	}

	if name == guardian && usual > 0 {
		findings = append(findings, warn(name,
			fmt.Sprintf("%d of %d threads are given no memory that the kernel keeps back", usual, len(threads)),
			"set LimitRTPRIO=1 in raid-engine.service, and restart it"))
	}

	if findings == nil {
		findings = []Finding{ok(name, fmt.Sprintf("%d KiB resident, all locked; %d threads; "+
			"page faults since its start: %d minor, %d major", held, len(threads), total.minor, total.major))}
	}

	return findings
}

// memory returns a field of a process's status, in KiB.
func (h Host) memory(pid, field string) (kib uint64, found bool) {
	text, _ := h.read(path.Join("proc", pid, "status"))

	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)

			return kib, err == nil
		}
	}

	return 0, false
}

// threads returns those of a process.
func (h Host) threads(pid string) []thread {
	files, _ := fs.Glob(h.FS, path.Join("proc", pid, "task", "*", "stat"))
	threads := make([]thread, 0, len(files))

	for _, file := range files {
		text, _ := h.read(file)

		// The name is in brackets, and may have any in it.
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) <= statFields {
			continue // it has ended
		}

		count := func(i int) uint64 {
			n, _ := strconv.ParseUint(fields[i], 10, 64)

			return n
		}

		nice, _ := strconv.Atoi(fields[statNice])
		threads = append(threads, thread{
			flags: count(statFlags), minor: count(statMinor), major: count(statMajor),
			policy: count(statPolicy), nice: nice,
		})
	}

	return threads
}
