package tests

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// TestStrangers has events come that neither the kernel nor udevd sent, arrays of another
// host, and two arrays of one name: nothing is done because of the first, with the second
// what Foreign= says, and no array ever has the name of another one.
func TestStrangers(t *testing.T) {
	takesLong(t)

	for _, tt := range []struct {
		name string
		do   func(*box)
	}{
		{"events", (*box).eventsAreForged},
		{"hosts", (*box).arraysAreForeign},
		{"names", (*box).namesAreAlike},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t)
			b.install()
			tt.do(b)
		})
	}
}

// forging is a program that says of devices, time and again, that they went, came and
// changed, and prints what came of that: forge.pl TO PORT TIMES NAME:MAJOR:MINOR:PATH...
// What the kernel is given it sends in its own name.
const forging = `my ($to, $port, $times, @devices) = @ARGV;
socket(my $s, 16, 3, 15) or die "socket: $!";
bind($s, pack('SSLL', 16, 0, 0, 0)) or die "bind: $!";
for (1 .. $times) {
	for my $device (@devices) {
		my ($name, $major, $minor, $path) = split /:/, $device, 4;
		for my $action (qw(remove add change)) {
			my $pairs = join '', map {"$_\0"} "ACTION=$action", "DEVPATH=$path", 'SUBSYSTEM=block',
				"DEVNAME=/dev/$name", 'DEVTYPE=disk', "MAJOR=$major", "MINOR=$minor";
			my $kernel = "$action\@$path\0$pairs";
			my $udev = pack('a8NLLLx16', 'libudev', 0xfeedcafe, 40, 40, length $pairs) . $pairs;
			my ($message, $pid, $groups) = @{{
				'kernel' => [pack('LSSLL', 16 + length $kernel, 16, 5, 0, 0) . $kernel, 0, 0],
				"kernel's group" => [$kernel, 0, 1],
				"udevd's group" => [$udev, 0, 2],
				"daemon's port" => [$udev, $port, 0],
			}->{$to}};
			$! = 0;
			if (defined send($s, $message, 0, pack('SSLL', 16, 0, $pid, $groups)) && $to eq 'kernel') {
				recv($s, my $answer, 4096, 0);
				$! = -unpack('l', substr($answer, 16, 4));
			}
			$did{$! ? "$!" : 'sent'}++;
		}
	}
	sleep 1;
}
print join(', ', map {"$did{$_} times: $_"} sort keys %did);
`

// eventsAreForged has users and root say that members went, came and changed, and that a
// disk came. Root can have the daemon look, and no more; nobody else can have anything.
func (b *box) eventsAreForged() {
	b.t.Helper()

	disks := b.MustDisks(6, 24<<20, "m")
	b.MustWriteFile("/run/forge.pl", forging, 0o644)
	b.MustShell(fmt.Sprintf(`set -- %s
for a in runs lacks stopped; do
	raid-assembler create $a --level 1 --devices 2 --assume-clean $1 $2 >/dev/null
	shift 2
done
raid-assembler fail lacks %s >/dev/null
raid-assembler stop stopped >/dev/null
for d in /sys/class/block/sd*; do
	echo ${d##*/}:$(cat $d/dev):$(realpath $d | cut -c 5-)
done >/run/devices
echo sdzz:8:4000:/devices/virtual/block/sdzz >>/run/devices
udevadm settle
sleep 3`, devices(disks), disks[3].MustDev()))

	// What was stopped is nobody's, so that those who look at it read it from the disk.
	reads := "cat /sys/block/" + strings.TrimPrefix(disks[4].MustDev(), "/dev/") + "/stat"
	looks, before := make(map[string]int64), b.facts()

	const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups "

	for _, to := range []string{"kernel", "kernel's group", "udevd's group", "daemon's port"} {
		for _, from := range []struct{ who, as string }{
			{"nobody", nobody}, {"nobody, as root of its own namespaces,", nobody + "unshare -Urn "}, {"root", ""},
		} {
			was := numbers(b.t, b.MustShell(reads))[0]
			// Udevd may take minutes for what the kernel sends on.
			did := b.MustGo(fmt.Sprintf(`%s perl /run/forge.pl "%s" $(systemctl show -P MainPID raid-assembler) 6 \
	$(cat /run/devices)
udevadm settle -t 300
sleep 1`, from.as, to)).MustWait(patience)
			way := from.who + " to the " + to
			looks[way] = numbers(b.t, b.MustShell(reads))[0] - was
			b.t.Logf("%s: %s; a member was read %d times", way, did, looks[way])

			if now := b.facts(); now != before {
				b.t.Errorf("%s: what is was\n%s\nand is\n%s", way, before, now)
			}
		}
	}

	for way, n := range looks {
		heeded := way == "root to the kernel" || way == "root to the udevd's group"
		if heeded != (2*n > looks["root to the udevd's group"]) {
			b.t.Errorf("%s: heeded is %v, want %v: %v", way, !heeded, heeded, looks)
		}
	}

	b.MustPlug(lab.Disk{Serial: "new", Size: 24 << 20})
	b.MustWaitFor(soon, "journalctl -qb RAID_EVENT=NewDevice RAID_SERIAL=new | grep -q .")
	b.pull(disks[3:]...)
	b.MustReplugAll(disks[3:]...)
	b.await("lacks", patience, "whole with a disk that was plugged in", whole)
	b.await("stopped", patience, "started with disks that were plugged in", runsWhole)
}

