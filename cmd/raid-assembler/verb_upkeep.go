package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// portion is the part of each member that a check or a repair is about.
type portion struct{ from, to string }

func (o *portion) flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.from, "from", "", "where to begin in each member (at raid10: in the array), such as 20G")
	flags.StringVar(&o.to, "to", "", "where to end, likewise")
}

func (o *portion) apply(in *api.ChangeParameters) (err error) {
	if o.from != "" && o.from != "0" {
		if in.From, err = parseSize(o.from); err != nil {
			return fmt.Errorf("--from: %w", err)
		}
	}

	if o.to != "" {
		if in.To, err = parseSize(o.to); err != nil {
			return fmt.Errorf("--to: %w", err)
		}
	}

	return nil
}

// scrubExit documents how check and repair end when they are waited for.
const scrubExit = `

It goes on when this returns, unless --wait is given: then how far it is shows
on stderr, and the end is what it found. Foreground requests come first; see
limit. raid-assembler idle ends it.`

func (p *program) checkVerb() *cobra.Command {
	var of portion

	return p.changeVerb(change{
		method: "Check",
		use:    "check ARRAY",
		short:  "compare all copies and parity",
		long: `Read all members and compare: copies with each other, parity with data. What
cannot be read is made anew from the others and written back. What differs is
counted, and told where, but left alone: see repair.` + scrubExit + `

With --wait it exits with 1 if anything differed.`,
		args:  cobra.ExactArgs(1),
		flags: of.flags, apply: of.apply,
		wait: p.scrubbed(raid.Check),
	})
}

func (p *program) repairVerb() *cobra.Command {
	var of portion

	return p.changeVerb(change{
		method: "Repair",
		use:    "repair ARRAY",
		short:  "compare all copies and parity, and make them agree",
		long: `As check, and what differs is made to agree. Where redundancy tells which member
is wrong, as at level 6 and among three copies, that one is mended. Elsewhere
parity is computed anew from the data, and copies are made equal to the first:
that ends the difference, but which of them was right nobody knows.` + scrubExit,
		args:  cobra.ExactArgs(1),
		flags: of.flags, apply: of.apply,
		wait: p.scrubbed(raid.Repair),
	})
}

// scrubbed tells what a check or a repair found that was waited for.
func (p *program) scrubbed(action raid.SyncAction) func(a api.Array) (string, exitCode, error) {
	return func(a api.Array) (string, exitCode, error) {
		switch s := a.Scrub; {
		case s == nil || s.Action != string(action):
			return "", exitUnknown, fmt.Errorf("what the %s of %s found is not known", action, a.Name)
		case !s.Done:
			return "", exitFailed, fmt.Errorf("the %s of %s was ended before it was done", action, a.Name)
		case s.MismatchedBytes > 0 && action == raid.Check:
			return scrubText(*s), exitAttention, nil
		default:
			return scrubText(*s), exitDone, nil
		}
	}
}

func (p *program) idleVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Idle",
		use:    "idle ARRAY",
		short:  "end a check or a repair",
		long: `End the check or the repair that goes on. A resync and a recovery make the array
redundant, and are not ended: see limit. The replacement of a member ends when
its successor is taken out: see fail.`,
		args: cobra.ExactArgs(1),
	})
}

func (p *program) replaceVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Replace",
		use:    "replace ARRAY OLD [NEW]",
		short:  "copy a member to another device that takes its place",
		long: `Copy the member OLD to the device NEW, or to a spare of the array, which takes
its place when it holds everything; OLD counts as faulty then, and can be removed.
Until then OLD serves, so that the array stays as redundant as it was, which with
fail and add it would not. What cannot be read of OLD is made from the others.
OLD and NEW are paths or serials.

It goes on when this returns, unless --wait is given. To end it before, take NEW
out again with fail.`,
		force: "overwrite whatever NEW holds",
		args:  cobra.RangeArgs(2, 3),
		wait: func(a api.Array) (string, exitCode, error) {
			return standing(a), health(api.Status{Arrays: []api.Array{a}}), nil
		},
	})
}

