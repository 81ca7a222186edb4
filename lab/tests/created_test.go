package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

// creation is an array that our program makes, with the metadata given.
type creation struct {
	kind
	version string
}

// ddfKinds are the levels and layouts that DDF has words for, and md runs.
var ddfKinds = []kind{
	{"zero", raid.Level0, "", mib(0, 2), "64", 0},
	{"one-2", raid.Level1, "", mib(0, 2), "", 1},
	{"one-3", raid.Level1, "", mib(0, 3), "", 2},
	{"four", raid.Level4, "", mib(0, 4), "64", 1},
	{"five-la", raid.Level5, "left-asymmetric", mib(0, 3), "64", 1},
	{"five-ra", raid.Level5, "right-asymmetric", mib(0, 3), "64", 1},
	{"five-ls", raid.Level5, "left-symmetric", mib(0, 4), "512", 1},
	{"six-zr", raid.Level6, "ddf-zero-restart", mib(0, 4), "64", 2},
	{"six-Nr", raid.Level6, "ddf-N-restart", mib(0, 5), "64", 2},
	{"six-Nc", raid.Level6, "ddf-N-continue", mib(0, 4), "64", 2},
	{"ten-n2", raid.Level10, "n2", mib(0, 3), "64", 1},
	{"ten-f2", raid.Level10, "f2", mib(0, 4), "64", 1},
}

// mdCreations are all levels and layouts with a version of md's own metadata, but for the
// linear level, which md has not got on Linux 6.12.
func mdCreations(t *testing.T, version string) []creation {
	t.Helper()

	var all []creation

	for _, family := range []string{"mirrors", "parity", "six", "six-others"} {
		for _, k := range families[family] {
			// Of a RAID0 it does not say the layout.
			unsaid := version == "0.90" && k.level == raid.Level0 && k.layout != ""
			if !unsaid && k.unserved(t) == "" {
				all = append(all, creation{k, version})
			}
		}
	}

	return all
}

// TestCreated makes arrays of all levels and layouts with each metadata: mdadm has no
// complaint of them, nor has md, which runs them, finds what was written, and nothing
// that its check would mend.
func TestCreated(t *testing.T) {
	takesLong(t)

	for _, version := range []string{"1.2", "1.1", "1.0", "0.90"} {
		t.Run(version, func(t *testing.T) { createAll(t, mdCreations(t, version)) })
	}

	t.Run("ddf", func(t *testing.T) {
		var all []creation
		for _, k := range ddfKinds {
			all = append(all, creation{k, "ddf"})
		}

		createAll(t, all)
	})
}

// createAll makes arrays on two sets of disks, one after the other on each.
func createAll(t *testing.T, all []creation) {
	t.Helper()

	const lanes, some = 2, 10

	f := &fleet{box: start(t), disks: make(map[string][]*lab.GuestDisk), models: "/dev/shm"}
	f.MustInstall(tools)
	f.install()

	var disks []lab.Disk

	// The layouts of RAID0 differ where the sizes do.
	sizes := []int64{44, 42, 40, 40, 40, 40}
	for i := range lanes * len(sizes) {
		disks = append(disks, lab.Disk{Serial: fmt.Sprintf("disk.%d", i), Size: sizes[i%len(sizes)] << 20})
	}

	plugged := f.MustPlugAll(disks...)
	script := ""

	for i, c := range all {
		k, lane := c.kind, i%lanes
		k.name = fmt.Sprintf("md%d", i+1) // there are no other names with version 0.90
		f.kinds = append(f.kinds, k)
		mine := plugged[lane*len(sizes):][:len(sizes)]
		f.disks[k.name] = mine[:len(k.members)]

		if k.level == raid.Level0 && c.version == "0.90" {
			f.disks[k.name] = mine[len(sizes)-len(k.members):] // it has no word for their layout
		}

		args := fmt.Sprintf("--metadata %s --level %v --devices %d", c.version, k.level, len(k.members))
		if k.layout != "" && (k.level != raid.Level0 || strings.HasPrefix(c.version, "1.")) {
			args += " --layout " + k.layout
		}

		if k.chunk != "" {
			args += " --chunk " + k.chunk + "K"
		}

		if k.level.HasRedundancy() && c.version != "ddf" {
			args += " --size 9M"
		}

		script += fmt.Sprintf("echo \"LANE=%d V=%s ARGS='%s'\" >>/run/%s.is\n", lane, c.version, args, k.name)
	}

	f.note()
	f.MustShell(script)

	for batch := range slices.Chunk(f.kinds, some) {
		f.kinds = batch
		f.eachCreated()
	}

	// What md found odd of any of them, other than that udev still looked at one.
	if text := f.MustShell(`journalctl -b -k -p warning -o cat | grep -E '\bmd[0-9/:_]' |
		grep -v ' still in use\.$' || true`); text != "" {
		t.Errorf("md complains:\n%s", text)
	}
}

// eachCreated makes each array, has it written to, and has md judge it.
func (f *fleet) eachCreated() {
	f.t.Helper()

	out := f.each(`exec 8>/run/lane$LANE
flock 8
raid-assembler create $A $ARGS $D >/dev/null
there /dev/raid/$A
U=$(udevadm info --query property /dev/raid/$A | sed -n 's/^RAID_UUID=//p')
exercise fill -model $M /dev/raid/$A
raid-assembler wait $A >/dev/null
raid-assembler stop $A >/dev/null
for d in $D; do
	mdadm --examine $d >/run/$A.examined 2>/run/$A.said
	case $V in
	ddf) grep -q 'state\[0\] : Optimal, Consistent' /run/$A.examined ;;
	*) grep -q 'Checksum : .* correct' /run/$A.examined ;;
	esac
	[ ! -s /run/$A.said ] || { cat /run/$A.said >&2; exit 1; }
done
case $V in
ddf) for d in $D; do flock -o /run/create mdadm --incremental --quiet $d; done ;;
*) flock -o /run/create mdadm --assemble /dev/md/$A $D 2>&1 || true ;; # it does not wait for udev for long
esac >/run/$A.said
if grep -vE " has been started with $(wc -w <<<$D) drives\.$| timeout waiting for " /run/$A.said >&2; then exit 1; fi
there /dev/disk/by-id/md-uuid-$U
md=/sys/block/$(basename $(readlink -f /dev/disk/by-id/md-uuid-$U))/md
exercise check -model $M /dev/$(basename ${md%/md})
if ((L > 0)); then
	until [ $(cat $md/sync_action) = idle ]; do sleep 0.2; done
	echo 1000000 >$md/sync_speed_min
	echo check >$md/sync_action
	until [ $(cat $md/sync_action) = idle ]; do sleep 0.2; done
	echo $A degraded $(cat $md/degraded) mismatches $(cat $md/mismatch_cnt)
fi
container=$(sed -n 's,^external:/\(.*\)/.*,\1,p' $md/metadata_version)
mdadm --stop --quiet /dev/$(basename ${md%/md})
[ -z "$container" ] || mdadm --stop --quiet /dev/$container
raid-assembler erase --force $D >/dev/null
rm $M`)

	for _, k := range f.kinds {
		want := k.name + " degraded 0 mismatches 0\n"
		if redundant(k) && !strings.Contains(out, want) {
			f.t.Errorf("md says %q, want %q among it", out, want)
		}
	}
}
