package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"

	"github.com/google/go-cmp/cmp"
)

// brief is the settings of c, one a line, with the line that they are in.
func brief(c Config) string {
	var lines []string

	for _, s := range c.Settings {
		lines = append(lines, fmt.Sprintf("%v %s=%s @%d", s.Section, s.Key, s.Value, s.Line))
	}

	return strings.Join(lines, "\n")
}

// TestParse checks the grammar: what systemd takes is taken.
func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"comments", "# a\n; b\n  # c\n[Assembly]\n#Deadline=1\n", ""},
		{"blanks", "\t[ Assembly ]  \r\n  Deadline \t=  2min 5s  \r\n", "[Assembly] Deadline=2min 5s @2"},
		{"no end of line", "[Assembly]\nDeadline=5", "[Assembly] Deadline=5 @2"},
		{"the last one holds", "[Assembly]\nDeadline=5\nDeadline=6\n", "[Assembly] Deadline=6 @3"},
		{"an empty one takes back", "[Assembly]\nDeadline=5\nDeadline=\n", ""},
		{"lists add up", "[Domain d]\nPath=a*\nPath=b*\n", "[Domain d] Path=a* @2\n[Domain d] Path=b* @3"},
		{"an empty one takes a list back", "[Domain d]\nPath=a*\nPath=\nPath=b*\n", "[Domain d] Path=b* @4"},
		{"a # within a value is part of it", "[Domain d]\nModel=a # b\n", "[Domain d] Model=a # b @2"},
		{"lines are joined", "[Domain d]\nModel=a \\\n# no\n  b\nSerial=c", "[Domain d] Model=a  b @2\n[Domain d] Serial=c @5"},
		{
			"sections are merged, and sorted", "[Domain z]\nPath=*\n[Array b]\nDeadline=1s\n[Array a]\nAssemble=no\n[Array b]\nAssemble=yes\n",
			"[Array a] Assemble=no @6\n[Array b] Assemble=yes @8\n[Array b] Deadline=1s @4\n[Domain z] Path=* @2",
		},
		{"names have blanks", "[Array my data]\nAssemble=read-only\n", "[Array my data] Assemble=read-only @2"},
		{
			"a UUID is written in one way", "[Array 01000000-00000000-00000000-0000000A]\nAssemble=no\n",
			"[Array 01000000:00000000:00000000:0000000a] Assemble=no @2",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Parse(File{"f", tt.text})
			if got := brief(c); got != tt.want || len(c.Faults) > 0 {
				t.Errorf("Parse(%q) = %s, want %s; faults %v", tt.text, got, tt.want, c.Faults)
			}
		})
	}
}

