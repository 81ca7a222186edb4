package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/rescue"
)

func (p *program) dumpVerb() *cobra.Command {
	var (
		opts rescue.Options
		name string
	)

	cmd := &cobra.Command{
		Use:   "dump PATH... > FILE",
		Short: "write an array's content, read from its members",
		Long: `Write the content of an array to the standard output, read from its members:
devices or image files, in any order. Nothing is changed, and neither the daemon
nor the kernel is needed. What is missing is reconstructed where the level has
redundancy. Which members are used, which are not, and why, is said on stderr.

Members are chosen by the freshest superblock. Where they contradict one
another, give only those that count. Where they hold several arrays, --array
says which is meant.

Intel's metadata knows a disk by its serial number. An image file is taken to be
of the disk whose serial number is its name, up to the first dot.

With --json what is said on stderr is one object: "array", "name", "level",
"layout", "size_bytes", "used" ("path", "slot", "stale"), "left_out" ("path",
"reason"), "missing" (slots) and "warnings".

Exit status: 0 if everything was written; 2 if not; 3 if refused, because the
members contradict one another or the array cannot be read; 4 if none of the
paths holds a member.`,
		Args: cobra.MinimumNArgs(1),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			if isTerminal(p.out) {
				return exitUsage, errors.New("the content would go to the terminal: redirect it to a file")
			}

			return p.dump(args, name, opts)
		}),
	}

	cmd.Flags().StringVar(&name, "array", "", "the array meant, by name or UUID, where there are several")

	cmd.Flags().BoolVar(&opts.ForceStale, "force-stale", false,
		"use members that are out of date where a slot has no other")

	return cmd
}

func (p *program) dump(paths []string, name string, opts rescue.Options) (exitCode, error) {
	looks := examineAll(paths)
	defer closeAll(looks)

	if err := choose(looks, name); err != nil {
		return exitRefused, err
	}

	var (
		members, doubtful []rescue.Member
		useless           []rescue.LeftOut
		warnings          []string
	)

	for _, l := range looks {
		member := rescue.Member{Name: l.path, Source: l.source, Superblock: l.Superblock}

		switch {
		case l.Superblock == nil:
			useless = append(useless, rescue.LeftOut{Name: l.path, Reason: l.problem()})
		case len(l.Conflicts) > 0:
			doubtful = append(doubtful, member)
			useless = append(useless, rescue.LeftOut{Name: l.path, Reason: l.problem()})
		default:
			members = append(members, member)
		}
	}

	if len(members)+len(doubtful) == 0 {
		return exitUnknown, fmt.Errorf("none of these holds a member: %s", strings.Join(reasons(useless), "; "))
	}

	array, err := rescue.Open(members, opts)
	if len(doubtful) > 0 && (len(members) == 0 || errors.Is(err, rescue.ErrIncomplete)) {
		// Something else may have been written over parts of them. That is
		// better than nothing, and is said.
		array, err = rescue.Open(append(members, doubtful...), opts)
		useless, warnings = accept(useless, doubtful)
	}

	if err != nil {
		p.sayLeftOut(useless)

		if errors.Is(err, rescue.ErrIncomplete) {
			return exitFailed, err
		}

		return exitRefused, err
	}

	array.LeftOut = append(array.LeftOut, useless...)
	if err := p.report(array, warnings); err != nil {
		return exitFailed, err
	}

	return exitDone, p.copyContent(array)
}

// choose has each device show what it says of the array with the name given, or
// of the only one that there is.
func choose(looks []look, name string) error {
	arrays := make(map[raid.UUID]string)

	for i := range looks {
		l := &looks[i]
		if l.Superblock == nil || name == "" && len(l.Superblock.Others) == 0 {
			continue
		}

		readings := slices.Concat(l.Superblock.All(), l.Beside)
		if name != "" {
			l.Superblock, l.Err = nil, fmt.Errorf("no member of array %s", name)
		}

		for _, sb := range readings {
			if name == "" || sb.Name == name || sb.Array.String() == name {
				arrays[sb.Array] = fmt.Sprintf("%s (%v)", sb.Name, sb.Array)
				l.Superblock, l.Err = sb, nil
			}
		}
	}

	if len(arrays) > 1 {
		return fmt.Errorf("there are several such arrays, say which with --array: %s",
			strings.Join(slices.Sorted(maps.Values(arrays)), ", "))
	}

	return nil
}

