package tests

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// sparesConf lets spares move between all arrays, has blank disks put to work where a
// member was, and those that are called any- wherever they are.
const sparesConf = `[Alerts]
Program=/root/tell

[Array web]
ReplaceErrors=3

[Domain all]
Serial=*
Blank=same-slot

[Domain any]
Array=data
Array=web
Serial=any-*
Blank=yes
`

// occupied are disks that are not blank: where the one sign is that each has of what it
// holds.
var occupied = []struct {
	serial string
	at     int
	sign   string
}{
	{"any-data", 64 << 10, "somebody's data"},
	{"any-btrfs", 65536 + 64, "_BHRfS_M"},
	{"any-luks", 0, "LUKS\xba\xbe"},
	{"any-zfs", 128 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
	{"any-lvm", 512, "LABELONE"},
	{"any-bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"any-iso9660", 32769, "CD001"},
	{"any-last", 32<<20 - 1, "x"},
}

// TestSpares loses members of two arrays that share one spare: it goes to the first;
// disks that are not blank, or do not fit, are left alone, one that is blank and has the
// other's place is put to work, also if it came while nobody was there to hear of it; the
// administrator's program is told; and a member that cannot be read is replaced.
func TestSpares(t *testing.T) {
	takesLong(t)

	const size = 32 << 20

	b := start(t)
	disks := b.MustDisks(5, size, "m")
	b.MustWriteFile("/etc/raid-assembler.conf", sparesConf, 0o644)
	b.MustWriteFile("/root/tell", "#!/bin/sh\necho $RAID_ARRAY $RAID_ALARM $RAID_ALARM_STATE >>/root/told\n", 0o755)
	b.install()
	b.MustShell(fmt.Sprintf(`
raid-assembler create data --level 1 --devices 2 --assume-clean %s
raid-assembler create web --level 1 --devices 2 --spares 1 --assume-clean %s
for a in data web; do
	head -c 20M /dev/urandom >/root/$a.data
	dd if=/root/$a.data of=/dev/raid/$a bs=1M oflag=direct status=none
done`, devices(disks[:2]), devices(disks[2:])))
	b.MustWaitFor(patience, "grep -q data /var/lib/raid-assembler/roster.json")

	disks[1].MustUnplug()
	b.await("data", patience, "healed by the spare of web", holds("m4"))
	b.await("data", patience, "whole", whole)
	b.MustWaitFor(patience, "grep -q 'data no-spare on' /root/told")

	disks[3].MustUnplug()
	b.await("web", patience, "degraded", degradedBy(1))
	b.MustWaitFor(patience, "grep -q 'web degraded on' /root/told")

	full, sums := b.plugOccupied(size)
	blank := b.MustPlugAll(
		lab.Disk{Serial: "idle", Size: size}, // not where a member was
		lab.Disk{Serial: "any-short", Size: size - 512},
		lab.Disk{Serial: "any-4kn", Size: size, SectorSize: 4096},
	)

	for _, d := range full {
		b.MustWaitFor(patience, "raid-assembler status | grep '^unused.* "+d.Serial()+": .*not blank'")
	}

	b.MustShell("systemctl stop raid-assembler.service")

	fresh := b.MustPlug(lab.Disk{Serial: "fresh", Size: size, Bay: disks[3].Bay()})

	b.MustShell("systemctl start raid-assembler.service")
	b.await("web", patience, "healed by the blank disk", holds("fresh"))
	b.await("web", patience, "whole", whole)
	b.MustWaitFor(patience, "grep -q 'web no-spare over' /root/told")

	for i, d := range append(full, blank...) {
		if out := b.MustShell("sha256sum " + d.MustDev()); !strings.HasPrefix(out, sums[i]) {
			t.Errorf("%s was written to: %s, want %s", d.Serial(), out, sums[i])
		}
	}

	next := b.replaces(disks[2], size)

	if got := b.told("NoSpareLeft", 3); len(got) < 3 {
		t.Errorf("in the journal: %+v", got)
	}

	b.MustShell(`for a in data web; do
	cp /dev/raid/$a /root/$a.now
	cmp -n 20971520 /root/$a.data /root/$a.now
	mv /root/$a.now /root/$a.data
	raid-assembler stop $a
done`)
	b.mdRuns(array{name: "data", level: 1, members: 2}, []*lab.GuestDisk{disks[0], disks[4]}, 0)
	b.mdRuns(array{name: "web", level: 1, members: 2}, []*lab.GuestDisk{next, fresh}, 0)
}

// TestSparesOfOtherFormats pulls members of arrays of six formats, where the spares that
// are left are of another one: they are put to work, with no other metadata than that of
// the array. Then a member of each is replaced by a new disk, and md finds what was written.
func TestSparesOfOtherFormats(t *testing.T) {
	takesLong(t)

	b := start(t)
	b.MustWriteFile("/etc/raid-assembler.conf", "[Domain all]\nSerial=*\n", 0o644)
	b.withoutPlatform()

	const size = 44 << 20

	of := make(map[string][]*lab.GuestDisk)

	for _, a := range []struct {
		name, metadata string
		disks          int
	}{{"md7", "0.90", 2}, {"web", "1.2", 3}, {"end", "1.0", 3}, {"ddf", "ddf", 4}, {"imsm", "imsm", 4}, {"asr", "asr", 2}} {
		of[a.name] = b.MustDisks(a.disks, size, a.name+".")

		if a.name == "md7" {
			b.install()
		}

		b.MustShell(fmt.Sprintf(`
raid-assembler create %[1]s --metadata %[2]s --level 1 --devices 2 --spares %[3]d --size 7M %[4]s
head -c 7M /dev/urandom >/root/%[1]s.data
dd if=/root/%[1]s.data of=/dev/raid/%[1]s bs=1M oflag=direct status=none
raid-assembler wait %[1]s`, a.name, a.metadata, a.disks-2, devices(of[a.name])))
	}

	b.MustWaitFor(patience, "grep -q imsm /var/lib/raid-assembler/roster.json")

	for _, step := range []struct{ array, spareOf, sign string }{
		{"md7", "web", "linux_raid_member"},
		{"ddf", "ddf", "ddf_raid_member"},
		{"imsm", "imsm", "isw_raid_member"},
		{"web", "ddf", "linux_raid_member"},
		{"web", "imsm", "linux_raid_member"},
		{"ddf", "new", "ddf_raid_member"},
		{"imsm", "new", "isw_raid_member"},
		{"asr", "new", "adaptec_raid_member"},
		{"web", "end", "linux_raid_member"},
		{"end", "new", "linux_raid_member"},
	} {
		if step.spareOf == "new" {
			of["new"] = b.MustDisks(1, size, "new."+step.array)
			b.MustShell("raid-assembler add web " + of["new"][0].Serial())
		}

		spare := b.healedBy(step.array, of[step.array], of[step.spareOf])
		of[step.array] = append([]*lab.GuestDisk{of[step.array][1], spare}, of[step.array][2:]...)

		if got := b.MustShell("wipefs -n --noheadings -O TYPE " + spare.MustDev()); got != step.sign+"\n" {
			t.Errorf("%s of %s holds %q, want %s alone", spare.Serial(), step.array, got, step.sign)
		}
	}

	t.Log(b.MustShell("journalctl -b -o cat RAID_EVENT=SpareAdded"))

	for name, disks := range of {
		if name != "new" {
			next := b.MustPlug(lab.Disk{Serial: "next." + name, Size: size})
			b.MustShell(fmt.Sprintf("raid-assembler replace %s %s %s", name, disks[0].Serial(), next.Serial()))
			b.await(name, patience, "replaced", func(a api.Array) bool {
				return whole(a) && len(a.Members) == 2 && has(a, next)
			})

			disks[0] = next
		}
	}

	b.MustShell(`for a in md7 web end ddf imsm asr; do
	cmp /root/$a.data /dev/raid/$a
	udevadm info --query property /dev/raid/$a | sed -n 's/^RAID_UUID=//p' >/root/$a.uuid
	raid-assembler stop $a
done`)
	b.mdRuns(array{name: "md7", level: 1, members: 2}, of["md7"][:2], 0)
	b.mdRuns(array{name: "web", level: 1, members: 2}, of["web"][:2], 0)
	b.mdRuns(array{name: "end", level: 1, members: 2}, of["end"][:2], 0)

	for _, name := range []string{"ddf", "imsm"} {
		b.MustShell(fmt.Sprintf("for d in %s; do IMSM_NO_PLATFORM=1 mdadm --incremental --quiet $d; done", devices(of[name][:2])))
		b.MustWaitFor(patience, "[ -e /dev/disk/by-id/md-uuid-$(cat /root/"+name+".uuid) ]")
		b.MustShell(fmt.Sprintf(`md=$(readlink -f /dev/disk/by-id/md-uuid-$(cat /root/%[1]s.uuid))
cmp /root/%[1]s.data $md
[ $(cat /sys/block/$(basename $md)/md/degraded) = 0 ]`, name))
	}
}

// healedBy pulls the first member of a mirror, and returns which of the spares took its
// place.
func (b *box) healedBy(name string, members, spares []*lab.GuestDisk) *lab.GuestDisk {
	b.t.Helper()
	members[0].MustUnplug()

	var spare *lab.GuestDisk

	b.await(name, patience, "healed", func(a api.Array) bool {
		for _, d := range spares {
			if d != members[0] && d != members[1] && whole(a) && has(a, d) {
				spare = d
			}
		}

		return spare != nil
	})

	return spare
}

// has reports whether a disk is a member of an array.
func has(a api.Array, d *lab.GuestDisk) bool {
	return slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.Serial == d.Serial() })
}

