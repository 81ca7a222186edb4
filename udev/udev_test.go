// Package udev_test holds the rules to what can be told of them without udevd.
package udev_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func rules(t *testing.T) []string {
	t.Helper()

	names, err := filepath.Glob("*.rules")
	if err != nil || len(names) < 2 {
		t.Fatalf("rules %v, %v, want at least 2", names, err)
	}

	return names
}

// item is KEY{ATTRIBUTE}OPERATOR"VALUE", of which a rule is a list.
var item = regexp.MustCompile(`^([A-Z_]+)(?:\{[^}]*\})?(==|!=|=|\+=|-=|:=)"((?:[^"\\]|\\.)*)"(?:, *|$)`)

// TestRulesParse: every line is a list of items, and every GOTO has its LABEL
// further down. udevadm verify says more, where there is one.
func TestRulesParse(t *testing.T) {
	for _, name := range rules(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}

		var wanted []string

		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}

			for rest := line; rest != ""; {
				m := item.FindStringSubmatch(rest)
				if m == nil {
					t.Fatalf("%s: %q in %q is no item", name, rest, line)
				}

				switch m[1] {
				case "GOTO":
					wanted = append(wanted, m[3])
				case "LABEL":
					wanted = slices.DeleteFunc(wanted, func(s string) bool { return s == m[3] })
				}

				rest = rest[len(m[0]):]
			}
		}

		if len(wanted) > 0 {
			t.Errorf("%s: no LABEL behind GOTO %v", name, wanted)
		}
	}
}

// TestUdevadmVerify asks udev itself, from version 254 on.
func TestUdevadmVerify(t *testing.T) {
	out, err := exec.Command("udevadm", "verify", "--help").CombinedOutput()
	if err != nil {
		t.Skipf("udevadm verify is missing (udev 254): %s", strings.TrimSpace(string(out)))
	}

	out, err = exec.Command("udevadm", append([]string{"verify", "--no-style"}, rules(t)...)...).CombinedOutput()
	if err != nil {
		t.Errorf("udevadm verify: %v\n%s", err, out)
	}
}

// TestMembersComeInTime: after the rules that find superblocks, before those
// that act upon them.
func TestMembersComeInTime(t *testing.T) {
	order := []string{
		"60-block.rules", "60-persistent-storage.rules",
		"62-raid-assembler-members.rules",
		"63-raid-assembler-arrays.rules",
		"64-btrfs.rules", "64-md-raid-assembly.rules", "69-lvm.rules", "80-udisks2.rules", "99-systemd.rules",
	}
	if !slices.IsSorted(order) {
		t.Error("the order of the file names is not the one that is needed")
	}

	for _, name := range rules(t) {
		if !slices.Contains(order, name) {
			t.Errorf("%s: where does it belong?", name)
		}
	}
}
