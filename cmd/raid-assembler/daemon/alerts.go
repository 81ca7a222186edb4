package daemon

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
)

// programMax is how long it may take to have the administrator's program started.
const programMax = 30 * time.Second

// programAfter is how much later that is begun: whoever is told can wait for so long, and
// what is done about the alarm needs the processors first.
const programAfter = time.Second

// alarm tells of what there is to see to: when it begins, again and again while it
// holds, and when it has passed.
func (d *Daemon) alarm(now []policy.Alarm, at time.Time) {
	alerts := d.settings.Alerts()
	holds := make(map[policy.Alarm]bool)

	for _, a := range now {
		holds[a] = true

		again, known := d.alarms[a]
		if known && (again.IsZero() || at.Before(again)) {
			continue
		}

		if !known && (a.Kind == policy.AlarmNoSpare || a.Kind == policy.AlarmDegraded) {
			d.cfg.Log(journal.Event{
				Kind: journal.NoSpareLeft, Array: d.nameOf(a.Array), UUID: a.Array.String(), Reason: a.Text,
				Message: fmt.Sprintf("%s: %s", d.nameOf(a.Array), a.Text),
			})
		}

		d.alarms[a] = time.Time{}
		d.alert(alerts.Program, a, true)

		if alerts.Repeat != config.Never {
			d.alarms[a] = at.Add(alerts.Repeat)
			d.after(alerts.Repeat, d.hint)
		}
	}

	for a := range d.alarms {
		if !holds[a] {
			delete(d.alarms, a)
			d.alert(alerts.Program, a, false)
		}
	}
}

// alert has the administrator's program run, if there is one.
func (d *Daemon) alert(program string, a policy.Alarm, holds bool) {
	if program == "" {
		return
	}

	state := "over"
	if holds {
		state = "on"
	}

	environment := []string{
		"RAID_ALARM=" + string(a.Kind), "RAID_ALARM_STATE=" + state, "RAID_ARRAY=" + d.nameOf(a.Array),
		"RAID_UUID=" + a.Array.String(), "RAID_REASON=" + printable(a.Text),
	}

	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, programMax)
		defer cancel()

		if err := d.cfg.Run(ctx, program, environment); err != nil && d.ctx.Err() == nil {
			d.post(func() { d.cfg.Warn(fmt.Sprintf("the program for alarms, %s, does not run: %v", program, err)) })
		}
	}()
}

// printable leaves out what may steer a terminal: names come from disks.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}

		return r
	}, text)
}

// runProgram has systemd run a program in a unit of its own: what the daemon may not
// do, the program may, and it is not waited for.
func runProgram(ctx context.Context, program string, environment []string) error {
	args := []string{"--quiet", "--no-block", "--collect", "--description=RAID alarm"}
	for _, e := range environment {
		args = append(args, "--setenv="+e)
	}

	select {
	case <-time.After(programAfter):
	case <-ctx.Done():
		return ctx.Err()
	}

	out, err := exec.CommandContext(ctx, "systemd-run", append(args, program)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemd-run: %w: %s", err, strings.TrimSpace(string(out)))
	}

	return nil
}
