package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"raid-assembler/pkg/api"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"data":                "data",
		"Größe µ":             "Größe µ",
		"\x1b]0;owned\a":      `\x1b]0;owned\a`,
		"a\u202egnp.exe":      `a\u202egnp.exe`,
		"\xff\xfe":            `\xff\xfe`,
		"really \ufffd":       "really \ufffd",
		"two\nlines":          "two\nlines",
		"back\\slash \"q\"":   "back\\slash \"q\"",
		"carriage\rreturn":    `carriage\rreturn`,
		"\u200bzero width":    `\u200bzero width`,
		"c1 \u009b31m":        `c1 \u009b31m`,
		"ideographic\u3000sp": `ideographic\u3000sp`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}

	if got := word("a\tb\n"); got != `a\tb\n` {
		t.Errorf("word = %q", got)
	}
}

// TestContainerText: arrays of one container are seen to be so.
func TestContainerText(t *testing.T) {
	for container, want := range map[string]bool{"": false, "ea2a5c98:04db1904:9dc93bf6:49a3df24": true} {
		got := statusText(api.Status{Arrays: []api.Array{{Name: "data", UUID: "u", Container: container}}})
		if strings.Contains(got, "container "+container) != want {
			t.Errorf("statusText() of container %q = %q", container, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"64": 64 << 10, "64K": 64 << 10, "64k": 64 << 10, "64KiB": 64 << 10, "1M": 1 << 20, "20G": 20 << 30,
		"1TiB": 1 << 40, "3PB": 3 << 50, "2E": 2 << 60,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}

	for _, text := range []string{
		"", "K", "-1", "0", "1X", "1KK", "1.5G", "9E", "64iB", "64B", "G1", "99999999999999999999",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestSizeAndDuration(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 45 << 20: "45.0 MiB", 1 << 62: "4.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}

	for n, want := range map[int64]string{
		0: "0 s", 59: "59 s", 61: "1 min 1 s", 3600: "1 h 0 min", 100000: "27 h 46 min",
	} {
		if got := duration(n); got != want {
			t.Errorf("duration(%d) = %q, want %q", n, got, want)
		}
	}
}

// TestIsTerminal: a dump must not go to a terminal, and may go to /dev/null.
func TestIsTerminal(t *testing.T) {
	for path, want := range map[string]bool{"/dev/ptmx": true, "/dev/null": false, os.Args[0]: false} {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}

		if got := isTerminal(file); got != want {
			t.Errorf("isTerminal(%s) = %v, want %v", path, got, want)
		}

		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}

	if isTerminal(io.Discard) {
		t.Error("isTerminal(io.Discard) = true, want false")
	}
}

// TestManPage: every verb and flag is in it, and no line is a request by
// accident.
func TestManPage(t *testing.T) {
	root := (&program{out: io.Discard, err: io.Discard}).command()
	page := manPage(root)

	for _, verb := range root.Commands() {
		if !verb.Hidden && verb.Name() != "help" && !strings.Contains(page, "\n.SS "+verb.Name()) {
			t.Errorf("no section about %s", verb.Name())
		}
	}

	for _, piece := range []string{
		`\-\-force\-stale`, `\-\-assume\-clean`, ".B 64\n", "seconds_left", ".TH RAID-ASSEMBLER 8",
	} {
		if !strings.Contains(page, piece) {
			t.Errorf("the page lacks %q", piece)
		}
	}

	requests := []string{".TH", ".SH", ".SS", ".PP", ".TP", ".B ", ".BR", ".I "}
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, ".") {
			continue
		}

		known := false
		for _, r := range requests {
			known = known || strings.HasPrefix(line, r)
		}

		if !known {
			t.Errorf("line %q is a request", line)
		}
	}

	if got := roff("a-b\\c\n.d\n'e"); got != "a\\-b\\ec\n\\&.d\n\\&'e" {
		t.Errorf("roff = %q", got)
	}
}

func TestUdevEncode(t *testing.T) {
	for in, want := range map[string]string{
		"data":       "data",
		"my array":   `my\x20array`,
		"a\nFOO=bar": `a\x0aFOO=bar`,
		`"quoted"`:   `\x22quoted\x22`,
		"ä":          `\xc3\xa4`,
	} {
		if got := udevEncode(in); got != want {
			t.Errorf("udevEncode(%q) = %q, want %q", in, got, want)
		}
	}
}