// facts are what the arrays are, and all that was told.
func (b *box) facts() string {
	b.t.Helper()

	text := essence(b.t, b.status())

	b.MustShell("journalctl --sync")

	for _, e := range parseEntries(b.t, b.MustJournal("-b", "-o", "json", "-t", "raid-assembler", "-t", "raid-engine")) {
		text += e.Event + " " + e.Message + "\n"
	}

	return text
}

// namesake is an array that is called "data", as others are.
type namesake struct {
	says  string // what its first block holds
	name  string // with a piece of its UUID
	disks []*lab.GuestDisk
}

// as is how [box.linked] tells of an array.
func (a namesake) as(name string, readOnly int) string { return fmt.Sprintln(name, readOnly, a.says) }

// rosterFile is where a machine knows its arrays from.
const rosterFile = "/var/lib/raid-assembler/roster.json"

// namesake makes an array of a host and pulls it. No other one is known any more.
func (b *box) namesake(says, host, metadata string) namesake {
	b.t.Helper()

	disks := b.MustDisks(2, 64<<20, says)
	b.MustShell(fmt.Sprintf(`echo %s >/proc/sys/kernel/hostname
systemctl stop raid-assembler.service
rm -f %s
systemctl start raid-assembler.service
raid-assembler create data --level 1 --devices 2 --metadata %s --assume-clean %s >/dev/null`,
		host, rosterFile, metadata, devices(disks)))

	a := namesake{says, "data_" + b.await("data", patience, "made", runsWhole).UUID[:8], disks}
	b.MustShell("printf " + says + " | dd of=/dev/raid/data bs=4096 conv=sync oflag=direct status=none")
	b.MustWaitFor(patience, "grep -q data "+rosterFile)
	b.leave(a)

	return a
}

// come pushes arrays in at once.
func (b *box) come(all ...namesake) {
	b.t.Helper()

	var disks []*lab.GuestDisk
	for _, a := range all {
		disks = append(disks, a.disks...)
	}

	b.MustReplugAll(disks...)
}

// leave stops whatever runs, pulls arrays and starts the assembler anew, as a boot would.
// It is left to mdadm no more when md lets go of it.
func (b *box) leave(all ...namesake) {
	b.t.Helper()
	b.MustShell(`rm -f /run/raid-assembler.conf
udevadm settle
for l in /dev/raid/*; do [ ! -b $l ] || raid-assembler stop ${l##*/} >/dev/null; done
until ! grep -q ^md /proc/mdstat; do mdadm --stop --scan --quiet || sleep 0.2; done`)

	for _, a := range all {
		b.pull(a.disks...)
	}

	b.MustShell("systemctl restart raid-assembler.service")
}

// linked waits until these are the links to arrays, each with whether it is read-only and
// what is in it.
func (b *box) linked(want ...string) {
	b.t.Helper()
	slices.Sort(want)

	var got string

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		got = b.MustShell(`for l in /dev/raid/*; do
	[ ! -b $l ] || echo ${l##*/} $(blockdev --getro $l) $(dd if=$l bs=4096 count=1 iflag=direct status=none | tr -d '\0')
done`)
		if got == strings.Join(want, "") {
			return
		}
	}

	b.t.Fatalf("the links are\n%swant\n%s", got, strings.Join(want, ""))
}

