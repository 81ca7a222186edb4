package varlink

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClientCalls(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dial(t, path)

	var out echo
	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "ab", Times: new(2)}, &out); err != nil {
		t.Fatal(err)
	}

	if out.Text != "abab" {
		t.Errorf("Echo = %q, want abab", out.Text)
	}

	// An error reply leaves the connection as good as it was.
	err := c.Call(t.Context(), "org.example.Test.Nothing", nil, nil)
	if !errors.Is(err, ErrMethodNotFound) {
		t.Errorf("Nothing = %v, want ErrMethodNotFound", err)
	}

	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "a"}, nil); err != nil {
		t.Error(err)
	}
}

func TestClientStreams(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dial(t, path)

	var got []int

	each := func(raw json.RawMessage) error {
		var n counted

		err := json.Unmarshal(raw, &n)
		got = append(got, n.N)

		return err
	}

	if err := c.Stream(t.Context(), "org.example.Test.Count", count{3}, each); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]int{1, 2, 3}, got); diff != "" {
		t.Errorf("Count (-want +got):\n%s", diff)
	}

	// The next call of the same connection gets its own answer.
	var out echo
	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "a"}, &out); err != nil || out.Text != "a" {
		t.Errorf("Echo = %v, %v", out, err)
	}
}

func TestClientStopsAStream(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dial(t, path)
	enough := errors.New("enough")

	err := c.Stream(t.Context(), "org.example.Test.Count", count{3}, func(json.RawMessage) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("Count = %v, want what the callback returned", err)
	}

	// What is left of the stream must not pass for an answer.
	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "a"}, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Echo = %v, want net.ErrClosed", err)
	}
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	b, path, _ := serve(t, Options{})
	c := dial(t, path)

	ctx, cancel := context.WithCancel(t.Context())

	go func() {
		<-b.waiting
		cancel()
	}()

	if err := c.Call(ctx, "org.example.Test.Wait", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want context.Canceled", err)
	}

	if err := <-b.waited; !errors.Is(err, context.Canceled) {
		t.Errorf("the service saw %v, want context.Canceled", err)
	}

	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "a"}, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Echo = %v, want net.ErrClosed", err)
	}

	// A context that has ended before harms nothing.
	c = dial(t, path)
	if err := c.Call(ctx, "org.example.Test.Echo", echo{Text: "a"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Echo = %v, want context.Canceled", err)
	}

	if err := c.Call(t.Context(), "org.example.Test.Echo", echo{Text: "a"}, nil); err != nil {
		t.Errorf("Echo = %v", err)
	}
}

// answerWith serves one connection that says answer, whatever it is asked.
func answerWith(t *testing.T, answer string) *Client {
	t.Helper()

	ours, theirs := net.Pipe()

	go func() {
		_, _ = newReader(theirs).next()
		_, _ = io.WriteString(theirs, answer)
		_ = theirs.Close()
	}()

	c := &Client{conn: ours, r: newReader(ours)}
	t.Cleanup(func() { _ = c.Close() })

	return c
}

func TestClientRefusesNonsense(t *testing.T) {
	for answer, want := range map[string]string{
		"":                                   "unexpected EOF",
		"{":                                  "unexpected EOF",
		"{\x00":                              "reply: unexpected end of JSON",
		"[]\x00":                             "cannot unmarshal array",
		`{"continues":true}` + "\x00":        "more than the one reply",
		`{"parameters":[]}` + "\x00":         "cannot unmarshal array",
		`{"parameters":{"text":1}}` + "\x00": "cannot unmarshal number",
	} {
		var out echo

		err := answerWith(t, answer).Call(t.Context(), "a.b.C", nil, &out)
		if _, ok := errors.AsType[*Error](err); err == nil || ok || !strings.Contains(err.Error(), want) {
			t.Errorf("Call() answered with %q = %v, want an error about %q", answer, err, want)
		}
	}

	// No parameters are empty ones.
	var out echo
	if err := answerWith(t, "{}\x00").Call(t.Context(), "a.b.C", nil, &out); err != nil {
		t.Error(err)
	}
}

func TestClientRefusesToSendWhatWouldNotBeRead(t *testing.T) {
	_, path, _ := serve(t, Options{})
	c := dial(t, path)

	for what, c2 := range map[string]struct {
		in   any
		want string
	}{
		"a list":       {[]int{1}, "not an object"},
		"a channel":    {make(chan int), "unsupported type"},
		"far too much": {echo{Text: strings.Repeat("x", MessageBytesMax)}, "too long"},
	} {
		err := c.Call(t.Context(), "org.example.Test.Echo", c2.in, nil)
		if err == nil || !strings.Contains(err.Error(), c2.want) {
			t.Errorf("%s: Call() = %v, want an error about %q", what, err, c2.want)
		}
	}

	echoes(t, path)
}

func TestListenTakesOverAStaleSocketButNotALiveOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")

	first, err := Listen(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}

	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o640 {
		t.Errorf("Stat() = %v, %v, want a socket of mode 0640", info.Mode(), err)
	}

	if _, err := Listen(path, 0o640); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Listen() while it is served = %v, want EADDRINUSE", err)
	}

	_ = first.Close()

	second, err := Listen(path, 0o600)
	if err != nil {
		t.Fatalf("Listen() after a crash = %v", err)
	}

	defer func() { _ = second.Close() }()

	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v, want the socket only", entries, err)
	}

	if _, err := Listen(filepath.Join(path, "below", "a", "file"), 0o600); err == nil {
		t.Error("Listen() below a file = nil")
	}
}

func TestActivationListenerIsFoundByItsName(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = l.Close() }()

	// As activation.Files makes them: named after LISTEN_FDNAMES. The other
	// is a file from the descriptor store.
	dup, err := l.File()
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = dup.Close() }()

	fd, err := syscall.Dup(int(dup.Fd()))
	if err != nil {
		t.Fatal(err)
	}

	stored, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = stored.Close() }()

	files := []*os.File{stored, os.NewFile(uintptr(fd), "varlink")}

	got, err := ActivationListener(files, "varlink")
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = got.Close() }()

	if _, err := files[1].Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file that was used: %v, want closed", err)
	}

	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = conn.Close() }()

	accepted, err := got.Accept()
	if err != nil {
		t.Fatal(err)
	}

	_ = accepted.Close()

	if _, err := ActivationListener(files, "control"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ActivationListener(control) = %v, want fs.ErrNotExist", err)
	}

	if _, err := ActivationListener(files, os.DevNull); err == nil {
		t.Error("ActivationListener(a file that is no socket) = nil")
	}
}

// TestVarlinkctlAgrees has systemd's own client talk to the server.
func TestVarlinkctlAgrees(t *testing.T) {
	varlinkctl, err := exec.LookPath("varlinkctl")
	if err != nil {
		t.Skip("varlinkctl is not installed; systemd has it since version 255")
	}

	_, path, _ := serve(t, Options{})

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"info", path}, "org.example.Test"},
		{[]string{"list-interfaces", path}, "org.example.Test"},
		{[]string{"introspect", path, "org.example.Test"}, "method Echo"},
		{[]string{"introspect", path, "org.varlink.service"}, "method GetInfo"},
		{[]string{"call", path, "org.example.Test.Echo", `{"text":"hi"}`}, "hi"},
		{[]string{"call", "--more", path, "org.example.Test.Count", `{"to":3}`}, "3"},
	} {
		out, err := exec.CommandContext(t.Context(), varlinkctl, c.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("varlinkctl %v = %q, %v, want something of %q", c.args, out, err, c.want)
		}
	}
}
