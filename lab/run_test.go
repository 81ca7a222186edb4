package lab_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// TestKept checks that what a failed test leaves behind is there.
func TestKept(t *testing.T) {
	g, err := lab.New(lab.Options{Name: t.Name(), Disks: []lab.Disk{{Serial: "a", Size: mib}}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}

	d := g.MustPlug(lab.Disk{Serial: "b", Size: mib})
	g.MustShell("logger -t labtest for the record; journalctl --sync; echo seen >/dev/ttyS0; echo disk >" + d.MustDev())
	g.Keep()

	dir := g.Close()
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})

	for name, want := range map[string]string{
		"journal.txt": "for the record", "journal.export": "MESSAGE=for the record", "console.log": "seen",
		"a.raw": "", "b.raw": "disk",
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s (%d bytes, %v) does not hold %q", name, len(data), err, want)
		}
	}
}

// TestGuestDiesWithItsProcess kills a process that has a guest.
func TestGuestDiesWithItsProcess(t *testing.T) {
	if os.Getenv("LAB_TEST_HOLD") != "" {
		hold(t)

		return
	}

	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_TEST_HOLD=1")

	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	mark := ""

	for s := bufio.NewScanner(out); mark == "" && s.Scan(); {
		if _, after, ok := strings.Cut(s.Text(), "guest in "); ok {
			mark = after
		}
	}

	if mark == "" || emulators(t, mark) != 1 {
		t.Errorf("%d emulators run in %q, want 1", emulators(t, mark), mark)
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = cmd.Wait() // killed

	for deadline := time.Now().Add(10 * time.Second); emulators(t, mark) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the emulator outlives its process")
		}
	}
}

// hold starts a guest, says where it is, and waits to be killed.
func hold(t *testing.T) {
	t.Helper()

	g := lab.Start(t)
	d := g.MustPlug(lab.Disk{Size: mib})

	fmt.Printf("guest in %s\n", filepath.Dir(d.Path()))
	time.Sleep(time.Minute)
}

// emulators counts the emulators whose files are in dir.
func emulators(t *testing.T, dir string) int {
	t.Helper()

	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}

	n := 0

	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(line), "qemu-system") && strings.Contains(string(line), dir) {
			n++
		}
	}

	return n
}
