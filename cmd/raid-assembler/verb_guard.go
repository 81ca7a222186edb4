package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/guard"
)

func (p *program) guardVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guard on|off",
		Short: "have the kernel refuse writes to members by anyone but the engine",
		Long: `Have the kernel refuse to open members of running arrays for writing, whoever asks, unless it
is the engine. Without it they are refused to md, mounts and mkfs, but not to a plain write by root, as by dd. Those
that had a member open before keep it.

It takes a kernel with the security module bpf (see /sys/kernel/security/lsm), and lasts until it is turned off or the
machine is, whichever of our programs runs; raid-assembler-guard.service turns it on at each boot, if enabled. Which
members it protects the daemon tells it, and the journal what was refused (RAID_EVENT=WriteRefused).`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			turn := guard.On
			if args[0] == "off" {
				turn = guard.Off
			}

			if err := turn(); err != nil {
				return exitFailed, err
			}

			_, _ = fmt.Fprintln(p.out, "the guard is", args[0])

			return exitDone, nil
		}),
	}

	return cmd
}
