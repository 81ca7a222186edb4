package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/cmd/raid-assembler/daemon"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/recording"
)

func (p *program) replayVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "replay FILE",
		Short: "decide anew on what record wrote, and compare",
		Long: `Show what record wrote: when what came and went, and what was decided about it, with
reasons. All of it is decided anew, by the rules of this version, and what would
be decided otherwise now is shown. Nothing is looked at but the file, and nothing
is done.

With --json the output is one object: "version" (1), "program" (that recorded),
"dropped" (entries before the first), "entries" ("time", "until", "times", "came" and
"went": devices, "engine": how arrays run, "decisions" as in plan, and "differences", a sentence each).

Exit status: 0 if all is decided as it was, 1 if not; 4 if the file cannot be
read.`,
		Args: cobra.ExactArgs(1),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) { return p.replay(args[0]) }),
	}
}

// replayReport is what replay says.
type replayReport struct {
	Version int           `json:"version"`
	Program string        `json:"program"`
	Dropped int64         `json:"dropped"`
	Entries []replayEntry `json:"entries"`
}

type replayEntry struct {
	Time        time.Time        `json:"time"`
	Until       time.Time        `json:"until"`
	Times       int              `json:"times"`
	Came        []string         `json:"came"`
	Went        []string         `json:"went"`
	Engine      []string         `json:"engine"`
	Decisions   []decisionReport `json:"decisions"`
	Differences []string         `json:"differences"`
}

func (p *program) replay(file string) (exitCode, error) {
	f, err := os.Open(file)
	if err != nil {
		return exitUnknown, err
	}

	h, entries, err := recording.Read(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return exitUnknown, fmt.Errorf("%s: %w", file, err)
	}

	code := exitDone
	r := replayReport{Version: 1, Program: h.Program, Dropped: h.Dropped, Entries: []replayEntry{}}

	var before []string

	for _, e := range entries {
		ds, differences := e.State.Replay()
		if len(differences) > 0 {
			code = exitAttention
		}

		here := devices(e.State.View)
		r.Entries = append(r.Entries, replayEntry{
			Time: e.Time, Until: e.Until, Times: e.Times,
			Came: without(here, before), Went: without(before, here), Engine: engineLines(e.State.View),
			Decisions: reports(ds, 0), Differences: append([]string{}, differences...),
		})
		before = here
	}

	if p.json {
		return code, printJSON(p.out, r)
	}

	p.printReplay(r)

	return code, nil
}

// printReplay prints what is new at each entry.
func (p *program) printReplay(r replayReport) {
	p.printf("recorded by %s: %s\n", word(r.Program), countOf(len(r.Entries), "entry", "entries"))

	if r.Dropped > 0 {
		p.printf("%s before them were not kept\n", countOf(int(r.Dropped), "entry", "entries"))
	}

	var before []string

	differences := 0

	for _, e := range r.Entries {
		lines := e.lines()
		differences += len(e.Differences)

		if news := without(lines, before); len(news) > 0 {
			p.printf("\n%s\n", e.Time.UTC().Format(time.RFC3339Nano))

			for _, line := range news {
				p.printf("  %s\n", word(line))
			}
		}

		before = lines
	}

	if differences == 0 {
		p.printf("\nAll is decided as it was.\n")
	} else {
		p.printf("\n%s from what was decided.\n", countOf(differences, "decision differs", "decisions differ"))
	}
}

// lines is what there is to see at an entry.
func (e replayEntry) lines() []string {
	var lines []string

	for _, device := range e.Came {
		lines = append(lines, "came: "+device)
	}

	for _, device := range e.Went {
		lines = append(lines, "went: "+device)
	}

	for _, array := range e.Engine {
		lines = append(lines, "runs: "+array)
	}

	for _, d := range e.Decisions {
		lines = append(lines, "decided: "+d.Text)
	}

	for _, difference := range e.Differences {
		lines = append(lines, "DIFFERS: "+difference)
	}

	return lines
}

// engineLines is what the engine runs, an array a line.
func engineLines(v policy.View) []string {
	lines := []string{}

	for _, a := range v.Running {
		words := []string{a.Name, string(a.State)}

		for _, m := range a.Members {
			slot := "spare"
			if m.Slot != raid.NoSlot {
				slot = fmt.Sprint(int(m.Slot))
			}

			words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %s", slot, m.State, m.Path)))
		}

		lines = append(lines, strings.Join(words, ", "))
	}

	return lines
}

// countOf is n and what there is n of.
func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}

	return fmt.Sprintf("%d %s", n, many)
}

// devices names the devices that are there, each once.
func devices(v policy.View) []string {
	var names []string

	for _, d := range v.Devices {
		name := d.Path
		if d.Serial != "" {
			name += fmt.Sprintf(" (serial %s)", d.Serial)
		}

		names = append(names, name)
	}

	slices.Sort(names)

	return slices.Compact(names)
}

// without returns what of all is not in others.
func without(all, others []string) []string {
	left := []string{}

	for _, one := range all {
		if !slices.Contains(others, one) {
			left = append(left, one)
		}
	}

	return left
}

// decisionReport is a decision, for scripts and in words.
type decisionReport struct {
	After    int64          `json:"after_seconds"` // from now until it is decided
	Action   string         `json:"action"`
	Array    string         `json:"array"`
	UUID     string         `json:"uuid"`
	Device   string         `json:"device"`
	Serial   string         `json:"serial"`
	Members  []memberReport `json:"members"` // that an array is started with
	Degraded bool           `json:"degraded"`
	Left     int64          `json:"seconds_left"` // of a wait; -1 if no deadline ends it
	Cause    string         `json:"cause"`
	Reason   string         `json:"reason"`
	Text     string         `json:"text"`
}

type memberReport struct {
	Device string `json:"device"`
	Serial string `json:"serial"`
	Slot   *int   `json:"slot"`
}

// reports translates what is decided after a while.
func reports(ds []policy.Decision, after time.Duration) []decisionReport {
	rs := []decisionReport{}

	for _, d := range ds {
		r := decisionReport{
			After: seconds(after), Action: d.Action.String(), Array: d.Name, Device: d.Device, Serial: d.Serial,
			Members: []memberReport{}, Degraded: d.Degraded, Cause: string(d.Cause), Reason: d.Reason,
			Text: daemon.Sentence(d, arrayName(d)),
		}

		if !d.Array.IsZero() {
			r.UUID = d.Array.String()
		}

		if r.Left = seconds(d.Left); d.Left < 0 {
			r.Left = -1
		}

		for _, m := range d.Members {
			member := memberReport{Device: m.Path, Serial: m.Serial}
			if slot := int(m.Slot); slot >= 0 {
				member.Slot = &slot
			}

			r.Members = append(r.Members, member)
		}

		rs = append(rs, r)
	}

	return rs
}

// seconds rounds up: what has not passed is not over.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// arrayName is what an array is called where no name is given to it.
func arrayName(d policy.Decision) string {
	if d.Array.IsZero() {
		return "no array"
	}

	return cmp.Or(api.SafeName(d.Name), d.Array.String())
}
