package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"raid-assembler/internal/golden"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/recording"
)

// keptRecording is of a daemon in a test.
const keptRecording = "testdata/recording.jsonl"

var update = flag.Bool("update", false, "write what the program prints into the transcripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"raid-assembler": main})
}

// TestTranscripts runs testdata/*.txtar: arguments, output and exit codes.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"golden":  cmdGolden,
			"pattern": cmdPattern,
			"code":    cmdCode,
			"daemon":  cmdDaemon,
			"kept":    cmdKept,
			"replies": cmdReplies,
		},
	})
}

// goldenSet returns the set with exactly this name.
func goldenSet(ts *testscript.TestScript, name string) golden.Set {
	for _, set := range golden.Sets(fatalScript{ts: ts}, name) {
		if set.Name == name {
			return set
		}
	}

	ts.Fatalf("no golden set %q", name)

	return golden.Set{}
}

// fatalScript lends a script to what wants a test.
type fatalScript struct {
	testing.TB

	ts *testscript.TestScript
}

func (f fatalScript) Helper()                           {}
func (f fatalScript) Fatal(args ...any)                 { f.ts.Fatalf("%v", args) }
func (f fatalScript) Fatalf(format string, args ...any) { f.ts.Fatalf(format, args...) }

// cmdGolden is "golden SET": the member images of SET, in the current
// directory.
func cmdGolden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: golden SET")
	}

	goldenSet(ts, args[0]).Extract(fatalScript{ts: ts}, ts.MkAbs("."))
}

// cmdPattern is "[!] pattern SET FILE": FILE is what the array SET holds.
func cmdPattern(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] pattern SET FILE")
	}

	set := goldenSet(ts, args[0])
	content := ts.ReadFile(args[1])

	err := set.Check([]byte(content), 0)
	if int64(len(content)) != set.ArraySize {
		err = errors.New("the size differs")
	}

	switch {
	case neg && err == nil:
		ts.Fatalf("%s is what %s holds", args[1], set.Name)
	case !neg && err != nil:
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// cmdCode is "code N COMMAND...": COMMAND exits with N.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}

	got := "0" // "any" is for what depends on the host
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}

	if args[0] != "any" && got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// cmdDaemon is "daemon assembler|engine REPLIES": a daemon that answers as the
// JSON file REPLIES says, an object by method, or a list of them to be given in
// turn; {"error": NAME, "reason": TEXT} is an error. It listens at ./raid-assembler/s or ./raid-engine/s, and writes
// what it was asked to ./asked.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: daemon assembler|engine REPLIES")
	}

	name, description := api.AssemblerInterface, api.AssemblerDescription
	if args[0] == "engine" {
		name, description = api.EngineInterface, api.EngineDescription
	}

	var replies map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &replies))

	methods := map[string]varlink.Method{}

	for line := range strings.Lines(description) {
		if rest, found := strings.CutPrefix(line, "method "); found {
			method, _, _ := strings.Cut(rest, "(")
			methods[method] = varlink.Method{Handle: answerFrom(ts.MkAbs("asked"), name, replies[method])}
		}
	}

	server, err := varlink.NewServer(
		varlink.Service{Vendor: "test"},
		varlink.Options{Authorize: func(varlink.Peer, varlink.Access) bool {
			return string(replies["denied"]) != "true"
		}},
		varlink.Interface{Name: name, Description: description, Methods: methods})
	ts.Check(err)

	dir := ts.MkAbs("raid-" + args[0])
	ts.Check(os.MkdirAll(dir, 0o755))

	listener, err := varlink.Listen(filepath.Join(dir, "s"), 0o600)
	ts.Check(err)

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- server.Serve(ctx, listener) }()

	ts.Defer(func() {
		cancel()

		if err := <-done; err != nil {
			ts.Logf("serve: %v", err)
		}
	})
}

// cmdKept is "kept [OLD NEW]": testdata/recording.jsonl, in the current directory, with
// OLD replaced where it is there first.
func cmdKept(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 && len(args) != 2 {
		ts.Fatalf("usage: kept [OLD NEW]")
	}

	text, err := os.ReadFile(keptRecording)
	ts.Check(err)

	if len(args) == 2 {
		if !strings.Contains(string(text), args[0]) {
			ts.Fatalf("the recording has no %q", args[0])
		}

		text = []byte(strings.Replace(string(text), args[0], args[1], 1))
	}

	ts.Check(os.WriteFile(ts.MkAbs("recording.jsonl"), text, 0o644))
}

// cmdReplies is "replies FIRST LAST FILE": FILE has a daemon answer that it has
// recorded some entries of recording.jsonl, all of them lately, and each in a reply of
// its own.
func cmdReplies(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replies FIRST LAST FILE")
	}

	_, entries, err := recording.Read(strings.NewReader(ts.ReadFile("recording.jsonl")))
	ts.Check(err)

	first, err := strconv.Atoi(args[0])
	ts.Check(err)

	last, err := strconv.Atoi(args[1])
	ts.Check(err)

	var (
		ring    recording.Ring
		replies []api.RecordingReply
	)

	for i, e := range entries[first-1 : last] {
		ts.Check(ring.Add(time.Now(), e.State))

		packed, _, err := ring.From(-1, 0)
		ts.Check(err)

		next := int64(i + 1)
		replies = append(replies, api.RecordingReply{Entries: packed, Next: &next, Dropped: 2})
	}

	replies[len(replies)-1].Next = nil

	text, err := json.Marshal(map[string]any{"Recording": replies})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), text, 0o644))
}

// answerFrom returns a handler that notes what it was asked and gives the
// reply.
func answerFrom(asked, iface string, reply json.RawMessage) varlink.Handler {
	var replies []json.RawMessage
	if json.Unmarshal(reply, &replies) != nil {
		replies = []json.RawMessage{reply}
	}

	return func(_ context.Context, c *varlink.Call) (any, error) {
		method := strings.TrimPrefix(c.Method, iface+".")

		in := parametersOf(method)
		if err := c.Parameters(in); err != nil {
			return nil, err
		}

		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}

		if err := os.WriteFile(asked, []byte(method+" "+string(text)+"\n"), 0o644); err != nil {
			return nil, err
		}

		reply := replies[0]
		if len(replies) > 1 {
			replies = replies[1:]
		}

		var refusal struct{ Error, Reason string }
		if json.Unmarshal(reply, &refusal) == nil && refusal.Error != "" {
			return nil, varlink.NewError(iface+"."+refusal.Error, api.ErrorParameters{Reason: refusal.Reason})
		}

		return reply, nil
	}
}

// parametersOf returns what the parameters of a method are decoded into, which
// refuses those that are missing or unknown.
func parametersOf(method string) any {
	switch method {
	case "Status", "List":
		return &struct{}{}
	case "Explain":
		return &struct {
			What string `json:"what"`
		}{}
	case "Recording":
		return &api.RecordingParameters{}
	case "Create":
		return &api.CreateParameters{}
	default:
		return &api.ChangeParameters{}
	}
}
