package varlink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

const description = `# For tests.
interface org.example.Test

type Pair (left: string, right: ?int)

# Says what it was told.
method Echo(text: string, times: ?int) -> (text: string)

# Counts to the number given.
method Count(to: int) -> (n: int)

method Wait() -> ()
method Fault(how: string) -> ()
method Later() -> ()
method Set(value: string) -> ()
error Failed (reason: string)
error Odd (number: int)
`

type echo struct {
	Text  string `json:"text"`
	Times *int   `json:"times,omitempty"`
}

type count struct {
	To int `json:"to"`
}

type counted struct {
	N int `json:"n"`
}

// testbed is the interface above, served.
type testbed struct {
	waiting chan struct{} // a call of Wait has begun
	waited  chan error    // and ended, for this reason
	refused chan error    // a call of Count was not let finish, for this reason

	mu    sync.Mutex
	value string
}

func (b *testbed) iface() Interface {
	return Interface{Name: "org.example.Test", Description: description, Methods: map[string]Method{
		"Echo":  {Access: Read, Handle: b.echo},
		"Count": {Access: Read, Handle: b.count},
		"Wait":  {Access: Read, Handle: b.wait},
		"Fault": {Access: Read, Handle: b.fault},
		"Later": {Access: Read},
		"Set":   {Handle: b.set},
	}}
}

func (b *testbed) echo(_ context.Context, call *Call) (any, error) {
	var in echo
	if err := call.Parameters(&in); err != nil {
		return nil, err
	}

	if in.Times != nil {
		in.Text = strings.Repeat(in.Text, *in.Times)
	}

	return echo{Text: in.Text}, nil
}

func (b *testbed) count(_ context.Context, call *Call) (any, error) {
	var in count
	if err := call.Parameters(&in); err != nil {
		return nil, err
	}

	for n := range in.To - 1 {
		if err := call.Send(counted{n + 1}); err != nil {
			select {
			case b.refused <- err:
			default:
			}

			return nil, err
		}
	}

	return counted{in.To}, nil
}

func (b *testbed) wait(ctx context.Context, _ *Call) (any, error) {
	b.waiting <- struct{}{}
	<-ctx.Done()
	b.waited <- ctx.Err()

	return nil, ctx.Err()
}

func (b *testbed) fault(_ context.Context, call *Call) (any, error) {
	var in struct {
		How string `json:"how"`
	}
	if err := call.Parameters(&in); err != nil {
		return nil, err
	}

	switch in.How {
	case "panic":
		panic("ouch")
	case "odd":
		return nil, fmt.Errorf("wrapped: %w", NewError("org.example.Test.Odd", map[string]int{"number": 7}))
	case "huge":
		return echo{Text: strings.Repeat("x", MessageBytesMax)}, nil
	case "list":
		return []int{1}, nil
	default:
		return nil, errors.New("md1: " + in.How)
	}
}

func (b *testbed) set(_ context.Context, call *Call) (any, error) {
	var in struct {
		Value string `json:"value"`
	}
	if err := call.Parameters(&in); err != nil {
		return nil, err
	}

	b.mu.Lock()
	defer b.mu.Unlock()

	b.value = in.Value

	return nil, nil
}

// logged collects what a server logs.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.lines = append(l.lines, line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	return strings.Join(l.lines, "\n")
}

// serve serves a testbed until the test ends, and returns it and its path.
func serve(t *testing.T, opts Options) (*testbed, string, context.CancelFunc) {
	t.Helper()

	b := &testbed{waiting: make(chan struct{}, 1), waited: make(chan error, 1), refused: make(chan error, 1)}

	s, err := NewServer(Service{Vendor: "V", Product: "P", Version: "1", URL: "u"}, opts, b.iface())
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "s")

	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)

	go func() { done <- s.Serve(ctx, l) }()

	t.Cleanup(func() {
		cancel()

		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve() = %v, want nil after its context ended", err)
			}
		case <-time.After(patience):
			t.Errorf("Serve() still runs %v after its context ended", patience)
		}
	})

	return b, path, cancel
}

func dial(t *testing.T, path string) *Client {
	t.Helper()

	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = c.Close() })

	return c
}

// rawConn speaks the protocol by hand.
type rawConn struct {
	*net.UnixConn

	t *testing.T
	r *bufio.Reader
}

