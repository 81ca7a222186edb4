// The guest command is the first process of the machine that bench/cost boots.
// It makes arrays on disks of memory, has md and then our engine run each, does
// the same requests on both, and prints what they cost. Then it turns the power
// off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	memberMiB = 64
	dataMiB   = 4 // where the data begins
	chunk     = 64 << 10
)

var (
	// hollow is what members are; see makeMember.
	hollow bool
	// only is what is measured: of "RAID5 of 4, 4 KiB random read" and so on.
	only *regexp.Regexp
)

// array is what is compared.
type array struct {
	level   int
	members int
	data    int // chunks of data in a row; 0 where there are no rows
}

func (a array) String() string { return fmt.Sprintf("RAID%d of %d", a.level, a.members) }

// workloads returns what is to be done to a.
func (a array) workloads() []workload {
	var list []workload

	for _, w := range workloads {
		if w.size == 0 {
			w.size = a.data * chunk
		}

		if w.size > 0 && only.MatchString(a.String()+", "+w.name) {
			list = append(list, w)
		}
	}

	return list
}

var arrays = []array{{0, 4, 4}, {1, 2, 0}, {5, 4, 3}, {6, 6, 4}}

// Result is what requests on one array cost one of the two, as bench/cost reads
// it.
type Result struct {
	Array    string  `json:"array"`
	Workload string  `json:"workload"`
	By       string  `json:"by"`   // "md" or "engine"
	Cost     float64 `json:"cost"` // instructions for a request
	Bytes    int     `json:"bytes"`
	Members  IO      `json:"members"` // for a request
	// Of the engine's process, for a request.
	Switches  float64 `json:"switches"`  // because it waited
	Preempted float64 `json:"preempted"` // because another thread was to run
	Faults    float64 `json:"faults"`    // minor ones
	Error     string  `json:"error,omitempty"`
}

// IO counts what members did.
type IO struct {
	Reads        float64 `json:"reads"`
	Writes       float64 `json:"writes"`
	BytesRead    float64 `json:"bytes_read"`
	BytesWritten float64 `json:"bytes_written"`
}

func main() {
	if err := run(); err != nil {
		fmt.Println("bench:", err)
	}

	time.Sleep(100 * time.Millisecond) // for the console
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := prepare(); err != nil {
		return err
	}

	e, err := startEngine()
	if err != nil {
		return err
	}

	for _, a := range arrays {
		if len(a.workloads()) == 0 {
			continue
		}

		if err := compare(a, e); err != nil {
			report(Result{Array: a.String(), Error: err.Error()})
		}
	}

	return nil
}

// prepare loads what is needed and makes the members.
func prepare() error {
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		_ = os.Setenv("PATH", os.Getenv("PATH")+":"+dir)
	}

	_ = os.Setenv("MDADM_NO_UDEV", "1")
	_ = os.Setenv("DM_DISABLE_UDEV", "1")

	parameters, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}

	hollow = slices.Contains(strings.Fields(string(parameters)), "bench.hollow")

	pattern, err := os.ReadFile("/run/only")
	if err != nil {
		return err
	}

	if only, err = regexp.Compile(string(pattern)); err != nil {
		return err
	}

	for _, module := range []string{
		"configfs", "null_blk nr_devices=0", "raid0", "raid1", "raid456", "dm_mod", "ublk_drv",
	} {
		if err := command("modprobe", strings.Fields(module)...); err != nil {
			return err
		}
	}

	if err := unix.Mount("none", "/sys/kernel/config", "configfs", 0, ""); err != nil {
		return fmt.Errorf("configfs: %w", err)
	}

	most := 0
	for _, a := range arrays {
		most = max(most, a.members)
	}

	for i := range most {
		if err := makeMember(i); err != nil {
			return err
		}

		if !hollow {
			if err := fill(member(i)); err != nil {
				return err
			}
		}
	}

	return nil
}

// fill writes zeros to a disk, so that all its memory is there from the start.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}

	_, err = io.Copy(f, io.LimitReader(zeros{}, memberMiB<<20))

	return errors.Join(err, f.Close())
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)

	return len(b), nil
}

func member(i int) string {
	if hollow {
		return fmt.Sprintf("/dev/mapper/member%d", i)
	}

	return "/dev/" + disk(i)
}

// disk is the block device whose I/O counts as a member's.
func disk(i int) string { return fmt.Sprintf("disk%d", i) }

// members returns the paths of the first n members.
func members(n int) []string {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = member(i)
	}

	return paths
}

// makeMember makes a disk of memory. A hollow one remembers only what is before
// the data: no processor copies the data of a real disk either.
func makeMember(i int) error {
	if !hollow {
		return makeDisk(disk(i), memberMiB, true)
	}

	head := fmt.Sprintf("head%d", i)
	if err := makeDisk(head, dataMiB, true); err != nil {
		return err
	}

	if err := makeDisk(disk(i), memberMiB-dataMiB, false); err != nil {
		return err
	}

	const sectors = 1 << 20 / 512

	cmd := exec.Command("dmsetup", "create", filepath.Base(member(i)))
	cmd.Stdin = strings.NewReader(fmt.Sprintf("0 %d linear /dev/%s 0\n%d %d linear /dev/%s 0\n",
		dataMiB*sectors, head, dataMiB*sectors, (memberMiB-dataMiB)*sectors, disk(i)))

	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dmsetup: %w: %s", err, out)
	}

	return nil
}

