package main

import (
	"maps"
	"os/exec"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

// TestGroupOf: the processes of the control group that this one is in, by the kernel's files.
func TestGroupOf(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

	host := fstest.MapFS{
		"proc/self/cgroup": file("4:memory:/old\n0::/system.slice/raid-engine.service\n"),
		"sys/fs/cgroup/system.slice/raid-engine.service/cgroup.procs": file("77\n78\n80\n"),
	}

	if pids, err := groupOf(host); err != nil || !slices.Equal(pids, []int{77, 78, 80}) {
		t.Errorf("groupOf() = %v, %v", pids, err)
	}

	for name, text := range map[string]string{
		"proc/self/cgroup": "4:memory:/old\n",
		"sys/fs/cgroup/system.slice/raid-engine.service/cgroup.procs": "77\nx\n",
	} {
		broken := maps.Clone(host)
		broken[name] = file(text)

		if pids, err := groupOf(broken); err == nil {
			t.Errorf("with %q in %s groupOf() = %v", text, name, pids)
		}
	}
}

// TestFindNoOrphans: where this is not what systemd started, others are in its control group.
func TestFindNoOrphans(t *testing.T) {
	t.Setenv("SYSTEMD_EXEC_PID", "1")

	if found, err := findOrphans(); err != nil || len(found) > 0 {
		t.Errorf("findOrphans() = %v, %v", found, err)
	}
}

// TestOrphansServeOn: one is killed when the next engine waits for its turn, and never if that
// one dies before.
func TestOrphansServeOn(t *testing.T) {
	orphan := exec.Command("sleep", "60")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}

	died := make(chan error, 1)
	go func() { died <- orphan.Wait() }()

	defer func() { _ = orphan.Process.Kill() }()

	fd, err := unix.PidfdOpen(orphan.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}

	left := orphans{fd}
	next := &engine{waits: make(chan struct{}), gone: make(chan struct{})}
	close(next.gone)

	if err := left.end(next); err != nil {
		t.Fatal(err)
	}

	if err := unix.Kill(orphan.Process.Pid, 0); err != nil || len(left) != 1 {
		t.Fatalf("the next engine is dead, and of %d orphans: %v", len(left), err)
	}

	next = &engine{waits: make(chan struct{}), gone: make(chan struct{})}

	time.AfterFunc(10*time.Millisecond, func() { close(next.waits) })

	if err := left.end(next); err != nil || len(left) != 0 {
		t.Fatalf("%d orphans are left: %v", len(left), err)
	}

	if err := <-died; err == nil || orphan.ProcessState.Sys() == nil {
		t.Errorf("the orphan ended with %v", err)
	}
}
