// Command report reads what "go test -json" prints, shows it as go test would,
// and fails where a test failed, and where one was skipped that is not in the
// list of those that may be: a test that does not run finds nothing.
//
// Usage: go test -json PACKAGES | report LIST
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: report LIST")
	}

	list, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}

	return report(expected(string(list)), in, out)
}

// expected returns the tests that may be skipped: a package and a test a line,
// and then why.
func expected(list string) map[test]bool {
	may := make(map[test]bool)

	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 2 {
			may[test{f[0], f[1]}] = true
		}
	}

	return may
}

type test struct{ pkg, name string }

// event is a line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// long is for how many seconds a test runs that is shown though it passes.
const long = 20

// reporter shows events. Output of tests is kept until it is known whether they
// pass.
type reporter struct {
	out    io.Writer
	may    map[test]bool
	kept   map[test]string
	ended  int // packages
	failed []string
	missed []string // skipped, and not listed
}

// report shows the events in in.
func report(may map[test]bool, in io.Reader, out io.Writer) error {
	r := reporter{out: out, may: may, kept: make(map[test]string)}

	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)

	for lines.Scan() {
		var ev event
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			_, _ = fmt.Fprintln(out, lines.Text()) // not of a test: the compiler's, say

			continue
		}

		r.take(ev)
	}

	switch {
	case lines.Err() != nil:
		return lines.Err()
	case r.ended == 0:
		return errors.New("no package was tested")
	case len(r.failed) > 0:
		return fmt.Errorf("failed: %s", strings.Join(r.failed, ", "))
	case len(r.missed) > 0:
		return fmt.Errorf("skipped, and not listed as what may be: %s", strings.Join(r.missed, ", "))
	default:
		return nil
	}
}

// take takes in one event.
func (r *reporter) take(ev event) {
	which := test{ev.Package, ev.Test}
	name := strings.TrimSpace(ev.Package + " " + ev.Test)

	switch ev.Action {
	case "build-output":
		_, _ = fmt.Fprint(r.out, ev.Output)

		return
	case "output":
		if ev.Test != "" {
			r.kept[which] += ev.Output
		} else if ev.Output != "PASS\n" {
			_, _ = fmt.Fprint(r.out, ev.Output)
		}

		return
	case "fail":
		r.failed = append(r.failed, name)
		_, _ = fmt.Fprint(r.out, r.kept[which])
	case "skip":
		_, _ = fmt.Fprint(r.out, r.kept[which])

		_, short, _ := strings.Cut(ev.Package, "/")
		if ev.Test != "" && !r.may[test{short, ev.Test}] { // else a package without tests
			r.missed = append(r.missed, name)
		}
	case "pass":
		if ev.Test != "" && ev.Elapsed >= long {
			_, _ = fmt.Fprintf(r.out, "--- PASS: %s (%.0fs)\n", ev.Test, ev.Elapsed)
		}
	default:
		return
	}

	delete(r.kept, which)

	if ev.Test == "" {
		r.ended++
	}
}
