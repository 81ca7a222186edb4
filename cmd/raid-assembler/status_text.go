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

	if b.Len() == 0 {
		return "no arrays\n"
	}

	return b.String()
}

func arrayText(b *strings.Builder, a api.Array) {
	fmt.Fprintf(b, "%s  %s  %s  %s", word(a.Name), shape(a), size(a.SizeBytes), word(a.State))

	if a.Degraded > 0 {
		fmt.Fprintf(b, ", degraded: %s missing", count(a.Degraded, "member"))
	}

	fmt.Fprintln(b)

	if a.Device != "" {
		fmt.Fprintf(b, "    %s  %s  %s\n", word(a.Node), word(a.Device), word(a.UUID))
	} else {
		fmt.Fprintf(b, "    %s\n", word(a.UUID))
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

	reasonText(b, a.Reason)
	nextText(b, nextStep(a))
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
		case m.Slot == nil:
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

	if m.State != string(raid.InSync) {
		name += " (" + word(m.State) + ")"
	}

	return name
}

func syncText(s api.Sync) string {
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
	default:
		return ""
	}
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

		fmt.Fprintln(b)
	}
}
