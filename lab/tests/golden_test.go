package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"raid-assembler/internal/golden"
	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

var arrayUUID = regexp.MustCompile(`UUID : (\S+)`)

// TestGolden runs the golden images, which md made, and writes to them: what was
// there is read, a member of each array with redundancy fails and is recovered anew,
// and md's check finds nothing afterwards. The short test has only members of 0.90
// fail, which has no record of a recovery but when it is done.
func TestGolden(t *testing.T) {
	f := &fleet{box: start(t), disks: make(map[string][]*lab.GuestDisk), models: "/dev/shm"}
	f.MustInstall(tools)
	f.install()

	var all []lab.Disk

	script := ""
	fails := func(k kind) bool {
		return k.level.HasRedundancy() && (!testing.Short() || strings.HasPrefix(k.name, "md090-"))
	}

	for _, set := range golden.Sets(t, "md1", "md090-") {
		k := kind{name: set.Name, level: raid.Level(set.Level), members: make([]int, len(set.Members))}
		if k.level.HasRedundancy() && (len(set.Failed) == 0 || fails(k)) {
			k.loses = 1
		}

		text, err := os.ReadFile(filepath.Join(golden.Dir(), set.Name, "examine.txt"))
		if err != nil {
			t.Fatal(err)
		}

		dir := filepath.Join(t.TempDir(), set.Name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}

		for i, path := range set.Extract(t, dir) {
			all = append(all, lab.Disk{
				Serial: fmt.Sprintf("%s.%d", set.Name, i), Image: path, SectorSize: set.Sector,
			})
		}

		f.kinds = append(f.kinds, k)
		script += fmt.Sprintf("echo \"U=%s P=%d F='%s'\" >/run/%s.golden\n",
			arrayUUID.FindSubmatch(text)[1], set.Seed, strings.Trim(fmt.Sprint(set.Failed), "[]"), set.Name)
	}

	plugged := f.MustPlugAll(all...)
	for _, k := range f.kinds {
		f.disks[k.name], plugged = plugged[:len(k.members)], plugged[len(k.members):]
	}

	f.note()
	f.MustShell(script)
	f.each(`. /run/$A.golden
there /dev/disk/by-id/raid-uuid-$U || {
	raid-assembler assemble --force $U
	there /dev/disk/by-id/raid-uuid-$U
}
exercise fill -pattern $P -model $M /dev/disk/by-id/raid-uuid-$U
exercise check -model $M /dev/disk/by-id/raid-uuid-$U`)
	// What was a member comes back as a new one. What had failed before has come back
	// by itself.
	f.eachOf(fails, `. /run/$A.golden
set -- $D
shift ${F:-0}
if [ -z "$F" ]; then
	raid-assembler fail $U $1 >/dev/null
	exercise run -model $M -mix unaligned -ops 150 -seed 42 /dev/disk/by-id/raid-uuid-$U
	raid-assembler remove $U $1 >/dev/null
	raid-assembler add --force $U $1 >/dev/null
fi
raid-assembler wait $U >/dev/null`)
	f.each(`. /run/$A.golden
exercise run -model $M -mix mixed -ops 150 -seed 41 /dev/disk/by-id/raid-uuid-$U
exercise check -model $M /dev/disk/by-id/raid-uuid-$U
raid-assembler stop $U >/dev/null`)
	f.MustShell("systemctl stop raid-assembler.service")
	f.mdChecks()

	if len(f.kinds) < 10 || !slices.ContainsFunc(f.kinds, redundant) {
		t.Errorf("only %d golden sets", len(f.kinds))
	}
}