// sums are what the disks of arrays hold that are not plugged in.
func (b *box) sums(all ...namesake) (text string) {
	b.t.Helper()

	for _, a := range all {
		for _, d := range a.disks {
			data, err := os.ReadFile(d.Path())
			if err != nil {
				b.t.Fatal(err)
			}

			text += d.Serial() + " " + sum(data) + "\n"
		}
	}

	return text
}

// arraysAreForeign has arrays of another host come, before and after one of ours of the
// same name, which keeps it, with each value of Foreign=.
func (b *box) arraysAreForeign() {
	b.t.Helper()

	theirs := []namesake{b.namesake("md", "elsewhere", "1.2"), b.namesake("ddf", "elsewhere", "ddf")}
	ours := b.namesake("ours", "lab", "1.2")

	for _, tt := range []struct {
		foreign  string
		runs     bool
		readOnly int
	}{
		{"no", false, 0},
		{"leave-to-mdadm", false, 0},
		{"read-only", true, 1},
		{"yes", true, 0},
		{"no", true, 0}, // those that ran without bounds are ours
	} {
		for _, oursFirst := range []bool{true, false} {
			before, links := b.sums(theirs...), []string(nil)
			b.MustWriteFile("/run/raid-assembler.conf", "[Assembly]\nForeign="+tt.foreign+"\n", 0o644)
			b.MustShell("systemctl restart raid-assembler.service")

			for _, own := range []bool{oursFirst, !oursFirst} {
				switch {
				case own:
					b.come(ours)
					links = append(links, ours.as("data", 0))
				case tt.runs:
					links = append(links, theirs[0].as(theirs[0].name, tt.readOnly), theirs[1].as(theirs[1].name, tt.readOnly))
					fallthrough
				default:
					b.come(theirs...)
				}

				b.linked(links...)
			}

			b.areForeign(tt.foreign, tt.runs, theirs)
			b.linked(links...)
			b.leave(append(theirs, ours)...)

			writes := tt.runs && tt.readOnly == 0
			if now := b.sums(theirs...); writes != (now != before) && tt.foreign != "leave-to-mdadm" {
				b.t.Errorf("Foreign=%s, ours first: %v: disks held\n%sand hold\n%s", tt.foreign, oursFirst, before, now)
			}
		}
	}
}

// areForeign checks what is done with arrays of another host that are here.
func (b *box) areForeign(foreign string, runs bool, theirs []namesake) {
	b.t.Helper()

	for _, a := range theirs {
		write := "dd if=/dev/zero of=/dev/raid/" + a.name + " bs=4096 seek=16 count=1 oflag=direct conv=nocreat status=none"

		switch {
		case foreign == "leave-to-mdadm":
			b.MustWaitFor(patience, fmt.Sprintf("[ $(grep -c ' active .*raid1' /proc/mdstat) = %d ]", len(theirs)))
		case !runs:
			b.MustWaitFor(patience, "raid-assembler explain "+a.disks[0].MustDev()+` | grep 'it is of the host "elsewhere"'`)
			b.MustShell("! grep ^md /proc/mdstat")
		case foreign == "read-only":
			b.MustShell("! " + write)
		default:
			b.MustShell(write)
			b.MustWaitFor(patience, "grep -q "+a.name+" "+rosterFile)
		}
	}
}

// namesAreAlike has two arrays of this host come that have one name: the first one has it,
// and each keeps its name when they come in the other order, or at once.
func (b *box) namesAreAlike() {
	b.t.Helper()

	one, two := b.namesake("one", "lab", "1.2"), b.namesake("two", "lab", "1.2")

	for _, both := range [][]namesake{{one, two}, {two, one}} {
		first, second := both[0].as("data", 0), both[1].as(both[1].name, 0)

		b.MustShell("systemctl stop raid-assembler.service; rm -f " + rosterFile + "; systemctl start raid-assembler.service")
		b.come(both[0])
		b.linked(first)
		b.come(both[1])
		b.linked(first, second)
		b.MustWaitFor(patience, "grep -q "+both[1].name+" "+rosterFile)
		b.leave(both...)

		b.come(both[1])
		b.linked(second)
		b.come(both[0])
		b.linked(first, second)
		b.leave(both...)

		b.come(both[1], both[0])
		b.linked(first, second)
		b.leave(both...)
	}
}
