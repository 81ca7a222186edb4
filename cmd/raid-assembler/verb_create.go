package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// createOptions are the flags of create that are not parameters as they are.
type createOptions struct {
	chunk  string
	size   string
	spares int
}

const createLong = `Make a new array of the devices given: the members by slot, then the spares.
Whatever they hold is lost; devices that hold anything are refused, unless
forced.

LEVEL is linear, 0, 1, 4, 5, 6 or 10, of up to 64 members. Layouts are called as
in mdadm: of level 0 original or alternate, which differ where members differ in
size; of level 5 left-symmetric and its like (la, ra, ls, rs, parity-first,
parity-last); of level 6 these, ddf-zero-restart, ddf-N-restart, ddf-N-continue,
and left-symmetric-6 and its like; of level 10 nN, fN or oN for N near, far or
offset copies. Chunks are a power of two from 4K to 64M; at level 0 any multiple
of 4K.

An array with redundancy that is larger than 100 MiB gets a write-intent bitmap,
so that a crash or the short absence of a member costs little. The members are
synced when it starts, while it is in use already.

With metadata ddf or imsm the devices form a container. If they are one already,
all of it in any order, the new array lies beside those that are there, which
have to be stopped, and had a --size that leaves room. By --force it is a new
container, and what was there is lost.

With metadata ddf a container has many arrays. That format has
neither bitmaps nor logs, and of the layouts original at level 0, la, ra and ls
at level 5, the three of ddf at level 6, and n2 and f2 at level 10. Level 1 has
2 or 3 members.

With metadata imsm it has two, each on all of its devices. They need serial
numbers. There are levels 0, 1 with 2 members, 5 and 10, each in one layout
(left-asymmetric at level 5, n2 at level 10, with an even number of members), in
chunks of 4K to 1M, and no bitmaps. The name has at most 16 characters.

A RAID5 may have partial parity logs instead. With them a power cut changes
nothing that was not being written even while a member is missing, and each
write of a part of a row costs one more.`

func (p *program) createVerb() *cobra.Command {
	var (
		in   api.CreateParameters
		opts createOptions
	)

	cmd := &cobra.Command{
		Use:   "create NAME --level LEVEL --devices N DEVICE...",
		Short: "make a new array",
		Long:  createLong + changeJSON,
		Args:  cobra.MinimumNArgs(2),
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			in.Name, in.Devices = args[0], deviceArguments(args[1:])

			if err := opts.apply(&in); err != nil {
				return exitUsage, err
			}

			var out api.ChangeReply
			if err := p.callAssembler(cmd.Context(), "Create", in, &out); err != nil {
				return answer(err)
			}

			return exitDone, p.printChange(out)
		}),
	}

	flags := cmd.Flags()
	flags.StringVar(&in.Level, "level", "", "linear, 0, 1, 4, 5, 6 or 10")
	flags.IntVar(&in.Disks, "devices", 0, "how many members, spares not counted")
	flags.IntVar(&opts.spares, "spares", 0, "how many spares")
	flags.StringVar(&in.Layout, "layout", "", "how data is laid out (default original, left-symmetric or n2)")
	flags.StringVar(&opts.chunk, "chunk", "", "chunk size, such as 64K (default 512K)")
	flags.StringVar(&in.Metadata, "metadata", "", "1.0, 1.1, 1.2, 0.90, ddf, imsm or asr (default 1.2)")
	flags.StringVar(&opts.size, "size", "", "how much of each member to use, such as 20G (default all)")
	flags.StringVar(&in.Bitmap, "bitmap", "", "none or internal (default internal above 100 MiB)")
	flags.BoolVar(&in.PPL, "ppl", false, "keep partial parity logs instead of a bitmap (raid5)")
	flags.BoolVar(&in.AssumeClean, "assume-clean", false, "do not sync: all devices hold zeros, or redundancy is right")
	flags.BoolVar(&in.Force, "force", false, "overwrite what the devices hold")
	flags.BoolVar(&in.DryRun, "dry-run", false, "say what would be done, and do nothing")

	return cmd
}

// apply completes in. Returns an error if the command line does not make
// sense by itself; what the devices and the daemon make of it is for the
// daemon to say.
func (o createOptions) apply(in *api.CreateParameters) error {
	level, err := raid.ParseLevel(in.Level)
	if err != nil {
		return fmt.Errorf("--level: %w", err)
	}

	in.Level = level.String()

	if in.Disks < 1 || o.spares < 0 || len(in.Devices) != in.Disks+o.spares {
		return fmt.Errorf("--devices %d and --spares %d do not make the %s given",
			in.Disks, o.spares, count(len(in.Devices), "device"))
	}

	if o.chunk != "" {
		bytes, err := parseSize(o.chunk)
		if err != nil {
			return fmt.Errorf("--chunk: %w", err)
		}

		in.ChunkKiB = bytes >> 10
	}

	if o.size != "" {
		if in.SizeBytes, err = parseSize(o.size); err != nil {
			return fmt.Errorf("--size: %w", err)
		}
	}

	return nil
}
