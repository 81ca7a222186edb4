package varlink

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// messages reads all of r.
func messages(r io.Reader) ([]string, error) {
	var (
		got    []string
		stream = newReader(r)
	)

	for {
		message, err := stream.next()
		if err != nil {
			return got, err
		}

		got = append(got, string(message))
	}
}

func TestReaderTakesStreamsApart(t *testing.T) {
	longest := strings.Repeat("x", MessageBytesMax)

	for name, c := range map[string]struct {
		stream string
		want   []string
		err    error
	}{
		"nothing":          {"", nil, io.EOF},
		"one":              {"a\x00", []string{"a"}, io.EOF},
		"two":              {"a\x00b\x00", []string{"a", "b"}, io.EOF},
		"empty ones":       {"\x00\x00", []string{"", ""}, io.EOF},
		"cut":              {"a\x00b", []string{"a"}, io.ErrUnexpectedEOF},
		"longest":          {longest + "\x00a\x00", []string{longest, "a"}, io.EOF},
		"longer":           {longest + "x\x00", nil, ErrTooLong},
		"longer, no end":   {longest + "xx", nil, ErrTooLong},
		"longest, but cut": {longest, nil, io.ErrUnexpectedEOF},
	} {
		for way, r := range map[string]io.Reader{
			"at once":      strings.NewReader(c.stream),
			"byte by byte": iotest.OneByteReader(strings.NewReader(c.stream)),
		} {
			got, err := messages(r)
			if !errors.Is(err, c.err) || !cmp.Equal(c.want, got) {
				t.Errorf("%s, %s: %d messages, %v, want %d, %v", name, way, len(got), err, len(c.want), c.err)
			}
		}
	}
}

// FuzzReader holds that the messages of a stream, put together again, are the
// stream, whatever it is; that none exceeds the limit; and that one which is a
// request is still the same request after it was sent again.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a\x00\x00b"))
	f.Add([]byte(`{"method":"a.b.C","parameters":{"x":"\u0000"},"more":true}` + "\x00"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var (
			again bytes.Buffer
			r     = newReader(bytes.NewReader(stream))
		)

		for {
			message, err := r.next()
			if err != nil {
				break
			}

			if len(message) > MessageBytesMax {
				t.Fatalf("a message of %d bytes", len(message))
			}

			again.Write(message)
			again.WriteByte(0)
			checkRequest(t, message)
		}

		if end := bytes.LastIndexByte(stream, 0) + 1; !bytes.Equal(again.Bytes(), stream[:end]) {
			t.Fatalf("%q was taken apart into %q", stream, again.Bytes())
		}
	})
}

func checkRequest(t *testing.T, message []byte) {
	req, err := parseRequest(message)
	if err != nil {
		return
	}

	sent, err := encode(req)
	if err != nil {
		t.Fatalf("encode(%q) = %v", message, err)
	}

	if bytes.IndexByte(sent, 0) != len(sent)-1 {
		t.Fatalf("encode(%q) = %q, want one NUL, at the end", message, sent)
	}

	got, err := parseRequest(sent[:len(sent)-1])
	if err != nil {
		t.Fatalf("parseRequest(%q) = %v", sent, err)
	}

	// Spaces do not matter.
	req.Parameters, got.Parameters = compact(t, req.Parameters), compact(t, got.Parameters)
	if diff := cmp.Diff(req, got); diff != "" {
		t.Fatalf("%q sent again (-first +second):\n%s", message, diff)
	}
}

// compact makes parameters comparable: without spaces, and escaped as JSON for
// the web is.
func compact(t *testing.T, text json.RawMessage) json.RawMessage {
	if len(text) == 0 {
		return nil
	}

	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}

	return out
}
