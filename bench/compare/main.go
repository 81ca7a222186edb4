// The compare command plays what users complain of to mdadm and md, and to
// raid-assembler, and prints what each of the two made of it as a table of Markdown.
//
// Each scene is played twice, from the same saved guest on: mdadm makes the arrays and
// what befalls them, all disks are pulled, and then either mdadm with its udev rules,
// its timers and its monitor, or raid-assembler is to see to the disks that are pushed
// in. What a cell says was seen afterwards: what the block device holds, what sysfs or
// status says of it, which programs of the administrator were called.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"raid-assembler/lab"
)

func main() {
	only := flag.String("only", "", "what is played: a regular expression, such as 'mirror'")
	flag.Parse()

	if err := run(*only, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(only string, out, log io.Writer) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}

	stage, err := os.MkdirTemp("", "raid-assembler-compare-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(stage) }()

	if text, err := exec.Command("make", "-s", "install", "DESTDIR="+stage).CombinedOutput(); err != nil {
		return fmt.Errorf("make install: %w: %s", err, text)
	}

	g, err := lab.New(lab.Options{Name: "compare", Log: log})
	if err != nil {
		return err
	}

	defer func() { g.Close() }()

	return compare(g, []side{md{}, ours{stage: stage}}, wanted, out, log)
}

// compare plays what is wanted to both sides.
func compare(g *lab.Guest, sides []side, wanted *regexp.Regexp, out, log io.Writer) error {
	fmt.Fprint(out, "| what happens |")

	for _, s := range sides {
		fmt.Fprintf(out, " %s |", s.name())
	}

	fmt.Fprintln(out, "\n|---|---|---|")

	failed, plays := 0, 0

	for _, sc := range scenes {
		if !wanted.MatchString(sc.what) {
			continue
		}

		fmt.Fprintf(out, "| %s |", sc.what)

		for _, s := range sides {
			plays++

			cell, err := play(&host{Guest: g, side: s, right: sc.right, play: plays}, sc)
			if err != nil {
				failed++

				fmt.Fprintf(log, "%s: %s: %v\n", sc.what, s.name(), err)
			}

			fmt.Fprintf(out, " %s |", cell)
		}

		fmt.Fprintln(out)
	}

	if failed > 0 {
		return fmt.Errorf("%d cells were not seen", failed)
	}

	return nil
}

// play has one of the two deal with a scene, and returns what was seen.
func play(h *host, sc scene) (cell string, err error) {
	// A guest outside tests panics when it does not do as it is told.
	defer func() {
		if reason := recover(); reason != nil {
			cell, err = "not seen", fmt.Errorf("%v", reason)
		}

		// The next scene finds the guest as this one did.
		err = errors.Join(err, h.PowerCut(lab.PowerCut{Restore: true, Lost: h.disks}))
	}()

	seen := sc.play(h)

	if told := h.MustShell("sort -u /root/told 2>/dev/null || true"); told != "" {
		seen = append(seen, "told: "+strings.Join(strings.Fields(told), ", "))
	}

	return strings.Join(seen, "; "), nil
}
