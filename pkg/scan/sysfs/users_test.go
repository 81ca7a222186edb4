package sysfs

import (
	"testing"
	"testing/fstest"
)

// TestUsers reads what the kernel says of mounts and swaps.
func TestUsers(t *testing.T) {
	const (
		mounts = "21 26 8:1 / /boot rw,relatime shared:1 - ext4 /dev/sda1 rw\n" +
			"22 26 0:44 / /data rw - btrfs /dev/sdb rw\nnonsense\n" +
			"23 26 104:0 / /old rw - ext4 /dev/cciss/c0d0 rw\n"
		swaps = "Filename Type Size Used Priority\n/dev/sdc2 partition 1 0 -2\n"
	)

	// Those of the host count, where there are any to be seen.
	host := fstest.MapFS{
		"1/mountinfo":    {Data: []byte(mounts)},
		"self/mountinfo": {Data: []byte("24 26 8:1 / /elsewhere rw - ext4 /dev/sda1 rw\n")},
		"swaps":          {Data: []byte(swaps)},
	}
	container := fstest.MapFS{"self/mountinfo": {Data: []byte(mounts)}, "swaps": {Data: []byte(swaps)}}

	for _, tt := range []struct{ name, number, want string }{
		{"sda1", "8:1", "the mount /boot"},
		{"sda2", "8:2", ""},
		{"sdb", "8:16", "the mount /data"},
		{"sdc2", "8:34", "swap"},
		{"sdc20", "8:52", ""},
		{"cciss!c0d0", "1:2", "the mount /old"},
	} {
		for _, proc := range []fstest.MapFS{host, container} {
			if got := ReadUsers(proc).Of(tt.name, tt.number); got != tt.want {
				t.Errorf("user of %s = %q, want %q", tt.name, got, tt.want)
			}
		}
	}

	if got := ReadUsers(fstest.MapFS{}).Of("sda1", "8:1"); got != "" {
		t.Errorf("user of sda1 = %q where nothing can be read", got)
	}
}
