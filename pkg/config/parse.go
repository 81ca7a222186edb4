package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// File is a file of the configuration.
type File struct{ Path, Text string }

// key is a key of a section.
type key struct {
	list  bool                     // every line adds a value; an empty one takes all back
	check func(value string) error // whether a value is one
}

// keys are the keys of each kind of section. Each has an effect.
var keys = map[string]map[string]key{
	assemblyKind: {
		"Assemble":       {check: checkMode},
		"Deadline":       {check: checkSpan},
		"ReplaceBelated": {check: checkCount},
		"ReplaceErrors":  {check: checkCount},
		"ReplaceSlow":    {check: checkSpan},
		"Foreign":        {check: checkMode},
		"Host":           {list: true, check: checkText},
		"Readd":          {check: checkBool},
	},
	formatKind: {
		"Assemble":       {check: checkMode},
		"Deadline":       {check: checkSpan},
		"ReplaceBelated": {check: checkCount},
		"ReplaceErrors":  {check: checkCount},
		"ReplaceSlow":    {check: checkSpan},
	},
	arrayKind: {
		"Assemble":       {check: checkMode},
		"Deadline":       {check: checkSpan},
		"ReplaceBelated": {check: checkCount},
		"ReplaceErrors":  {check: checkCount},
		"ReplaceSlow":    {check: checkSpan},
	},
	domainKind: {
		"Array":  {list: true, check: checkText},
		"Blank":  {check: checkBlank},
		"Media":  {list: true, check: checkMedia},
		"Model":  {list: true, check: checkPattern},
		"Path":   {list: true, check: checkPattern},
		"Serial": {list: true, check: checkPattern},
		"WWN":    {list: true, check: checkPattern},
	},
	alertsKind: {
		"Program": {check: checkProgram},
		"Repeat":  {check: checkSpan},
	},
}

// single are the kinds of which there is one section, without a name.
var single = []string{assemblyKind, alertsKind}

// modes are what may be said of whether arrays are started.
var modes = map[string]policy.Mode{
	"yes": policy.Run, "read-only": policy.RunReadOnly, "no": policy.Leave, "leave-to-mdadm": policy.LeaveToMdadm,
}

// Formats are the formats of arrays, as superblocks call them.
var Formats = []string{"0.90", "1.0", "1.1", "1.2", "asr", "ddf", "imsm"}

// Parse reads files, of which the later ones win. It never fails: what is wrong
// is among the faults, and the rest holds.
func Parse(files ...File) Config {
	p := parser{said: make(map[Section]map[string][]Setting), begun: make(map[Section]Origin)}

	for _, f := range files {
		p.file(f)
	}

	return p.config()
}

// parser is what has been read so far.
type parser struct {
	said   map[Section]map[string][]Setting
	begun  map[Section]Origin // where each section is seen first
	faults []Fault

	section Section // that the lines are in
	known   bool    // whether they are in one that is
}

func (p *parser) fault(at Origin, format string, args ...any) {
	p.faults = append(p.faults, Fault{at, p.section, fmt.Sprintf(format, args...)})
}