func dialRaw(t *testing.T, path string) rawConn {
	t.Helper()

	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close() })

	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}

	return rawConn{UnixConn: conn, t: t, r: bufio.NewReader(conn)}
}

func (c rawConn) say(text string) {
	c.t.Helper()

	if _, err := io.WriteString(c.UnixConn, text); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// hear holds the next reply against want.
func (c rawConn) hear(want string) {
	c.t.Helper()

	got, err := c.r.ReadString(0)
	if err != nil || strings.TrimSuffix(got, "\x00") != want {
		c.t.Errorf("reply = %q, %v, want %q", got, err, want)
	}
}

// hearEnd holds that the server has hung up.
func (c rawConn) hearEnd() {
	c.t.Helper()

	if rest, err := io.ReadAll(c.r); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || len(rest) != 0 {
		c.t.Errorf("then %q, %v, want the end of the connection", rest, err)
	} else if err != nil {
		c.t.Errorf("then nothing, want the end of the connection: %v", err)
	}
}

// The texts are those of https://varlink.org/Method-Call and /Service.
func TestServerSpeaksTheProtocol(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dialRaw(t, path)

	for _, step := range []struct {
		say  string
		hear []string
	}{
		{`{"method":"org.varlink.service.GetInfo"}`, []string{
			`{"parameters":{"vendor":"V","product":"P","version":"1","url":"u",` +
				`"interfaces":["org.example.Test","org.varlink.service"]}}`,
		}},
		{`{"method":"org.varlink.service.GetInfo","parameters":{"x":1}}`, []string{
			`{"parameters":{"parameter":"x"},"error":"org.varlink.service.InvalidParameter"}`,
		}},
		{`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.nowhere"}}`, []string{
			`{"parameters":{"interface":"org.nowhere"},"error":"org.varlink.service.InterfaceNotFound"}`,
		}},
		{`{"method":"org.example.Test.Echo","parameters":{"text":"a<b"},"unknown":true}`, []string{
			`{"parameters":{"text":"a\u003cb"}}`,
		}},
		{`{"method":"org.example.Test.Nothing","parameters":{}}`, []string{
			`{"parameters":{"method":"org.example.Test.Nothing"},"error":"org.varlink.service.MethodNotFound"}`,
		}},
		{`{"method":"org.nowhere.Echo","parameters":{}}`, []string{
			`{"parameters":{"interface":"org.nowhere"},"error":"org.varlink.service.InterfaceNotFound"}`,
		}},
		{`{"method":"Echo"}`, []string{
			`{"parameters":{"interface":"Echo"},"error":"org.varlink.service.InterfaceNotFound"}`,
		}},
		{`{"method":"org.example.Test.Later"}`, []string{
			`{"parameters":{"method":"org.example.Test.Later"},"error":"org.varlink.service.MethodNotImplemented"}`,
		}},
		{`{"method":"org.example.Test.Echo","parameters":{"text":"a"},"upgrade":true}`, []string{
			`{"parameters":{"method":"org.example.Test.Echo"},"error":"org.varlink.service.MethodNotImplemented"}`,
		}},
		{`{"method":"org.example.Test.Count","parameters":{"to":3},"more":true}`, []string{
			`{"parameters":{"n":1},"continues":true}`,
			`{"parameters":{"n":2},"continues":true}`,
			`{"parameters":{"n":3}}`,
		}},
		{`{"method":"org.example.Test.Count","parameters":{"to":3}}`, []string{
			`{"parameters":{},"error":"org.varlink.service.ExpectedMore"}`,
		}},
		{`{"method":"org.example.Test.Echo","parameters":{"text":"a"},"oneway":true}`, nil},
		{`{"method":"org.example.Test.Nothing","oneway":true}`, nil},
		{`{"method":"org.example.Test.Count","parameters":{"to":3},"more":true,"oneway":true}`, nil},
		{`{"method":"org.example.Test.Fault","parameters":{"how":"odd"}}`, []string{
			`{"parameters":{"number":7},"error":"org.example.Test.Odd"}`,
		}},
		{`{"method":"org.example.Test.Set","parameters":{"value":"a"}}`, []string{`{"parameters":{}}`}},
	} {
		c.say(step.say + "\x00")

		for _, want := range step.hear {
			c.hear(want)
		}
	}

	// Calls may be sent before the last is answered; the answers keep the order.
	call := `{"method":"org.example.Test.Echo","parameters":{"text":"%d"}}` + "\x00"
	c.say(fmt.Sprintf(call+call+call, 1, 2, 3))

	for n := range 3 {
		c.hear(fmt.Sprintf(`{"parameters":{"text":"%d"}}`, n+1))
	}
}

func TestServerHangsUpOnNonsense(t *testing.T) {
	log := new(logged)
	_, path, _ := serve(t, Options{Log: log.add})

	for what, c := range map[string]struct{ say, log string }{
		"not JSON":          {"hello\x00", "invalid character"},
		"an empty message":  {"\x00", "unexpected end of JSON"},
		"a list":            {"[]\x00", "cannot unmarshal array"},
		"no method":         {"{}\x00", "request without a method"},
		"a number for name": {`{"method":1}` + "\x00", "cannot unmarshal number"},
		"too long":          {strings.Repeat("x", MessageBytesMax+4096), "more than 1048576 bytes"},
	} {
		conn := dialRaw(t, path)
		conn.say(c.say)
		conn.hearEnd()

		if !strings.Contains(log.String(), c.log) {
			t.Errorf("%s: log = %q, want something of %q", what, log, c.log)
		}
	}

	cut := dialRaw(t, path)
	cut.say(`{"method":"org.exam`)

	if err := cut.CloseWrite(); err != nil {
		t.Fatal(err)
	}

	cut.hearEnd()
	echoes(t, path)
}

// echoes holds that the service is well.
func echoes(t *testing.T, path string) {
	t.Helper()

	var out echo

	err := dial(t, path).Call(t.Context(), "org.example.Test.Echo", echo{Text: "hi"}, &out)
	if err != nil || out.Text != "hi" {
		t.Errorf("Echo = %v, %v, want hi", out, err)
	}
}

func TestHandlersFaultsStayTheirOwn(t *testing.T) {
	log := new(logged)
	_, path, _ := serve(t, Options{Log: log.add})
	c := dial(t, path)

	for how, want := range map[string]string{
		"disk is gone": "md1: disk is gone",
		"panic":        "internal error: ouch",
		"huge":         "message is too long",
		"list":         "parameters of type []int are not an object",
	} {
		err := c.Call(t.Context(), "org.example.Test.Fault", map[string]string{"how": how}, nil)

		e, ok := errors.AsType[*Error](err)
		if !ok || e.Name != "org.example.Test.Failed" || !strings.Contains(e.Reason(), want) {
			t.Errorf("Fault(%s) = %v, want Failed with %q", how, err, want)
		}
	}

	if !strings.Contains(log.String(), "panic: ouch\ngoroutine") {
		t.Errorf("log = %q, want the panic and where it was", log)
	}

	echoes(t, path)
}

func TestOnlyRootChangesThingsByDefault(t *testing.T) {
	authorize := Options{}.withDefaults().Authorize

	for _, c := range []struct {
		peer   Peer
		access Access
		want   bool
	}{
		{Peer{UID: 0, Known: true}, Change, true},
		{Peer{UID: 0, Known: true}, Read, true},
		{Peer{UID: 1, Known: true}, Change, false},
		{Peer{UID: 1, Known: true}, Read, true},
		{Peer{UID: 0}, Change, false},
	} {
		if got := authorize(c.peer, c.access); got != c.want {
			t.Errorf("authorize(%+v, %v) = %v, want %v", c.peer, c.access, got, c.want)
		}
	}
}

func TestServerAsksWhoMayCall(t *testing.T) {
	log := new(logged)
	opts := Options{
		Log: log.add,
		Authorize: func(peer Peer, access Access) bool {
			self := Peer{PID: os.Getpid(), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Known: true}
			if peer != self {
				t.Errorf("peer = %+v, want %+v", peer, self)
			}

			return access == Read
		},
	}

	b, path, _ := serve(t, opts)
	c := dial(t, path)

	err := c.Call(t.Context(), "org.example.Test.Set", map[string]string{"value": "a"}, nil)
	if !errors.Is(err, ErrPermissionDenied) || b.value != "" {
		t.Errorf("Set = %v, value = %q, want ErrPermissionDenied and nothing set", err, b.value)
	}

	if want := fmt.Sprintf("varlink: process %d of user %d may not call org.example.Test.Set",
		os.Getpid(), os.Geteuid()); log.String() != want {
		t.Errorf("log = %q, want %q", log, want)
	}

	echoes(t, path)
}

func TestCallEndsWhenThePeerHangsUp(t *testing.T) {
	for _, more := range []bool{false, true} {
		b, path, _ := serve(t, Options{})
		c := dialRaw(t, path)
		c.say(fmt.Sprintf(`{"method":"org.example.Test.Wait","more":%v}`, more) + "\x00")
		<-b.waiting
		_ = c.Close()

		if err := <-b.waited; !errors.Is(err, context.Canceled) {
			t.Errorf("more=%v: the call ended with %v, want context.Canceled", more, err)
		}
	}
}

// As printf ... | socat - UNIX:... does.
func TestPeerThatHasFinishedItsSideIsAnswered(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dialRaw(t, path)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":2},"more":true}` + "\x00" +
		`{"method":"org.example.Test.Echo","parameters":{"text":"a"}}` + "\x00")

	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}

	c.hear(`{"parameters":{"n":1},"continues":true}`)
	c.hear(`{"parameters":{"n":2}}`)
	c.hear(`{"parameters":{"text":"a"}}`)
	c.hearEnd()
}

