package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/raid"
)

// TestServe runs a daemon on a real socket, and an engine behind another, and
// asks it what the commands ask.
func TestServe(t *testing.T) {
	w := newWorld(t)
	defer w.end()

	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)

	w.plug(w.set("data", raid.Level1, 2, 0)...)

	engine := serveEngine(t, w, filepath.Join(dir, "engine"))
	w.engine = engine
	w.run()

	hinted := make(chan struct{}, 1)

	go engine.watch(ctx, func() {
		w.daemon.Hint()

		select {
		case hinted <- struct{}{}:
		default:
		}
	})

	<-hinted

	opts := Options{AssemblerSocket: filepath.Join(dir, "run", "socket"), Version: "1"}
	if err := w.daemon.serve(ctx, opts, served); err != nil {
		t.Fatal(err)
	}

	defer func() {
		cancel()

		if err := <-served; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	}()

	client, err := varlink.Dial(opts.AssemblerSocket)
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = client.Close() }()

	var st api.Status
	for len(st.Arrays) == 0 && t.Context().Err() == nil {
		if err := client.Call(ctx, api.AssemblerInterface+".Status", nil, &st); err != nil {
			t.Fatal(err)
		}

		time.Sleep(10 * time.Millisecond)
	}

	var lines api.ExplainReply

	in := struct {
		What string `json:"what"`
	}{"data"}
	if err := client.Call(ctx, api.AssemblerInterface+".Explain", in, &lines); err != nil || len(lines.Lines) == 0 {
		t.Errorf("Explain = %v, %v", lines, err)
	}

	var recorded api.RecordingReply

	newest := api.RecordingParameters{Number: -1}
	if err := client.Call(ctx, api.AssemblerInterface+".Recording", newest, &recorded); err != nil ||
		len(recorded.Entries) != 1 || recorded.Next != nil {
		t.Errorf("Recording = %v, %v", recorded, err)
	}

	var out api.ChangeReply
	if err := client.Call(ctx, api.AssemblerInterface+".Stop", array("data"), &out); err != nil || len(out.Done) != 1 {
		t.Errorf("Stop = %v, %v", out, err)
	}

	err = client.Call(ctx, api.AssemblerInterface+".Fail", array("data", "data0"), &out)
	refusal, ok := errors.AsType[*varlink.Error](err)

	if !ok || refusal.Name != api.AssemblerInterface+"."+api.ErrRefused || refusal.Reason() != "data does not run" {
		t.Errorf("Fail = %v, want it refused: data does not run", err)
	}

	err = client.Call(ctx, api.AssemblerInterface+".Create", api.CreateParameters{Level: "9"}, &out)
	if err == nil || !strings.Contains(err.Error(), "unknown level") {
		t.Errorf("Create = %v, want it refused", err)
	}

	if !strings.Contains(w.history(), "asked for: stop data") {
		t.Errorf("it is not in the journal who asked:\n%s", w.history())
	}
}

// serveEngine serves the engine of w at a socket until the test ends.
func serveEngine(t *testing.T, w *world, socket string) engineClient {
	t.Helper()

	server, err := varlink.NewServer(varlink.Service{}, varlink.Options{}, w.engineInterface())
	if err != nil {
		t.Fatal(err)
	}

	l, err := varlink.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- server.Serve(ctx, l) }()

	t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})

	return engineClient{socket}
}

// TestReply checks that an error has the name that tells what became of the
// request, the engine's own words included.
func TestReply(t *testing.T) {
	for _, tt := range []struct {
		err          error
		name, reason string
	}{
		{errors.New("broken"), "Failed", "broken"},
		{errRefused, "Refused", "refused"},
		{errors.Join(errors.New("no"), errRefused), "Refused", "no\nrefused"},
		{refused("in use"), "Refused", "in use"},
		{varlink.NewError(api.EngineInterface+".NotFound", api.ErrorParameters{Reason: "gone"}), "NotFound", "gone"},
		{varlink.ErrPermissionDenied, "Failed", "org.varlink.service.PermissionDenied"},
	} {
		got, ok := errors.AsType[*varlink.Error](reply(tt.err))
		if !ok || got.Name != api.AssemblerInterface+"."+tt.name || got.Reason() != tt.reason {
			t.Errorf("reply(%v) = %v, want %s: %s", tt.err, got, tt.name, tt.reason)
		}
	}

	if reply(nil) != nil {
		t.Error("reply(nil) is an error")
	}
}
