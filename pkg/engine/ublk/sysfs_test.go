package ublk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSetQueue(t *testing.T) {
	sysfs := t.TempDir()
	dir := filepath.Join(sysfs, "ublkb3", "queue")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"scheduler": "none", "io_timeout": "1000", "stable_writes": "1", "wbt_lat_usec": "0"}
	for name := range want {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("something longer"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctl := Control{&Controller{sysfs: sysfs}}
	attrs := QueueAttributes{Scheduler: "none", IOTimeout: time.Second, StableWrites: true}
	if err := ctl.SetQueue(context.Background(), 3, attrs); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != value {
			t.Errorf("%s = %q, %v, want %q", name, got, err, value)
		}
	}

	// A kernel without write-back throttling.
	if err := os.Remove(filepath.Join(dir, "wbt_lat_usec")); err != nil {
		t.Fatal(err)
	}
	if err := ctl.SetQueue(context.Background(), 3, attrs); err != nil {
		t.Errorf("SetQueue without wbt_lat_usec: %v", err)
	}

	err := ctl.SetQueue(context.Background(), 4, attrs)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "set_queue of device 4") {
		t.Errorf("SetQueue of a device that is not there: %v", err)
	}
	attrs.IOTimeout = time.Microsecond
	if err := ctl.SetQueue(context.Background(), 3, attrs); !errors.Is(err, unix.EINVAL) {
		t.Errorf("SetQueue with a timeout that rounds to nothing: %v, want %v", err, unix.EINVAL)
	}
	if _, err := ctl.Do(context.Background(), Command{Op: OpSetQueue}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("set_queue without attributes: %v, want %v", err, unix.EINVAL)
	}
}
