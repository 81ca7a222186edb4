package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/journal"
)

// errRefused says that a request is not carried out, and nothing was changed.
var errRefused = errors.New("refused")

// errNotFound says that a request names what is not there.
var errNotFound = errors.New("not found")

// Interface is the assembler's varlink interface, served by d.
func (d *Daemon) Interface() varlink.Interface {
	return varlink.Interface{
		Name: api.AssemblerInterface, Description: api.AssemblerDescription,
		Methods: map[string]varlink.Method{
			"Status":    {Access: varlink.Read, Handle: d.serveStatus},
			"Explain":   {Access: varlink.Read, Handle: d.serveExplain},
			"Recording": {Access: varlink.Read, Handle: d.serveRecording},
			"Assemble":  {Handle: d.serveChange("assemble", d.assemble)},
			"Stop":      {Handle: d.serveChange("stop", d.stop)},
			"Add":       {Handle: d.serveChange("add", d.add)},
			"Fail":      {Handle: d.serveChange("fail", d.fail)},
			"Remove":    {Handle: d.serveChange("remove", d.remove)},
			"Check":     {Handle: d.serveChange("check", d.check)},
			"Repair":    {Handle: d.serveChange("repair", d.repair)},
			"Idle":      {Handle: d.serveChange("idle", d.idle)},
			"Replace":   {Handle: d.serveChange("replace", d.replace)},
			"Limit":     {Handle: d.serveChange("limit", d.limit)},
			"Bitmap":    {Handle: d.serveChange("bitmap", d.bitmap)},
			"Access":    {Handle: d.serveChange("access", d.access)},
			"Grow":      {Handle: d.serveChange("grow", d.grow)},
			"Create":    {Handle: d.serveCreate},
		},
	}
}

func (d *Daemon) serveStatus(ctx context.Context, call *varlink.Call) (any, error) {
	if err := call.Parameters(&struct{}{}); err != nil {
		return nil, err
	}

	st, err := d.status(ctx)

	return st, reply(err)
}

func (d *Daemon) serveExplain(ctx context.Context, call *varlink.Call) (any, error) {
	var p struct {
		What string `json:"what"`
	}
	if err := call.Parameters(&p); err != nil {
		return nil, err
	}

	lines, err := d.explain(ctx, p.What)

	return api.ExplainReply{Lines: lines}, reply(err)
}

type changeFunc func(ctx context.Context, p api.ChangeParameters) (api.ChangeReply, error)

// serveChange serves a method that changes something, and puts into the
// journal who asked for it. Once begun, a change is not abandoned because the
// caller hangs up.
func (d *Daemon) serveChange(verb string, f changeFunc) varlink.Handler {
	return func(ctx context.Context, call *varlink.Call) (any, error) {
		var p api.ChangeParameters
		if err := call.Parameters(&p); err != nil {
			return nil, err
		}

		ctx = context.WithoutCancel(ctx)

		if !p.DryRun {
			d.asked(call, commandLine(verb, p))
		}

		out, err := f(ctx, p)
		if err != nil {
			return nil, reply(err)
		}

		out.Done = append([]string{}, out.Done...)

		return out, nil
	}
}

// commandLine is what the operator might have typed.
func commandLine(verb string, p api.ChangeParameters) string {
	words := append([]string{verb, p.Array}, p.Devices...)

	for flag, on := range map[string]bool{
		"--force": p.Force, "--readonly": p.ReadOnly, "--accept-loss": p.AcceptLoss,
		"--choose": p.Choose,
	} {
		if on {
			words = append(words, flag)
		}
	}

	slices.Sort(words[2+len(p.Devices):])

	for _, number := range []struct {
		name  string
		value *int64
	}{
		{"--from", &p.From},
		{"--to", &p.To},
		{"--size", &p.Size},
		{"--chunk", &p.Chunk},
		{"--min", p.Minimum},
		{"--max", p.Maximum},
	} {
		if number.value != nil && (*number.value != 0 || strings.HasPrefix(number.name, "--m")) {
			words = append(words, fmt.Sprintf("%s %d", number.name, *number.value))
		}
	}

	return strings.Join(words, " ")
}

func (d *Daemon) serveCreate(ctx context.Context, call *varlink.Call) (any, error) {
	var p api.CreateParameters
	if err := call.Parameters(&p); err != nil {
		return nil, err
	}

	if !p.DryRun {
		d.asked(call, fmt.Sprintf("create %s --level %s --devices %d %s",
			p.Name, p.Level, p.Disks, strings.Join(p.Devices, " ")))
	}

	out, err := d.create(context.WithoutCancel(ctx), p)
	if err != nil {
		return nil, reply(err)
	}

	return out, nil
}

// asked puts into the journal what somebody asked for.
func (d *Daemon) asked(call *varlink.Call, what string) {
	what = strings.TrimSpace(what)
	d.cfg.Log(journal.Event{
		Kind: journal.OperatorCommand, Reason: what, Message: fmt.Sprintf("%v asked for: %s", call.Peer, what),
	})
}

// reply gives an error its name on the wire. That of the engine keeps the name
// that the engine gave it.
func reply(err error) error {
	if err == nil {
		return nil
	}

	name, reason := api.ErrFailed, err.Error()

	answer, answered := errors.AsType[*varlink.Error](err)

	switch {
	case errors.Is(err, errRefused):
		name, reason = api.ErrRefused, api.Reason(err, errRefused)
	case errors.Is(err, errNotFound):
		name, reason = api.ErrNotFound, api.Reason(err, errNotFound)
	case answered && answer.Reason() != "":
		_, name, _ = strings.Cut(answer.Name, api.EngineInterface+".")
		reason = answer.Reason()
	}

	if name == "" {
		name = api.ErrFailed
	}

	return varlink.NewError(api.AssemblerInterface+"."+name, api.ErrorParameters{Reason: reason})
}