// makeDisk makes a disk that answers at once, with a queue like that of a real
// one.
func makeDisk(name string, mib int, memory bool) error {
	dir := filepath.Join("/sys/kernel/config/nullb", name)

	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}

	backed := "0"
	if memory {
		backed = "1"
	}

	for _, setting := range [][2]string{
		{"size", fmt.Sprint(mib)},
		{"memory_backed", backed},
		{"irqmode", "0"},
		{"blocksize", "4096"},
		{"hw_queue_depth", "256"},
		{"power", "1"},
	} {
		if err := os.WriteFile(filepath.Join(dir, setting[0]), []byte(setting[1]), 0); err != nil {
			return err
		}
	}

	return os.WriteFile(filepath.Join("/sys/block", name, "queue/scheduler"), []byte("none"), 0)
}

// compare has md and then the engine run an array, on the same members.
func compare(a array, e *engine) error {
	disks := members(a.members)

	args := append([]string{
		"--create", "/dev/md0", "--run", "--quiet", "--assume-clean", "--homehost=any", "--metadata=1.2",
		"--bitmap=none", "--chunk=64", fmt.Sprintf("--data-offset=%dM", dataMiB),
		fmt.Sprintf("--level=%d", a.level), fmt.Sprintf("--raid-devices=%d", a.members),
	}, disks...)
	if a.level == 1 {
		args = without(args, "--chunk=64")
	}

	if a.level == 0 {
		args = without(args, "--assume-clean", "--bitmap=none")
	}

	if err := command("mdadm", args...); err != nil {
		return err
	}

	out, err := exec.Command("mdadm", "--detail", "/dev/md0").Output()
	if err != nil {
		return fmt.Errorf("mdadm --detail: %w", err)
	}

	_, rest, _ := strings.Cut(string(out), "UUID : ")
	uuid, _, _ := strings.Cut(rest, "\n")

	if err := load(a, "md", "/dev/md0", nil); err != nil {
		return err
	}

	if err := command("mdadm", "--stop", "/dev/md0"); err != nil {
		return err
	}

	node, err := e.start(strings.TrimSpace(uuid), disks)
	if err != nil {
		return err
	}

	if err := load(a, "engine", node, e); err != nil {
		return err
	}

	if err := e.stop(); err != nil {
		return err
	}

	return released(disks)
}

// released waits until disks can be claimed again: the kernel closes what a ring
// held in its own time.
func released(disks []string) error {
	began := time.Now()

	for _, disk := range disks {
		for {
			fd, err := unix.Open(disk, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
			if err == nil {
				if err := unix.Close(fd); err != nil {
					return err
				}

				break
			}

			if time.Since(began) > time.Minute {
				return fmt.Errorf("a minute after the array was stopped: %s: %w", disk, err)
			}

			time.Sleep(10 * time.Millisecond)
		}
	}

	fmt.Printf("members released after %v\n", time.Since(began))

	return nil
}

func without(args []string, unwanted ...string) []string {
	var left []string

	for _, arg := range args {
		keep := true
		for _, u := range unwanted {
			keep = keep && arg != u
		}

		if keep {
			left = append(left, arg)
		}
	}

	return left
}

// load does the workloads on a device. e is nil for md.
func load(a array, by, path string, e *engine) error {
	l, err := newLoader(path)
	if err != nil {
		return err
	}

	for _, w := range a.workloads() {
		if _, err := l.run(w, w.count/4); err != nil {
			return err
		}

		before, usedBefore := memberIO(a.members), e.use()

		took, err := l.run(w, w.count)
		if err != nil {
			return err
		}

		used := e.use()
		// What the requests left behind is theirs too.
		time.Sleep(50 * time.Millisecond)

		n := float64(w.count)
		after := memberIO(a.members)
		report(Result{
			Array: a.String(), Workload: w.name, By: by, Bytes: w.size,
			Cost: float64(took.Nanoseconds()) / n,
			Members: IO{
				(after.Reads - before.Reads) / n, (after.Writes - before.Writes) / n,
				(after.BytesRead - before.BytesRead) / n, (after.BytesWritten - before.BytesWritten) / n,
			},
			Switches:  float64(used.switches-usedBefore.switches) / n,
			Preempted: float64(used.preempted-usedBefore.preempted) / n,
			Faults:    float64(used.faults-usedBefore.faults) / n,
		})
	}

	return l.close()
}

// memberIO returns what the first n members have done.
func memberIO(n int) (sum IO) {
	for i := range n {
		text, err := os.ReadFile(filepath.Join("/sys/block", disk(i), "stat"))
		if err != nil {
			continue
		}

		var reads, readMerges, readSectors, readTicks, writes, writeMerges, writeSectors float64

		if _, err := fmt.Sscan(string(text),
			&reads, &readMerges, &readSectors, &readTicks, &writes, &writeMerges, &writeSectors); err != nil {
			continue
		}

		sum.Reads += reads
		sum.Writes += writes
		sum.BytesRead += 512 * readSectors
		sum.BytesWritten += 512 * writeSectors
	}

	return sum
}

func report(r Result) {
	text, err := json.Marshal(r)
	if err != nil {
		text = []byte(err.Error())
	}

	fmt.Printf("\n@@ %s\n", text)
}

// command runs a program that must succeed.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}

	return nil
}
