package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// TestErrors injects errors into a few sectors of a disk and checks that they,
// and only they, fail in the guest, and that the errors can be ended.
func TestErrors(t *testing.T) {
	g := lab.Start(t)
	d := g.MustPlug(lab.Disk{Serial: "bad", Size: 16 * mib})
	dev := d.MustDev()

	read := func(sector int) bool { return dd(t, g, "if=%s of=/dev/null iflag=direct skip=%d", dev, sector) }
	write := func(sector int) bool { return dd(t, g, "if=/dev/zero of=%s oflag=direct seek=%d", dev, sector) }

	d.MustInjectReadError(lab.Sectors{First: 1000, Count: 2})
	d.MustInjectWriteError(lab.Sectors{First: 2000, Count: 1})

	for _, tt := range []struct {
		name string
		op   func(int) bool
		at   int
		want bool
	}{
		{"read", read, 999, true},
		{"read", read, 1000, false},
		{"read", read, 1001, false},
		{"read", read, 1002, true},
		{"write", write, 1000, true},
		{"write", write, 2000, false},
		{"write", write, 1999, true},
		{"read", read, 2000, true},
	} {
		if got := tt.op(tt.at); got != tt.want {
			t.Errorf("%s of sector %d: %t, want %t", tt.name, tt.at, got, tt.want)
		}
	}

	if log := g.MustShell("dmesg"); !strings.Contains(log, "critical medium error") {
		t.Error("the kernel did not report a medium error")
	}

	d.MustUnplug()
	d.MustReplug()

	dev = d.MustDev()
	if read(1000) {
		t.Error("errors were gone after the disk was pulled and pushed in again")
	}

	d.MustClearErrors()

	if !read(1000) || !write(2000) {
		t.Error("errors were there after they had been ended")
	}

	d.MustInjectReadError(lab.Sectors{})

	if read(5) || !write(5) {
		t.Error("want every read to fail and no write")
	}

	d.MustClearErrors()
	d.MustInjectFlushError()

	r, err := g.Run(t.Context(), "dd", "if=/dev/zero", "of="+dev, "bs=4k", "count=1", "conv=fsync")
	if err != nil || r.ExitCode == 0 {
		t.Errorf("fsync = %+v, %v, want it to fail", r, err)
	}
}

// dd reports whether a transfer of one sector succeeded. That it failed must be
// for an I/O error; direct reads of a bad sector give ENODATA.
func dd(t *testing.T, g *lab.Guest, format string, dev string, sector int) bool {
	t.Helper()

	r, err := g.Shell("LC_ALL=C dd bs=512 count=1 " + fmt.Sprintf(format, dev, sector))
	if err != nil {
		t.Fatal(err)
	}

	known := strings.Contains(r.Stderr, "Input/output error") || strings.Contains(r.Stderr, "No data available")
	if r.ExitCode != 0 && !known {
		t.Fatalf("dd: %s", r.Stderr)
	}

	return r.ExitCode == 0
}

func TestThrottle(t *testing.T) {
	g := lab.Start(t)
	d := g.MustPlug(lab.Disk{Size: 16 * mib})

	read := func() time.Duration {
		began := time.Now()

		g.MustRun("dd", "if="+d.MustDev(), "of=/dev/null", "bs=512", "count=40", "iflag=direct")

		return time.Since(began)
	}

	fast := read()

	d.MustThrottle(lab.Speed{IOPS: 10})

	slow := read()
	if slow < 3*time.Second {
		t.Errorf("40 reads at 10 a second took %v", slow)
	}

	d.MustThrottle(lab.Speed{})

	if again := read(); again > slow/2 {
		t.Errorf("reads took %v before, %v throttled, %v afterwards", fast, slow, again)
	}
}
