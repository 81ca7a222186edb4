package main

import (
	"fmt"
	"path"
	"strings"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// statusText draws s for people. All strings in it may come from disks.
func statusText(s api.Status) string {
	var b strings.Builder

	for _, a := range s.Arrays {
		arrayText(&b, a)
	}

	for _, w := range s.Waiting {
		fmt.Fprintf(&b, "%s  waiting: %d of %s here\n", word(w.Name), w.Present, count(w.Needed, "member"))
		reasonText(&b, w.Reason)

		if w.SecondsLeft >= 0 {
			nextText(&b, fmt.Sprintf("it starts degraded in %s; now: raid-assembler assemble %s --force",
				duration(w.SecondsLeft), word(w.Name)))
		} else {
			nextText(&b, "plug in what is missing, or see raid-assembler explain "+word(w.Name))
		}
	}

	idleText(&b, "spare", s.Spares)
	idleText(&b, "unused", s.Unused)

	for _, m := range s.Absent {
		fmt.Fprintf(&b, "absent  %s %d: %s\n", word(m.Array), m.Slot, absentText(m))
	}

	if b.Len() == 0 {
		b.WriteString("no arrays\n")
	}

	if s.Guard {
		b.WriteString("the guard is on: nobody but the engine may open members for writing\n")
	}

	return b.String()
}

// absentText names a disk that is not here.
func absentText(m api.Absent) string {
	var words []string

	for _, field := range []struct{ what, value string }{
		{"serial ", m.Serial}, {"", m.Model}, {"WWN ", m.WWN}, {"last at ", m.Port}, {"in sync on ", m.LastSeen},
	} {
		if field.value != "" {
			words = append(words, field.what+word(field.value))
		}
	}

	return strings.Join(words, ", ")
}

func arrayText(b *strings.Builder, a api.Array) {
	fmt.Fprintf(b, "%s  %s  %s  %s", word(a.Name), shape(a), size(a.SizeBytes), word(a.State))

	fmt.Fprintln(b, degraded(a))

	if a.Device != "" {
		fmt.Fprintf(b, "    %s  %s  %s\n", word(a.Node), word(a.Device), word(a.UUID))
	} else {
		fmt.Fprintf(b, "    %s\n", word(a.UUID))
	}

	if a.Container != "" {
		fmt.Fprintf(b, "    container %s\n", word(a.Container))
	}

	if len(a.Members) > 0 {
		fmt.Fprintf(b, "    [%s]", slotLetters(a))

		for _, m := range a.Members {
			fmt.Fprintf(b, "  %s", memberText(m))
		}

		fmt.Fprintln(b)
	}

	if a.Sync != nil {
		fmt.Fprintf(b, "    %s\n", syncText(*a.Sync))
	}

	if s := a.Scrub; s != nil && (s.MismatchedBytes > 0 || s.Done) {
		fmt.Fprintf(b, "    last %s\n", scrubText(*s))
	}

	if m := a.Bitmap; m != nil {
		fmt.Fprintf(b, "    bitmap: %s of %s may differ, %dK chunks\n",
			size(m.DirtyBytes), size(m.TotalBytes), m.ChunkKiB)
	}

	reasonText(b, a.Reason)
	nextText(b, nextStep(a))
}

// degraded says how many members an array lacks, if any.
func degraded(a api.Array) string {
	if a.Degraded == 0 {
		return ""
	}

	return fmt.Sprintf(", degraded: %s missing", count(a.Degraded, "member"))
}

// shape returns level, layout, chunk and metadata, as far as there are any.
func shape(a api.Array) string {
	words := []string{word(a.Level)}

	if a.Layout != "" {
		words = append(words, word(a.Layout))
	}

	if a.ChunkKiB > 0 {
		words = append(words, fmt.Sprintf("%dK chunks", a.ChunkKiB))
	}

	return strings.Join(append(words, "metadata "+word(a.Metadata)), ", ")
}

// slotLetters draws one letter for each slot, as /proc/mdstat does.
func slotLetters(a api.Array) string {
	var letters strings.Builder

	for _, m := range a.Members {
		switch {
		case m.Slot == nil || m.Replaces:
		case m.State == string(raid.InSync):
			letters.WriteByte('U')
		default:
			letters.WriteByte('_')
		}
	}

	return letters.String()
}

func memberText(m api.Member) string {
	name := "-"
	if m.Device != "" {
		name = word(path.Base(m.Device))
	}

	if m.Serial != "" {
		name += " " + word(m.Serial)
	}

	if m.Slot != nil {
		name = fmt.Sprintf("%d:%s", *m.Slot, name)
	}

	var notes []string
	if m.State != string(raid.InSync) {
		notes = append(notes, word(m.State))
	}

	if m.Replaces {
		notes = append(notes, "successor")
	}

	if m.WriteMostly {
		notes = append(notes, "write-mostly")
	}

	if bad := length(m.BadBlocks); bad > 0 {
		notes = append(notes, size(bad)+" bad")
	}

	if len(notes) > 0 {
		name += " (" + strings.Join(notes, ", ") + ")"
	}

	return name
}

// length returns how much ranges cover.
func length(ranges []api.Range) int64 {
	var bytes int64
	for _, r := range ranges {
		bytes += r.To - r.From
	}

	return bytes
}

// scrubText says what a check, a repair or a resync found. The places are
// offsets in bytes, for that is what other tools take.
func scrubText(s api.Scrub) string {
	text := word(s.Action)
	if !s.Done {
		text += " (not of all)"
	}

	if s.MismatchedBytes == 0 {
		return text + ": all agrees"
	}

	text += fmt.Sprintf(": %s of each member did not agree", size(s.MismatchedBytes))

	const shown = 3

	for i, r := range s.Where {
		separator := ", "

		switch i {
		case 0:
			separator = ", at bytes "
		case shown:
			return text + " and elsewhere"
		}

		text += fmt.Sprintf("%s%d to %d", separator, r.From, r.To)
		if r.Slot != nil {
			text += fmt.Sprintf(" (slot %d was wrong)", *r.Slot)
		}
	}

	var told int64
	for _, r := range s.Where {
		told += r.To - r.From
	}

	if told < s.MismatchedBytes {
		text += " and elsewhere"
	}

	return text
}

func syncText(s api.Sync) string {
	if s.WaitsFor != "" {
		return fmt.Sprintf("%s: waits for %s, which uses one of its disks", word(s.Action), word(s.WaitsFor))
	}

	var percent float64
	if s.TotalBytes > 0 {
		percent = 100 * float64(s.DoneBytes) / float64(s.TotalBytes)
	}

	text := fmt.Sprintf("%s: %.1f%% of %s, %s/s", word(s.Action), percent, size(s.TotalBytes), size(s.BytesPerSecond))
	if s.SecondsLeft >= 0 {
		text += ", " + duration(s.SecondsLeft) + " left"
	}

	return text
}

func reasonText(b *strings.Builder, reason string) {
	if reason != "" {
		fmt.Fprintf(b, "    %s\n", word(reason))
	}
}

func nextText(b *strings.Builder, next string) {
	if next != "" {
		fmt.Fprintf(b, "    next: %s\n", next)
	}
}

// nextStep says what somebody should do about a, or nothing. The cases are
// ordered by urgency.
func nextStep(a api.Array) string {
	name := word(a.Name)

	switch {
	case a.State == string(raid.Broken):
		return "bring back a member that still works; see raid-assembler explain " + name
	case a.State == string(raid.Inactive):
		return "raid-assembler assemble " + name
	case a.Sync != nil && a.Sync.Action == string(raid.Recover):
		return "nothing: a spare is being filled"
	case a.Degraded > 0:
		return "give it a disk: raid-assembler add " + name + " DEVICE"
	case a.Sync != nil:
		return "nothing: it ends by itself"
	case a.Scrub != nil && a.Scrub.Action == string(raid.Check) && a.Scrub.MismatchedBytes > 0:
		return "raid-assembler repair " + name
	case len(badMembers(a)) > 0:
		return "replace what wears out: raid-assembler replace " + name + " " + badMembers(a)[0] + " DEVICE"
	default:
		return ""
	}
}

// badMembers returns the members in sync that have bad blocks.
func badMembers(a api.Array) []string {
	var names []string

	for _, m := range a.Members {
		if m.State == string(raid.InSync) && len(m.BadBlocks) > 0 {
			names = append(names, word(m.Device))
		}
	}

	return names
}

func idleText(b *strings.Builder, kind string, devices []api.Idle) {
	for _, d := range devices {
		fmt.Fprintf(b, "%s: %s", kind, word(d.Device))

		if d.Serial != "" {
			fmt.Fprintf(b, " %s", word(d.Serial))
		}

		if d.Array != "" {
			fmt.Fprintf(b, " of %s", word(d.Array))
		}

		if d.Reason != "" {
			fmt.Fprintf(b, ": %s", word(d.Reason))
		}

		if p := d.Proof; p != nil && p.TotalBytes > 0 {
			fmt.Fprintf(b, "; %d%% of it is read", 100*p.DoneBytes/p.TotalBytes)
		}

		fmt.Fprintln(b)
	}
}
