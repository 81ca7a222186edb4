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
			"List":   {Access: varlink.Read, Handle: h.serveList},
			"Watch":  {Access: varlink.Read, Handle: h.serveWatch},
			"Start":  {Handle: h.serveStart},
			"Stop":   {Handle: h.serveStop},
			"Add":    {Handle: h.serveMember((*Host).add)},
			"Fail":   {Handle: h.serveMember((*Host).fail)},
			"Remove": {Handle: h.serveMember((*Host).remove)},
		},
	}
}

func (h *Host) serveList(_ context.Context, _ *varlink.Call) (any, error) {
	return api.ListReply{Arrays: h.List()}, nil
}

func (h *Host) serveWatch(ctx context.Context, call *varlink.Call) (any, error) {
	for {
		changed := h.Changed()

		reply := api.ListReply{Arrays: h.List()}
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

func (h *Host) add(_ context.Context, p api.MemberParameters) error {
	return h.Add(p.Array, p.Device, p.Reason)
}

func (h *Host) fail(_ context.Context, p api.MemberParameters) error {
	return h.Fail(p.Array, p.Device, p.Reason)
}

func (h *Host) remove(ctx context.Context, p api.MemberParameters) error {
	return h.Remove(ctx, p.Array, p.Device, p.Reason)
}

func (h *Host) serveMember(f func(*Host, context.Context, api.MemberParameters) error) varlink.Handler {
	return func(ctx context.Context, call *varlink.Call) (any, error) {
		var p api.MemberParameters
		if err := call.Parameters(&p); err != nil {
			return nil, err
		}

		return nil, reply(f(h, context.WithoutCancel(ctx), p))
	}
}

// reply gives an error its name on the wire.
func reply(err error) error {
	name := ""

	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRefused):
		name = api.ErrRefused
	case errors.Is(err, ErrNotFound):
		name = api.ErrNotFound
	default:
		name = api.ErrFailed
	}

	return varlink.NewError(api.EngineInterface+"."+name, api.ErrorParameters{Reason: err.Error()})
}
