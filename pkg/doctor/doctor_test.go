package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// stat is what the kernel tells of a thread.
func stat(flags, nice, policy string) string {
	return "78 (raid) engine) S 77 77 77 0 -1 " + flags + " 120 0 3 0 5 6 0 0 0 " + nice + " 9 0 100 " +
		strings.Repeat("0 ", 18) + policy + strings.Repeat(" 0", 11)
}

// healthy is a host where all is well, and nothing of mdadm is installed.
func healthy() fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

	return fstest.MapFS{
		"proc/sys/kernel/osrelease":                            file("6.12.107+deb13-amd64\n"),
		"proc/sys/kernel/io_uring_disabled":                    file("0\n"),
		"proc/swaps":                                           file("Filename Type\n/dev/vda2 partition 1 0 -2\n"),
		"proc/mdstat":                                          file("unused devices: <none>\n"),
		"proc/77/limits":                                       file("Max locked memory  unlimited  unlimited\n"),
		"proc/77/status":                                       file("VmLck:\t  2048 kB\nVmRSS:\t  1024 kB\nVmSwap:\t 0 kB\n"),
		"proc/77/oom_score_adj":                                file("-1000\n"),
		"proc/77/cgroup":                                       file("0::/system.slice/raid-engine.service\n"),
		"sys/fs/cgroup/system.slice/memory.high":               file("max\n"),
		"proc/77/task/77/children":                             file("78 "),
		"proc/77/task/77/stat":                                 file(stat("1572864", "-20", "2")),
		"proc/78/status":                                       file("VmLck:\t  4096 kB\nVmRSS:\t  4000 kB\nVmSwap:\t 0 kB\n"),
		"proc/78/oom_score_adj":                                file("-1000\n"),
		"proc/78/task/78/stat":                                 file(stat("1572864", "-20", "0")),
		"proc/78/task/79/stat":                                 file(stat("1573120", "-20", "0")),
		"sys/module/ublk_drv/version":                          file(""),
		"dev/ublk-control":                                     file(""),
		"usr/sbin/modprobe":                                    file("x"),
		"usr/bin/systemctl":                                    file("x"),
		"usr/bin/udevadm":                                      file("x"),
		"usr/lib/systemd/system/raid-engine.socket":            file("x"),
		"usr/lib/systemd/system/raid-engine.service":           file("LimitMEMLOCK=infinity"),
		"usr/lib/systemd/system/raid-assembler.service":        file("x"),
		"usr/lib/udev/rules.d/62-raid-assembler-members.rules": file("x"),
		"usr/lib/udev/rules.d/63-raid-assembler-arrays.rules":  file("x"),
	}
}

// change is what a case does to the healthy host: files are replaced, or
// removed where the text is "-".
type change struct {
	files map[string]string
	units map[string]string // what systemctl says they are
	dial  error
}