func TestServerStopsWithCallsInProgress(t *testing.T) {
	b, path, stop := serve(t, Options{})
	c := dialRaw(t, path)
	c.say(`{"method":"org.example.Test.Wait"}` + "\x00")
	<-b.waiting
	stop()
	c.hear(`{"parameters":{"reason":"context canceled"},"error":"org.example.Test.Failed"}`)
	c.hearEnd()
}

func TestIdlePeerIsHungUpOn(t *testing.T) {
	b, path, _ := serve(t, Options{IdleTimeout: 50 * time.Millisecond})

	idle := dialRaw(t, path)
	idle.hearEnd()

	// One that drips is idle too.
	drip := dialRaw(t, path)
	drip.say(`{"meth`)
	drip.hearEnd()

	// One whose call takes its time is not.
	busy := dialRaw(t, path)
	busy.say(`{"method":"org.example.Test.Wait"}` + "\x00")
	<-b.waiting

	select {
	case err := <-b.waited:
		t.Errorf("the call was ended with %v", err)
	case <-time.After(200 * time.Millisecond):
	}
}

func TestPeerThatDoesNotReadIsHungUpOn(t *testing.T) {
	b, path, _ := serve(t, Options{WriteTimeout: 50 * time.Millisecond})
	c := dialRaw(t, path)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":100000000},"more":true}` + "\x00")

	// Nothing is read until the server has given up; then what was sent is
	// there, and then the end.
	if err := <-b.refused; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send() = %v, want os.ErrDeadlineExceeded", err)
	}

	if _, err := io.Copy(io.Discard, c.r); err != nil {
		t.Errorf("read = %v, want the end of the connection", err)
	}

	echoes(t, path)
}