// TestFaults checks that whatever is wrong is said, with its line, and that the
// rest holds.
func TestFaults(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "[Assembly]\n\nDeadlin=5\n", `f:3: unknown key "Deadlin" in [Assembly]: there are Assemble, Deadline`},
		{"a key in the wrong section", "[Array a]\nForeign=no\n", `f:2: unknown key "Foreign" in [Array a]`},
		{"keys have their case", "[Assembly]\ndeadline=5\n", `f:2: unknown key "deadline"`},
		{"unknown section", "[Spares]\nA=b\n", `f:1: unknown section "[Spares]": there are [Alerts], [Array NAME], [Assembly], [Domain NAME]`},
		{"no section", "Deadline=5\n", `f:1: "Deadline=5" is in no section`},
		{"unfinished section", "[Assembly\n", `f:1: "[Assembly": a section ends in ]`},
		{"a name where there is none", "[Assembly x]\n", `f:1: "[Assembly x]": [Assembly] is about all arrays`},
		{"no name where there is one", "[Array]\n", `f:1: "[Array]": it lacks a name`},
		{"unknown format", "[Format 1.3]\n", `f:1: unknown format "1.3": there are 0.90, 1.0`},
		{"neither", "[Assembly]\nDeadline\n", `f:2: "Deadline": it is neither KEY=VALUE nor a section`},
		{"a domain of nothing", "\n[Domain d]\n", `f:2: [Domain d] says of no disk that it is in it`},
		{"a mode", "[Array a]\nAssemble=maybe\n", `f:2: Assemble: "maybe" is none of yes, read-only, no and leave-to-mdadm`},
		{"a truth", "[Assembly]\nReadd=maybe\n", `f:2: Readd: "maybe" is neither yes nor no`},
		{"a medium", "[Domain d]\nMedia=tape\n", `f:2: Media: "tape" is neither rotational nor solid-state`},
		{"a pattern", "[Domain d]\nPath=[a\n", `f:2: Path: "[a" is no pattern`},
		{"a span", "[Assembly]\nDeadline=soon\n", `f:2: Deadline: "soon" is no time span`},
		{"a unit", "[Assembly]\nDeadline=5 parsec\n", `f:2: Deadline: "5 parsec" is no time span`},
		{"a sign", "[Assembly]\nDeadline=-5\n", `f:2: Deadline: "-5" is no time span`},
		{"too short", "[Assembly]\nDeadline=0\n", `f:2: Deadline: "0" is less than 1s`},
		{"too long", "[Assembly]\nDeadline=99999 days\n", "f:2: Deadline: it is more than a year"},
		{"much too long", "[Assembly]\nDeadline=99999999999999999999s\n", "f:2: Deadline: \"99999999999999999999s\" is no time span"},
		{"not text", "[Array a\x00]\n", `f:1: "[Array a\x00]" is not text`},
		{"joined lines have the first line's number", "[Assembly]\nDead\\\nlin=\\\n5\n", `f:2: unknown key "Dead lin"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Parse(File{"f", tt.text + "\n[Array rest]\nAssemble=no\n"})
			if len(c.Faults) != 1 || !strings.HasPrefix(c.Faults[0].Error(), tt.want) {
				t.Errorf("Parse(%q): faults %v, want %s", tt.text, c.Faults, tt.want)
			}

			if !strings.Contains(brief(c), "[Array rest] Assemble=no") {
				t.Errorf("Parse(%q) = %s: the rest does not hold", tt.text, brief(c))
			}
		})
	}
}

// TestRead checks which files count, and in which order, as systemd has it.
func TestRead(t *testing.T) {
	deadline := func(n int) *fstest.MapFile {
		return &fstest.MapFile{Data: fmt.Appendf(nil, "[Assembly]\nDeadline=%d\n", n)}
	}
	array := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("[Array " + name + "]\nAssemble=no\n")}
	}

	const (
		etc, run, lib = "etc/" + Name, "run/" + Name, "usr/lib/" + Name
	)

	for _, tt := range []struct {
		name  string
		files fstest.MapFS
		want  string
	}{
		{"none", fstest.MapFS{}, ""},
		{"the distribution's", fstest.MapFS{lib: deadline(1)}, "[Assembly] Deadline=1 /usr/lib/" + Name},
		{"the administrator's hides it", fstest.MapFS{lib: deadline(1), etc: deadline(2)}, "[Assembly] Deadline=2 /etc/" + Name},
		{"that of this boot too", fstest.MapFS{lib: deadline(1), run: deadline(2)}, "[Assembly] Deadline=2 /run/" + Name},
		{"but not the administrator's", fstest.MapFS{run: deadline(1), etc: deadline(2)}, "[Assembly] Deadline=2 /etc/" + Name},
		{
			"drop-ins win, wherever they are",
			fstest.MapFS{etc: deadline(1), lib + ".d/a.conf": deadline(2)},
			"[Assembly] Deadline=2 /usr/lib/" + Name + ".d/a.conf",
		},
		{
			"by their names, not their directories",
			fstest.MapFS{etc + ".d/a.conf": deadline(1), run + ".d/b.conf": deadline(3), lib + ".d/c.conf": deadline(2)},
			"[Assembly] Deadline=2 /usr/lib/" + Name + ".d/c.conf",
		},
		{
			"of one name the administrator's counts",
			fstest.MapFS{etc + ".d/a.conf": deadline(1), run + ".d/a.conf": array("x"), lib + ".d/a.conf": array("y")},
			"[Assembly] Deadline=1 /etc/" + Name + ".d/a.conf",
		},
		{
			"an empty one masks",
			fstest.MapFS{etc + ".d/a.conf": &fstest.MapFile{}, lib + ".d/a.conf": array("y"), lib + ".d/b.conf": array("z")},
			"[Array z] Assemble=no /usr/lib/" + Name + ".d/b.conf",
		},
		{
			"others are none",
			fstest.MapFS{etc + ".d/a.conf~": deadline(1), etc + ".d/.b.conf": deadline(1), etc + ".d/README": deadline(1)},
			"",
		},
		{
			"they add up",
			fstest.MapFS{etc: array("a"), etc + ".d/a.conf": array("b")},
			"[Array a] Assemble=no /etc/" + Name + "\n[Array b] Assemble=no /etc/" + Name + ".d/a.conf",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Read(tt.files)

			var lines []string
			for _, s := range c.Settings {
				lines = append(lines, fmt.Sprintf("%v %s=%s %s", s.Section, s.Key, s.Value, s.File))
			}

			if got := strings.Join(lines, "\n"); got != tt.want || len(c.Faults) > 0 {
				t.Errorf("Read() = %s, %v, want %s", got, c.Faults, tt.want)
			}
		})
	}
}

// TestReadReal checks on a real file system what a map has not: links to
// /dev/null, which mask, and what cannot be read, which is a fault.
func TestReadReal(t *testing.T) {
	dir := t.TempDir()
	lib, etc := filepath.Join(dir, "usr/lib", Name+".d"), filepath.Join(dir, "etc", Name+".d")

	for _, d := range []string{lib, etc} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	for name, text := range map[string]string{
		filepath.Join(lib, "a.conf"): "[Assembly]\nDeadline=1\n",
		filepath.Join(lib, "b.conf"): "[Assembly]\nReadd=no\n",
		filepath.Join(lib, "c.conf"): strings.Repeat("#", fileBytesMax+1),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for name, target := range map[string]string{"a.conf": "/dev/null", "d.conf": "/nowhere"} {
		if err := os.Symlink(target, filepath.Join(etc, name)); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Mkdir(filepath.Join(etc, "e.conf"), 0o755); err != nil {
		t.Fatal(err)
	}

	c := Read(os.DirFS(dir))
	if got := brief(c); got != "[Assembly] Readd=no @2" {
		t.Errorf("Read() = %s", got)
	}

	var faults []string
	for _, f := range c.Faults {
		faults = append(faults, f.Error())
	}

	want := []string{
		"/usr/lib/raid-assembler.conf.d/c.conf: it is larger than 1048576 bytes",
		"/etc/raid-assembler.conf.d/d.conf: no such file or directory",
		"/etc/raid-assembler.conf.d/e.conf: is a directory",
	}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// TestReadDirectory checks that a directory that cannot be read is a fault.
func TestReadDirectory(t *testing.T) {
	c := Read(fstest.MapFS{"etc/" + Name + ".d": &fstest.MapFile{Data: []byte("a file")}})
	if len(c.Faults) != 1 || c.Faults[0].File != "/etc/"+Name+".d" {
		t.Errorf("faults %v, want one about the directory", c.Faults)
	}
}

var (
	data = policy.Identity{UUID: raid.UUID{1}, Name: "data", Format: "1.2", Host: "here"}
	away = policy.Identity{UUID: raid.UUID{2}, Name: "data", Format: "1.2", Host: "there"}
	ours = policy.Identity{UUID: raid.UUID{2}, Name: "data", Format: "1.2", Host: "there", Ours: true}
	bare = policy.Identity{UUID: raid.UUID{3}, Name: "old", Format: "0.90"}
)

// TestChoose checks what holds for which array.
func TestChoose(t *testing.T) {
	const uuid = "[Array 01000000:00000000:00000000:00000000]\n"

	for _, tt := range []struct {
		name, text string
		array      policy.Identity
		want       string // mode, deadline, and pieces of who said so
	}{
		{"nothing was said", "", data, "0 30s"},
		{"for all", "[Assembly]\nAssemble=no\nDeadline=5\n", data, "2 5s Assemble=no in f:2 f:3"},
		{"for a format", "[Assembly]\nAssemble=no\n[Format 1.2]\nAssemble=yes\nDeadline=1min\n", data, "0 1m0s f:4 f:5"},
		{"for another format", "[Format 0.90]\nAssemble=leave-to-mdadm\n", data, "0 30s"},
		{"for that format", "[Format 0.90]\nAssemble=leave-to-mdadm\n", bare, "3 30s f:2"},
		{"for a name", "[Format 1.2]\nDeadline=3\n[Array data]\nAssemble=read-only\nDeadline=infinity\n", data, "1 never f:4 f:5"},
		{"for a UUID", "[Array data]\nAssemble=no\nDeadline=3\n" + uuid + "Assemble=yes\n", data, "0 3s f:5 f:3"},
		{"not for another UUID", uuid + "Assemble=no\n", away, "0 30s"},
		{"foreign", "[Assembly]\nForeign=no\n", away, `2 30s the host "there" f:2`},
		{"not foreign", "[Assembly]\nForeign=no\n", data, "0 30s"},
		{"foreign, but it has run here", "[Assembly]\nForeign=no\n", ours, "0 30s"},
		{"of no host", "[Assembly]\nForeign=no\n", bare, "0 30s"},
		{"of a host of ours", "[Assembly]\nForeign=no\nHost=x\nHost=There\n", away, "0 30s"},
		{"foreign, but named", "[Assembly]\nForeign=no\n[Array data]\nAssemble=yes\n", away, "0 30s f:4"},
		{"foreign, and its format less", "[Assembly]\nForeign=read-only\n[Format 1.2]\nAssemble=no\n", away, "2 30s f:4"},
		{"foreign, and its format more", "[Assembly]\nForeign=read-only\n[Format 1.2]\nAssemble=yes\n", away, "1 30s f:2"},
		{"a fault for all", "[Assembly]\nX=1\n", data, "0 30s fault: f:2"},
		{"a fault nobody knows what about", "[X]\n", data, "0 30s fault: f:1"},
		{"a fault in its section", "[Array data]\nX=1\n", data, "0 30s fault: f:2"},
		{"a fault in its format's", "[Format 1.2]\nX=1\n", data, "0 30s fault: f:2"},
		{"a fault in another section", "[Array other]\nX=1\n[Format ddf]\nY=1\n[Domain d]\nZ=1\n", data, "0 30s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Parse(File{"f", tt.text})
			got := c.Policy(policy.DefaultConfig(), "here").For(tt.array)

			words := strings.Fields(tt.want)

			span := strings.ReplaceAll(got.Deadline.String(), Never.String(), "never")
			if text := fmt.Sprint(got.Mode, " ", span); text != words[0]+" "+words[1] {
				t.Errorf("mode and deadline %s, want %s", text, tt.want)
			}

			said := got.By + " " + got.DeadlineBy
			if got.Fault != "" {
				said += " fault: " + got.Fault
			}

			for _, piece := range words[2:] {
				if !strings.Contains(said, piece) {
					t.Errorf("said %q, want %q in it", said, piece)
				}
			}

			if len(words) == 2 && (got.DeadlineBy != "" || got.Fault != "") {
				t.Errorf("%+v, want what is built in", got)
			}
		})
	}
}

// TestLongestDeadline checks for how long any array may wait.
func TestLongestDeadline(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 30 * time.Second,
		"[Array a]\nDeadline=2min\n[Format 1.2]\nDeadline=1min\n": 2 * time.Minute,
		"[Array a]\nDeadline=infinity\n":                          30 * time.Second,
		"[Assembly]\nDeadline=10\n[Array a]\nDeadline=20\n":       20 * time.Second,
		"[Assembly]\nDeadline=10\n":                               10 * time.Second,
	} {
		c := Parse(File{"f", text})
		if got := c.LongestDeadline(30 * time.Second); got != want {
			t.Errorf("LongestDeadline() of %q = %v, want %v", text, got, want)
		}
	}
}

// TestReadd checks the one key that is about all arrays.
func TestReadd(t *testing.T) {
	for text, want := range map[string]bool{"": true, "[Assembly]\nReadd=off\n": false, "[Assembly]\nReadd=1\n": true} {
		c := Parse(File{"f", text})
		if got := c.Policy(policy.DefaultConfig(), "").Readd; got != want {
			t.Errorf("Readd of %q = %v, want %v", text, got, want)
		}
	}
}

// TestSpans checks what systemd takes for time.
func TestSpans(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30": 30 * time.Second, "30s": 30 * time.Second, "1 min": time.Minute, "2min 5s": 125 * time.Second,
		"1h30m": 90 * time.Minute, "1500ms": 1500 * time.Millisecond, "1 day 1": 24*time.Hour + time.Second, "infinity": Never,
	} {
		if got, err := parseSpan(text); got != want || err != nil {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

// TestDomains checks which disks are in which domains.
func TestDomains(t *testing.T) {
	disk := Disk{
		Path: "pci-0000:00:1f.2-ata-1", Model: "ACME 12/3", Serial: "S1", WWN: "0x5000c500a1b2c3d4", Rotational: true,
		Arrays: []policy.Identity{data},
	}

	for _, tt := range []struct {
		text string
		in   bool
	}{
		{"Path=pci-0000:00:1f.2-*", true},
		{"Path=/dev/disk/by-path/pci-0000:00:1f.2-ata-?", true},
		{"Path=pci-0000:01*", false},
		{"Path=no\nPath=*ata*", true},
		{"Model=ACME*", true},
		{"Model=ACME ??/3", true},
		{"Model=acme*", false},
		{"Serial=S[12]", true},
		{"WWN=0x5000c500*", true},
		{"Media=rotational", true},
		{"Media=solid-state", false},
		{"Media=solid-state\nMedia=rotational", true},
		{"Path=*\nSerial=S2", false},
		{"Path=*\nSerial=S1\nModel=*", true},
		{"Array=data", true},
		{"Array=01000000-00000000-00000000-00000000", true},
		{"Array=other", false},
		{"Array=data\nSerial=S2", true},
		{"Array=other\nSerial=S1", true},
		{"Serial=S1\nSize=3", false}, // something is wrong with it
		{"Serial=S1\n[Other]", false},
		{"Serial=S1\n[Array x]\nY=1", true},
	} {
		c := Parse(File{"f", "[Domain d]\n" + tt.text + "\n"})
		if got := slices.Contains(c.Domains(disk), "d"); got != tt.in {
			t.Errorf("%q: in it %v, want %v; %v", tt.text, got, tt.in, c.Faults)
		}
	}

	all := Parse(File{"f", "[Domain b]\nPath=*\n[Domain a]\nPath=*\n"})
	if got := all.Domains(disk); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("domains %v, want a and b", got)
	}

	if got := all.Domains(Disk{Serial: "S1"}); got != nil {
		t.Errorf("domains %v of a disk that is nowhere, want none", got)
	}
}

// TestAlerts checks how an administrator is told.
func TestAlerts(t *testing.T) {
	for text, want := range map[string]Alerts{
		"":                                       {Repeat: 24 * time.Hour},
		"[Alerts]\nProgram=/bin/a\n":             {Program: "/bin/a", Repeat: 24 * time.Hour},
		"[Alerts]\nProgram=/bin/a\nRepeat=1h\n":  {Program: "/bin/a", Repeat: time.Hour},
		"[Alerts]\nProgram=a\nRepeat=infinity\n": {Repeat: Never},
	} {
		c := Parse(File{"f", text})
		if got := c.Alerts(); got != want {
			t.Errorf("%q: Alerts() = %+v, want %+v", text, got, want)
		}

		if wrong := strings.Contains(text, "=a"); wrong != (len(c.Faults) > 0) {
			t.Errorf("%q: faults %v", text, c.Faults)
		}
	}
}

// TestDefaults checks that what is shown as built in is what holds.
func TestDefaults(t *testing.T) {
	base := policy.DefaultConfig()
	none := Config{}
	shown := Parse(File{"f", Text(Defaults(base.Deadline, base.Readd))})

	if len(shown.Faults) > 0 {
		t.Fatalf("faults %v", shown.Faults)
	}

	for _, array := range []policy.Identity{data, away, bare} {
		got, want := shown.Policy(base, "here").For(array), none.Policy(base, "here").For(array)
		if got.Mode != want.Mode || got.Deadline != want.Deadline {
			t.Errorf("%v: %+v, want %+v", array, got, want)
		}
	}

	if got := Text(Defaults(Never, false)); !strings.Contains(got, "Deadline=infinity\n") || !strings.Contains(got, "Readd=no\n") {
		t.Errorf("Defaults(Never, false): %s", got)
	}
}

// FuzzParse: whatever is written, each line that is wrong is named, nothing is
// lost in showing what holds, and nothing chosen for lack of understanding.
func FuzzParse(f *testing.F) {
	f.Add("[Assembly]\nDeadline=2min 5s\nHost=a\nHost=\n[Domain d]\nPath=/x/*\\\n# c\n y\n")
	f.Add("[Array 01000000-00000000-00000000-0000000A]\nAssemble=read-only\n[Format ddf]\nAssemble=no\nX")
	f.Fuzz(func(t *testing.T, text string) {
		c := Parse(File{"f", text})
		lines := strings.Count(text, "\n") + 1

		for _, fault := range c.Faults {
			if fault.File != "f" || fault.Line < 1 || fault.Line > lines {
				t.Errorf("fault %v of %d lines", fault, lines)
			}
		}

		again := Parse(File{"f", Text(c.Settings)})
		if len(again.Faults) > 0 {
			t.Fatalf("%q is shown as %q: %v", text, Text(c.Settings), again.Faults)
		}

		ignore := func(s Setting) Setting {
			s.Origin = Origin{}

			return s
		}
		if diff := cmp.Diff(settings(c, ignore), settings(again, ignore)); diff != "" {
			t.Errorf("%q is shown as %q:\n%s", text, Text(c.Settings), diff)
		}

		if choice := c.Policy(policy.DefaultConfig(), "here").For(data); choice.Deadline < spanMin {
			t.Errorf("%q: deadline %v", text, choice.Deadline)
		}

		c.Domains(Disk{Path: "p", Serial: "s", Arrays: []policy.Identity{data}})
	})
}

func settings(c Config, f func(Setting) Setting) []Setting {
	var out []Setting
	for _, s := range c.Settings {
		out = append(out, f(s))
	}

	return out
}
