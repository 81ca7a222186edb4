package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/spf13/cobra"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/policy"
)

const (
	// deviceTimeout is how long systemd waits for what fstab mounts:
	// DefaultDeviceTimeoutSec= of systemd-system.conf(5).
	deviceTimeout = 90 * time.Second
	// startTime is how long it takes at most, from the first member on, that an array's
	// file system is seen, beside what the array waits for other members.
	startTime = time.Minute
)

// generatorVerb is for systemd, see systemd.generator(7).
func (p *program) generatorVerb() *cobra.Command {
	return &cobra.Command{
		Use:    "generator NORMAL [EARLY LATE]",
		Short:  "have systemd wait for arrays as long as they wait for members",
		Hidden: true,
		Args:   cobra.RangeArgs(1, 3),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			settings := config.Read(os.DirFS("/"))

			table, err := os.ReadFile("/etc/fstab")
			if err != nil {
				return exitDone, nil // nothing is mounted
			}

			for device, text := range waits(string(table), settings.LongestDeadline(policy.DefaultDeadline)) {
				dir := filepath.Join(args[0], device+".d")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return exitFailed, err
				}

				if err := os.WriteFile(filepath.Join(dir, "40-raid-assembler.conf"), []byte(text), 0o644); err != nil {
					return exitFailed, err
				}
			}

			return exitDone, nil
		}),
	}
}

// waits returns drop-ins for the devices of an fstab, by unit, where arrays may wait for
// their members for longer than systemd does for devices. Which of the devices are on
// arrays is not known before the arrays run.
func waits(fstab string, deadline time.Duration) map[string]string {
	units := make(map[string]string)

	wait := deadline + startTime
	if wait <= deviceTimeout {
		return units
	}

	text := fmt.Sprintf("# An array that this may be on waits for members.\n[Unit]\nJobRunningTimeoutSec=%ds\n",
		int(wait.Seconds()))

	for line := range strings.Lines(fstab) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}

		if len(f) > 3 && slices.ContainsFunc(strings.Split(f[3], ","), func(option string) bool {
			return option == "noauto" || strings.HasPrefix(option, "x-systemd.device-timeout")
		}) {
			continue
		}

		if device := devicePath(f[0]); device != "" {
			units[unit.UnitNamePathEscape(device)+".device"] = text
		}
	}

	return units
}

// devicePath returns the path of what the first field of an fstab names, or nothing if it is no
// device.
func devicePath(field string) string {
	field = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(field)

	for tag, directory := range map[string]string{
		"UUID=": "by-uuid", "LABEL=": "by-label", "PARTUUID=": "by-partuuid", "PARTLABEL=": "by-partlabel",
	} {
		if value, ok := strings.CutPrefix(field, tag); ok {
			link := encode(strings.Trim(value, `"`), func(c byte) bool { return c >= 0x80 })

			return "/dev/disk/" + directory + "/" + link
		}
	}

	if strings.HasPrefix(field, "/dev/") {
		return filepath.Clean(field)
	}

	return ""
}
