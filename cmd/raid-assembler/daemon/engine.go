package daemon

import (
	"context"
	"encoding/json"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
)

// engineClient is the engine at the other end of a socket. Each request has a
// connection of its own, so that none waits for another.
type engineClient struct{ socket string }

func (e engineClient) call(ctx context.Context, method string, in, out any) error {
	client, err := varlink.Dial(e.socket)
	if err != nil {
		return err
	}

	defer func() { _ = client.Close() }()

	return client.Call(ctx, api.EngineInterface+"."+method, in, out)
}

// List implements [Engine].
func (e engineClient) List(ctx context.Context) (api.ListReply, error) {
	ctx, cancel := context.WithTimeout(ctx, listMax)
	defer cancel()

	var out api.ListReply
	err := e.call(ctx, "List", nil, &out)

	out.Arrays = append([]api.Array{}, out.Arrays...)

	return out, err
}

// Start implements [Engine].
func (e engineClient) Start(ctx context.Context, p api.StartParameters) error {
	return e.Request(ctx, "Start", p)
}

// Request implements [Engine].
func (e engineClient) Request(ctx context.Context, method string, parameters any) error {
	ctx, cancel := context.WithTimeout(ctx, operationMax)
	defer cancel()

	return e.call(ctx, method, parameters, nil)
}

// watch calls hint whenever something changes at the engine, until ctx ends.
// That the engine went away is a change too.
func (e engineClient) watch(ctx context.Context, hint func()) {
	for ctx.Err() == nil {
		client, err := varlink.Dial(e.socket)
		if err == nil {
			// An error ends the stream, and the next one begins.
			_ = client.Stream(ctx, api.EngineInterface+".Watch", nil, func(json.RawMessage) error {
				hint()

				return nil
			})
			_ = client.Close()

			hint()
		}

		select {
		case <-ctx.Done():
		case <-time.After(retryMin):
		}
	}
}