// accept takes those who are used all the same from left, and makes warnings
// of the reasons.
func accept(left []rescue.LeftOut, used []rescue.Member) (rest []rescue.LeftOut, warnings []string) {
	for _, l := range left {
		if slices.ContainsFunc(used, func(m rescue.Member) bool { return m.Name == l.Name }) {
			warnings = append(warnings, fmt.Sprintf("%s is needed, and holds %s", l.Name, l.Reason))
		} else {
			rest = append(rest, l)
		}
	}

	return rest, warnings
}

func reasons(left []rescue.LeftOut) []string {
	texts := make([]string, len(left))
	for i, l := range left {
		texts[i] = l.Name + ": " + l.Reason
	}

	return texts
}

// dumpReport is what dump --json says.
type dumpReport struct {
	Array     string        `json:"array"`
	Name      string        `json:"name"`
	Level     string        `json:"level"`
	Layout    string        `json:"layout"`
	SizeBytes int64         `json:"size_bytes"`
	Used      []dumpUsed    `json:"used"`
	LeftOut   []dumpLeftOut `json:"left_out"`
	Missing   []raid.Slot   `json:"missing"`
	Warnings  []string      `json:"warnings"`
}

type dumpUsed struct {
	Path  string    `json:"path"`
	Slot  raid.Slot `json:"slot"`
	Stale bool      `json:"stale"`
}

type dumpLeftOut struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// report says on stderr what the content is read from.
func (p *program) report(a *rescue.Array, warnings []string) error {
	r := dumpReport{
		Array: a.Superblock.Array.String(), Name: a.Superblock.Name, Level: a.Superblock.Level.String(),
		Layout: a.Superblock.Layout.Name(a.Superblock.Level), SizeBytes: a.Size(),
		Used: []dumpUsed{}, LeftOut: []dumpLeftOut{},
		Missing:  append([]raid.Slot{}, a.Missing...),
		Warnings: append(append([]string{}, warnings...), a.Warnings()...),
	}

	for _, u := range a.Used {
		r.Used = append(r.Used, dumpUsed{u.Name, u.Slot, u.Stale})
	}

	for _, l := range a.LeftOut {
		r.LeftOut = append(r.LeftOut, dumpLeftOut{l.Name, l.Reason})
	}

	if p.json {
		return printJSON(p.err, r)
	}

	p.notef("array %s: %s of %s, %s\n", word(r.Name), strings.TrimSpace(r.Level+" "+r.Layout),
		count(a.Superblock.Disks, "slot"), size(r.SizeBytes))

	for _, u := range r.Used {
		p.notef("slot %d: %s\n", u.Slot, word(u.Path))
	}

	for _, slot := range r.Missing {
		p.notef("slot %d: reconstructed\n", slot)
	}

	p.sayLeftOut(a.LeftOut)

	for _, w := range r.Warnings {
		p.notef("warning: %s\n", word(w))
	}

	return nil
}

func (p *program) sayLeftOut(left []rescue.LeftOut) {
	for _, l := range left {
		p.notef("left out: %s: %s\n", word(l.Name), word(l.Reason))
	}
}

// copyContent writes all of a, and how far it is if somebody watches.
func (p *program) copyContent(a *rescue.Array) error {
	const piece = 4 << 20

	var (
		watched = isTerminal(p.err) && !p.json
		start   = time.Now()
		shown   = start
		content = io.NewSectionReader(a, 0, a.Size())
	)

	for done := int64(0); done < a.Size(); {
		n, err := io.CopyN(p.out, content, min(piece, a.Size()-done))
		done += n

		if err != nil {
			return fmt.Errorf("%d of %d bytes were written: %w", done, a.Size(), err)
		}

		if now := time.Now(); watched && now.Sub(shown) > time.Second/2 {
			shown = now
			p.notef("\r%s ", progressText(done, a.Size(), now.Sub(start)))
		}
	}

	if watched {
		p.notef("\r%s\n", progressText(a.Size(), a.Size(), time.Since(start)))
	}

	return nil
}

// progressText says how far a copy is after some time.
func progressText(done, total int64, taken time.Duration) string {
	rate := int64(float64(done) / max(taken.Seconds(), 1e-3))
	text := fmt.Sprintf("%5.1f%% of %s, %s/s", 100*float64(done)/float64(max(total, 1)), size(total), size(rate))

	if rate > 0 {
		text += fmt.Sprintf(", %s left", duration((total-done)/rate))
	}

	return fmt.Sprintf("%-60s", text)
}
