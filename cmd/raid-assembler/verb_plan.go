package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/cmd/raid-assembler/daemon"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

func (p *program) planVerb() *cobra.Command {
	var without, with []string

	cmd := &cobra.Command{
		Use:   "plan",
		Short: "show what would be decided, now or with other disks",
		Long: `Show what is decided at this moment, or would be if devices were pulled (--without, by
path or serial number) or plugged in (--with, a device that is not here yet or an
image file of one), with reasons; and what would follow when a deadline has passed,
if nothing else happens. Nothing is done. It is one step: what the engine makes of
it is not foreseen.

If the daemon does not run, this looks at the devices by itself, which needs root.

With --json the output is one object: "version" (1) and "decisions": "after_seconds"
(from now), "action" (leave-alone, wait, refuse, start, add-spare, fail-member,
remove-member, prove, replace), "array", "uuid", "device", "serial", "members" (of start:
"device", "serial", "slot" or null for a spare), "degraded", "seconds_left" (of wait;
-1 if no deadline ends it), "cause", "reason" and "text".

Exit status: 0 if all arrays would be whole; 1 if one would lack a member, wait, not
be started or have a member replaced; 2 if one would be refused or broken; 3 if a device is not known or
here already; 4 if it could not be told.`,
		Args: cobra.NoArgs,
		RunE: verb(func(cmd *cobra.Command, _ []string) (exitCode, error) {
			return p.plan(cmd.Context(), without, with)
		}),
	}

	cmd.Flags().StringArrayVar(&without, "without", nil, "take a device for pulled; may be there several times")
	cmd.Flags().StringArrayVar(&with, "with", nil, "take a device or image for plugged in; may be there several times")

	return cmd
}

func (p *program) plan(ctx context.Context, less, more []string) (exitCode, error) {
	entries, _, err := p.recorded(ctx, -1)
	if errors.Is(err, errUnreachable) {
		entries, err = p.scanned(ctx, err)
	}

	if code, err := answer(err); err != nil {
		if code == exitFailed {
			code = exitUnknown
		}

		return code, err
	}

	if len(entries) == 0 {
		return exitUnknown, errors.New("the daemon has decided nothing yet: it may wait for the engine")
	}

	now := entries[len(entries)-1]
	view := later(now.State.View, max(0, time.Since(now.Time)))

	if view.Devices, err = pulled(view.Devices, deviceArguments(less)); err != nil {
		return exitRefused, err
	}

	settings := config.Read(os.DirFS("/"))

	plugged, err := pluggedIn(view.Devices, deviceArguments(more), settings)
	if err != nil {
		return exitRefused, err
	}

	view.Devices = append(view.Devices, plugged...)
	hostname, _ := os.Hostname()
	stages := foresee(view, now.State.Settings.Config(settings.Policy(policy.DefaultConfig(), hostname)))

	return outlook(view, stages[0].decisions), p.printPlan(stages, plugged)
}

// pulled returns devices without those that are named.
func pulled(devices []policy.Device, names []string) ([]policy.Device, error) {
	for _, name := range names {
		named := func(d policy.Device) bool { return d.Path == name || d.Serial == name && name != "" }
		if !slices.ContainsFunc(devices, named) {
			return nil, fmt.Errorf("--without: no device is called %q", name)
		}

		devices = slices.DeleteFunc(devices, named)
	}

	return devices, nil
}

// pluggedIn returns what devices or images would be, beside those that are here.
func pluggedIn(here []policy.Device, paths []string, settings config.Config) ([]policy.Device, error) {
	var plugged []policy.Device

	looks := examineAll(paths)
	defer closeAll(looks)

	for _, l := range looks {
		if slices.ContainsFunc(here, func(d policy.Device) bool { return d.Path == l.path }) {
			return nil, fmt.Errorf("--with: %s is here already", l.path)
		}

		if l.openErr != nil {
			return nil, fmt.Errorf("--with: %w", l.openErr)
		}

		plugged = append(plugged, daemon.Plugged(l.path, l.source, l.Result, settings)...)
	}

	return plugged, nil
}

