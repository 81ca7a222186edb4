package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fstabGenerator is systemd's own.
const fstabGenerator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"

// given returns the units that systemd itself writes drop-ins for where fstab says how
// long to wait for a device.
func given(t *testing.T, fstab string) []string {
	t.Helper()

	dir := t.TempDir()
	table := filepath.Join(dir, "fstab")

	if err := os.WriteFile(table, []byte(fstab), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(fstabGenerator, dir, dir, dir)
	cmd.Env = append(os.Environ(), "SYSTEMD_FSTAB="+table)

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	found, err := filepath.Glob(filepath.Join(dir, "*.device.d"))
	if err != nil {
		t.Fatal(err)
	}

	for i := range found {
		found[i] = strings.TrimSuffix(filepath.Base(found[i]), ".d")
	}

	return found
}

// TestWaits checks whom systemd waits for longer: the units that it would choose itself.
func TestWaits(t *testing.T) {
	lines := []string{
		"UUID=0a1b-2c /srv ext4 defaults", `LABEL=my\040disk /a xfs nofail`, `PARTUUID="12ab" /b ext4 rw`,
		"/dev/raid/data /c ext4 defaults", "PARTLABEL=Größe%/x /d ext4 ro", "/dev/disk/by-id/raid-name-a:b /e ext4 ro",
		"server:/x /f nfs defaults", "tmpfs /g tmpfs defaults",
	}
	mine := strings.Join(lines, "\n") + "\nUUID=given /h ext4 x-systemd.device-timeout=5,ro\nUUID=never /i ext4 noauto\n" +
		"# UUID=comment /j ext4 ro\nLABEL=short\n"
	theirs := strings.Join(lines, ",x-systemd.device-timeout=9\n") + ",x-systemd.device-timeout=9\n"

	got := waits(mine, 2*time.Minute)
	if names, want := slices.Sorted(maps.Keys(got)), given(t, theirs); !slices.Equal(names, want) || len(want) != 6 {
		t.Errorf("waits() is about\n%q, want these 6:\n%q", names, want)
	}

	if text := got["dev-raid-data.device"]; !strings.Contains(text, "[Unit]\nJobRunningTimeoutSec=180s\n") {
		t.Errorf("waits() says %q, want 180 s", text)
	}

	if got := waits(mine, 30*time.Second); len(got) > 0 {
		t.Errorf("waits() = %q for the usual deadline, want systemd's own", got)
	}
}
