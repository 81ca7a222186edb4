package daemon

import (
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// ports gives disks places.
func ports(disks ...*fakeDisk) {
	for i, f := range disks {
		f.Port = "pci-0000:00:1f.2-ata-" + string(rune('1'+i))
	}
}

// TestBlankInTheSlot checks that a blank disk that is plugged in where a member was
// takes its place, once all of it has been read.
func TestBlankInTheSlot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = parsed(t, oneDomain+"Blank=same-slot\n")
		w.roster = t.TempDir() + "/lib/roster.json"
		data := w.set("data", raid.Level1, 2, 0)
		blank, other := w.disk("blank"), w.disk("other")
		ports(data[0], data[1], other)
		w.plug(data...)
		w.plug(other)
		w.run()
		w.pass(second)
		w.unplug(data[1])
		w.pass(second)

		blank.Port = data[1].Port
		w.plug(blank)
		w.pass(5 * second)
		w.mustBe("data 0:data0:in-sync 1::missing")

		st, err := w.daemon.status(t.Context())
		if err != nil || len(st.Unused) != 1 || st.Unused[0].Proof == nil || st.Unused[0].Serial != "blank" {
			t.Fatalf("unused = %+v, %v, want how far the disk has been read", st.Unused, err)
		}

		if p := st.Unused[0].Proof; p.DoneBytes == 0 || p.DoneBytes >= p.TotalBytes || p.TotalBytes != diskBytes {
			t.Errorf("proof = %+v", p)
		}

		w.pass(6 * second)
		w.mustBe("data 0:data0:in-sync 1:blank:recovering")

		if h := w.history(); !strings.Contains(h, "at pci-0000:00:1f.2-ata-2, of 8 MiB, held nothing but zeros") {
			t.Errorf("what the disk was is not in the journal:\n%s", h)
		}
	})
}

// TestBlankNot checks which disks are not overwritten.
func TestBlankNot(t *testing.T) {
	for name, change := range map[string]func(w *world, f *fakeDisk){
		"data from 64 KiB on":     func(_ *world, f *fakeDisk) { f.image[64<<10] = 1 },
		"a byte in the middle":    func(_ *world, f *fakeDisk) { f.image[5<<20+12345] = 1 },
		"the last byte":           func(_ *world, f *fakeDisk) { f.image[diskBytes-1] = 1 },
		"a signature":             func(_ *world, f *fakeDisk) { f.others = []string{"btrfs"} },
		"no policy for its place": func(_ *world, f *fakeDisk) { f.Serial = "elsewhere" },
		"a partition":             func(_ *world, f *fakeDisk) { f.Whole = false },
		"in use":                  func(_ *world, f *fakeDisk) { f.Claimed = "the mount /mnt" },
		"written to meanwhile":    func(w *world, f *fakeDisk) { f.Port = "late" },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.settings = parsed(t, "[Domain all]\nSerial=data*\nSerial=blank\nBlank=yes\n")
				data := w.set("data", raid.Level1, 2, 0)
				f := w.disk("blank")
				change(w, f)

				if f.Serial != "blank" {
					w.disks[f.Serial] = f
				}

				before := string(f.image)
				w.plug(data[0], data[1])
				w.run()
				w.pass(second)
				w.unplug(data[1])
				w.pass(second)
				w.plug(f)

				if f.Port == "late" { // behind what was read already, and udev tells at the end
					w.pass(5 * second)

					f.image[100] = 1
					before = string(f.image)
					w.hear("change", f.Path)
				}

				w.pass(30 * second)
				w.mustBe("data 0:data0:in-sync 1::missing")

				if before != string(f.image) {
					t.Error("the disk was written to")
				}
			})
		})
	}
}

// TestBlankGone checks that the proof ends with the disk, with the need, and with the
// daemon.
func TestBlankGone(t *testing.T) {
	for name, end := range map[string]func(w *world, f, back *fakeDisk){
		"pulled":           func(w *world, f, _ *fakeDisk) { w.unplug(f) },
		"a member is back": func(w *world, _, back *fakeDisk) { w.plug(back) },
		"the daemon ends":  func(w *world, _, _ *fakeDisk) { w.killDaemon() },
		"somebody uses it": func(w *world, f, _ *fakeDisk) { f.Claimed = "the mount /mnt"; w.hear("change", f.Path) },
		"something is new": func(w *world, f, _ *fakeDisk) { w.hear("change", f.Path) },
		"it is operator's": func(w *world, f, _ *fakeDisk) { f.others = []string{"ext"}; w.hear("change", f.Path) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.settings = parsed(t, oneDomain+"Blank=yes\n")
				data, f := w.set("data", raid.Level1, 2, 0), w.disk("blank")
				w.plug(data...)
				w.run()
				w.pass(second)
				w.unplug(data[1])
				w.pass(second)
				w.plug(f)
				w.pass(4 * second)

				if w.givenUp != 0 {
					t.Fatalf("%d proofs given up", w.givenUp)
				}

				end(w, f, data[1])
				w.pass(second)

				if w.givenUp != 1 {
					t.Errorf("%d proofs given up, want 1:\n%s", w.givenUp, w.history())
				}
			})
		})
	}
}
