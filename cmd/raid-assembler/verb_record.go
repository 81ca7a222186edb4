package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/cmd/raid-assembler/daemon"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/recording"
)

func (p *program) recordVerb() *cobra.Command {
	var hashed bool

	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "write what was decided, and from what, for a report",
		Long: `Write into a new file what the daemon has decided and all that it decided it
from: the devices and what their metadata says, what the engine runs, the
configuration and the times. Of what it has decided since it was started the
newest is kept, as far as there is room. replay shows what is in the file. If the
daemon does not run, this looks at the devices by itself, which needs root.

With --hash-serials each serial number and each world wide name is replaced by a
hash, the same by the same, which means nothing in any other file. Names of arrays
and hosts and UUIDs stay what they are.

The file is lines of JSON: "recording" (1), "program", "dropped" (entries that
are not kept any more) and "hashed", then an entry a line: "time", "until" and "times"
(when first, when last and how often the same was decided) and "state".

With --json the output is one object with "file", "source" (daemon or scan),
"entries", "dropped" and "hashed".

Exit status: 0 if it was written; 2 if not; 3 if the file is there already; 4 if
the daemon did not answer.`,
		Args: cobra.ExactArgs(1),
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			return p.record(cmd.Context(), args[0], hashed)
		}),
	}

	cmd.Flags().BoolVar(&hashed, "hash-serials", false, "replace serial numbers and world wide names by hashes")

	return cmd
}

// recordReport is what record says of what it wrote.
type recordReport struct {
	File    string `json:"file"`
	Source  string `json:"source"`
	Entries int    `json:"entries"`
	Dropped int64  `json:"dropped"`
	Hashed  bool   `json:"hashed"`
}

func (p *program) record(ctx context.Context, file string, hashed bool) (exitCode, error) {
	h := recording.Header{Version: recording.Version, Program: "raid-assembler " + version, Hashed: hashed}
	r := recordReport{File: file, Source: "daemon", Hashed: hashed}

	entries, dropped, err := p.recorded(ctx, 0)
	if errors.Is(err, errUnreachable) {
		r.Source = "scan"
		entries, err = p.scanned(ctx, err)
	}

	if err != nil {
		return answer(err)
	}

	h.Dropped, r.Dropped, r.Entries = dropped, dropped, len(entries)

	if hashed {
		if entries, err = p.hash(entries); err != nil {
			return exitFailed, err
		}
	}

	// What is there may be a device.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return exitRefused, fmt.Errorf("refused: %s is there already, and nothing is overwritten", file)
	}

	if err != nil {
		return exitFailed, err
	}

	if err := errors.Join(recording.Write(f, h, entries), f.Close()); err != nil {
		return exitFailed, err
	}

	if p.json {
		return exitDone, printJSON(p.out, r)
	}

	p.printf("%s has %d entries, of %d\n", word(file), r.Entries, int64(r.Entries)+dropped)

	return exitDone, nil
}

// hash hides serial numbers, and says so if the order of paths is another then, on
// which policy may go.
func (p *program) hash(entries []recording.Entry) ([]recording.Entry, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails

	hashed, err := recording.Hash(entries, key)
	if err != nil {
		return nil, err
	}

	for i := range hashed {
		_, before := entries[i].State.Replay()
		if _, after := hashed[i].State.Replay(); len(after) > len(before) {
			p.notef("raid-assembler: of what is hashed, entry %d is decided otherwise\n", i+1)
		}
	}

	return hashed, nil
}

// recorded returns what the daemon has recorded, from a number on; below 0 only the
// newest.
func (p *program) recorded(ctx context.Context, from int64) (entries []recording.Entry, dropped int64, err error) {
	for next := &from; next != nil; {
		var out api.RecordingReply
		if err := p.callAssembler(ctx, "Recording", api.RecordingParameters{Number: *next}, &out); err != nil {
			return nil, 0, err
		}

		for _, packed := range out.Entries {
			entry, err := recording.Unpack(packed)
			if err != nil {
				return nil, 0, err
			}

			entries = append(entries, entry)
		}

		if len(out.Entries) == 0 || out.Next != nil && *out.Next <= *next {
			break
		}

		if next == &from {
			dropped = out.Dropped
		}

		next = out.Next
	}

	return entries, dropped, nil
}

// scanned returns what a daemon would decide that starts now, for there is none.
func (p *program) scanned(ctx context.Context, unreachable error) ([]recording.Entry, error) {
	p.notef("raid-assembler: %s; this is what a look at the devices shows\n", printable(unreachable.Error()))

	state, err := daemon.Snapshot(ctx, daemonOptions{engineSocket: p.engineSocket}.complete())
	now := time.Now()

	return []recording.Entry{{Time: now, Until: now, Times: 1, State: state}}, err
}
