package tests

import (
	"bytes"
	"encoding/binary"
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

var memberUUID = regexp.MustCompile(`MD_UUID=(\S+)`)

// consistentDDF and consistentIMSM are what mdadm says of a container that is whole,
// as a script that reads it.
const (
	consistentDDF  = `grep -q 'state\[0\] : Optimal, Consistent'`
	consistentIMSM = `[ "$(sed -n 's/.* State : //p' | sort -u | tr '\n' ' ')" = "active clean idle normal " ]`
)

// TestGoldenDDF runs the golden images of DDF, which md made: what was there is
// read, a member that fails is replaced by a new disk, and md, which runs them
// afterwards, finds all that was written and no difference.
func TestGoldenDDF(t *testing.T) {
	runGolden(t, consistentDDF, golden.Sets(t, "ddf"))
}

// TestGoldenIMSM is TestGoldenDDF for those of IMSM.
func TestGoldenIMSM(t *testing.T) { runGolden(t, consistentIMSM, golden.Sets(t, "imsm")) }

// runGolden runs golden images, and has md judge what becomes of them.
func runGolden(t *testing.T, consistent string, sets []golden.Set) {
	t.Helper()

	f := &fleet{box: start(t), disks: make(map[string][]*lab.GuestDisk), models: "/dev/shm"}
	f.MustInstall(tools)

	var all, fresh []lab.Disk

	script := ""

	for _, set := range sets {
		text, err := os.ReadFile(filepath.Join(golden.Dir(), set.Name, "detail.txt"))
		if err != nil {
			t.Fatal(err)
		}

		dir := filepath.Join(t.TempDir(), set.Name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}

		for i, path := range set.Extract(t, dir) {
			if set.Metadata == "imsm" {
				nameDisks(t, path, set.Name+".")
			}

			all = append(all, lab.Disk{
				Serial: fmt.Sprintf("%s.m%d", set.Name, i), Image: path, SectorSize: set.Sector,
			})
		}

		fresh = append(fresh, lab.Disk{Serial: set.Name + ".new", Size: 96 << 20})
		f.kinds = append(f.kinds, kind{set.Name, raid.Level(set.Level), "", make([]int, len(set.Members)), "", 1})
		script += fmt.Sprintf("echo \"U=%s P=%d N=$(lsblk -dnpo SERIAL,NAME | sed -n 's/^%s.new *//p')\" >>/run/%[3]s.is\n",
			memberUUID.FindSubmatch(text)[1], set.Seed, set.Name)
	}

	f.MustPlugAll(fresh...)
	f.install() // so that mdadm's rules find the others taken

	plugged := f.MustPlugAll(all...)
	for _, k := range f.kinds {
		f.disks[k.name], plugged = plugged[:len(k.members)], plugged[len(k.members):]
	}

	f.note()
	f.MustShell(script)
	f.each(`there /dev/disk/by-id/raid-uuid-$U
exercise fill -pattern $P -model $M /dev/disk/by-id/raid-uuid-$U
exercise check -model $M /dev/disk/by-id/raid-uuid-$U
exercise run -model $M -mix mixed -ops 150 -seed 51 /dev/disk/by-id/raid-uuid-$U`)
	f.each(`set -- $D
raid-assembler fail $U $2 >/dev/null
exercise run -model $M -mix unaligned -ops 150 -seed 52 /dev/disk/by-id/raid-uuid-$U
raid-assembler remove $U $2 >/dev/null
raid-assembler add $U $N >/dev/null
exercise run -model $M -mix mixed -ops 150 -seed 53 /dev/disk/by-id/raid-uuid-$U
raid-assembler wait $U >/dev/null
exercise check -model $M /dev/disk/by-id/raid-uuid-$U
raid-assembler stop $U >/dev/null
one=$1
shift 2
echo "D='$one $N $@'" >>/run/$A.is`)
	f.mdChecksContainers(consistent)
}

// nameDisks puts a prefix before the serial numbers that the metadata of IMSM in an
// image knows disks by: those of each golden set are m0 and on.
func nameDisks(t *testing.T, path, prefix string) {
	t.Helper()

	const (
		block, sum, size, disks, table, entry, serial = 512, 32, 36, 56, 216, 48, 16
		behind                                        = 2 * block // where the first block of the record begins
	)

	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	first := image[len(image)-behind:][:block]
	length := int(binary.LittleEndian.Uint32(first[size:]))
	rest := image[len(image)-behind-(length-1)/block*block : len(image)-behind]
	record := slices.Concat(first, rest)

	for i := range int(record[disks]) {
		field := record[table+i*entry:][:serial]
		copy(field, prefix+string(bytes.TrimRight(field, "\x00")))
	}

	var total uint32
	for i := 0; i < length; i += 4 {
		if i != sum {
			total += binary.LittleEndian.Uint32(record[i:])
		}
	}

	binary.LittleEndian.PutUint32(record[sum:], total)
	copy(first, record)
	copy(rest, record[block:])

	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCreateDDF makes arrays of DDF, one of each level that md has words for: mdadm
// says of them what we do, and md runs them and finds what was written.
func TestCreateDDF(t *testing.T) {
	f := newFleet(t, []kind{
		{"zero", raid.Level0, "", mib(40, 2), "64", 0},
		{"one", raid.Level1, "", mib(40, 3), "", 2},
		{"five", raid.Level5, "right-asymmetric", mib(40, 3), "64", 1},
		{"six", raid.Level6, "ddf-N-continue", mib(40, 4), "64", 2},
		{"ten", raid.Level10, "n2", mib(40, 3), "64", 1},
	}, false)
	f.install()
	f.note()
	f.each(`args=$(sed "s/-l/--level /; s/ -n/ --devices /; s/ -c/ --chunk /; s/ 64$/ 64K/" <<<$C)
raid-assembler create $A --metadata ddf $args $D >/dev/null
there /dev/raid/$A
udevadm info --query property /dev/raid/$A | sed -n 's/^RAID_UUID=/U=/p' >>/run/$A.is
exercise fill -model $M /dev/raid/$A
raid-assembler wait $A >/dev/null
raid-assembler stop $A >/dev/null`)
	f.mdChecksContainers(consistentDDF)
}

// TestContainerSpare has mdadm make two arrays in one container, and a spare: both
// run beside each other, and when a member fails in both, the spare, which is of
// neither, takes its place in both.
func TestContainerSpare(t *testing.T) {
	f := newFleet(t, []kind{{"both", raid.Level1, "", mib(44, 4), "", 0}}, false)
	f.note()
	f.each(`set -- $D
mdadm --create /dev/md/c --run --quiet -e ddf -n4 $D
mdadm --create /dev/md/one --run --quiet --assume-clean -l1 -n2 -z4096 $1 $2
udevadm settle
mdadm --create /dev/md/five --run --quiet --assume-clean -l5 -n3 -c64 -z4096 $1 $2 $3
udevadm settle
for a in one five; do
	exercise fill -model /dev/shm/$a.model /dev/md/$a
	mdadm --detail --export /dev/md/$a | sed -n 's/^MD_UUID=/U=/p' >/run/$a.is
	mdadm --stop --quiet /dev/md/$a
done
mdadm --stop --quiet /dev/md/c
udevadm settle`)
	f.install()
	f.each(`set -- $D
for a in one five; do
	. /run/$a.is
	there /dev/disk/by-id/raid-uuid-$U
	exercise check -model /dev/shm/$a.model /dev/disk/by-id/raid-uuid-$U
	exercise run -model /dev/shm/$a.model -mix mixed -ops 100 -seed 61 /dev/disk/by-id/raid-uuid-$U
done
raid-assembler fail $U $2 >/dev/null
until [ "$(raid-assembler status | grep -c '\[U*\].*both.3')" = 2 ]; do sleep 0.5; done
for a in one five; do
	. /run/$a.is
	exercise run -model /dev/shm/$a.model -mix mixed -ops 100 -seed 62 /dev/disk/by-id/raid-uuid-$U
	raid-assembler stop $U >/dev/null
done
systemctl stop raid-assembler.service
for d in $1 $3 $4; do mdadm --incremental --quiet $d; done
for a in one five; do
	. /run/$a.is
	there /dev/disk/by-id/md-uuid-$U
	exercise check -model /dev/shm/$a.model /dev/disk/by-id/md-uuid-$U
done`)

	if text := f.MustJournal("-b", "-t", "raid-engine"); strings.Contains(text, "panic:") {
		t.Error("the engine crashed")
	}
}

// mdChecksContainers is mdChecks for arrays of containers, of each of which mdadm has
// to say that it is consistent. mdadm 4.3 and 4.4 cannot assemble one of DDF from a
// list of disks: it calls a function that it has not got. So they come one by one,
// as they do by its rules.
func (f *fleet) mdChecksContainers(consistent string) {
	f.t.Helper()
	f.MustShell("systemctl stop raid-assembler.service")
	f.withoutPlatform()
	f.each(fmt.Sprintf(`for d in $D; do
	mdadm --examine $d >/run/$A.examined
	{ %s; } </run/$A.examined
	flock -o /run/create mdadm --incremental --quiet $d
done
there /dev/disk/by-id/md-uuid-$U
mkdir -p /dev/md
ln -sf $(readlink -f /dev/disk/by-id/md-uuid-$U) /dev/md/$A
exercise check -model $M /dev/md/$A`, consistent))
	f.mdIsContent()
}

// withoutPlatform has mdadm take disks of IMSM on a machine without Intel's firmware
// when udev or systemd runs it, as scripts of each do.
func (f *fleet) withoutPlatform() {
	f.t.Helper()
	f.MustShell(`systemctl set-environment IMSM_NO_PLATFORM=1
udevadm control --property IMSM_NO_PLATFORM=1`)
}
