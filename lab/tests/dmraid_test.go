package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"raid-assembler/pkg/api"
)

// library is a line of ldd: where a library is, or the loader.
var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// dmraid returns a tree with the dmraid of this host in it, and all that it needs:
// the guest has no package of it.
func dmraid(t *testing.T) string {
	t.Helper()

	program, err := exec.LookPath("dmraid")
	if err != nil {
		program = "/usr/sbin/dmraid" // which is not in everyone's PATH
	}

	if _, err := os.Stat(program); err != nil {
		t.Skip("dmraid is not here: Debian 12 was the last with a package of it")
	}

	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}

	tree := t.TempDir()
	lib, bin := filepath.Join(tree, "opt/dmraid"), filepath.Join(tree, "usr/local/sbin")
	loader := ""
	files := []string{program}

	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files = append(files, m[1])

		if strings.HasPrefix(filepath.Base(m[1]), "ld-") {
			loader = filepath.Base(m[1])
		}
	}

	for _, dir := range []string{lib, bin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(lib, filepath.Base(file)), text, 0o755)
		}

		if err != nil {
			t.Fatal(err)
		}
	}

	script := fmt.Sprintf("#!/bin/sh\nexec /opt/dmraid/%s --library-path /opt/dmraid /opt/dmraid/dmraid \"$@\"\n", loader)
	if err := os.WriteFile(filepath.Join(bin, "dmraid"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	return tree
}

// TestDmraid asks dmraid what it makes of arrays with Adaptec's metadata that our
// programs made, wrote to, and ran without a member and with a spare in its place;
// and has it run them in the end.
func TestDmraid(t *testing.T) {
	tree := dmraid(t)
	b := start(t)
	b.MustInstall(tools, tree)
	b.install()

	var dev []string
	for _, d := range b.MustDisks(5, 32<<20, "d") {
		dev = append(dev, d.MustDev())
	}

	b.MustShell(fmt.Sprintf(`raid-assembler create pair --level 1 --devices 2 --metadata asr --assume-clean %[1]s %[2]s
raid-assembler create wide --level 0 --devices 2 --chunk 64K --metadata asr %[3]s %[4]s`, dev[0], dev[1], dev[2], dev[3]))
	b.await("pair", patience, "created", whole)
	b.await("wide", patience, "created", whole)
	b.dmraidSays("created", "pair", "mirror", dev[0], dev[1])
	b.dmraidSays("created", "wide", "stripe", dev[2], dev[3])

	b.MustShell(`for a in pair wide; do exercise fill -model /dev/shm/$a.model /dev/raid/$a; done`)
	b.dmraidSays("written", "pair", "mirror", dev[0], dev[1])
	b.dmraidSays("written", "wide", "stripe", dev[2], dev[3])

	b.MustShell("raid-assembler fail pair " + dev[0] + `
exercise run -model /dev/shm/pair.model -mix unaligned -ops 100 -seed 71 /dev/raid/pair
raid-assembler remove pair ` + dev[0] + `
raid-assembler erase --force ` + dev[0])
	b.dmraidSays("a member failed", "pair", "mirror", dev[1])

	b.MustShell("raid-assembler add pair " + dev[4])
	b.await("pair", patience, "recovered", func(a api.Array) bool { return whole(a) && a.Members[0].Device == dev[4] })
	b.dmraidSays("recovered onto a spare", "pair", "mirror", dev[4], dev[1])

	b.MustShell("raid-assembler stop pair; raid-assembler stop wide")
	b.dmraidSays("stopped", "pair", "mirror", dev[4], dev[1])
	b.dmraidSays("stopped", "wide", "stripe", dev[2], dev[3])

	// The device mapper reads what we wrote.
	b.MustShell(`systemctl stop raid-assembler.service
dmraid -a y
for a in pair wide; do exercise check -model /dev/shm/$a.model /dev/mapper/asr_$a; done`)
}

// dmraidSays fails unless dmraid says of the members what they are, and that the
// set that they make is whole, or lacks one.
func (b *box) dmraidSays(when, name, kind string, members ...string) {
	b.t.Helper()

	out := b.MustShell("dmraid -r 2>&1; dmraid -s -s -i 2>&1 || true")

	for _, m := range members {
		want := fmt.Sprintf("%s: asr, \"asr_%s\", %s, ok, ", m, name, kind)
		if !strings.Contains(out, want) {
			b.t.Errorf("%s: dmraid says\n%swant %q", when, out, want)
		}
	}

	set := regexp.MustCompile(`(?m)^name   : asr_` + name + `\n(?:.*\n){2}type   : ` + kind +
		`\nstatus : (\w+)\n.*\ndevs   : (\d+)$`).FindStringSubmatch(out)

	status := "ok"
	if len(members) < 2 {
		status = "inconsistent"
	}

	if set == nil || set[1] != status || set[2] != fmt.Sprint(len(members)) {
		b.t.Errorf("%s: dmraid says\n%swant a set of %d that is %s", when, out, len(members), status)
	}
}