func (p *program) limitVerb() *cobra.Command {
	var low, high string

	return p.changeVerb(change{
		method: "Limit",
		use:    "limit ARRAY [--min RATE] [--max RATE]",
		short:  "set how fast an array syncs",
		long: `Set how many bytes of each member a resync, a recovery, a check, a repair or a
replacement does in a second: at least the minimum even while the array is in
use, at most the maximum even while it is not. RATE is a size, such as 20M, or
"default". It holds until the array is stopped.`,
		args: cobra.ExactArgs(1),
		flags: func(flags *pflag.FlagSet) {
			flags.StringVar(&low, "min", "", "the rate that a sync has while the array is in use")
			flags.StringVar(&high, "max", "", "the rate that it has at most")
		},
		apply: func(in *api.ChangeParameters) (err error) {
			if low == "" && high == "" {
				return errors.New("neither --min nor --max is given")
			}

			if in.Minimum, err = parseRate(low); err != nil {
				return fmt.Errorf("--min: %w", err)
			}

			if in.Maximum, err = parseRate(high); err != nil {
				return fmt.Errorf("--max: %w", err)
			}

			return nil
		},
	})
}

// parseRate reads a rate; nil stands for none, 0 for the default.
func parseRate(text string) (*int64, error) {
	switch text {
	case "":
		return nil, nil
	case "default":
		return new(int64), nil
	}

	rate, err := parseSize(text)

	return &rate, err
}

func (p *program) bitmapVerb() *cobra.Command {
	var chunk string

	return p.changeVerb(change{
		method: "Bitmap",
		use:    "bitmap ARRAY --chunk SIZE",
		short:  "set what a bit of the write-intent bitmap stands for",
		long: `Set how much of the array a bit of its write-intent bitmap stands for, a power of
two. With more a write finds its bit set more often, which is faster; with less a
crash, or a member that was away, costs less to resync. The array may be in use:
writes wait for a moment.`,
		args: cobra.ExactArgs(1),
		flags: func(flags *pflag.FlagSet) {
			flags.StringVar(&chunk, "chunk", "", "what a bit stands for, such as 64M")
		},
		apply: func(in *api.ChangeParameters) (err error) {
			if in.Chunk, err = parseSize(chunk); err != nil {
				return fmt.Errorf("--chunk: %w", err)
			}

			return nil
		},
	})
}

func (p *program) readonlyVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Access",
		use:    "readonly ARRAY",
		short:  "let nobody write to an array",
		long: `Refuse writes from now on, and write nothing to the members but what makes a
failed one known. A resync or a recovery waits until the array is writable.`,
		args: cobra.ExactArgs(1),
		apply: func(in *api.ChangeParameters) error {
			in.ReadOnly = true

			return nil
		},
	})
}

func (p *program) readwriteVerb() *cobra.Command {
	return p.changeVerb(change{
		method: "Access",
		use:    "readwrite ARRAY",
		short:  "let a read-only array be written to again",
		long:   `Take writes again, and go on with what waited for that.`,
		args:   cobra.ExactArgs(1),
	})
}

func (p *program) growVerb() *cobra.Command {
	var size string

	return p.changeVerb(change{
		method: "Grow",
		use:    "grow ARRAY --size SIZE|max",
		short:  "use more of each member",
		long: `Use more of each member, after all have been replaced by larger ones: up to SIZE,
or all that the smallest of them has. The array must not be in use: it is stopped
and started again, and what is new is synced. The file system on it is to be
grown after that, by its own tool.`,
		args:  cobra.ExactArgs(1),
		stops: true,
		flags: func(flags *pflag.FlagSet) {
			flags.StringVar(&size, "size", "", "how much of each member to use, such as 20G, or max")
		},
		apply: func(in *api.ChangeParameters) (err error) {
			if size == "max" {
				return nil
			}

			if in.Size, err = parseSize(size); err != nil {
				return fmt.Errorf("--size: %w", err)
			}

			return nil
		},
	})
}

// standing says how an array is when nothing goes on any more.
func standing(a api.Array) string { return a.Name + " is " + a.State + degraded(a) }

func (p *program) waitVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "wait [ARRAY...]",
		Short: "wait until nothing goes on at an array",
		Long: `Wait until no resync, recovery, check, repair or replacement goes on at the
arrays named, or at any. How far it is shows on stderr.

Exit status: as that of status, for these arrays; 3 if there is no such array; 4
if it could not be told.

With --json the output is one object with "arrays", as in status --json.`,
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			arrays, code, err := p.await(cmd.Context(), args)
			if err != nil {
				return code, err
			}

			code = health(api.Status{Arrays: arrays})

			if p.json {
				return code, printJSON(p.out, map[string][]api.Array{"arrays": arrays})
			}

			for _, a := range arrays {
				p.printf("%s\n", word(standing(a)))
			}

			return code, nil
		}),
	}
}