// later returns a view as it is when time has passed, and nothing else has happened.
func later(v policy.View, by time.Duration) policy.View {
	waited := make(map[raid.UUID]time.Duration)
	for uuid, d := range v.Waited {
		waited[uuid] = d + by
	}

	// Of those that are not here yet the first comes now.
	for _, d := range v.Devices {
		if sb := d.Superblock; sb != nil {
			if _, known := v.Waited[sb.Array]; !known {
				waited[sb.Array] = by
			}
		}
	}

	returned := make(map[string][]time.Duration)

	for path, ages := range v.Returned {
		for _, age := range ages {
			returned[path] = append(returned[path], age+by)
		}
	}

	v.Waited, v.Returned = waited, returned

	return v
}

// stage is what would be decided after a while.
type stage struct {
	after     time.Duration
	decisions []policy.Decision
}

// foresee returns what would be decided now and as each deadline passes.
func foresee(v policy.View, cfg policy.Config) []stage {
	var stages []stage

	for after := time.Duration(0); ; {
		ds := policy.Decide(later(v, after), cfg)
		stages = append(stages, stage{after, ds})
		next := policy.Never

		for _, d := range ds {
			if d.Left > 0 {
				next = min(next, d.Left)
			}
		}

		if next == policy.Never {
			return stages
		}

		after += next
	}
}

// printPlan prints stages, of each what was not there before. Devices of which there
// is nothing to say are named as well, if they were asked for.
func (p *program) printPlan(stages []stage, plugged []policy.Device) error {
	out := struct {
		Version   int              `json:"version"`
		Decisions []decisionReport `json:"decisions"`
	}{1, []decisionReport{}}
	said := make(map[string]bool)

	for _, s := range stages {
		for _, r := range reports(s.decisions, s.after) {
			if !said[r.Text] {
				said[r.Text] = true

				out.Decisions = append(out.Decisions, r)
			}
		}
	}

	if p.json {
		return printJSON(p.out, out)
	}

	for _, r := range out.Decisions {
		when := "now"
		if r.After > 0 {
			when = "in " + duration(r.After)
		}

		p.printf("%s: %s\n", when, word(r.Text))
	}

	for _, d := range plugged {
		if !concerned(out.Decisions, d.Path) {
			p.printf("now: nothing has a use for %s\n", word(d.Path))
		}
	}

	if len(out.Decisions)+len(plugged) == 0 {
		p.printf("Nothing is to be done.\n")
	}

	return nil
}

// concerned reports whether a decision is about a device.
func concerned(rs []decisionReport, path string) bool {
	return slices.ContainsFunc(rs, func(r decisionReport) bool {
		return r.Device == path || strings.Contains(r.Text, path) ||
			slices.ContainsFunc(r.Members, func(m memberReport) bool { return m.Device == path })
	})
}

// outlook returns the exit code for what would be decided about v.
func outlook(v policy.View, ds []policy.Decision) exitCode {
	code := exitDone
	lost := make(map[string]bool)

	for _, d := range ds {
		switch {
		case d.Action == policy.Refuse:
			return exitFailed
		case d.Action == policy.FailMember:
			lost[d.Device] = true
		case d.Action == policy.Wait, d.Action == policy.Replace, d.Action == policy.Start && d.Degraded,
			d.Action == policy.LeaveAlone && d.Device == "" && d.Cause != policy.Chosen:
			code = exitAttention
		}
	}

	for _, a := range v.Running {
		code = max(code, prospect(v, a, lost))
	}

	return code
}

// prospect returns the exit code for an array that runs, without devices that are lost.
func prospect(v policy.View, a policy.Running, lost map[string]bool) exitCode {
	code := exitDone
	sync := make(map[raid.Slot]bool)

	for _, m := range a.Members {
		switch {
		case m.State == raid.InSync && !lost[m.Path]:
			sync[m.Slot] = true
		case m.State != raid.Spare:
			code = exitAttention
		}
	}

	survives := len(sync) > 0

	for _, d := range v.Devices {
		if sb := d.Superblock; sb != nil && sb.Array == a.UUID {
			survives = sb.Survives(func(slot raid.Slot) bool { return sync[slot] })
		}
	}

	if a.State == raid.Broken || !survives {
		return exitFailed
	}

	return code
}
