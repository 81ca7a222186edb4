package host

import (
	"context"
	"errors"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
)

// Interface is the engine's varlink interface, served by h.
func (h *Host) Interface() varlink.Interface {
	return varlink.Interface{
		Name: api.EngineInterface, Description: api.EngineDescription,
		Methods: map[string]varlink.Method{
			"List":    {Access: varlink.Read, Handle: h.serveList},
			"Watch":   {Access: varlink.Read, Handle: h.serveWatch},
			"Start":   {Handle: h.serveStart},
			"Stop":    {Handle: h.serveStop},
			"Add":     {Handle: serveRequest(h.Add)},
			"Fail":    {Handle: serveMember(h.Fail)},
			"Remove":  {Handle: serveMember(h.Remove)},
			"Sync":    {Handle: serveRequest(h.Sync)},
			"Replace": {Handle: serveRequest(h.Replace)},
			"Limit":   {Handle: serveRequest(h.Limit)},
			"Bitmap":  {Handle: serveRequest(h.Bitmap)},
			"Access":  {Handle: serveRequest(h.Access)},
		},
	}
}

func (h *Host) serveList(_ context.Context, _ *varlink.Call) (any, error) {
	return h.reply(), nil
}

// reply is what List and Watch answer.
func (h *Host) reply() api.ListReply { return api.ListReply{Arrays: h.List(), Told: h.Told()} }

func (h *Host) serveWatch(ctx context.Context, call *varlink.Call) (any, error) {
	for {
		changed := h.Changed()

		reply := h.reply()
		if !call.More {
			return reply, nil
		}

		if err := call.Send(reply); err != nil {
			return nil, err
		}

		select {
		case <-changed:
		case <-ctx.Done():
			return reply, nil
		}
	}
}

func (h *Host) serveStart(ctx context.Context, call *varlink.Call) (any, error) {
	var p api.StartParameters
	if err := call.Parameters(&p); err != nil {
		return nil, err
	}

	// Once begun, a start is not abandoned because the caller hangs up.
	a, err := h.Start(context.WithoutCancel(ctx), p)
	if err != nil {
		return nil, reply(err)
	}

	return api.ArrayReply{Array: a}, nil
}

func (h *Host) serveStop(ctx context.Context, call *varlink.Call) (any, error) {
	var p api.ArrayParameters
	if err := call.Parameters(&p); err != nil {
		return nil, err
	}

	return nil, reply(h.Stop(context.WithoutCancel(ctx), p.Array))
}

// serveMember serves a request about a device and an array.
func serveMember(f func(array, device, reason string) error) varlink.Handler {
	return serveRequest(func(p api.MemberParameters) error { return f(p.Array, p.Device, p.Reason) })
}

// serveRequest serves a method that answers nothing but whether it was done.
func serveRequest[P any](f func(P) error) varlink.Handler {
	return func(_ context.Context, call *varlink.Call) (any, error) {
		var p P
		if err := call.Parameters(&p); err != nil {
			return nil, err
		}

		return nil, reply(f(p))
	}
}

// reply gives an error its name on the wire.
func reply(err error) error {
	if err == nil {
		return nil
	}

	name, reason := api.ErrFailed, err.Error()

	switch {
	case errors.Is(err, ErrRefused):
		name, reason = api.ErrRefused, api.Reason(err, ErrRefused)
	case errors.Is(err, ErrNotFound):
		name, reason = api.ErrNotFound, api.Reason(err, ErrNotFound)
	}

	return varlink.NewError(api.EngineInterface+"."+name, api.ErrorParameters{Reason: reason})
}