func TestConnectionsAreBounded(t *testing.T) {
	peer := func(uid uint32) Peer { return Peer{UID: uid, Known: true} }
	s := &Server{opts: Options{ConnectionsMax: 8}, perUser: make(map[uint32]int)}

	for i, c := range []struct {
		peer Peer
		want bool
	}{
		{peer(1), true},
		{peer(1), true},
		{peer(1), false}, // a quarter is enough for one
		{peer(2), true},
		{peer(0), true}, // root may have all that is left
		{peer(0), true},
		{peer(0), true},
		{peer(0), true},
		{peer(0), true},
		{peer(0), false},
		{peer(2), false},
	} {
		if got := s.admit(c.peer); got != c.want {
			t.Errorf("%d: admit(%v) = %v, want %v", i, c.peer, got, c.want)
		}
	}

	s.dismiss(peer(1))

	if !s.admit(peer(1)) {
		t.Error("admit after dismiss = false, want true")
	}

	for _, uid := range []uint32{1, 1, 2, 0, 0, 0, 0, 0} {
		s.dismiss(peer(uid))
	}

	if s.total != 0 || len(s.perUser) != 0 {
		t.Errorf("in the end: %d, %v, want nothing", s.total, s.perUser)
	}
}

func TestServerTurnsAwayTheOneTooMany(t *testing.T) {
	log := new(logged)
	_, path, _ := serve(t, Options{ConnectionsMax: 1, Log: log.add})
	first := dialRaw(t, path)
	first.say(`{"method":"org.example.Test.Echo","parameters":{"text":"a"}}` + "\x00")
	first.hear(`{"parameters":{"text":"a"}}`)

	dialRaw(t, path).hearEnd()

	if !strings.Contains(log.String(), "too many connections") {
		t.Errorf("log = %q, want the reason", log)
	}
}

