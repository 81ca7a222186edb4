package uevent

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sections returns the files of a txtar archive by their names.
func sections(archive string) map[string]string {
	files := make(map[string]string)
	name := ""

	for line := range strings.Lines(archive) {
		if strings.HasPrefix(line, "-- ") && strings.HasSuffix(line, " --\n") {
			name = line[3 : len(line)-4]
		} else {
			files[name] += line
		}
	}

	return files
}

// udevMessage puts udevd's header before pairs.
func udevMessage(pairs []byte) []byte {
	msg := make([]byte, udevHeaderSize, udevHeaderSize+len(pairs))
	copy(msg, udevPrefix)
	binary.BigEndian.PutUint32(msg[udevMagicAt:], udevMagic)
	binary.NativeEndian.PutUint32(msg[12:], udevHeaderSize)
	binary.NativeEndian.PutUint32(msg[udevOffsetAt:], udevHeaderSize)
	binary.NativeEndian.PutUint32(msg[udevLengthAt:], uint32(len(pairs)))

	return append(msg, pairs...)
}

// TestFixtures parses each message in testdata. The comment of a fixture says
// which kernel and udevd it came from and what was done to provoke it. A
// header, where there is one, makes it udevd's; it was recorded on a
// little-endian host. Each line of a message stands for a pair, and its newline
// for the NUL that was sent.
func TestFixtures(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}

	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			files := sections(string(text))
			message := []byte(strings.ReplaceAll(files["message"], "\n", "\x00"))
			parse := ParseKernel

			if header, ok := files["header"]; ok {
				b, err := hex.DecodeString(strings.Join(strings.Fields(header), ""))
				if err != nil {
					t.Fatal(err)
				}

				parse, message = ParseUdev, append(b, message...)
			}

			if diff := cmp.Diff(files["want"], describe(parse(message))); diff != "" {
				t.Errorf("reading (-want +got):\n%s", diff)
			}
		})
	}
}

// describe prints what a parser returned, one fact a line.
func describe(ev Event, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}

	var b strings.Builder

	fmt.Fprintf(&b, "%s %s %s %s\n", ev.Action, ev.Subsystem, ev.Name, ev.Path)

	for _, key := range slices.Sorted(maps.Keys(ev.Env)) {
		fmt.Fprintf(&b, "  %s=%s\n", key, ev.Env[key])
	}

	return b.String()
}

func TestParseKernelRefuses(t *testing.T) {
	for name, c := range map[string]struct{ msg, want string }{
		"nothing":               {"", "has no end"},
		"no NUL at all":         {"add@/a", "has no end"},
		"no @":                  {"libudev\x00", "has no @"},
		"last pair not ended":   {"add@/a\x00ACTION=add\x00DEVPATH=/a", `"DEVPATH=/a" has no end`},
		"a pair without =":      {"add@/a\x00ACTION=add\x00DEVPATH=/a\x00X\x00", `"X" is not KEY=VALUE`},
		"a pair without a key":  {"add@/a\x00ACTION=add\x00DEVPATH=/a\x00=x\x00", `"=x" is not KEY=VALUE`},
		"an empty pair":         {"add@/a\x00\x00ACTION=add\x00DEVPATH=/a\x00", `"" is not KEY=VALUE`},
		"no pairs":              {"add@/a\x00", "no ACTION"},
		"a relative path":       {"add@a\x00ACTION=add\x00DEVPATH=a\x00", `DEVPATH "a" is not absolute`},
		"the other's path":      {"add@/a\x00ACTION=add\x00DEVPATH=/b\x00", "contradicts add@/b"},
		"a second, later, path": {"add@/b\x00ACTION=add\x00DEVPATH=/a\x00DEVPATH=/b\x00", "contradicts add@/a"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, ParseKernel, []byte(c.msg), c.want) })
	}
}

func TestParseUdevRefuses(t *testing.T) {
	good := udevMessage([]byte("ACTION=add\x00DEVPATH=/a\x00"))

	if _, err := ParseUdev(good); err != nil {
		t.Fatalf("ParseUdev(the message that the cases alter) = %v", err)
	}

	alter := func(at int, value uint32) []byte {
		msg := slices.Clone(good)
		binary.NativeEndian.PutUint32(msg[at:], value)

		return msg
	}

	for name, c := range map[string]struct {
		msg  []byte
		want string
	}{
		"nothing":               {nil, "0 bytes without"},
		"a message of a kernel": {[]byte("add@/a\x00ACTION=add\x00DEVPATH=/aaaaaaaaaaaaa\x00"), "without the header"},
		"half a header":         {good[:39], "39 bytes without"},
		"other magic":           {alter(udevMagicAt, 0xfeedcafe), "magic 0xfecaedfe"},
		"pairs in the header":   {alter(udevOffsetAt, 39), "at 39 in a message of 62"},
		"pairs beyond the end":  {alter(udevOffsetAt, 41), "at 41 in a message of 62"},
		"offset that wraps":     {alter(udevOffsetAt, 0xffffffff), "at 4294967295"},
		"length that wraps":     {alter(udevLengthAt, 0xffffffff), "4294967295 bytes of pairs"},
		"length that cuts":      {alter(udevLengthAt, 21), "has no end"},
		"no pairs":              {alter(udevLengthAt, 0), "no ACTION"},
		"no path":               {udevMessage([]byte("ACTION=add\x00")), `DEVPATH "" is not absolute`},
	} {
		t.Run(name, func(t *testing.T) { refused(t, ParseUdev, c.msg, c.want) })
	}
}

func refused(t *testing.T, parse func([]byte) (Event, error), msg []byte, want string) {
	t.Helper()

	ev, err := parse(msg)
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
		t.Errorf("parse(%q) = %v, %v, want an ErrMalformed about %q", msg, ev, err, want)
	}
}

// FuzzParse holds that a parser returns an event or an error and never both,
// that an event has what callers rely on, and that its pairs, sent again, are
// read as the same event.
func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/a\x00ACTION=add\x00DEVPATH=/a\x00"))
	f.Add([]byte("add@/a@b\x00ACTION=add\x00DEVPATH=/a@b\x00X=y=z\x00DEVNAME=/dev/a\x00"))
	f.Add(udevMessage([]byte("ACTION=add\x00DEVPATH=/a\x00")))
	f.Fuzz(func(t *testing.T, msg []byte) {
		checkParse(t, ParseKernel, msg)
		checkParse(t, ParseUdev, msg)
		checkParse(t, ParseUdev, udevMessage(msg))
	})
}

func checkParse(t *testing.T, parse func([]byte) (Event, error), msg []byte) {
	ev, err := parse(msg)
	if (ev.Env == nil) == (err == nil) {
		t.Fatalf("parse(%q) = %v, %v, want exactly one", msg, ev, err)
	}

	if err != nil {
		return
	}

	if ev.Action == "" || !strings.HasPrefix(ev.Path, "/") || ev.Action != ev.Env["ACTION"] {
		t.Fatalf("parse(%q) = %+v", msg, ev)
	}

	var pairs strings.Builder
	for key, value := range ev.Env {
		fmt.Fprintf(&pairs, "%s=%s\x00", key, value)
	}

	again, err := ParseUdev(udevMessage([]byte(pairs.String())))
	if diff := cmp.Diff(ev, again); err != nil || diff != "" {
		t.Fatalf("the pairs of %q, sent again: %v (-first +second):\n%s", msg, err, diff)
	}
}
