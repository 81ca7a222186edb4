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
	consistentDDF  = `[ "$(sed -n 's/^ *state\[.*\] : //p' | sort -u)" = "Optimal, Consistent" ]`
	consistentIMSM = `[ "$(sed -n 's/.* State : //p' | grep -vx 'active failed' | sort -u | tr '\n' ' ')" = "active clean idle normal " ]`
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
		block, size, disks, table, entry, serial = 512, 36, 56, 216, 48, 16
		behind                                   = 2 * block // where the first block of the record begins
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

	copy(first, record)
	copy(rest, record[block:])
	sealIMSM(image)

	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCreateDDF makes arrays of DDF, one of each level that md has words for, and, but
// for "make test", a second one in the container of most of them: mdadm says of them
// what we do, and md runs them and finds what was written.
func TestCreateDDF(t *testing.T) {
	runCreated(t, "ddf", consistentDDF, sample([]kind{
		{"zero", raid.Level0, "", mib(48, 2), "64", 0},
		{"zero-b", raid.Level1, "", mib(48, 2), "", 1},
		{"one", raid.Level1, "", mib(48, 3), "", 2},
		{"one-b", raid.Level5, "left-symmetric", mib(48, 3), "64", 1},
		{"five", raid.Level5, "right-asymmetric", mib(48, 3), "64", 1},
		{"five-b", raid.Level0, "", mib(48, 3), "64", 0},
		{"six", raid.Level6, "ddf-N-continue", mib(48, 4), "64", 2},
		{"six-b", raid.Level10, "n2", mib(48, 4), "64", 1},
		{"ten", raid.Level10, "n2", mib(48, 3), "64", 1},
	}, "zero-b", "one-b", "five-b", "six-b"), 512)
}

// TestCreateIMSM is TestCreateDDF for IMSM.
func TestCreateIMSM(t *testing.T) {
	takesLong(t)
	runCreated(t, "imsm", consistentIMSM, []kind{
		{"zero", raid.Level0, "", mib(48, 2), "64", 0},
		{"zero-b", raid.Level1, "", mib(48, 2), "", 1},
		{"one", raid.Level1, "", mib(48, 2), "", 1},
		{"one-b", raid.Level0, "", mib(48, 2), "64", 0},
		{"five", raid.Level5, "", mib(48, 3), "64", 1},
		{"five-b", raid.Level5, "", mib(48, 3), "16", 1},
		{"ten", raid.Level10, "n2", mib(48, 4), "64", 1},
		{"ten-b", raid.Level5, "", mib(48, 4), "64", 1},
	}, 512)
}

// TestCreateIMSM4Kn is TestCreateIMSM on disks with sectors of 4096 bytes.
func TestCreateIMSM4Kn(t *testing.T) {
	takesLong(t)
	runCreated(t, "imsm", consistentIMSM, []kind{
		{"one", raid.Level1, "", mib(48, 2), "", 1},
		{"five", raid.Level5, "", mib(48, 3), "64", 1},
		{"five-b", raid.Level0, "", mib(48, 3), "64", 0},
		{"ten", raid.Level10, "n2", mib(48, 4), "64", 1},
	}, 4096)
}

