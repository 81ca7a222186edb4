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
		Short: "hear of disks and assemble arrays, as raid-assembler.service does",
		Long: `Hear of disks, assemble arrays from them, put spares to work, and answer for it at
/run/raid-assembler. systemd starts it: raid-assembler.service.`,
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
		"how long an array may lack members before it is started without them, where the configuration does not say")
	cmd.Flags().StringVar(&opts.stateDir, "state-dir", daemonStateDir, "where the daemon keeps its state")
	_ = cmd.Flags().MarkHidden("state-dir") // fails only for a flag that is not there

	return cmd
}
