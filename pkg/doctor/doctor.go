// Package doctor looks at a host for what keeps arrays from running, or from
// running well: the kernel, the units, the rules, and who else wants the
// members.
//
// It changes nothing, and it looks only through a [Host], so that a test can
// bring a host of its own.
package doctor

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Host is the machine to look at.
type Host struct {
	// FS is its file system, from the root.
	FS fs.FS
	// Run runs a program and returns what it printed.
	Run func(name string, args ...string) (string, error)
	// Dial connects to a unix socket and hangs up.
	Dial func(path string) error
}

// Status is the result of a check.
type Status string

// The results.
const (
	OK   Status = "ok"
	Warn Status = "warn" // works, but not as well as it could
	Fail Status = "fail" // arrays will not run
)

// Finding is what one check found.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"` // what to do about it; empty if ok
}

// Examine runs all checks, the ones that others depend on first.
func Examine(h Host) []Finding {
	var findings []Finding

	for _, check := range []func(Host) []Finding{
		kernel, ublk, ioUring, tools, units, memlock, resident, sockets, rules, competition, owners, swap, guarded,
		carried,
	} {
		findings = append(findings, check(h)...)
	}

	return findings
}

// Worst returns the worst result of findings.
func Worst(findings []Finding) Status {
	worst := OK

	for _, f := range findings {
		if f.Status == Fail || f.Status == Warn && worst == OK {
			worst = f.Status
		}
	}

	return worst
}

func ok(check, text string) Finding {
	return Finding{Check: check, Status: OK, Text: text}
}

func warn(check, text, remedy string) Finding {
	return Finding{Check: check, Status: Warn, Text: text, Remedy: remedy}
}

func fail(check, text, remedy string) Finding {
	return Finding{Check: check, Status: Fail, Text: text, Remedy: remedy}
}

// read returns the text of a file without the space around it, and false if
// there is none to be read.
func (h Host) read(name string) (string, bool) {
	text, err := fs.ReadFile(h.FS, name)

	return strings.TrimSpace(string(text)), err == nil
}

func (h Host) exists(name string) bool {
	_, err := fs.Stat(h.FS, name)

	return err == nil
}

// find returns the first of dirs that has a file of the given name in it, with
// the name; or nothing.
func (h Host) find(name string, dirs []string) string {
	for _, dir := range dirs {
		if file := path.Join(dir, name); h.exists(file) {
			return file
		}
	}

	return ""
}

// release returns the kernel's release, and the numbers at its start.
func (h Host) release() (text string, numbers [3]int) {
	text, _ = h.read("proc/sys/kernel/osrelease")

	for i, part := range strings.SplitN(text, ".", len(numbers)) {
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(part)
		}

		numbers[i], _ = strconv.Atoi(part[:end])
	}

	return text, numbers
}