// runCreated makes arrays of a format that keeps them in containers, and has md judge
// them. One whose name ends so lies beside that of the name without it.
func runCreated(t *testing.T, format, consistent string, kinds []kind, sector int) {
	t.Helper()

	const suffix = "-b"

	f := &fleet{box: start(t), kinds: kinds, disks: make(map[string][]*lab.GuestDisk), models: "/dev/shm"}
	f.MustInstall(tools)

	first := func(k kind) bool { return !strings.HasSuffix(k.name, suffix) }
	beside := func(k kind) bool { return !first(k) }

	var all []lab.Disk

	for _, k := range kinds {
		for i, size := range k.members {
			if first(k) {
				all = append(all, lab.Disk{
					Serial: fmt.Sprintf("%s.%d", k.name, i), Size: int64(size) << 20, SectorSize: sector,
				})
			}
		}
	}

	plugged := f.MustPlugAll(all...)

	for _, k := range kinds {
		if name, ok := strings.CutSuffix(k.name, suffix); ok {
			f.disks[k.name] = f.disks[name]
		} else {
			f.disks[k.name], plugged = plugged[:len(k.members)], plugged[len(k.members):]
		}
	}

	f.install()
	f.note()

	create := fmt.Sprintf(`args=$(sed 's/-l/--level /; s/ -n/ --devices /; s/ -c\([0-9]*\)/ --chunk \1K/' <<<$C)
raid-assembler create $A --metadata %s $args --size 7M $D >/dev/null
there /dev/raid/$A
udevadm info --query property /dev/raid/$A | sed -n 's/^RAID_UUID=/U=/p' >>/run/$A.is
exercise fill -model $M /dev/raid/$A
raid-assembler wait $A >/dev/null`, format)
	f.eachOf(first, create+"\nraid-assembler stop $A >/dev/null")
	f.eachOf(beside, create+`
one=${A%-b}
raid-assembler assemble $one >/dev/null
there /dev/raid/$one
for a in $one $A; do
	exercise check -model ${M/$A/$a} /dev/raid/$a
	exercise run -model ${M/$A/$a} -mix mixed -ops 100 -seed 64 /dev/raid/$a
	raid-assembler stop $a >/dev/null
done
echo "D=" >>/run/$A.is`) // which come with those of the other
	f.mdChecksContainers(consistent)
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

// TestContainerSpareIMSM is TestContainerSpare for two volumes of IMSM, which lie on
// the same disks, and spares of any container. The second of them takes a place while
// one volume does not run, which gets the disk when it does.
func TestContainerSpareIMSM(t *testing.T) {
	takesLong(t)

	f := newFleet(t, []kind{{"both", raid.Level5, "", mib(44, 5), "", 0}}, false)
	f.withoutPlatform()
	f.note()
	f.each(`set -- $D
mdadm --create /dev/md/c --run --quiet -e imsm -n3 $1 $2 $3
for a in one two; do
	mdadm --create /dev/md/$a --run --quiet --assume-clean -l5 -n3 -c64 -z8192 /dev/md/c
	udevadm settle
	exercise fill -model /dev/shm/$a.model /dev/md/$a
	echo "A=$a M=/dev/shm/$a.model L=1 D= $(mdadm --detail --export /dev/md/$a | sed -n 's/^MD_UUID=/U=/p')" >/run/$a.is
done
for d in $4 $5; do
	mdadm --add --quiet /dev/md/c $d
	come "mdadm --examine $d | grep -q 'State : spare'"
done
mdadm --stop --quiet /dev/md/one /dev/md/two
mdadm --stop --quiet /dev/md/c
udevadm settle
echo "D='$1 $4 $5'" >>/run/one.is`)
	f.install()
	f.each(`set -- $D
for a in one two; do
	there /dev/raid/$a
	exercise check -model /dev/shm/$a.model /dev/raid/$a
	exercise run -model /dev/shm/$a.model -mix mixed -ops 100 -seed 61 /dev/raid/$a
done
whole() { come "[ \$(raid-assembler status | grep -c '\[UUU\].*both.$1') = $2 ]"; }
raid-assembler fail one $2 >/dev/null
whole 3 2
raid-assembler stop two >/dev/null
raid-assembler fail one $3 >/dev/null
whole 4 1
raid-assembler assemble two >/dev/null
whole 4 2
for a in one two; do
	exercise run -model /dev/shm/$a.model -mix mixed -ops 100 -seed 62 /dev/raid/$a
	raid-assembler stop $a >/dev/null
done`)

	f.kinds = []kind{{name: "one", level: raid.Level5, loses: 1}, {name: "two", level: raid.Level5, loses: 1}}
	f.mdChecksContainers(consistentIMSM)
}

// TestRecoveryOfMdmon cuts the power while mdmon has md recover a volume of IMSM: we
// do that from the beginning, since mdmon says how far it came before disks have
// flushed their caches.
func TestRecoveryOfMdmon(t *testing.T) {
	takesLong(t)

	f := newFleet(t, []kind{
		{"one", raid.Level1, "", mib(64, 3), "", 1},
		{"five", raid.Level5, "", mib(64, 4), "64", 1},
	}, true)
	f.keepModels()
	f.withoutPlatform()
	f.note()
	f.each(`set -- $D
C=${C/-n$#/-n$(($# - 1))}
flock -o /run/create mdadm --create /dev/md/c$A --run --quiet -e imsm -n$(($# - 1)) ${D% *}
flock -o /run/create mdadm --create /dev/md/$A --run --quiet --assume-clean $C /dev/md/c$A
there /dev/md/$A
exercise fill -model $M /dev/md/$A
md=/sys/block/$(basename $(readlink -f /dev/md/$A))/md
echo 2000 >$md/sync_speed_max
come "grep -q clean $md/array_state"
mdadm --add --quiet /dev/md/c$A ${D##* }
mdadm --fail --quiet /dev/md/$A $2
come "mdadm --examine $1 | grep -q 'Checkpoint : [1-9]'"
echo 10 | tee $md/sync_speed_min >$md/sync_speed_max
sync $D # mdmon flushes no cache: after more checkpoints members could be several events apart`)
	f.loseThePower(71)
	f.engineStarts()

	began := f.told("RecoveryStarted", len(f.kinds))
	if len(began) < len(f.kinds) {
		t.Errorf("recoveries began: %+v, want one of each array", began)
	}

	for _, e := range began {
		if !strings.Contains(e.Message, "starts at 0 MiB") {
			t.Errorf("not from the beginning: %s", e.Message)
		}
	}

	f.each(`exercise check -model $M /dev/raid/$A
raid-assembler stop $A >/dev/null
set -- $D
one=$1
shift 2
echo "D='$one $@' U=$(mdadm --examine $one | sed -n '/\[/,$ s/.* UUID : //p')" >>/run/$A.is`)
	f.mdChecksContainers(consistentIMSM)
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
func (b *box) withoutPlatform() {
	b.t.Helper()
	b.MustShell(`systemctl set-environment IMSM_NO_PLATFORM=1
udevadm control --property IMSM_NO_PLATFORM=1`)
}
