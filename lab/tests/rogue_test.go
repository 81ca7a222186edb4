package tests

import (
	"fmt"
	"strings"
	"testing"
)

// rogue is somebody who writes to a member that an array has. In the script $d is the
// member, and /dev/md/other an array of md that lacks a device.
type rogue struct {
	name, script string
	claims       bool // it asks for the device for itself, and is refused one that is claimed
}

var rogues = []rogue{
	{"dd", "dd if=/dev/urandom of=$d bs=4k count=1 seek=2048 oflag=direct", false},
	{"dd through the cache", "dd if=/dev/urandom of=$d bs=4k count=1 seek=2048 conv=fsync", false},
	{"open for reading and writing", `exec 3<>$d && printf rogue >&3 && sync $d`, false},
	{"wipefs --all", "wipefs --all $d", true},
	{"wipefs --all --force", "wipefs --all --force $d", false},
	{"mkfs.ext4 -F", "mkfs.ext4 -q -F $d", true},
	{"mount", "mount -t ext4 $d /mnt", true},
	{"mdadm --add", "mdadm /dev/md/other --add $d", true},
	{"mdadm --create", "mdadm --create /dev/md/new --run -l1 -n2 $d missing", true},
	{"mdadm --zero-superblock", "mdadm --zero-superblock $d", true},
	{"sfdisk", "echo , | sfdisk --wipe always $d", true},
	{"sfdisk --force", "echo , | sfdisk --force --no-reread $d", false},
	{"parted mklabel", "parted -s $d mklabel msdos", false},
	{"blkdiscard --force", "blkdiscard -f -z $d", false},
}

// TestRogueWrites has others write to a member of an array that runs, with and without the
// guard, and prints what comes of it. With it nothing is written, and the journal has it;
// it outlives the engine and the daemon, and keeps no engine from its devices. Partitions of
// members are there only while no array has these.
func TestRogueWrites(t *testing.T) {
	takesLong(t)

	b := start(t)
	disks := b.MustDisks(3, 32<<20, "m")
	d, others := disks[0].MustDev(), devices(disks[1:2])
	b.install()

	partitions := "ls -d /sys/class/block/" + strings.TrimPrefix(d, "/dev/") + "/*/partition"
	b.MustShell(fmt.Sprintf(`raid-assembler create a --level 1 --devices 2 --metadata 1.0 %s %s >/dev/null
raid-assembler wait a >/dev/null
udevadm settle
printf '\0\0\0\0\203\0\0\0\0\10\0\0\0\120\0\0' | dd of=/dev/raid/a bs=1 seek=446 conv=fsync status=none
printf '\125\252' | dd of=/dev/raid/a bs=1 seek=510 conv=fsync status=none
udevadm settle
raid-assembler stop a
mdadm --create /dev/md/other --run --quiet -l1 -n2 %s missing`, d, others, disks[2].MustDev()))
	b.MustWaitFor(patience, partitions) // the table is the array's, and shows on members
	b.MustShell("raid-assembler assemble a")
	b.MustWaitFor(patience, "! "+partitions)

	without := b.rogues(d, "without the guard")
	b.MustShell("raid-assembler guard on")

	refused := "{ dd if=/dev/zero of=" + d + " bs=4k count=1 2>&1 || true; } | grep 'Read-only file system'"
	b.MustWaitFor(patience, refused)

	with := b.rogues(d, "with the guard")

	for _, r := range rogues {
		if with[r.name] == "written" || r.claims && without[r.name] == "written" {
			t.Errorf("%s: %s without the guard, %s with it", r.name, without[r.name], with[r.name])
		}
	}

	if n := strings.Count(b.MustJournal("-o", "cat", "RAID_EVENT=WriteRefused"), d); n < len(rogues)/2 {
		t.Errorf("the journal has %d refusals", n)
	}

	b.MustShell("pkill -KILL " + theEngine)
	b.MustWaitFor(patience, "dd if=/dev/zero of=/dev/raid/a bs=4k count=1 seek=2048 oflag=direct")
	b.MustShell(refused)
	b.MustWaitFor(patience, "! "+partitions)             // while nobody had it, udevd may have found them
	b.MustShell("systemctl restart raid-engine.service") // nobody uses the array, which is let go of
	b.MustWaitFor(patience, "dd if=/dev/zero of=/dev/raid/a bs=4k count=1 seek=2048 oflag=direct")
	b.MustWaitFor(patience, refused)
	b.MustShell("systemctl stop raid-assembler.service\n" + refused +
		"\nsystemctl start raid-assembler.service\nraid-assembler stop a")
	b.MustWaitFor(patience, fmt.Sprintf("dd if=%[1]s of=%[1]s bs=4k count=1", d))
	b.MustShell("raid-assembler assemble a")
	b.MustWaitFor(patience, refused)
	b.MustShell("raid-assembler guard off")
	b.MustShell(fmt.Sprintf("dd if=%[1]s of=%[1]s bs=4k count=1", d))
}

// rogues has each rogue try, and returns and prints what came of it. What was written is
// undone.
func (b *box) rogues(d, what string) map[string]string {
	b.t.Helper()

	outcomes := make(map[string]string)
	image := func(do string) string {
		return b.MustShell(fmt.Sprintf("sleep 0.5; dd if=%s bs=1M iflag=direct status=none %s", d, do))
	}

	image("of=/run/member")

	table := []string{what + ":"}

	for _, r := range rogues {
		before := image("| sha256sum")

		result, err := b.Shell("d=" + d + "\n" + r.script)
		if err != nil {
			b.t.Fatal(err)
		}

		outcome := "refused"
		if image("| sha256sum") != before {
			outcome = "written"

			b.MustShell(fmt.Sprintf("raid-assembler guard off >/dev/null; dd if=/run/member of=%s bs=1M oflag=direct status=none", d))
		} else if result.ExitCode == 127 {
			b.t.Errorf("%s is not in the guest", r.name)
		} else if result.ExitCode == 0 {
			outcome = "done, and nothing written"
		}

		outcomes[r.name] = outcome
		said := strings.TrimSpace(result.Stderr)
		said = said[strings.LastIndexByte(said, '\n')+1:]
		table = append(table, fmt.Sprintf("%-30s %-25s %s", r.name, outcome, said))
	}

	b.t.Log(strings.Join(table, "\n"))

	return outcomes
}
