package config

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// Note says of a line of mdadm.conf what has no counterpart here, or differs.
type Note struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

// ImportMdadm returns the configuration that says what an mdadm.conf says, and
// notes of what it says that ours cannot, or need not. Where is how the file is
// called in what is returned.
func ImportMdadm(where, text string) (string, []Note) {
	im := importer{where: where}

	for _, line := range mdadmLines(text) {
		im.line(line)
	}

	im.listed()
	slices.SortStableFunc(im.settings, func(a, b Setting) int {
		return cmp.Or(bySection(a.Section, b.Section), cmp.Compare(a.Key, b.Key))
	})
	slices.SortStableFunc(im.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })

	return "# What " + where + " says.\n\n" + Text(im.settings), im.notes
}

// mdadmLine is a line of mdadm.conf and those that continue it.
type mdadmLine struct {
	number int
	words  []string
}

// mdadmLines reads the grammar of mdadm.conf(5): words between blanks, parts of
// which may be quoted; a # at the beginning of a word ends the line; a line that
// begins with a blank continues the one before.
func mdadmLines(text string) []mdadmLine {
	var lines []mdadmLine

	number := 0

	for line := range strings.Lines(text) {
		number++

		words := mdadmWords(line)

		switch {
		case len(words) == 0:
		case strings.ContainsRune(" \t", rune(line[0])) && len(lines) > 0:
			last := &lines[len(lines)-1]
			last.words = append(last.words, words...)
		default:
			lines = append(lines, mdadmLine{number, words})
		}
	}

	return lines
}

func mdadmWords(line string) []string {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  rune
	)

	end := func() {
		if inWord {
			words = append(words, word.String())
		}

		word.Reset()

		inWord = false
	}

	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && strings.ContainsRune(" \t\r\n", r):
			end()
		case quote == 0 && r == '#' && !inWord:
			return words
		case r != '\n':
			word.WriteRune(r)

			inWord = true
		}
	}

	end()

	return words
}

// importer is what has been made of the lines read.
type importer struct {
	where    string
	settings []Setting
	notes    []Note

	arrays []mdadmArray // that were named, and not to be ignored
	auto   *mdadmLine   // the first AUTO line: others do not count
}

// mdadmArray is an array that an ARRAY line names.
type mdadmArray struct {
	line int
	name string // its UUID or its name, as our sections have it
}

// mdadmKeywords are what lines begin with, or with three letters of it.
var mdadmKeywords = []string{
	"array", "auto", "create", "device", "encryption_no_verify", "homecluster", "homehost", "mailaddr", "mailfrom",
	"monitordelay", "part-policy", "policy", "probing", "program", "sysfs",
}

func mdadmKeyword(word string) string {
	word = strings.ToLower(word)

	for _, k := range mdadmKeywords {
		if k == word || len(word) >= 3 && strings.HasPrefix(k, word) {
			return k
		}
	}

	return ""
}

func (im *importer) set(line int, section Section, key, value string) {
	s := Setting{Origin{im.where, line}, canonical(section), key, value}
	same := func(other Setting) bool {
		return other.Section == s.Section && other.Key == key && other.Value == value
	}

	if !slices.ContainsFunc(im.settings, same) {
		im.settings = append(im.settings, s)
	}
}

func (im *importer) note(line int, format string, args ...any) {
	im.notes = append(im.notes, Note{line, fmt.Sprintf(format, args...)})
}

// line takes in one line.
func (im *importer) line(l mdadmLine) {
	for _, word := range l.words {
		if strings.ContainsFunc(word, unprintable) {
			im.note(l.number, "%q is not text", word)

			return
		}
	}

	switch keyword := mdadmKeyword(l.words[0]); keyword {
	case "":
		im.note(l.number, "unknown keyword %q", l.words[0])
	case "array":
		im.array(l)
	case "auto":
		if im.auto != nil {
			im.note(l.number, "AUTO counts once, and was there in line %d", im.auto.number)

			return
		}

		im.auto = &l
		im.autoLine(l)
	case "device":
		im.device(l)
	case "homehost":
		im.homeHost(l)
	case "policy":
		im.policy(l)
	default:
		im.note(l.number, "%s: %s", strings.ToUpper(keyword), mdadmNoCounterpart[keyword])
	}
}

