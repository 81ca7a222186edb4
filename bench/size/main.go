// The size command measures what metadata formats cost: the size of the programs
// and their resident memory, with all formats and with each left out, on a host
// without arrays. It does so in a guest.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"raid-assembler/lab"
)

// optional are the build tags that leave a format out.
var optional = []string{"no_md0", "no_imsm", "no_ddf", "no_asr"}

// programs are what is measured, and what the process of each is called.
var programs = []struct{ name, process string }{
	{"raid-engine", "raid-engine serve"},
	{"raid-assembler", "raid-assembler daemon"},
}

// variant is a way to build the programs.
type variant struct {
	name string
	tags []string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "raid-assembler-size-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	stage := filepath.Join(dir, "stage")
	if out, err := exec.Command("make", "-s", "install", "DESTDIR="+stage).CombinedOutput(); err != nil {
		return fmt.Errorf("make install: %w: %s", err, out)
	}

	g, err := lab.New(lab.Options{Name: "size"})
	if err != nil {
		return err
	}
	defer g.Close()

	if err := g.Install(stage); err != nil {
		return err
	}

	variants := []variant{{name: "all formats"}, {"md1 alone", optional}}
	for _, tag := range optional {
		variants = append(variants, variant{"without " + strings.TrimPrefix(tag, "no_"), []string{tag}})
	}

	fmt.Println("Size of the file, and resident memory without an array, in KiB")

	for _, v := range variants {
		row, err := measure(g, filepath.Join(dir, "variant"), v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}

		fmt.Printf("%-16s %s\n", v.name, row)
	}

	return nil
}

// measure builds and starts the programs, and returns a row of the table.
func measure(g *lab.Guest, tree string, v variant) (string, error) {
	const starts = 3 // the least counts: what the runtime has not given back yet is no format's

	for _, p := range programs {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", strings.Join(v.tags, ","),
			"-o", filepath.Join(tree, "usr/sbin", p.name), "./cmd/"+p.name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")

		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w: %s", err, out)
		}
	}

	least := make(map[string]int)

	for range starts {
		if err := start(g, tree); err != nil {
			return "", err
		}

		for _, p := range programs {
			kib, err := resident(g, p.process)
			if err != nil {
				return "", err
			}

			if have, ok := least[p.name]; !ok || kib < have {
				least[p.name] = kib
			}
		}
	}

	var row strings.Builder

	for _, p := range programs {
		info, err := os.Stat(filepath.Join(tree, "usr/sbin", p.name))
		if err != nil {
			return "", err
		}

		fmt.Fprintf(&row, "  %s %6d file %6d resident", p.name, info.Size()>>10, least[p.name])
	}

	return row.String(), nil
}

// resident returns the resident memory of a process, in KiB.
func resident(g *lab.Guest, process string) (int, error) {
	text, err := shell(g, "awk '/^VmRSS/ {print $2}' /proc/$(pgrep -of '"+process+"')/status")
	if err != nil {
		return 0, err
	}

	return strconv.Atoi(strings.TrimSpace(text))
}

// start has the guest run the programs below tree, and waits until they are at
// rest.
func start(g *lab.Guest, tree string) error {
	if _, err := shell(g, "systemctl stop raid-assembler.service raid-engine.service raid-engine.socket"); err != nil {
		return err
	}

	if err := g.Install(tree); err != nil {
		return err
	}

	_, err := shell(g, "systemctl start raid-engine.socket raid-assembler.service; raid-assembler status; sleep 5")

	return err
}

// shell runs a script that must succeed in the guest.
func shell(g *lab.Guest, script string) (string, error) {
	r, err := g.Shell(script)
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", script, r.ExitCode, r.Stderr)
	}

	return r.Stdout, err
}
