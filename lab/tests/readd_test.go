package tests

import (
	"strconv"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// noted are arrays that note what a member misses, and one that does not.
var noted = []kind{
	{"one", raid.Level1, "", mib(40, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(40, 3), "64", 1},
	{"ten", raid.Level10, "n2", mib(40, 3), "64", 1},
	{"plain", raid.Level5, "left-symmetric", mib(40, 3), "64", 1},
}

// TestReturnsByBitmap pulls a member, writes a little and pushes the member in
// again: what the bitmap says that it missed is written to it, and little else. The
// array without a bitmap shows what all would be.
func TestReturnsByBitmap(t *testing.T) {
	f := newFleet(t, noted, false)
	f.note()
	f.each(`[ $A = plain ] || C="$C --bitmap=internal --bitmap-chunk=64K"` + "\n" + createScript)
	f.engineStarts()

	for _, k := range f.kinds {
		f.disks[k.name][1].MustUnplug()
	}

	f.awaitAll("degraded", degradedBy(1))
	f.each("exercise run -model $M -mix sequential -ops 10 -seed 41 /dev/raid/$A\nsync /dev/raid/$A")

	missed := make(map[string]int64)

	for _, k := range f.kinds {
		if a, _ := f.array(k.name); a.Bitmap != nil {
			missed[k.name] = a.Bitmap.DirtyBytes
		}
	}

	for _, k := range f.kinds {
		f.disks[k.name][1].MustReplug()
	}

	f.awaitAll("whole", whole)

	for _, k := range f.kinds {
		stat := strings.Fields(f.MustShell("cat /sys/block/" + f.disks[k.name][1].MustDev()[len("/dev/"):] + "/stat"))

		sectors, err := strconv.ParseInt(stat[6], 10, 64)
		if err != nil {
			t.Fatal(err)
		}

		f.judgeReturn(k, sectors*raid.SectorSize, missed[k.name])
	}

	f.note()
	f.each("exercise check -model $M /dev/raid/$A\nraid-assembler check --wait $A >/dev/null 2>&1")
	f.engineStops()
	f.mdChecks()
}

// judgeReturn checks how much was written to a member that returned.
func (f *fleet) judgeReturn(k kind, written, missed int64) {
	f.t.Helper()
	f.t.Logf("%s: %d KiB of %d MiB written, the bitmap says %d KiB", k.name, written>>10, k.members[1], missed>>10)

	// What a sync takes at a time, where not all of it was missed; superblocks; and
	// the bitmap itself, which is written as its bits are cleared.
	const notes = 2<<20 + 512<<10

	switch {
	case k.name == "plain" && written < int64(k.members[1]-2)<<20:
		f.t.Errorf("%s: %d bytes written to a member without a bitmap", k.name, written)
	case k.name != "plain" && (missed == 0 || written > missed+notes):
		f.t.Errorf("%s: %d bytes written to a member that missed %d", k.name, written, missed)
	}
}
