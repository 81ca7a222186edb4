// Package config is what the administrator wants: files in the manner of
// systemd, read into a value, with where each part of it was written, and what
// is wrong with it.
//
// What files say is a function of their text: [Parse]. Which files count, and
// in which order, is [Read]'s, over a file system that the caller brings. What
// is done about it is policy's.
package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// Origin is where something was written; Line is 0 for a whole file. The zero
// value stands for what is built in.
type Origin struct {
	File string
	Line int
}

func (o Origin) String() string {
	switch {
	case o == (Origin{}):
		return "built in"
	case o.Line == 0:
		return o.File
	}

	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Section is a part of the configuration: Kind is one of the kinds below, and
// Name what it is about. The zero value stands for no section that is known.
type Section struct{ Kind, Name string }

func (s Section) String() string {
	return "[" + strings.TrimSpace(s.Kind+" "+s.Name) + "]"
}

// The kinds of sections.
const (
	assemblyKind = "Assembly"
	formatKind   = "Format"
	arrayKind    = "Array"
	domainKind   = "Domain"
	alertsKind   = "Alerts"
)

// Fault is something that is wrong with the configuration.
type Fault struct {
	Origin

	// Section is the section that it is in. What other sections say is not in
	// doubt because of it, unless it is in none that is known.
	Section Section
	Text    string
}

func (f Fault) Error() string { return fmt.Sprintf("%v: %s", f.Origin, f.Text) }

// Setting is a value that was written and holds.
type Setting struct {
	Origin

	Section    Section
	Key, Value string
}

// Config is a configuration. The zero value says nothing, so that all is as it
// is built in.
type Config struct {
	// Settings are what holds, by section and key; of a key that may be there
	// several times, in the order in which they were written.
	Settings []Setting
	Faults   []Fault // in the order in which they were found
}

// Never is the deadline of an array that is not started without its members.
const Never = policy.Never

// Policy returns base as the configuration changes it, on a host of the name
// given.
func (c *Config) Policy(base policy.Config, hostname string) policy.Config {
	deadline := base.Deadline
	base.For = func(a policy.Identity) policy.Choice { return c.choose(a, hostname, deadline) }

	if s, ok := c.get(Section{Kind: assemblyKind}, "Readd"); ok {
		base.Readd, _ = parseBool(s.Value) // it was checked when it was read
	}

	return base
}

// LongestDeadline returns the longest deadline that any array may have, but for those
// that have none, where usual is that of an array of which nothing is said.
func (c *Config) LongestDeadline(usual time.Duration) time.Duration {
	longest := time.Duration(0)
	if _, ok := c.get(Section{Kind: assemblyKind}, "Deadline"); !ok {
		longest = usual
	}

	for _, s := range c.Settings {
		if s.Key != "Deadline" {
			continue
		}

		if span, err := parseSpan(s.Value); err == nil && span != Never {
			longest = max(longest, span)
		}
	}

	return longest
}

// choose returns what is wanted for an array: what its own section says, then
// that of its format, then that for all. What is said of foreign arrays holds
// unless the array's own section says something, or that of its format less.
func (c *Config) choose(a policy.Identity, hostname string, deadline time.Duration) policy.Choice {
	assembly, format := Section{Kind: assemblyKind}, Section{formatKind, a.Format}
	byUUID, byName := Section{arrayKind, a.UUID.String()}, Section{arrayKind, a.Name}
	choice := policy.Choice{Deadline: deadline}

	if s, ok := c.first("Deadline", byUUID, byName, format, assembly); ok {
		choice.Deadline, _ = parseSpan(s.Value)
		choice.DeadlineBy = s.Origin.String()
	}

	choice.Limits = c.limits(byUUID, byName, format, assembly)

	if s, ok := c.first("Assemble", byUUID, byName); ok {
		choice.Mode, choice.By = modes[s.Value], s.said()
	} else {
		s, _ := c.first("Assemble", format, assembly)
		choice.Mode, choice.By = modes[s.Value], s.said()

		if s, _ := c.get(assembly, "Foreign"); !a.Ours && c.Foreign(a.Host, hostname) && modes[s.Value] > choice.Mode {
			choice.Mode, choice.By = modes[s.Value], fmt.Sprintf("it is of the host %q, and %s", a.Host, s.said())
		}
	}

	for _, f := range c.Faults {
		everywhere := f.Section.Kind == "" || f.Section.Kind == assemblyKind
		if everywhere || slices.Contains([]Section{byUUID, byName, format}, f.Section) {
			choice.Fault = f.Error()

			break
		}
	}

	return choice
}

// limits returns what members may do wrong, by the first of sections that says so.
func (c *Config) limits(sections ...Section) policy.Limits {
	var l policy.Limits

	// All were checked when they were read.
	if s, ok := c.first("ReplaceErrors", sections...); ok {
		l.Errors, _ = strconv.Atoi(s.Value)
	}

	if s, ok := c.first("ReplaceBelated", sections...); ok {
		l.Belated, _ = strconv.Atoi(s.Value)
	}

	if s, ok := c.first("ReplaceSlow", sections...); ok {
		l.Slow, _ = parseSpan(s.Value)
	}

	return l
}

// said is how a reason names a setting.
func (s Setting) said() string { return fmt.Sprintf("%s=%s in %v", s.Key, s.Value, s.Origin) }

// Foreign reports whether arrays of host are another machine's, by its name. An array
// that names none is nobody else's.
func (c *Config) Foreign(host, hostname string) bool {
	if host == "" || host == "any" || strings.EqualFold(host, hostname) {
		return false
	}

	return !slices.ContainsFunc(c.list(Section{Kind: assemblyKind}, "Host"), func(own string) bool {
		return strings.EqualFold(own, host)
	})
}

// Alerts are how an administrator is told of what there is to see to.
type Alerts struct {
	Program string        // that is run; empty for none
	Repeat  time.Duration // between two runs for the same
}

// repeatUsual is how often an administrator is told of the same, if nothing else is
// said.
const repeatUsual = 24 * time.Hour

// Alerts returns how an administrator is told.
func (c *Config) Alerts() Alerts {
	section := Section{Kind: alertsKind}
	alerts := Alerts{Repeat: repeatUsual}

	if s, ok := c.get(section, "Program"); ok {
		alerts.Program = s.Value
	}

	if s, ok := c.get(section, "Repeat"); ok {
		alerts.Repeat, _ = parseSpan(s.Value) // it was checked when it was read
	}

	return alerts
}

// Disk is what is known of a disk that may be in a domain.
type Disk struct {
	Path       string // the port, as in /dev/disk/by-path
	Model      string
	Serial     string
	WWN        string
	Rotational bool
	Arrays     []policy.Identity // that it is a member or a spare of
}

// Domains returns the names of the domains that a disk is in. One that something
// is wrong with has no disks.
func (c *Config) Domains(d Disk) []string {
	var names []string

	for _, section := range c.sections(domainKind) {
		wrong := slices.ContainsFunc(c.Faults, func(f Fault) bool {
			return f.Section == section || f.Section.Kind == ""
		})
		if !wrong && c.inDomain(section, d) {
			names = append(names, section.Name)
		}
	}

	return names
}

// Blanks returns in which of domains blank disks may be put to use wherever they are,
// and in which only where a member was that is lost.
func (c *Config) Blanks(domains []string) (anywhere, inSlot []string) {
	for _, name := range domains {
		switch s, _ := c.get(Section{domainKind, name}, "Blank"); s.Value {
		case blankYes:
			anywhere = append(anywhere, name)
		case blankSameSlot:
			inSlot = append(inSlot, name)
		}
	}

	return anywhere, inSlot
}

// The values of Blank.
const (
	blankNo       = "no"
	blankSameSlot = "same-slot"
	blankYes      = "yes"
)

// inDomain reports whether a disk is in a domain: one of its arrays is, or of
// each key that says what disks are like, one value fits.
func (c *Config) inDomain(section Section, d Disk) bool {
	for _, name := range c.list(section, "Array") {
		for _, a := range d.Arrays {
			if uuid, err := raid.ParseUUID(name); err == nil && uuid == a.UUID || name == a.Name {
				return true
			}
		}
	}

	some := false

	for _, key := range []struct{ name, value string }{
		{"Path", d.Path}, {"Model", d.Model}, {"Serial", d.Serial}, {"WWN", d.WWN}, {"Media", media(d.Rotational)},
	} {
		patterns := c.list(section, key.name)
		fits := slices.ContainsFunc(patterns, func(p string) bool { return matches(p, key.value) })

		if len(patterns) > 0 && !fits {
			return false
		}

		some = some || fits
	}

	return some
}

// The kinds of media.
const (
	rotational = "rotational"
	solidState = "solid-state"
)

func media(rotates bool) string {
	if rotates {
		return rotational
	}

	return solidState
}

// first returns what the first of sections that has the key says.
func (c *Config) first(key string, sections ...Section) (Setting, bool) {
	for _, section := range sections {
		if s, ok := c.get(section, key); ok {
			return s, true
		}
	}

	return Setting{}, false
}

func (c *Config) get(section Section, key string) (Setting, bool) {
	for _, s := range c.Settings {
		if s.Section == section && s.Key == key {
			return s, true
		}
	}

	return Setting{}, false
}

func (c *Config) list(section Section, key string) []string {
	var values []string

	for _, s := range c.Settings {
		if s.Section == section && s.Key == key {
			values = append(values, s.Value)
		}
	}

	return values
}

// sections returns the sections of a kind that say something.
func (c *Config) sections(kind string) []Section {
	var sections []Section

	for _, s := range c.Settings {
		if s.Section.Kind == kind && !slices.Contains(sections, s.Section) {
			sections = append(sections, s.Section)
		}
	}

	return sections
}

// Defaults returns what is built in, as settings. Deadline is how long arrays may
// lack members.
func Defaults(deadline time.Duration, readd bool) []Setting {
	section := Section{Kind: assemblyKind}
	yes := map[bool]string{true: "yes", false: "no"}

	return []Setting{
		{Section: section, Key: "Assemble", Value: "yes"},
		{Section: section, Key: "Deadline", Value: spanText(deadline)},
		{Section: section, Key: "Foreign", Value: "yes"},
		{Section: section, Key: "Readd", Value: yes[readd]},
	}
}

func spanText(d time.Duration) string {
	if d == Never {
		return "infinity"
	}

	return fmt.Sprintf("%gs", d.Seconds())
}

// Text returns the settings as a configuration that says the same, with where
// each was written above it.
func Text(settings []Setting) string {
	var (
		b       strings.Builder
		section Section
	)

	for _, s := range settings {
		if s.Section != section {
			if section != (Section{}) {
				b.WriteString("\n")
			}

			fmt.Fprintln(&b, s.Section)
			section = s.Section
		}

		fmt.Fprintf(&b, "# %v\n%s=%s\n", s.Origin, s.Key, s.Value)
	}

	return b.String()
}
