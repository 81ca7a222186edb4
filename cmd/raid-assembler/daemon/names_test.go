package daemon

import (
	"slices"
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
