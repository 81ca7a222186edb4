package ublk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// fakeDriver answers commands as a function does.
type fakeDriver func(ctx context.Context, c Command) (Reply, error)

func (f fakeDriver) Do(ctx context.Context, c Command) (Reply, error) { return f(ctx, c) }

// newPair connects a client to a server over a socket pair. The result of the server comes through the channel.
func newPair(ctx context.Context, t *testing.T, driver Commander) (*Client, <-chan error) {
	t.Helper()
	theirs, ours := connections(t)
	served := make(chan error, 1)
	go func() { served <- ServeControl(ctx, theirs, driver) }()
	return NewClient(ours), served
}

// connections returns the two ends of a socket pair.
func connections(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "control")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

func TestControlRoundTrip(t *testing.T) {
	defer goleak.VerifyNone(t)
	var got []Command
	granted := DevInfo{ID: 5, Queues: 2, Depth: 64, MaxIO: 1 << 18, Features: 0x4a, State: Live, PID: 77}
	driver := fakeDriver(func(_ context.Context, c Command) (Reply, error) {
		got = append(got, c)
		return Reply{Features: 0x1fe, Info: granted}, nil
	})
	client, served := newPair(context.Background(), t, driver)
	ctl := Control{client}
	ctx := context.Background()

	params := Params{Sectors: 100, LogicalBlock: 512, Discard: &DiscardParams{Granularity: 512}}
	attrs := QueueAttributes{Scheduler: "none", IOTimeout: time.Second}
	ask := DevInfo{ID: AnyDevice, Queues: 4, Depth: 64, MaxIO: 1 << 18, Features: UserRecovery}
	features, err := ctl.Features(ctx)
	if err != nil || features != 0x1fe {
		t.Errorf("Features() = %#x, %v, want 0x1fe", features, err)
	}
	for _, f := range []func() (DevInfo, error){
		func() (DevInfo, error) { return ctl.AddDev(ctx, ask) },
		func() (DevInfo, error) { return ctl.DevInfo(ctx, 5) },
	} {
		info, err := f()
		if diff := cmp.Diff(granted, info); err != nil || diff != "" {
			t.Errorf("device info: %v (-want +got):\n%s", err, diff)
		}
	}
	if err := errors.Join(
		ctl.SetParams(ctx, 5, params), ctl.StartDev(ctx, 5, 77), ctl.SetQueue(ctx, 5, attrs), ctl.StopDev(ctx, 5),
		ctl.StartUserRecovery(ctx, 5), ctl.EndUserRecovery(ctx, 5, 78), ctl.DelDev(ctx, 5), ctl.DelDevAsync(ctx, 5),
	); err != nil {
		t.Error(err)
	}
	if err := errors.Join(client.Close(), <-served); err != nil {
		t.Error(err)
	}
	want := []Command{
		{Op: OpFeatures},
		{Op: OpAddDev, Device: AnyDevice, Info: &ask},
		{Op: OpDevInfo, Device: 5},
		{Op: OpSetParams, Device: 5, Params: &params},
		{Op: OpStartDev, Device: 5, PID: 77},
		{Op: OpSetQueue, Device: 5, Queue: &attrs},
		{Op: OpStopDev, Device: 5},
		{Op: OpStartUserRecovery, Device: 5},
		{Op: OpEndUserRecovery, Device: 5, PID: 78},
		{Op: OpDelDev, Device: 5},
		{Op: OpDelDevAsync, Device: 5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestErrorsKeepTheirClassOverTheSocket(t *testing.T) {
	defer goleak.VerifyNone(t)
	errs := map[DeviceID]error{
		1: commandError(Command{Op: OpStartUserRecovery, Device: 1}, unix.EBUSY),
		2: commandError(Command{Op: OpStopDev, Device: 2}, fmt.Errorf("%w: %w", ErrPending, context.DeadlineExceeded)),
		3: errors.New("ublk: something else"),
	}
	client, served := newPair(context.Background(), t, fakeDriver(func(_ context.Context, c Command) (Reply, error) {
		return Reply{}, errs[c.Device]
	}))
	for id, want := range errs {
		err := Control{client}.StopDev(context.Background(), id)
		if err == nil || err.Error() != want.Error() {
			t.Errorf("device %d: %v, want %v", id, err, want)
		}
		for _, class := range []error{unix.EBUSY, ErrPending, unix.ENODEV} {
			if errors.Is(err, class) != errors.Is(want, class) {
				t.Errorf("device %d: errors.Is(%v, %v) = %v", id, err, class, errors.Is(err, class))
			}
		}
	}
	if err := errors.Join(client.Close(), <-served); err != nil {
		t.Error(err)
	}
}

// TestCommandsOverlap starts a device, which ends only after another command went through.
func TestCommandsOverlap(t *testing.T) {
	defer goleak.VerifyNone(t)
	started, stopped := make(chan struct{}), make(chan struct{})
	client, served := newPair(context.Background(), t, fakeDriver(func(_ context.Context, c Command) (Reply, error) {
		if c.Op == OpStartDev {
			close(started)
			<-stopped
		}
		return Reply{}, nil
	}))
	ctl := Control{client}
	result := make(chan error)
	go func() { result <- ctl.StartDev(context.Background(), 0, 1) }()
	<-started
	if err := ctl.StopDev(context.Background(), 0); err != nil {
		t.Error(err)
	}
	close(stopped)
	if err := errors.Join(<-result, client.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func TestImpatientClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	release := make(chan struct{})
	client, served := newPair(context.Background(), t, fakeDriver(func(_ context.Context, c Command) (Reply, error) {
		if c.Op == OpStopDev {
			<-release
		}
		return Reply{}, nil
	}))
	ctl := Control{client}
	cause := errors.New("no patience")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	err := ctl.StopDev(ctx, 6)
	if !errors.Is(err, ErrPending) || !errors.Is(err, cause) || !strings.Contains(err.Error(), "stop_dev of device 6") {
		t.Errorf("StopDev with a context that has ended: %v", err)
	}
	close(release)
	// The reply that nobody waits for any more does not disturb the next.
	if err := ctl.DelDev(context.Background(), 6); err != nil {
		t.Error(err)
	}
	if err := errors.Join(client.Close(), <-served); err != nil {
		t.Error(err)
	}
}

// TestEngineDies closes the client's end with a command pending, as the kernel does for a process that is killed.
func TestEngineDies(t *testing.T) {
	defer goleak.VerifyNone(t)
	started := make(chan struct{})
	client, served := newPair(context.Background(), t, fakeDriver(func(ctx context.Context, _ Command) (Reply, error) {
		close(started)
		<-ctx.Done()
		return Reply{}, context.Cause(ctx)
	}))
	result := make(chan error)
	go func() { result <- Control{client}.StartDev(context.Background(), 0, 1) }()
	<-started
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("pending command: %v, want %v", err, ErrConnectionLost)
	}
	if err := <-served; err != nil {
		t.Errorf("ServeControl = %v, want nil", err)
	}
	if err := (Control{client}).StopDev(context.Background(), 0); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("command after Close: %v, want %v", err, ErrConnectionLost)
	}
}

// TestEngineDiesBeforeItReads closes the client's end with a reply in it, which resets the connection.
func TestEngineDiesBeforeItReads(t *testing.T) {
	defer goleak.VerifyNone(t)
	theirs, ours := connections(t)
	served := make(chan error, 1)
	go func() {
		served <- ServeControl(context.Background(), theirs, fakeDriver(func(context.Context, Command) (Reply, error) {
			return Reply{}, nil
		}))
	}()
	out := encoder{enc: json.NewEncoder(ours)}
	if err := out.send(message{Command: &Command{Op: OpStopDev}}); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(make([]byte, 1)); err != nil { // the rest of the reply stays unread
		t.Fatal(err)
	}
	if err := errors.Join(ours.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func TestGuardianEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	cause := errors.New("guardian ends")
	ctx, cancel := context.WithCancelCause(context.Background())
	client, served := newPair(ctx, t, fakeDriver(func(ctx context.Context, _ Command) (Reply, error) {
		cancel(cause)
		<-ctx.Done()
		return Reply{}, context.Cause(ctx)
	}))
	if err := (Control{client}).StopDev(context.Background(), 0); err == nil {
		t.Error("StopDev: no error")
	}
	if err := <-served; !errors.Is(err, cause) {
		t.Errorf("ServeControl = %v, want %v", err, cause)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestServeControlRefusesGarbage(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, tc := range []struct{ line, want string }{
		{"hello\n", "hello"},
		{`{"id":3}` + "\n", "request 3 has no command"},
		{strings.Repeat("x", maxMessage+1), "token too long"},
	} {
		a, b := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- ServeControl(context.Background(), a, fakeDriver(func(context.Context, Command) (Reply, error) {
				t.Error("a command was carried out")
				return Reply{}, nil
			}))
		}()
		_, _ = b.Write([]byte(tc.line)) // the server may close before it has read everything
		if err := <-served; err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.20q: ServeControl = %v, want %q", tc.line, err, tc.want)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
