package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"raid-assembler/cmd/raid-assembler/daemon"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
)

// probeVerb is for our udev rule. It says of a member of an array that we run
// that it is one, and of everything else nothing; it never fails, for then the
// device is simply not ours.
func (p *program) probeVerb() *cobra.Command {
	var (
		udev bool
		root string
	)

	cmd := &cobra.Command{
		Use:    "probe --udev DEVNODE",
		Short:  "tell udev whether a device is a member of an array that we run",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			looks := examineAll(args)
			defer closeAll(looks)

			if sb := looks[0].Superblock; sb != nil && looks[0].problem() == "" && runs(sb) &&
				!leftToMdadm(sb, root) {
				p.printf("RAID_ASSEMBLER_MEMBER=1\n")
				p.printf("RAID_ASSEMBLER_ARRAY_UUID=%s\n", sb.Array)
				p.printf("RAID_ASSEMBLER_ARRAY_NAME=%s\n", udevEncode(sb.Name))
				p.printf("RAID_ASSEMBLER_FORMAT=%s\n", udevEncode(sb.Format))
			}

			return exitDone, nil
		}),
	}

	cmd.Flags().BoolVar(&udev, "udev", false, "print properties for a rule")
	cmd.Flags().StringVar(&root, "root", "/", "look for the configuration below this directory")

	return cmd
}

// runs reports whether we run all arrays that sb is of; a spare of a container may
// be needed by one.
func runs(sb *metadata.Superblock) bool {
	for _, one := range sb.All() {
		if one.Unsupported != "" || !one.Array.IsZero() && policy.Served(one.Geometry) != "" {
			return false
		}
	}

	return true
}

// leftToMdadm reports whether the configuration leaves an array that sb is of to
// mdadm. If it is not known what the configuration wants, neither acts.
func leftToMdadm(sb *metadata.Superblock, root string) bool {
	c := config.Read(os.DirFS(root))
	hostname, _ := os.Hostname() // the daemon goes by the same
	chosen := c.Policy(policy.DefaultConfig(), hostname)

	return slices.ContainsFunc(sb.All(), func(one *metadata.Superblock) bool {
		id := policy.Identity{UUID: one.Array, Name: one.Name, Format: one.Format, Host: one.Host}
		left := func() bool {
			choice := chosen.For(id)

			return choice.Mode == policy.LeaveToMdadm && choice.Fault == ""
		}

		// That it is ours takes longer to see, and speaks against it only.
		if !left() {
			return false
		}

		id.Ours = daemon.Ours(root, []string{daemonRoster, daemonRosterCopy}, one.Array)

		return left()
	})
}

// udevEncode writes a value so that it stays one, as udev does in its *_ENC
// properties: a name with an end of line would be a property of its own.
func udevEncode(value string) string { return encode(value, func(c byte) bool { return c == '/' }) }

// encode writes a value as udev does, and leaves as it is what plain says so of.
func encode(value string, plain func(c byte) bool) string {
	const always = "#+-.:=@_"

	var b strings.Builder

	for _, c := range []byte(value) {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z',
			strings.IndexByte(always, c) >= 0, plain(c):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}

	return b.String()
}
