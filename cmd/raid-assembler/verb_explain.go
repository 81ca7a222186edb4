package main

import (
	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
)

func (p *program) explainVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "explain ARRAY|DEVICE",
		Short: "show why an array or a device is in the state it is in",
		Long: `Show the chain of evidence: what was found on the devices, what follows from it,
and what is done about it.

With --json the output is one object with "lines", a sentence each.

Exit status: 0 if there is an answer; 2 if not; 3 if nothing has that name; 4 if
the daemon did not answer.`,
		Args: cobra.ExactArgs(1),
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			in := struct {
				What string `json:"what"`
			}{deviceArguments(args)[0]}

			var out api.ExplainReply
			if err := p.callAssembler(cmd.Context(), "Explain", in, &out); err != nil {
				return answer(err)
			}

			if p.json {
				out.Lines = append([]string{}, out.Lines...)

				return exitDone, printJSON(p.out, out)
			}

			for _, line := range out.Lines {
				p.printf("%s\n", word(line))
			}

			return exitDone, nil
		}),
	}
}