// mdadmNoCounterpart says why lines are left out.
var mdadmNoCounterpart = map[string]string{
	"create":               "nodes are root's and of the group disk; udev rules change that",
	"encryption_no_verify": "it is about Intel's formats, of mdadm",
	"homecluster":          "clusters are not served",
	"mailaddr":             "nobody is mailed: all events are in the journal, with a MESSAGE_ID for each kind",
	"mailfrom":             "nobody is mailed: all events are in the journal, with a MESSAGE_ID for each kind",
	"monitordelay":         "nothing is polled",
	"part-policy":          "partitions of spares are nothing that is made here",
	"probing":              "it is about how mdadm reads DDF",
	"program":              "Program= in [Alerts] is called with other arguments: raid-assembler.conf(5)",
	"sysfs":                "there is no /sys/block/md*: raid-assembler limit and bitmap change what can be changed",
}

// array takes in an ARRAY line. Arrays need not be named to be started: what is
// left of it is what it forbids, and a group of spares.
func (im *importer) array(l mdadmLine) {
	array, group, ignore := im.arrayWords(l)

	switch section := (Section{arrayKind, array}); {
	case !sectionName(array):
		im.note(l.number, "it names no array by its UUID or name")
	case ignore:
		im.set(l.number, section, "Assemble", "no")
	default:
		im.arrays = append(im.arrays, mdadmArray{l.number, array})

		if group != "" && !sectionName(group) {
			im.note(l.number, "spare-group: %q cannot be the name of a domain", group)
		} else if group != "" {
			im.set(l.number, Section{domainKind, group}, "Array", array)
		}
	}
}

// arrayWords returns what the words of an ARRAY line say.
func (im *importer) arrayWords(l mdadmLine) (array, group string, ignore bool) {
	var uuid, name string

	for i, word := range l.words[1:] {
		key, value, pair := strings.Cut(word, "=")

		switch key = strings.ToLower(key); {
		case !pair && i == 0 && word == "<ignore>":
			ignore = true
		case !pair && i == 0:
			name = path.Base(word)
		case key == "uuid":
			uuid = value
		case key == "name":
			if _, after, hosted := strings.Cut(value, ":"); hosted {
				value = after
			}

			name = value
		case key == "spare-group":
			group = value
		case key == "bitmap" && value != "internal" && value != "none":
			im.note(l.number, "bitmaps in a file are not served")
		}
	}

	if parsed, err := raid.ParseUUID(uuid); err == nil {
		return parsed.String(), group, ignore
	}

	return name, group, ignore
}