func (c change) host() Host {
	files := healthy()

	for name, text := range c.files {
		if text == "-" {
			delete(files, name)
		} else {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}

	return Host{
		FS: files,
		Run: func(name string, args ...string) (string, error) {
			switch {
			case name == "systemctl" && args[0] == "show":
				return "77\n", nil
			case name == "systemctl" && args[0] == "is-active":
				if state, changed := c.units[args[1]]; changed {
					return state, errors.New("exit status 3")
				}

				return "active\n", nil
			default:
				return "", errors.New("no such program: " + name)
			}
		},
		Dial: func(string) error { return c.dial },
	}
}

// TestHealthyHost: where all is well there is nothing to complain about.
func TestHealthyHost(t *testing.T) {
	findings := Examine(change{}.host())
	for _, f := range findings {
		if f.Status != OK || f.Remedy != "" {
			t.Errorf("%+v, want ok", f)
		}
	}

	if len(findings) < 12 {
		t.Errorf("%d findings, want at least 12", len(findings))
	}

	if Worst(findings) != OK {
		t.Errorf("Worst = %v, want ok", Worst(findings))
	}
}

// TestFindings: one line a case. want is the status and a piece of the text.
func TestFindings(t *testing.T) {
	const (
		release = "proc/sys/kernel/osrelease"
		module  = "sys/module/ublk_drv/version"
		rulesD  = "usr/lib/udev/rules.d/"
		etcRule = "etc/udev/rules.d/"
		initrd  = "usr/share/initramfs-tools/scripts/local-block/mdadm"
	)

	files := func(pairs ...string) change {
		c := change{files: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			c.files[pairs[i]] = pairs[i+1]
		}

		return c
	}
	swapping := func(pairs ...string) change { // to an array, and an engine stands by
		return files(append([]string{
			"proc/swaps", "Filename\n/dev/ublkb0 partition 1 0 -2\n", "proc/77/task/77/children", "78 80 ",
			"proc/80/status", "VmLck: 9 kB\n", "proc/80/oom_score_adj", "-1000\n", "proc/80/task/80/stat", stat("1572864", "-20", "0"),
		}, pairs...)...)
	}
	md := func(version string, pairs ...string) change { // runs an array, besides
		return files(append(pairs, "proc/mdstat", "md0 : active raid1 a b\nmd1 : inactive c\n", "sys/block/md0/dev", "9:0\n",
			"run/udev/data/b9:0", "S:md/data\nE:MD_NAME=host:data\nE:MD_UUID=11111111:22222222:33333333:44444444\n",
			"sys/block/md0/md/metadata_version", version+"\n")...)
	}
	unit := func(name, state string) change { return change{units: map[string]string{name: state}} }

	for _, tt := range []struct {
		name   string
		change change
		status Status
		want   string
	}{
		{"old kernel", files(release, "6.1.0-40-amd64"), Fail, "6.1.0-40-amd64 is older than 6.12"},
		{"older major", files(release, "5.15.0"), Fail, "older than 6.12"},
		{"newer major", files(release, "7.1.2"), OK, "7.1.2"},
		{"the floor", files(release, "6.12"), OK, "6.12"},
		{"a bad series", files(release, "6.17.0-1017-aws"), Warn, "seen to panic"},
		{"a bad release", files(release, "6.18.40"), Warn, "hang for good"},
		{"another of a bad series", files(release, "6.18.41"), OK, "6.18.41"},
		{"no release", files(release, "-"), Warn, "cannot be read"},
		{"module to be loaded", files(module, "-", "lib/modules/6.12.107+deb13-amd64/modules.dep",
			"kernel/drivers/block/ublk_drv.ko.xz:"), OK, "loaded when the engine starts"},
		{"module of another kernel", files(module, "-", "lib/modules/6.12.1/modules.dep",
			"kernel/drivers/block/ublk_drv.ko.xz:"), Fail, "no ublk_drv"},
		{"no control device", files("dev/ublk-control", "-"), Fail, "/dev/ublk-control is missing"},
		{"io_uring for root", files("proc/sys/kernel/io_uring_disabled", "1"), OK, "for privileged"},
		{"io_uring off", files("proc/sys/kernel/io_uring_disabled", "2"), Fail, "is 2"},
		{"no io_uring", files("proc/sys/kernel/io_uring_disabled", "-"), Fail, "no io_uring"},
		{"no modprobe", files("usr/sbin/modprobe", "-"), Fail, "missing: modprobe"},
		{"unit not installed", files("usr/lib/systemd/system/raid-engine.socket", "-"), Fail, "not installed"},
		{"assembler stopped", unit("raid-assembler.service", "inactive\n"), Fail, "is inactive"},
		{"engine not needed yet", unit("raid-engine.service", "inactive\n"), OK, "is inactive"},
		{"engine failed", unit("raid-engine.service", "failed\n"), Fail, "has failed"},
		{"no systemd", unit("raid-engine.service", ""), Warn, "cannot be told"},
		{
			"engine may not lock",
			files("proc/77/limits", "Max locked memory  8388608  8388608 bytes\n"),
			Fail, "8388608 8388608 bytes",
		},
		{"engine does not run", files("proc/77/limits", "-"), OK, "raid-engine.service lets"},
		{
			"unit without limit",
			files("proc/77/limits", "-", "usr/lib/systemd/system/raid-engine.service", "x"),
			Fail, "does not say",
		},
		{"engine resident", files(), OK, "4000 KiB resident, all locked; 2 threads; page faults since its start: 240 minor, 6 major"},
		{"engine gone", files("proc/77/task/77/children", ""), Warn, "does not run just now"},
		{"engine ending", files("proc/78/status", "State: Z\n"), Warn, "has just ended"},
		{"engine not locked", files("proc/78/status", "VmLck: 0 kB\n"), Fail, "not locked"},
		{"guardian not locked", files("proc/77/status", "VmLck: 0 kB\n"), Fail, "not locked"},
		{"engine swapped out", files("proc/78/status", "VmLck: 9 kB\nVmSwap: 12 kB\n"), Fail, "12 KiB of it"},
		{"engine may be killed", files("proc/78/oom_score_adj", "0"), Fail, "oom_score_adj is 0"},
		{
			"engine limited", files("sys/fs/cgroup/system.slice/raid-engine.service/memory.max", "8388608\n"),
			Fail, "MemoryMax is 8388608",
		},
		{"slice limited", files("sys/fs/cgroup/system.slice/memory.high", "1\n"), Fail, "MemoryHigh is 1"},
		{"no flusher", files("proc/78/task/79/stat", stat("524288", "-20", "0")), Fail, "1 of 2 threads may wait"},
		{"not nice", files("proc/78/task/79/stat", stat("1572864", "0", "0")), Warn, "1 of 2 threads do not have nice -20"},
		{"no real time", files("proc/77/task/77/stat", stat("1572864", "-20", "0")), Warn, "1 of 1 threads are given no memory"},
		{"nobody answers", change{dial: errors.New("connection refused")}, Warn, "connection refused"},
		{"no rule", files(rulesD+memberRule, "-"), Fail, memberRule + " is not installed"},
		{"rule masked", files(etcRule+memberRule, ""), Fail, "masks"},
		{"rule replaced", files(etcRule+memberRule, "y"), Warn, "instead of ours"},
		{"mdadm after us", files(rulesD+"64-md-raid-assembly.rules", "x"), OK, "comes after"},
		{
			"mdadm before us",
			files(etcRule+"05-md-raid-assembly.rules", "x"),
			Fail, "05-md-raid-assembly.rules comes before",
		},
		{"mdadm in the initramfs", files(initrd, "x"), Warn, "initramfs assembles"},
		{"mdadm told to do less", files(initrd, "x", "etc/mdadm/mdadm.conf", "AUTO +1.x -all\n"), OK, "nobody else"},
		{
			"mdadm told too late",
			files(initrd, "x", "etc/mdadm/mdadm.conf", "AUTO +all\nAUTO -all\n"),
			Warn, "initramfs",
		},
		{"left to mdadm", files("etc/raid-assembler/leave-to-mdadm", ""), Warn, "leaves all"},
		{"md runs an array", md("1.2"), Warn, "md runs md0 (data)"},
		{"as it should", md("1.2", "etc/raid-assembler.conf", "[Array data]\nAssemble=leave-to-mdadm\n"), OK, "md0 (data): Assemble="},
		{"by its format", md("0.90", "etc/raid-assembler.conf", "[Format 0.90]\nAssemble=leave-to-mdadm\n"), OK, "md0 (data): Assemble="},
		{"by its container's", md("external:/md1/0", "sys/block/md1/md/metadata_version", "external:imsm\n",
			"etc/raid-assembler.conf", "[Format imsm]\nAssemble=leave-to-mdadm\n"), OK, "md0 (data): Assemble="},
		{"another format is left to it", md("1.2", "etc/raid-assembler.conf", "[Format ddf]\nAssemble=leave-to-mdadm\n"), Warn, "md runs md0 (data)"},
		{"md and we run one array", md("1.2", "run/raid-engine/by-device/ublkb3",
			"RAID_UUID=11111111:22222222:33333333:44444444\nRAID_NAME=data\n"), Fail, "other members of it as ublkb3 (data)"},
		{"we run an array", files("run/raid-engine/by-device/ublkb3",
			"RAID_UUID=11111111:22222222:33333333:44444444\nRAID_NAME=data\n"), OK, "raid-engine runs ublkb3 (data)"},
		{"md runs what nobody knows", files("proc/mdstat", "md0 : active raid1 a b\nmd1 : inactive c\n"), Warn, "md runs md0"},
		{"dmraid has an array", files("sys/block/dm-3/dm/uuid", "DMRAID-isw_a\n", "sys/block/dm-3/dm/name", "isw_a\n",
			"sys/block/dm-4/dm/uuid", "LVM-x\n"), Warn, "dmraid has set up isw_a"},
		{"a guard", files("sys/fs/bpf/raid-assembler/link", ""), OK, "is on"},
		{"no guard", files("sys/kernel/security/lsm", "capability,bpf,ima\n"), OK, "raid-assembler guard on"},
		{"no guard possible", files("sys/kernel/security/lsm", "capability\n"), OK, "without the security module bpf"},
		{
			"swap on an array",
			swapping("proc/sys/vm/min_free_kbytes", "8192\n"),
			OK, "swap on /dev/ublkb0, and vm.min_free_kbytes is 8192",
		},
		{
			"swap on an array, and nobody stands by",
			swapping("proc/77/task/77/children", "78 "),
			Warn, "no engine stands by",
		},
		{
			"swap on an array, with little memory kept back",
			swapping("proc/sys/vm/min_free_kbytes", "4096\n"),
			Warn, `swap on /dev/ublkb0, and vm.min_free_kbytes is "4096"`,
		},
		{
			"swap on an array, with nobody knows how much",
			swapping(),
			Warn, `vm.min_free_kbytes is ""`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			findings := Examine(tt.change.host())

			found := slices.ContainsFunc(findings, func(f Finding) bool {
				helps := (f.Remedy == "") == (f.Status == OK)

				return f.Status == tt.status && strings.Contains(f.Text, tt.want) && helps
			})
			if !found {
				t.Errorf("findings %+v,\nwant one that is %v and says %q", findings, tt.status, tt.want)
			}

			if worst := Worst(findings); worst != tt.status {
				t.Errorf("Worst = %v, want %v", worst, tt.status)
			}
		})
	}
}
