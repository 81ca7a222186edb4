package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// statusTimeout bounds how long the state of the arrays may take to tell: an
// answer that says "unknown" is worth more than none.
const statusTimeout = 10 * time.Second

func (p *program) statusVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show the arrays, and what needs attention",
		Long: `Show the arrays, their members and what goes on, on one screen. [UU_] has one
letter for each slot: U is a member in sync, _ is none.

If the daemon does not run, the arrays that the engine runs are shown, and that
is said on stderr.

Exit status: 0 if all is well; 1 if an array is degraded, being synced (a check
does not count), stopped or waited for, if a check found differences or a member
has bad blocks, or the daemon does not run; 2 if an array is broken; 4 if it
could not be told.

With --json the output is one object: "version" (1), "arrays", "spares",
"waiting" and "unused". An array has "name", "uuid", "metadata", "level",
"layout", "chunk_kib", "size_bytes", "state" (clean, active, write-pending,
readonly, inactive, broken), "degraded" (members missing), "device", "node",
"sync" (null, or "action", "done_bytes", "total_bytes", "bytes_per_second",
"seconds_left" which is -1 while unknown, "waits_for": the array that uses one of
its disks meanwhile), "limits" (of a sync:
"minimum_bytes_per_second", "maximum_bytes_per_second"), "bitmap" (null, or
"chunk_kib", "dirty_bytes", "total_bytes"), "scrub" (what the last check, repair
or resync found since the start: null, or "action", "done", "mismatched_bytes",
"where": "from_bytes" and "to_bytes" of each member, or of a RAID10, and "slot",
whose content was wrong, or null), "members"
("device", "serial", "slot" from 0 or null for a spare, "state": in-sync, spare,
recovering, faulty, missing, stale; "replaces" if it is to take the place of the
one that has the slot, "write_mostly", "bad_blocks": ranges; "errors", "belated" and "slow_seconds": operations that
failed or took more than a quarter of what they may, since the array has it, and
for how long it is much slower than its peers, if so), "reason", and, while it
runs, "events" (the event count of its newest superblocks) and "recorded_events" (that
which all members in sync have, and none that was lost; left out while none is known).

Spares and unused devices have "device", "serial", "array" and "reason"; what is
waited for has "name", "uuid", "present", "needed", "seconds_left" (-1 if no
deadline will start it) and "reason". If disks are not here that last were in
sync in slots which nobody has now, they are in "absent": "array", "uuid", "slot",
"serial", "model", "wwn", "port" and "last_seen".`,
		Args: cobra.NoArgs,
		RunE: verb(p.status),
	}
}

func (p *program) status(cmd *cobra.Command, _ []string) (exitCode, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
	defer cancel()

	code := exitDone

	var status api.Status

	err := p.callAssembler(ctx, "Status", nil, &status)
	if errors.Is(err, errUnreachable) {
		var list api.ListReply
		if engineErr := call(ctx, p.engineSocket, api.EngineInterface+".List", nil, &list); engineErr != nil {
			return exitUnknown, fmt.Errorf("%w; and %w", err, engineErr)
		}

		p.notef("raid-assembler: %s; this is what the engine knows\n", printable(err.Error()))

		status = api.Status{Version: api.StatusVersion, Arrays: list.Arrays}
		code, err = exitAttention, nil
	}

	if _, err = answer(err); err != nil {
		return exitUnknown, err
	}

	complete(&status)

	if p.json {
		err = printJSON(p.out, status)
	} else {
		_, err = fmt.Fprint(p.out, statusText(status))
	}

	return max(code, health(status)), err
}

// complete makes lists of what is nil, for scripts that loop over them.
func complete(s *api.Status) {
	s.Arrays = append([]api.Array{}, s.Arrays...)
	for i := range s.Arrays {
		completeArray(&s.Arrays[i])
	}

	s.Spares = append([]api.Idle{}, s.Spares...)
	s.Waiting = append([]api.Waiting{}, s.Waiting...)
	s.Unused = append([]api.Idle{}, s.Unused...)
}

func completeArray(a *api.Array) {
	a.Members = append([]api.Member{}, a.Members...)
	for i := range a.Members {
		a.Members[i].BadBlocks = append([]api.Range{}, a.Members[i].BadBlocks...)
	}

	if a.Scrub != nil {
		a.Scrub.Where = append([]api.Mismatch{}, a.Scrub.Where...)
	}
}

// health returns the exit code for s.
func health(s api.Status) exitCode {
	code := exitDone
	if len(s.Waiting) > 0 {
		code = exitAttention
	}

	for _, a := range s.Arrays {
		switch {
		case a.State == string(raid.Broken):
			return exitFailed
		case a.Degraded > 0 || a.State == string(raid.Inactive) || len(badMembers(a)) > 0,
			a.Sync != nil && a.Sync.Action != string(raid.Check),
			a.Scrub != nil && a.Scrub.Action == string(raid.Check) && a.Scrub.MismatchedBytes > 0:
			code = exitAttention
		}
	}

	return code
}