// file reads one file.
func (p *parser) file(f File) {
	p.section, p.known = Section{}, true

	var (
		joined string // the lines before that end in a backslash
		first  int    // of those
	)

	lines := strings.Split(f.Text, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line != "" && strings.ContainsRune("#;", rune(line[0])) {
			continue // also between lines that are joined
		}

		if joined == "" {
			first = i + 1
		}

		if cut, more := strings.CutSuffix(line, `\`); more && i < len(lines)-1 {
			joined += cut + " "

			continue
		}

		p.line(Origin{f.Path, first}, strings.TrimSpace(joined+line))
		joined = ""
	}

	if joined != "" { // comments follow it, and nothing else
		p.line(Origin{f.Path, first}, strings.TrimSpace(joined))
	}
}

// line reads one line without what is around it.
func (p *parser) line(at Origin, line string) {
	switch {
	case line == "":
	case !utf8.ValidString(line) || strings.ContainsFunc(line, unprintable):
		p.fault(at, "%q is not text", line)
	case line[0] == '[':
		p.header(at, line)
	case !p.known: // that was said at its beginning
	default:
		p.assignment(at, line)
	}
}

func unprintable(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }

// header begins a section.
func (p *parser) header(at Origin, line string) {
	p.section, p.known = Section{}, false

	inner, ok := strings.CutSuffix(line[1:], "]")
	if !ok {
		p.fault(at, "%q: a section ends in ]", line)

		return
	}

	kind, name, _ := strings.Cut(strings.TrimSpace(inner), " ")
	section := Section{kind, strings.TrimSpace(name)}

	switch {
	case keys[kind] == nil:
		p.fault(at, "unknown section %q: there are %s", line, sectionList())
	case slices.Contains(single, kind) && section.Name != "":
		p.fault(at, "%q: [%s] is about all arrays, and has no name", line, kind)
	case !slices.Contains(single, kind) && section.Name == "":
		p.fault(at, "%q: it lacks a name, as in [%s NAME]", line, kind)
	case kind == formatKind && !slices.Contains(Formats, section.Name):
		p.fault(at, "unknown format %q: there are %s", section.Name, strings.Join(Formats, ", "))
	default:
		p.section, p.known = canonical(section), true
		if _, ok := p.begun[p.section]; !ok {
			p.begun[p.section] = at
		}
	}
}

// canonical writes a UUID in the one way.
func canonical(s Section) Section {
	if uuid, err := raid.ParseUUID(s.Name); err == nil && s.Kind == arrayKind {
		s.Name = uuid.String()
	}

	return s
}

func sectionList() string {
	words := make([]string, 0, len(keys))

	for _, kind := range slices.Sorted(maps.Keys(keys)) {
		name := " NAME"
		if slices.Contains(single, kind) {
			name = ""
		}

		words = append(words, "["+kind+name+"]")
	}

	return strings.Join(words, ", ")
}

// assignment takes KEY=VALUE in.
func (p *parser) assignment(at Origin, line string) {
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)

	if p.section == (Section{}) {
		p.fault(at, "%q is in no section", line)

		return
	}

	if !ok {
		p.fault(at, "%q: it is neither KEY=VALUE nor a section", line)

		return
	}

	k, ok := keys[p.section.Kind][name]
	if !ok {
		p.fault(at, "unknown key %q in %v: there are %s", name, p.section,
			strings.Join(slices.Sorted(maps.Keys(keys[p.section.Kind])), ", "))

		return
	}

	if value != "" {
		if err := k.check(value); err != nil {
			p.fault(at, "%s: %v", name, err)

			return
		}
	}

	p.take(Setting{at, p.section, name, value}, k.list)
}

// take lets a setting hold.
func (p *parser) take(s Setting, list bool) {
	values := p.said[s.Section]
	if values == nil {
		values = make(map[string][]Setting)
		p.said[s.Section] = values
	}

	if !list || s.Value == "" {
		delete(values, s.Key)
	}

	if s.Value != "" {
		values[s.Key] = append(values[s.Key], s)
	}
}

// config returns what was read.
func (p *parser) config() Config {
	c := Config{Faults: p.faults}

	for _, section := range slices.SortedFunc(maps.Keys(p.begun), bySection) {
		values := p.said[section]
		for _, name := range slices.Sorted(maps.Keys(values)) {
			c.Settings = append(c.Settings, values[name]...)
		}

		silent := !slices.ContainsFunc(p.faults, func(f Fault) bool { return f.Section == section })

		if section.Kind == domainKind && silent && !saysWho(values) {
			c.Faults = append(c.Faults, Fault{p.begun[section], section, fmt.Sprintf(
				"%v says of no disk that it is in it: there are %s", section,
				strings.Join(slices.Sorted(maps.Keys(keys[domainKind])), ", "))})
		}
	}

	return c
}

// saysWho reports whether the section of a domain says what disks are in it.
func saysWho(values map[string][]Setting) bool {
	for name := range values {
		if keys[domainKind][name].list {
			return true
		}
	}

	return false
}

// bySection puts what holds for all before what holds for some.
func bySection(a, b Section) int {
	rank := func(s Section) int {
		return slices.Index([]string{assemblyKind, formatKind, arrayKind, domainKind, alertsKind}, s.Kind)
	}

	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
}

func checkMode(value string) error {
	if _, ok := modes[value]; !ok {
		return fmt.Errorf("%q is none of yes, read-only, no and leave-to-mdadm", value)
	}

	return nil
}

func checkMedia(value string) error {
	if value != rotational && value != solidState {
		return fmt.Errorf("%q is neither %s nor %s", value, rotational, solidState)
	}

	return nil
}

func checkCount(value string) error {
	if n, err := strconv.ParseUint(value, 10, 31); err != nil || n == 0 {
		return fmt.Errorf("%q is no number from 1 on", value)
	}

	return nil
}

func checkProgram(value string) error {
	if !path.IsAbs(value) {
		return fmt.Errorf("%q is no absolute path", value)
	}

	return nil
}

func checkText(string) error { return nil }

func checkBlank(value string) error {
	if value != blankNo && value != blankSameSlot && value != blankYes {
		return fmt.Errorf("%q is none of %s, %s and %s", value, blankNo, blankSameSlot, blankYes)
	}

	return nil
}

func checkPattern(value string) error {
	if _, err := path.Match(flat(value), ""); err != nil {
		return fmt.Errorf("%q is no pattern: %w", value, err)
	}

	return nil
}

// matches reports whether value is what a shell's pattern stands for. A slash is
// a character like any other.
func matches(pattern, value string) bool {
	ok, err := path.Match(flat(pattern), flat(value))

	return ok && err == nil && value != ""
}

// flat leaves out the directory of links by path, and hides slashes.
func flat(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "/dev/disk/by-path/"), "/", "\x00")
}

func checkBool(value string) error {
	_, err := parseBool(value)

	return err
}

// parseBool reads what systemd takes for yes and no.
func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	default:
		return false, fmt.Errorf("%q is neither yes nor no", value)
	}
}

func checkSpan(value string) error {
	_, err := parseSpan(value)

	return err
}

// The bounds of a deadline. Less than the least would start arrays degraded that
// are being plugged in.
const (
	spanMin = time.Second
	spanMax = 365 * 24 * time.Hour
)

// units are systemd's units of time.
var units = map[string]time.Duration{
	"": time.Second, "s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"ms": time.Millisecond, "msec": time.Millisecond,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
}

// parseSpan reads a time span as systemd does: 30, 30s, 2min 30s, infinity.
func parseSpan(value string) (time.Duration, error) {
	if value == "infinity" {
		return Never, nil
	}

	var total time.Duration

	for rest := value; rest != ""; {
		digits := strings.TrimLeft(rest, "0123456789")
		number := rest[:len(rest)-len(digits)]
		digits = strings.TrimSpace(digits)
		after := strings.TrimLeftFunc(digits, unicode.IsLetter)
		unit := digits[:len(digits)-len(after)]
		rest = strings.TrimSpace(after)

		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || units[unit] == 0 {
			return 0, fmt.Errorf("%q is no time span, as 30s, 2min 30s and infinity are", value)
		}

		if n > int64(spanMax/units[unit]) || total > spanMax {
			return 0, errors.New("it is more than a year: infinity stands for never")
		}

		total += units[unit] * time.Duration(n)
	}

	if total < spanMin {
		return 0, fmt.Errorf("%q is less than %v", value, spanMin)
	}

	return total, nil
}
