package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/raid"
)

const oneDomain = "[Domain all]\nSerial=*\n"

func parsed(t *testing.T, text string) config.Config {
	t.Helper()

	c := config.Parse(config.File{Path: "f", Text: text})
	if len(c.Faults) > 0 {
		t.Fatal(c.Faults)
	}

	return c
}

// TestLendRefused checks that a spare goes back to its owner if the array that was to
// have it does not take it, that another is tried, and that the first is tried again
// after a while.
func TestLendRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = parsed(t, oneDomain)
		data, web := w.set("data", raid.Level1, 2, 1), w.set("web", raid.Level1, 2, 0)
		w.plug(data...)
		w.plug(web...)
		w.run()
		w.pass(second)

		w.takeNone = "web"
		w.unplug(web[1])
		w.pass(2 * second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync S:data2:spare\nweb 0:web0:in-sync 1::missing")

		adds := strings.Count(w.history(), "web is to be given /dev/sdc")
		w.pass(retryMax / 2)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync S:data2:spare\nweb 0:web0:in-sync 1::missing")

		if n := strings.Count(w.history(), "web is to be given /dev/sdc"); adds != 1 || n != 1 {
			t.Errorf("%d, then %d attempts, want one in a minute:\n%s", adds, n, w.history())
		}

		w.takeNone = ""
		w.pass(retryMax)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync\nweb 0:web0:in-sync 1:data2:recovering")
	})
}

// TestLendWhileDead checks that a spare that its owner has let go of reaches the
// array that it was for, though the daemon died in between.
func TestLendWhileDead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = parsed(t, oneDomain)
		data, web := w.set("data", raid.Level1, 2, 1), w.set("web", raid.Level1, 2, 0)
		w.plug(data...)
		w.plug(web...)
		w.run()
		w.pass(second)
		w.killDaemon()
		w.unplugQuietly(web[1])

		a := w.arrays[raid.UUID{'d'}]
		a.keeper.Forget(a.members[2].id)
		a.members = slices.Delete(a.members, 2, 3)
		a.write()

		w.run()
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync\nweb 0:web0:in-sync 1:data2:recovering")
	})
}

// TestAlerts checks what the administrator's program is told, and when.
func TestAlerts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = parsed(t, "[Alerts]\nProgram=/bin/tell\nRepeat=1h\n")
		data := w.set("data", raid.Level1, 2, 1)
		w.plug(data...)
		w.run()
		w.pass(2 * time.Hour)

		said := func(n int, want string) {
			t.Helper()

			if len(w.ran) != n || n > 0 && !strings.Contains(w.ran[n-1], want) {
				t.Errorf("told %q, want %d times, at last %q", w.ran, n, want)
			}
		}

		said(0, "")
		w.unplug(data[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data2:recovering")
		said(1, "/bin/tell RAID_ALARM=no-spare RAID_ALARM_STATE=on RAID_ARRAY=data RAID_UUID=64000000")
		said(1, "RAID_REASON=a spare is put to work in slot 1, and no other is left")
		w.pass(59 * time.Minute)
		said(1, "STATE=on")
		w.pass(2 * time.Minute)
		said(2, "STATE=on")
		w.recovered()
		w.pass(rescanEvery)
		said(3, "RAID_ALARM=no-spare RAID_ALARM_STATE=over")
		w.unplug(data[2])
		w.pass(second)
		said(4, "RAID_ALARM=degraded RAID_ALARM_STATE=on")

		if n := strings.Count(w.history(), "NoSpareLeft: data: "); n != 2 {
			t.Errorf("in the journal %d times, want twice:\n%s", n, w.history())
		}
	})
}

// TestAlertsPrintable: what a disk or another program says steers no terminal.
func TestAlertsPrintable(t *testing.T) {
	if got := printable("a\x1b[2J\u009b1m\u202e\n\tb é"); got != "a?[2J?1m???b é" {
		t.Errorf("%q gets through", got)
	}
}
