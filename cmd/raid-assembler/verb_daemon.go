package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
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
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()

			return exitDone, runDaemon(ctx, opts)
		}),
	}

	cmd.Flags().DurationVar(&opts.deadline, "deadline", 0, "how long an array may lack members before it is started "+
		"without them (default 30s)")

	return cmd
}
