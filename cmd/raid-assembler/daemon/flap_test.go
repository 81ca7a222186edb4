package daemon

import (
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestFlapping pulls a member and pushes it in again, over and over: at first it is taken
// in at once, then after a pause that grows, of which the administrator is told. The
// operator need not wait.
func TestFlapping(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.configured("[Alerts]\nProgram=/bin/tell\n")

		set := w.set("data", raid.Level1, 2, 0)
		whole, lacking := "data 0:data0:in-sync 1:data1:in-sync", "data 0:data0:in-sync 1::missing"

		w.run()
		w.plug(set...)
		w.pass(second)
		w.mustBe(whole)

		flap := func() {
			t.Helper()
			w.unplug(set[1])
			w.pass(second)
			w.mustBe(lacking)
			w.plug(set[1])
			w.pass(second)
		}
		quick := func() { // before anybody looks; it has another name now
			t.Helper()
			w.unplugQuietly(set[1])
			w.plug(set[1])
			w.pass(second)
		}
		back := func() {
			t.Helper()
			w.recovered()
			w.daemon.Hint()
			w.pass(second)
			w.mustBe(whole)
		}

		for _, f := range []func(){flap, quick, flap} {
			f()
			back()
		}

		if said := strings.Join(w.ran, "\n"); strings.Contains(said, "flapping") || strings.Contains(w.history(), "MemberFlaps") {
			t.Errorf("three returns are told of:\n%s\n%s", said, w.history())
		}

		for _, pause := range []time.Duration{time.Minute, 2 * time.Minute} {
			flap()
			w.mustBe(lacking)
			w.pass(pause - 2*second)
			w.mustBe(lacking)
			w.pass(second + 100*time.Millisecond)
			back()
		}

		told := strings.Join(w.ran, "\n")
		if strings.Count(told, "RAID_ALARM=flapping RAID_ALARM_STATE=on") != 2 ||
			strings.Count(told, "RAID_ALARM=flapping RAID_ALARM_STATE=over") != 2 ||
			!strings.Contains(told, "came back 5 times within a day") || strings.Count(w.history(), "MemberFlaps") != 2 {
			t.Errorf("what was told:\n%s\n%s", told, w.history())
		}

		flap()
		w.mustBe(lacking)

		if _, err := w.daemon.add(t.Context(), array("data", "data1")); err != nil {
			t.Fatal(err)
		}

		back()
		flap()
		back()
	})
}

// TestDiskKey names what has been plugged in, whatever its path is.
func TestDiskKey(t *testing.T) {
	for want, seen := range map[string]Disk{
		"S":    {Path: "/dev/sda", Serial: "S", Whole: true},
		"S 12": {Path: "/dev/sdb12", Serial: "S"},
		"N":    {Path: "/dev/nvme0n1", Serial: "N", Whole: true},
		"N 3":  {Path: "/dev/nvme0n1p3", Serial: "N"},
		"":     {Path: "/dev/sdc", Whole: true},
	} {
		if got := seen.key(); got != want {
			t.Errorf("key of %+v is %q, want %q", seen, got, want)
		}
	}
}