// replaces has a disk that cannot be read in places replaced in slot 0 of web, and
// returns the one that takes its place.
func (b *box) replaces(failing *lab.GuestDisk, size int64) *lab.GuestDisk {
	b.t.Helper()

	// Behind the superblock and what is read when the device appears.
	failing.MustInjectReadError(lab.Sectors{First: 20104, Count: 64})
	b.MustShell("echo 3 > /proc/sys/vm/drop_caches; cmp -n 20971520 /root/web.data /dev/raid/web")
	b.await("web", patience, "errors are counted", func(a api.Array) bool { return a.Members[0].Errors > 3 })

	next := b.MustPlug(lab.Disk{Serial: "any-next", Size: size})
	b.await("web", patience, "replaced", func(a api.Array) bool {
		return whole(a) && a.Members[0].Serial == next.Serial() && len(a.Members) == 2
	})
	b.MustWaitFor(patience, "raid-assembler status | grep '^unused.* "+failing.Serial()+" .*it is worn'")

	return next
}

// holds reports whether an array's slot 1 has a disk.
func holds(serial string) func(api.Array) bool {
	return func(a api.Array) bool { return len(a.Members) > 1 && a.Members[1].Serial == serial }
}

// plugOccupied plugs disks in that are not blank, and returns them with the sums of
// what they hold, and those of the blank ones that do not fit.
func (b *box) plugOccupied(size int) (disks []*lab.GuestDisk, sums []string) {
	b.t.Helper()

	dir := b.t.TempDir()

	for _, o := range occupied {
		image := make([]byte, size)
		copy(image[o.at:], o.sign)

		file := filepath.Join(dir, o.serial)
		if err := os.WriteFile(file, image, 0o600); err != nil {
			b.t.Fatal(err)
		}

		disks = append(disks, b.MustPlug(lab.Disk{Serial: o.serial, Image: file}))
		sums = append(sums, sum(image))
	}

	none := make([]byte, size)

	return disks, append(sums, sum(none), sum(none[512:]), sum(none))
}

func sum(data []byte) string {
	s := sha256.Sum256(data)

	return hex.EncodeToString(s[:])
}
