package tests

import (
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestNoThreads has the kernel make no more threads for raid-engine while arrays are
// written to and flushed, for which a ring needs some: the kernel then cancels what it
// was asked for. No member is to blame for that, and all is done when there are threads
// again.
func TestNoThreads(t *testing.T) {
	takesLong(t)

	f := newFleet(t, []kind{
		{"one", raid.Level1, "", mib(16, 2), "", 1},
		{"five", raid.Level5, "left-symmetric", mib(16, 3), "64", 1},
	}, false)
	f.create()
	f.engineStarts()

	// The workers of a ring end when they have had nothing to do for 5 s.
	refused := f.MustShell(`sleep 8
cd /sys/fs/cgroup/$(systemctl show -P ControlGroup raid-engine.service)
cat pids.current >pids.max
for a in one five; do
	dd if=/dev/urandom of=/dev/raid/$a bs=64k count=16 oflag=direct conv=fsync status=none &
done
sleep 4
jobs -r | wc -l
grep -o '[0-9]*' pids.events
echo max >pids.max
wait`)
	t.Log(refused)

	if fields := strings.Fields(refused); len(fields) != 2 || fields[0] != "2" || fields[1] == "0" {
		t.Errorf("%q writes wait, and threads refused, want 2 and some", refused)
	}

	for _, k := range f.kinds {
		if a, _ := f.array(k.name); !whole(a) {
			t.Errorf("%s is %+v, want it whole", k.name, a)
		}
	}

	f.each("raid-assembler check --wait $A >/dev/null 2>&1")
}