func TestParametersAreHeldAgainstTheirTypes(t *testing.T) {
	type in struct {
		Name  string   `json:"name"`
		Force bool     `json:"force"`
		Disks []string `json:"disks"`
		Slot  *int     `json:"slot"`
	}

	for given, want := range map[string]string{
		`{"name":"a","force":true,"disks":["b"],"slot":1}`:   "",
		`{"name":"a","force":true}`:                          "",
		`{"name":"a","force":true,"disks":null,"slot":null}`: "",
		``:                                      "name",
		`{}`:                                    "name",
		`{"force":true}`:                        "name",
		`{"name":null,"force":true}`:            "name",
		`{"name":"a"}`:                          "force",
		`{"name":1,"force":true}`:               "name",
		`{"name":"a","force":"yes"}`:            "force",
		`{"name":"a","force":true,"disk":[]}`:   "disk",
		`{"name":"a","force":true,"disks":[1]}`: "disks",
		`{"name":"a","force":true,"slot":1.5}`:  "slot",
		`[]`:                                    "parameters",
		`"name"`:                                "parameters",
	} {
		var got in

		err := (&Call{parameters: json.RawMessage(given)}).Parameters(&got)
		if want == "" {
			if err != nil || got.Name != "a" || !got.Force {
				t.Errorf("Parameters(%s) = %v, %+v", given, err, got)
			}

			continue
		}

		if !errors.Is(err, ErrInvalidParameter) || err.Error() !=
			fmt.Sprintf(`org.varlink.service.InvalidParameter: {"parameter":"%s"}`, want) {
			t.Errorf("Parameters(%s) = %v, want InvalidParameter %s", given, err, want)
		}
	}
}

func TestDescriptionMustAgreeWithWhatIsServed(t *testing.T) {
	b := new(testbed)

	for what, c := range map[string]struct {
		change func(*Interface)
		want   string
	}{
		"another name": {func(i *Interface) { i.Name = "org.example.Other" }, "is described as"},
		"a method too many": {
			func(i *Interface) { i.Description += "method More() -> ()\n" },
			"declares the methods [Count Echo Fault Later More Set Wait] and serves",
		},
		"a method too few": {func(i *Interface) { delete(i.Methods, "Echo") }, "serves [Count Fault Later Set Wait]"},
		"no way to fail": {func(i *Interface) {
			i.Description = strings.Replace(i.Description, "Failed", "F", 1)
		}, "error Failed"},
		"nothing at all":     {func(i *Interface) { i.Description = "" }, "is described as"},
		"no way to be found": {func(i *Interface) { i.Name = "" }, "is described as"},
	} {
		i := b.iface()
		c.change(&i)

		if _, err := NewServer(Service{}, Options{}, i); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: NewServer() = %v, want an error about %q", what, err, c.want)
		}
	}
}

func TestOwnDescriptionIsTrue(t *testing.T) {
	s, err := NewServer(Service{}, Options{})
	if err != nil {
		t.Fatal(err)
	}

	i := s.introspection()
	i.Description += "error Failed (reason: string)\n" // which only handlers of others need

	if err := i.check(); err != nil {
		t.Error(err)
	}
}

func TestErrorsReadWell(t *testing.T) {
	for want, e := range map[string]*Error{
		"a.b.Refused: in use":   NewError("a.b.Refused", reason{"in use"}),
		`a.b.Odd: {"number":7}`: NewError("a.b.Odd", map[string]int{"number": 7}),
		"a.b.Plain":             {Name: "a.b.Plain"},
		"a.b.Empty":             NewError("a.b.Empty", struct{}{}),
	} {
		if got := e.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}

	if diff := cmp.Diff([]bool{true, false}, []bool{
		errors.Is(InvalidParameter("x"), ErrInvalidParameter), errors.Is(InvalidParameter("x"), ErrExpectedMore),
	}); diff != "" {
		t.Error(diff)
	}
}
