package lab_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

const mib = 1 << 20

// TestMain builds the image before the first test, so that no test is blamed
// for the minutes that takes.
func TestMain(m *testing.M) {
	if _, err := lab.Image(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	os.Exit(m.Run())
}

func TestStartAnswersSoon(t *testing.T) {
	began := time.Now()
	g := lab.Start(t)
	kernel := g.MustRun("uname", "-r")
	took := time.Since(began)

	t.Logf("restore to first command: %.2fs, kernel %s", took.Seconds(), strings.TrimSpace(kernel))

	// The aim is 3 s on an idle machine.
	if limit := 15 * time.Second; took > limit {
		t.Errorf("the first command was done after %v, want at most %v", took, limit)
	}

	if drift := time.Since(guestTime(t, g)).Abs(); drift > 5*time.Second {
		t.Errorf("the guest's clock is off by %v", drift)
	}

	if r, _ := g.Shell("modinfo ublk_drv >/dev/null; grep -c ublk_drv /proc/modules"); r.Stdout != "0\n" {
		t.Errorf("modules say %q (%s), want ublk_drv available and not loaded", r.Stdout, r.Stderr)
	}
}

func guestTime(t *testing.T, g *lab.Guest) time.Time {
	t.Helper()

	var seconds int64
	if _, err := fmt.Sscan(g.MustRun("date", "+%s"), &seconds); err != nil {
		t.Fatal(err)
	}

	return time.Unix(seconds, 0)
}

// TestRandomNumbersDiffer checks that two guests restored from one state do not
// draw the same random numbers. They run one after the other: a test that held
// one place and waited for the second could wait for another such test.
func TestRandomNumbersDiffer(t *testing.T) {
	var drawn [2]string

	for i := range drawn {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			drawn[i] = lab.Start(t).MustReadFile("/proc/sys/kernel/random/uuid")
		})
	}

	if drawn[0] == drawn[1] {
		t.Errorf("both guests drew %q", drawn[0])
	}
}

func TestCommands(t *testing.T) {
	g := lab.Start(t)

	r, err := g.Shell("echo out; echo err >&2; exit 7")
	if want := (lab.Result{Stdout: "out\n", Stderr: "err\n", ExitCode: 7}); err != nil || r != want {
		t.Errorf("Shell() = %+v, %v, want %+v", r, err, want)
	}

	if r, err := g.Shell("false | true; echo not reached"); err != nil || r.ExitCode != 1 || r.Stdout != "" {
		t.Errorf("Shell() of a failing step = %+v, %v, want exit code 1", r, err)
	}

	job := g.MustGo("while ! [ -e /tmp/go ]; do sleep 0.02; done; echo went")
	g.MustWriteFile("/tmp/dir/file", "content", 0o640)
	g.MustShell("touch /tmp/go")

	if out := job.MustWait(time.Minute); out != "went\n" {
		t.Errorf("job printed %q", out)
	}

	if got := g.MustShell("stat -c %a /tmp/dir/file; cat /tmp/dir/file"); got != "640\ncontent" {
		t.Errorf("file is %q", got)
	}

	if got := g.MustReadFile("/tmp/dir/file"); got != "content" {
		t.Errorf("ReadFile() = %q", got)
	}

	err = g.WaitFor(300*time.Millisecond, "echo seen; false")
	if err == nil || !strings.Contains(err.Error(), "seen") {
		t.Errorf("WaitFor() = %v, want an error with the output", err)
	}

	before := g.MustMonotonicNow()
	if after := g.MustMonotonicNow(); before <= 0 || after < before {
		t.Errorf("the monotonic clock went from %d to %d", before, after)
	}

	g.MustShell("logger -t labtest hello")
	g.MustWaitFor(10*time.Second, "journalctl -t labtest | grep hello")

	if got := g.MustJournal("-t", "labtest", "-o", "cat"); got != "hello\n" {
		t.Errorf("Journal() = %q", got)
	}
}

func TestPutTarAndInstall(t *testing.T) {
	g := lab.Start(t)

	big := make([]byte, 20*mib)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}

	var archive bytes.Buffer

	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "big", Mode: 0o600, Size: int64(len(big))}); err != nil {
		t.Fatal(err)
	}

	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	if err := g.PutTar(&archive, "/opt/x"); err != nil {
		t.Fatal(err)
	}

	t.Logf("20 MiB put in %v", time.Since(began))

	if got := g.MustShell("cmp /opt/x/big - < /opt/x/big; stat -c %s /opt/x/big"); got != fmt.Sprintln(len(big)) {
		t.Errorf("file has size %s", got)
	}

	tree := t.TempDir()
	unit := filepath.Join(tree, "lib/systemd/system/labtest.service")

	if err := os.MkdirAll(filepath.Dir(unit), 0o700); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/true\nType=oneshot\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	g.MustInstall(tree)
	g.MustShell("systemctl start labtest; [ -L /lib ]; [ $(stat -c %a /usr/lib/systemd) = 755 ]")
}
