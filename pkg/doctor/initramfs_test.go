package doctor

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestCarried checks that it is told what the initramfs does not know, where that matters.
func TestCarried(t *testing.T) {
	const image, copied, written = "boot/initrd.img-6.12.107+deb13-amd64", "run/raid-assembler/roster.json", "var/lib/raid-assembler/roster.json"

	known := func(newest ...string) *fstest.MapFile {
		members := make([]string, len(newest))
		for i, serial := range newest {
			members[i] = fmt.Sprintf(`{"slot": %d, "serial": %q, "newest": true}`, i, serial)
		}

		return &fstest.MapFile{Data: []byte(`{"version": 1, "arrays": [{"uuid": "01000000:00000000:00000000:00000000",
			"name": "data", "generation": 7, "members": [` + strings.Join(members, ", ") + `]}]}`)}
	}

	for _, tt := range []struct {
		name   string
		change func(files fstest.MapFS)
		status Status // empty if nothing is told
		want   string
	}{
		{"up to date", func(fstest.MapFS) {}, OK, "knows who has the newest data"},
		{"one was lost since", func(f fstest.MapFS) { f[written] = known("a") }, Warn, "does not know who has the newest data of data"},
		{"another has its place", func(f fstest.MapFS) { f[written] = known("a", "c") }, Warn, "newest data of data"},
		{"there is no copy", func(f fstest.MapFS) { delete(f, copied) }, Warn, "has no copy"},
		{"it is damaged", func(f fstest.MapFS) { f[copied].Data = []byte("x") }, Warn, "has no copy"},
		{"no array has run", func(f fstest.MapFS) { delete(f, written) }, "", ""},
		{"/var is on the root", func(f fstest.MapFS) {
			f[written], f["proc/self/mounts"] = known("a"), &fstest.MapFile{Data: []byte("/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /var/tmp ext4 rw 0 0\n")}
		}, "", ""},
		{"no initramfs-tools", func(f fstest.MapFS) { f[written] = known("a"); delete(f, "usr/sbin/update-initramfs") }, "", ""},
		{"made since it was booted", func(f fstest.MapFS) {
			f[written], f[image].ModTime = known("a"), time.Unix(1001, 0)
		}, "", ""},
		{"made before", func(f fstest.MapFS) { f[written], f[image].ModTime = known("a"), time.Unix(999, 0) }, Warn, "newest data of data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := healthy()
			files["usr/sbin/update-initramfs"] = &fstest.MapFile{}
			files["proc/stat"] = &fstest.MapFile{Data: []byte("cpu 1 2\nbtime 1000\nprocesses 5\n")}
			files["proc/self/mounts"] = &fstest.MapFile{Data: []byte("/dev/sda1 / ext4 rw 0 0\n/dev/ublkb0 /var ext4 rw 0 0\n")}
			files[image], files[copied], files[written] = &fstest.MapFile{}, known("a", "b"), known("a", "b")
			tt.change(files)

			host := change{}.host()
			host.FS = files

			var got []Finding

			for _, f := range Examine(host) {
				if f.Check == "initramfs" {
					got = append(got, f)
				}
			}

			switch {
			case tt.status == "" && len(got) == 0:
			case len(got) != 1 || got[0].Status != tt.status || !strings.Contains(got[0].Text, tt.want):
				t.Errorf("%+v, want one that is %q and says %q", got, tt.status, tt.want)
			case (got[0].Remedy == "") != (tt.status == OK):
				t.Errorf("the remedy of %+v", got[0])
			}
		})
	}
}
