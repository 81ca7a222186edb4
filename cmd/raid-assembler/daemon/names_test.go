package daemon

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestNamesInContainers checks that each array of a container has its own name,
// whichever of them its disks name first, and that no two share one.
func TestNamesInContainers(t *testing.T) {
	array := func(first byte, name string) *metadata.Superblock {
		return &metadata.Superblock{Array: raid.UUID{first}, Name: name}
	}

	one, two, again := array(1, "one"), array(2, "two"), array(3, "one")
	one.Others = []*metadata.Superblock{two, again}

	d := &Daemon{disks: map[string]*disk{
		"/dev/a": {found: Finding{Superblock: one}},
		"/dev/b": {found: Finding{Superblock: array(4, "two")}},
	}}

	for uuid, want := range map[raid.UUID]string{
		{1}: "one", {2}: "two", {3}: "one_03000000", {4}: "two_04000000",
	} {
		if got := d.nameOf(uuid); got != want {
			t.Errorf("nameOf(%v) = %q, want %q", uuid, got, want)
		}
	}

	if of, err := d.targets(api.ChangeParameters{Devices: []string{"/dev/a"}}); err != nil ||
		!slices.Equal(of, []raid.UUID{{1}, {2}, {3}}) {
		t.Errorf("targets() = %v, %v", of, err)
	}
}

// TestAttachInContainers checks that all devices of a container are probed again when
// the engine has one of them in another way, for the metadata of all says so.
func TestAttachInContainers(t *testing.T) {
	slot := 0
	array := func(uuid, container, device string, state raid.MemberState) api.Array {
		return api.Array{UUID: uuid, Container: container, Members: []api.Member{
			{Device: device, Slot: &slot, State: string(state)},
		}}
	}

	d := &Daemon{disks: map[string]*disk{}}
	for _, path := range []string{"/dev/a", "/dev/b", "/dev/c"} {
		d.disks[path] = &disk{running: true} // so that it is only noted
	}

	for i, tt := range []struct {
		state raid.MemberState
		want  string
	}{{raid.InSync, "/dev/a /dev/b /dev/c"}, {raid.InSync, ""}, {raid.Faulty, "/dev/a /dev/b"}} {
		d.arrays = []api.Array{
			array("one", "all", "/dev/a", tt.state), array("two", "all", "/dev/b", raid.InSync),
			array("three", "", "/dev/c", raid.InSync),
		}
		d.attach()

		var again []string

		for _, path := range slices.Sorted(maps.Keys(d.disks)) {
			if d.disks[path].again {
				again = append(again, path)
			}

			d.disks[path].again = false
		}

		if got := strings.Join(again, " "); got != tt.want {
			t.Errorf("%d: %q are probed again, want %q", i, got, tt.want)
		}
	}
}
