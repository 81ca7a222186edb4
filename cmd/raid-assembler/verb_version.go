package main

import (
	"runtime"

	"github.com/spf13/cobra"
)

func (p *program) versionVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Long: `Print the version.

With --json the output is one object with "version" and "go".`,
		Args: cobra.NoArgs,
		RunE: verb(func(*cobra.Command, []string) (exitCode, error) {
			if p.json {
				return exitDone, printJSON(p.out, map[string]string{"version": version, "go": runtime.Version()})
			}

			p.printf("raid-assembler %s\n", version)

			return exitDone, nil
		}),
	}
}
