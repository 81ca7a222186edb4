// The cost command counts the instructions that a request costs with md and with
// raid-engine, on the same members, in one boot of one machine.
//
// The machine is emulated, and its clock counts instructions: a nanosecond in it
// is one instruction. So what else the host does bears on nothing, and the same
// run again gives the same figures within a few percent. What is not seen: that
// instructions take unequal time, caches, memory bandwidth, and all that more
// than one processor brings with it.
package main

import (
	"bufio"
	"context"
	_ "embed" // for the first script of the machine
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"

	"raid-assembler/lab"
)

// init is what the machine's kernel starts.
//
//go:embed guest/init.sh
var initScript []byte

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()

	hollow := flag.Bool("hollow", false, "members that move no data, as the processor does not for a real disk")
	only := flag.String("only", "", "what is measured: a regular expression, such as 'RAID5.*64 KiB'")
	flag.Parse()

	if err := run(ctx, *hollow, *only, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, hollow bool, only string, out, log io.Writer) error {
	if _, err := regexp.Compile(only); err != nil {
		return err
	}

	if os.Getenv("RAID_LAB_KERNEL") == "" {
		if err := os.Setenv("RAID_LAB_KERNEL", "backports"); err != nil {
			return err
		}
	}

	img, err := lab.Image(ctx, log)
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "raid-assembler-cost-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	initrd, err := makeInitrd(ctx, dir, img.Initrd(), only)
	if err != nil {
		return err
	}

	slot, err := lab.Slot(log)
	if err != nil {
		return err
	}
	defer func() { _ = slot.Close() }()

	parameters := "rdinit=/bench/init console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"
	if hollow {
		parameters += " bench.hollow"
	}

	results, err := boot(ctx, img.Kernel(), initrd, img.Root(), parameters, log)
	if err != nil {
		return err
	}

	return print(out, results)
}

// boot runs the machine to its end and returns what it says.
func boot(ctx context.Context, kernel, initrd, root, parameters string, log io.Writer) ([]result, error) {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,vmport=off,sata=off,smbus=off,i8042=off",
		"-accel", "tcg,thread=single,tb-size=256", "-icount", "shift=0,sleep=off",
		// A repeated move counts each repetition, so the kernel must not think it fast.
		"-cpu", "max,-svm,-erms,-fsrm", "-smp", "1", "-m", "1024",
		"-kernel", kernel, "-initrd", initrd,
		"-append", parameters,
		"-drive", "if=none,id=root,format=raw,snapshot=on,file="+root, "-device", "virtio-blk-pci,drive=root",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	)
	cmd.Stderr = log

	console, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}

	if err := cmd.Start(); err != nil {
		return nil, err
	}

	var results []result

	lines := bufio.NewScanner(console)
	for lines.Scan() {
		text, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "@@ ")
		if !ok {
			fmt.Fprintln(log, lines.Text())

			continue
		}

		var r result
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("%w in %s", err, text)
		}

		fmt.Fprintf(log, "%s, %s, %s: %.0f %s\n", r.Array, r.Workload, r.By, r.Cost, r.Error)

		results = append(results, r)
	}

	return results, cmd.Wait()
}

// makeInitrd adds our programs to the initramfs of the lab, and what is to be
// measured.
func makeInitrd(ctx context.Context, dir, base, only string) (string, error) {
	archive, err := os.ReadFile(base)
	if err != nil {
		return "", err
	}

	for len(archive)%4 != 0 {
		archive = append(archive, 0)
	}

	archive = appendEntry(archive, "bench", 0o040755, nil)
	archive = appendEntry(archive, "bench/init", 0o100755, initScript)
	archive = appendEntry(archive, "bench/only", 0o100644, []byte(only))

	for name, pkg := range map[string]string{
		"guest": "raid-assembler/bench/cost/guest", "raid-engine": "raid-assembler/cmd/raid-engine",
	} {
		path := filepath.Join(dir, name)

		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")

		if text, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build %s: %w: %s", pkg, err, text)
		}

		program, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}

		archive = appendEntry(archive, "bench/"+name, 0o100755, program)
	}

	archive = appendEntry(archive, "TRAILER!!!", 0, nil)
	path := filepath.Join(dir, "initrd")

	return path, os.WriteFile(path, archive, 0o644)
}

// appendEntry adds a file to a cpio archive of the kernel's format.
func appendEntry(archive []byte, name string, mode uint32, content []byte) []byte {
	archive = append(archive, "070701"...)
	for _, field := range []uint32{
		0, mode, 0, 0, 1, 0, uint32(len(content)), 0, 0, 0, 0, uint32(len(name) + 1), 0,
	} {
		archive = fmt.Appendf(archive, "%08x", field)
	}

	for _, part := range [][]byte{append([]byte(name), 0), content} {
		archive = append(archive, part...)
		for len(archive)%4 != 0 {
			archive = append(archive, 0)
		}
	}

	return archive
}
