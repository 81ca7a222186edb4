package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	stops  bool // the array, which nobody may have open

	// flags adds flags, and apply puts what they say into the request.
	flags func(flags *pflag.FlagSet)
	apply func(in *api.ChangeParameters) error
	// wait says what became of it when nothing goes on at the array any more;
	// nil if there is nothing to wait for.
	wait func(a api.Array) (string, exitCode, error)
}

func (p *program) changeVerb(c change) *cobra.Command {
	var (
		in   api.ChangeParameters
		wait bool
	)

	cmd := &cobra.Command{
		Use:   c.use,
		Short: c.short,
		Long:  c.long + changeJSON,
		Args:  c.args,
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			if len(args) > 0 {
				in.Array, in.Devices = args[0], deviceArguments(args[1:])
			}

			if c.apply != nil {
				if err := c.apply(&in); err != nil {
					return exitUsage, err
				}
			}

			if c.stops {
				if err := p.mustNotBeOpen(cmd.Context(), in.Array); err != nil {
					return exitRefused, err
				}
			}

			var out api.ChangeReply
			if err := p.callAssembler(cmd.Context(), c.method, in, &out); err != nil {
				return answer(err)
			}

			if wait && !in.DryRun {
				return p.printAwaited(cmd.Context(), in.Array, out, c.wait)
			}

			return exitDone, p.printChange(out)
		}),
	}

	if c.flags != nil {
		c.flags(cmd.Flags())
	}

	if c.wait != nil {
		cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done, and tell how far it is")
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

// printAwaited waits until what was asked for is done, and prints what came of
// it.
func (p *program) printAwaited(
	ctx context.Context, array string, out api.ChangeReply, became func(api.Array) (string, exitCode, error),
) (exitCode, error) {
	if !p.json {
		if err := p.printChange(out); err != nil {
			return exitFailed, err
		}
	}

	arrays, code, err := p.await(ctx, []string{array})
	if err != nil {
		return code, err
	}

	line, code, err := became(arrays[0])

	switch {
	case p.json:
		out.Array = &arrays[0]
		if line != "" {
			out.Done = append(out.Done, line)
		}

		return code, firstOf(err, p.printChange(out))
	case line != "":
		p.printf("%s\n", word(line))
	}

	return code, err
}

// firstOf returns the first error that there is.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}

	return nil
}

func (p *program) assembleVerb() *cobra.Command {
	var readOnly, acceptLoss, choose bool

	return p.changeVerb(change{
		method: "Assemble",
		use:    "assemble [ARRAY [DEVICE...]]",
		short:  "start an array, or all",
		long: `Start the array with this name or UUID, or all arrays that can be started: also
one that was stopped by hand. Arrays whose members are all there start by
themselves; this is for the others. With devices, from these alone.

Members that went on apart, such as halves of a mirror that were each run without
the other, are not started, for each may hold what the other lacks: explain tells
their histories. Look at each with --readonly. With --choose the devices named
are the ones that count, and all other members of the array are given up: they are
filled anew.

Members that were left behind, since others of the array went on without them on this
machine, are not started while those are not here: what they hold is old. Look
at it with --force --readonly; --force alone goes back to it.

An array with parity that was not stopped cleanly and lacks a member is not
started: what is computed in the place of that member may be wrong where
something was being written. Bring the member back; if that cannot be, start the
array with --accept-loss, and check what is on it. At level 6 repair it once it
is whole: one of the two parities may be wrong still.`,
		force: "start it degraded now, before its deadline, or from members that were left behind",
		args: func(cmd *cobra.Command, args []string) error {
			if acceptLoss && len(args) == 0 {
				return errors.New("--accept-loss is about one array: name it")
			}

			if choose && len(args) < 2 {
				return errors.New("--choose is about one array and the members of it that count: name them")
			}

			return nil
		},
		flags: func(flags *pflag.FlagSet) {
			flags.BoolVar(&readOnly, "readonly", false, "take no writes until raid-assembler readwrite")
			flags.BoolVar(&acceptLoss, "accept-loss", false,
				"start it though parity is needed and may be wrong: what was being written may be lost")
			flags.BoolVar(&choose, "choose", false,
				"have the devices named count where members contradict each other, and fill the others anew")
		},
		apply: func(in *api.ChangeParameters) error {
			in.ReadOnly, in.AcceptLoss, in.Choose = readOnly, acceptLoss, choose

			return nil
		},
	})
}

func (p *program) stopVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Stop",
		use:    "stop ARRAY",
		short:  "stop an array",
		long: `Stop the array, which must not be in use: neither mounted, nor part of anything,
nor open. It stays stopped until it is asked for, or its members are plugged in
anew.`,
		args:  cobra.ExactArgs(1),
		stops: true,
	})
}

func (p *program) addVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Add",
		use:    "add ARRAY DEVICE...",
		short:  "give an array spares",
		long: `Give the array devices as spares. They are put to work at once if it is
degraded. A device that was a member before and missed only what the bitmap
tells has its slot back, and is given that. DEVICE is a path or a serial.`,
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
