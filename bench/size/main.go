// The size command measures what metadata formats cost: the size of the programs
// and their resident memory, with all formats and with each left out, on a host
// without arrays; and what arrays add to the memory of the engine. It does so in a guest.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

	variants := filepath.Join(dir, "variant")
	if err := compare(g, variants); err != nil {
		return err
	}

	return arrays(g, variants)
}

// compare prints what each variant takes, and what that says of each format.
func compare(g *lab.Guest, tree string) error {
	variants := []variant{{name: "all formats"}, {"md1 alone", optional}}
	for _, tag := range optional {
		variants = append(variants, variant{"without " + format(tag), []string{tag}})
	}

	// A huge page more or less is more than all formats take.
	if _, err := shell(g, "echo never >/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		return err
	}

	var all []map[string]size

	fmt.Printf("Size of the file, and resident memory without an array: the median of %d starts, in KiB\n", starts)

	for _, v := range variants {
		sizes, err := measure(g, tree, v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}

		all = append(all, sizes)

		fmt.Printf("%-16s", v.name)

		for _, p := range programs {
			s := sizes[p.name]
			fmt.Printf("  %s %5d file %5d resident, %5d of it anonymous (+-%d)",
				p.name, s.file, s.resident, s.anon, s.spread)
		}

		fmt.Println()
	}

	fmt.Println("What a format costs: all formats, less all but that one, in KiB. " +
		"Resident is at most what the file has of it, and what is anonymous")

	for i, tag := range optional {
		fmt.Printf("%-16s", format(tag))

		for _, p := range programs {
			with, without := all[0][p.name], all[i+2][p.name]
			file, anon := with.file-without.file, with.anon-without.anon
			fmt.Printf("  %s %4d (%d file, %d anonymous +-%d)",
				p.name, file+anon, file, anon, with.spread+without.spread)
		}

		fmt.Println()
	}

	return nil
}

// format returns the name of the format that a tag leaves out.
func format(tag string) string { return strings.TrimPrefix(tag, "no_") }

// size is what a program takes, in KiB. How much of the file is resident depends on
// what the kernel reads ahead, by more than a format takes; but a format can have no
// more of it resident than it has in it.
type size struct {
	file     int
	resident int // the median
	anon     int // of that, what is not of the file; the median
	spread   int // around it, in which half of the starts are
}

// starts is how often each variant is started. What the runtime of Go has not given
// back yet differs from start to start.
const starts = 7

// measure builds and starts the programs, and returns what each takes.
func measure(g *lab.Guest, tree string, v variant) (map[string]size, error) {
	sizes := make(map[string]size)
	seen, anon := make(map[string][]int), make(map[string][]int)

	for _, p := range programs {
		path := filepath.Join(tree, "usr/sbin", p.name)
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", strings.Join(v.tags, ","),
			"-o", path, "./cmd/"+p.name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")

		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build: %w: %s", err, out)
		}

		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}

		sizes[p.name] = size{file: int(info.Size() >> 10)}
	}

	if _, err := shell(g, stop); err != nil {
		return nil, err
	}

	if err := g.Install(tree); err != nil {
		return nil, err
	}

	for range starts {
		if err := start(g); err != nil {
			return nil, err
		}

		for _, p := range programs {
			all, own, err := resident(g, p.process)
			if err != nil {
				return nil, err
			}

			seen[p.name], anon[p.name] = append(seen[p.name], all), append(anon[p.name], own)
		}
	}

	for name, s := range sizes {
		all, own := slices.Sorted(slices.Values(seen[name])), slices.Sorted(slices.Values(anon[name]))
		s.resident, s.anon, s.spread = all[starts/2], own[starts/2], (own[starts*3/4]-own[starts/4]+1)/2
		sizes[name] = s
	}

	return sizes, nil
}

// resident returns the resident memory of a process, and what of it is anonymous,
// in KiB.
func resident(g *lab.Guest, process string) (all, anon int, err error) {
	text, err := shell(g, "awk '/^VmRSS|^RssAnon/ {print $2}' /proc/$(pgrep -of '"+process+"')/status")
	if err != nil {
		return 0, 0, err
	}

	_, err = fmt.Sscan(text, &all, &anon)

	return all, anon, err
}

const stop = "systemctl stop raid-assembler.service raid-engine.service raid-engine.socket"

// start has the guest start the programs anew, and waits until they are at rest.
func start(g *lab.Guest) error {
	_, err := shell(g, stop+`
systemctl start raid-engine.socket raid-assembler.service
raid-assembler status
sleep 2`)

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
