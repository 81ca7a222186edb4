package main

import (
	"errors"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/policy"
)

func (p *program) daemonVerb() *cobra.Command {
	var opts daemonOptions

	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "find arrays and have them run, until stopped",
		Long: `Hear of disks, look at them, and have raid-engine run the arrays that are on
them. systemd starts it; there is no need to do so by hand.`,
		Args: cobra.NoArgs,
		RunE: verb(func(cmd *cobra.Command, _ []string) (exitCode, error) {
			if opts.deadline <= 0 {
				return exitUsage, errors.New("--deadline must be above 0")
			}

			opts.engineSocket, opts.assemblerSocket = p.engineSocket, p.assemblerSocket

			return exitDone, runDaemon(cmd.Context(), opts)
		}),
	}

	cmd.Flags().DurationVar(&opts.deadline, "deadline", policy.DefaultDeadline,
		"how long an array may lack members before it is started degraded")
	cmd.Flags().StringVar(&opts.stateDir, "state-dir", daemonStateDir, "where the daemon keeps its state")
	_ = cmd.Flags().MarkHidden("state-dir") // fails only for a flag that is not there

	return cmd
}