// sectionName reports whether text can be the name of a section, and a value.
func sectionName(text string) bool {
	return text != "" && text == strings.TrimSpace(text) && !strings.HasSuffix(text, `\`)
}

// mdadmMetadata are our formats by the words of AUTO lines.
var mdadmMetadata = map[string][]string{
	"0.90": {"0.90"}, "0.9": {"0.90"}, "0": {"0.90"},
	"1.x": {"1.0", "1.1", "1.2"}, "1": {"1.0", "1.1", "1.2"}, "1.0": {"1.0"}, "1.1": {"1.1"}, "1.2": {"1.2"},
	"ddf": {"ddf"}, "imsm": {"imsm"},
}

// autoLine takes in an AUTO line: of each format, the first word that is about it
// counts, and homehost is about arrays of this host. What nothing is about is
// started.
func (im *importer) autoLine(l mdadmLine) {
	decided := make(map[string]bool) // formats
	own := false                     // arrays of this host are started, whatever follows

	for _, word := range l.words[1:] {
		word = strings.ToLower(word)
		yes := strings.HasPrefix(word, "+")
		what := strings.TrimLeft(word, "+-")
		formats := mdadmMetadata[what]

		switch {
		case word == "homehost" || word == "+homehost":
			own = true
		case what == word:
			im.note(l.number, "AUTO: %q begins with neither + nor -", word)
		case word == "+all":
			return
		case word == "-all":
			im.autoRest(l.number, decided, own)

			return
		case formats == nil:
			im.note(l.number, "AUTO: %q has no counterpart", word)
		}

		for _, format := range formats {
			switch {
			case decided[format] || yes:
			case own:
				im.ownOnly(l.number, format)
			default:
				im.set(l.number, Section{formatKind, format}, "Assemble", "no")
			}

			decided[format] = true
		}
	}
}

// autoRest takes in the -all of an AUTO line.
func (im *importer) autoRest(line int, decided map[string]bool, own bool) {
	switch {
	case own:
		im.ownOnly(line, "all")
	case len(decided) == 0:
		im.set(line, Section{Kind: assemblyKind}, "Assemble", "no")
	default:
		for _, format := range Formats {
			if !decided[format] {
				im.set(line, Section{formatKind, format}, "Assemble", "no")
			}
		}
	}

	if own && len(decided) > 0 {
		im.note(line, "AUTO: arrays of other hosts are not started, of whatever format")
	}
}

// ownOnly has arrays of other hosts not started.
func (im *importer) ownOnly(line int, what string) {
	im.set(line, Section{Kind: assemblyKind}, "Foreign", "no")

	if what != "all" {
		im.note(line, "AUTO: arrays of other hosts are not started, of whatever format, and not only of %s", what)
	}
}

// listed has arrays started that were named, where their format, or all, are not:
// an ARRAY line is stronger than an AUTO line.
func (im *importer) listed() {
	forbidden := slices.ContainsFunc(im.settings, func(s Setting) bool {
		return s.Key == "Foreign" || s.Key == "Assemble" && s.Section.Kind != arrayKind
	})

	for _, a := range im.arrays {
		if forbidden {
			im.set(a.line, Section{arrayKind, a.name}, "Assemble", "yes")
		}
	}
}

// device takes in a DEVICE line.
func (im *importer) device(l mdadmLine) {
	for _, word := range l.words[1:] {
		if word != "partitions" && word != "containers" {
			im.note(l.number, "DEVICE: all devices are looked at, not only %s; "+
				"[Array NAME] with Assemble=no keeps an array from being started", word)

			return
		}
	}
}

// homeHost takes in a HOMEHOST line.
func (im *importer) homeHost(l mdadmLine) {
	for _, word := range l.words[1:] {
		switch strings.ToLower(word) {
		case "<system>", "<ignore>": // that is how it is
		case "<none>":
			im.note(l.number, "HOMEHOST: this host has its name as long as it has one")
		default:
			im.set(l.number, Section{Kind: assemblyKind}, "Host", word)
		}
	}
}

// policy takes in a POLICY line: disks in a domain, by where they are.
func (im *importer) policy(l mdadmLine) {
	var (
		domains, paths []string
		blank          string
	)

	for _, word := range l.words[1:] {
		key, value, _ := strings.Cut(word, "=")

		switch key = strings.ToLower(key); key {
		case "domain":
			domains = append(domains, value)
		case "path":
			paths = append(paths, value)
		case "action":
			blank = im.policyAction(l.number, value)
		case "type":
			if value != "disk" {
				im.note(l.number, "POLICY: type=%s has no counterpart: a partition is where its disk is", value)
			}
		default:
			im.note(l.number, "POLICY: %s=%s has no counterpart", key, value)
		}
	}

	im.policyDomains(l, domains, paths, blank)

	if blank != "" && len(domains) == 0 {
		im.note(l.number, "POLICY: an action for blank disks without a domain= has no counterpart: [Domain NAME] "+
			"with Blank=%s, and its arrays in it, is", blank)
	}
}

// policyDomains puts disks into domains, by the paths of a POLICY line.
func (im *importer) policyDomains(l mdadmLine, domains, paths []string, blank string) {
	for _, domain := range domains {
		switch {
		case !sectionName(domain):
			im.note(l.number, "POLICY: %q cannot be the name of a domain", domain)
		case len(paths) == 0:
			im.note(l.number, "POLICY: domain=%s without a path= has no counterpart: "+
				"[Domain %s] with Path=* is all disks", domain, domain)
		}

		taken := false

		for _, pattern := range paths {
			if !sectionName(domain) || !sectionName(pattern) || checkPattern(pattern) != nil {
				im.note(l.number, "POLICY: path=%s is no pattern", pattern)
			} else {
				im.set(l.number, Section{domainKind, domain}, "Path", pattern)

				taken = true
			}
		}

		if blank != "" && taken {
			im.set(l.number, Section{domainKind, domain}, "Blank", blank)
		}
	}
}

// policyAction takes in what may be done with a disk, and returns what that is for one
// that is blank. Unlike with mdadm it has to be so everywhere.
func (im *importer) policyAction(line int, action string) (blank string) {
	switch action {
	case "include", "re-add": // that is how it is
	case "spare":
		return blankYes
	case "spare-same-slot":
		return blankSameSlot
	case "force-spare":
		im.note(line, "POLICY: action=%s has no counterpart: a disk that holds something is not overwritten", action)

		return blankYes
	default:
		im.note(line, "POLICY: unknown action %q", action)
	}

	return ""
}
