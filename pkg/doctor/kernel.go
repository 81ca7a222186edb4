package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The oldest kernel whose ublk driver does what we need.
var floor = [3]int{6, 12, 0}

// knownBad are kernels that trouble was reported with.
var knownBad = []struct {
	version [3]int
	parts   int // of version that count
	trouble string
}{
	{[3]int{6, 17, 0}, 2, "ublk was seen to panic when a device is made"},
	{[3]int{6, 18, 4}, 3, "ublk was reported broken"},
	{[3]int{6, 18, 40}, 3, "ublk control commands were seen to hang for good"},
	{[3]int{7, 0, 0}, 3, "ublk control commands were seen to hang for good"},
	{[3]int{7, 0, 14}, 3, "ublk control commands were seen to hang for good"},
}

func kernel(h Host) []Finding {
	const check = "kernel"

	text, numbers := h.release()

	switch {
	case numbers == [3]int{}:
		return []Finding{warn(check, fmt.Sprintf("the release %q cannot be read", text), "compare uname -r with 6.12")}
	case slices.Compare(numbers[:], floor[:]) < 0:
		return []Finding{fail(check, fmt.Sprintf("%s is older than %d.%d", text, floor[0], floor[1]),
			"install a newer kernel: linux-image-amd64 of Debian 13, or of bookworm-backports")}
	}

	for _, bad := range knownBad {
		if slices.Equal(numbers[:bad.parts], bad.version[:bad.parts]) {
			return []Finding{warn(check, fmt.Sprintf("%s: %s", text, bad.trouble), "install another kernel")}
		}
	}

	return []Finding{ok(check, text)}
}

func ublk(h Host) []Finding {
	const (
		check  = "ublk"
		remedy = "install a kernel with CONFIG_BLK_DEV_UBLK, such as Debian's linux-image-amd64"
	)

	release, _ := h.release()
	loaded := h.exists("sys/module/ublk_drv")

	if loaded && h.exists("dev/ublk-control") {
		return []Finding{ok(check, "ublk_drv is loaded")}
	}

	if loaded {
		return []Finding{fail(check, "ublk_drv is loaded and /dev/ublk-control is missing",
			"see whether /dev is a devtmpfs, and whether this is a container")}
	}

	for _, list := range []string{"modules.dep", "modules.builtin"} {
		for _, dir := range []string{"lib/modules/", "usr/lib/modules/"} {
			if text, _ := h.read(dir + release + "/" + list); strings.Contains(text, "/ublk_drv.ko") {
				return []Finding{ok(check, "ublk_drv is there, and is loaded when the engine starts")}
			}
		}
	}

	return []Finding{fail(check, "the kernel has no ublk_drv", remedy)}
}

func ioUring(h Host) []Finding {
	const (
		check   = "io_uring"
		setting = "proc/sys/kernel/io_uring_disabled"
		remedy  = "sysctl kernel.io_uring_disabled=1, and see who sets it in /etc/sysctl.d"
	)

	switch text, found := h.read(setting); {
	case !found:
		return []Finding{fail(check, "the kernel has no io_uring", "install a kernel with CONFIG_IO_URING")}
	case text == "0":
		return []Finding{ok(check, "io_uring is enabled")}
	case text == "1":
		return []Finding{ok(check, "io_uring is enabled for privileged processes, such as the engine")}
	default:
		return []Finding{fail(check, "io_uring is disabled: kernel.io_uring_disabled is "+text, remedy)}
	}
}

func tools(h Host) []Finding {
	var missing []string

	for _, name := range []string{"modprobe", "systemctl", "udevadm"} {
		if h.find(name, []string{"usr/sbin", "sbin", "usr/bin", "bin"}) == "" {
			missing = append(missing, name)
		}
	}

	if len(missing) > 0 {
		return []Finding{fail("tools", "missing: "+strings.Join(missing, ", "), "install kmod, systemd and udev")}
	}

	return []Finding{ok("tools", "modprobe, systemctl and udevadm are there")}
}

// reserveMin is the least vm.min_free_kbytes with which engines were seen to take over arrays
// that the host swaps to: half of it is for real-time threads alone.
const reserveMin = 8192

// swap on an array is a way to wait for oneself: to serve a page the engine may
// need the page. The next engine has to be there before this one dies, and has but what
// the kernel keeps back.
func swap(h Host) []Finding {
	const (
		check   = "swap"
		setting = "vm.min_free_kbytes"
	)

	text, _ := h.read("proc/swaps")

	for line := range strings.Lines(text) {
		device, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(device, "/dev/ublkb") {
			continue
		}

		if _, engines := h.engines(); len(engines) == 1 {
			return []Finding{warn(check,
				fmt.Sprintf("there is swap on %s, and no engine stands by: the host may be stuck when this one dies",
					device),
				fmt.Sprintf("let it serve for ten seconds, without --standby never; or swapoff %s", device))}
		}

		value, _ := h.read("proc/sys/vm/min_free_kbytes")
		if reserve, err := strconv.Atoi(value); err != nil || reserve < reserveMin {
			return []Finding{warn(check,
				fmt.Sprintf("there is swap on %s, and %s is %q: an engine that takes over may find no memory",
					device, setting, value),
				fmt.Sprintf("sysctl -w %s=65536, or swapoff %s", setting, device))}
		}

		return []Finding{ok(check, fmt.Sprintf("there is swap on %s, and %s is %s", device, setting, value))}
	}

	return []Finding{ok(check, "there is no swap on an array")}
}
