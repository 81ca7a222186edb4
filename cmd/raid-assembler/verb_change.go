package main

import (
	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
)

// changeJSON documents what all verbs print that change something.
const changeJSON = `

With --json the output is one object: "done", what was done or would be, one
sentence each, and "array", the array as in status --json, or null.

Exit status: 0 if done; 2 if it failed; 3 if refused, with the reason on
stderr; 4 if the daemon fell silent, and it may be done or not.`

// change is a verb that asks the daemon for a change to an array.
type change struct {
	method string // of the daemon
	use    string
	short  string
	long   string
	force  string // what --force does; empty if there is no such flag
	args   cobra.PositionalArgs
}

func (p *program) changeVerb(c change) *cobra.Command {
	var in api.ChangeParameters

	cmd := &cobra.Command{
		Use:   c.use,
		Short: c.short,
		Long:  c.long + changeJSON,
		Args:  c.args,
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			if len(args) > 0 {
				in.Array, in.Devices = args[0], deviceArguments(args[1:])
			}

			var out api.ChangeReply
			if err := p.callAssembler(cmd.Context(), c.method, in, &out); err != nil {
				return answer(err)
			}

			return exitDone, p.printChange(out)
		}),
	}

	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "say what would be done, and do nothing")

	if c.force != "" {
		cmd.Flags().BoolVar(&in.Force, "force", false, c.force)
	}

	return cmd
}

func (p *program) printChange(out api.ChangeReply) error {
	out.Done = append([]string{}, out.Done...)

	if p.json {
		return printJSON(p.out, out)
	}

	for _, line := range out.Done {
		p.printf("%s\n", word(line))
	}

	return nil
}

func (p *program) assembleVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Assemble",
		use:    "assemble [ARRAY [DEVICE...]]",
		short:  "start an array, or all",
		long: `Start the array with this name or UUID, or all arrays that can be started: also
one that was stopped by hand. Arrays whose members are all there start by
themselves; this is for the others. With devices, from these alone: of halves
that went on apart, it chooses the one that counts.`,
		force: "start it degraded now, before its deadline",
		args:  cobra.ArbitraryArgs,
	})
}

func (p *program) stopVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Stop",
		use:    "stop ARRAY",
		short:  "stop an array",
		long: `Stop the array, which must not be in use. It stays stopped until it is asked
for, or its members are plugged in anew.`,
		args: cobra.ExactArgs(1),
	})
}

func (p *program) addVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Add",
		use:    "add ARRAY DEVICE...",
		short:  "give an array spares",
		long: `Give the array devices as spares. They are put to work at once if it is
degraded. DEVICE is a path or a serial.`,
		force: "overwrite whatever the devices hold",
		args:  cobra.MinimumNArgs(2),
	})
}

func (p *program) failVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Fail",
		use:    "fail ARRAY DEVICE...",
		short:  "take members out as faulty",
		long: `Take members out of the array. What they hold is out of date from then on.
DEVICE is a path or a serial.`,
		args: cobra.MinimumNArgs(2),
	})
}

func (p *program) removeVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Remove",
		use:    "remove ARRAY DEVICE...",
		short:  "let go of faulty members or spares",
		long:   `Let go of devices that the array does not depend on. DEVICE is a path or a serial.`,
		args:   cobra.MinimumNArgs(2),
	})
}
