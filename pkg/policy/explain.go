package policy

import (
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// Explain returns the chain of evidence about one array, a sentence a line:
// what each device says, which of them is believed, and what follows.
func Explain(v View, cfg Config, array raid.UUID) []string {
	var (
		lines  []string
		usable []*Device
	)

	devices := sorted(v.Devices)
	for i := range devices {
		d := &devices[i]
		if d.Superblock == nil || d.Superblock.Array != array {
			continue
		}

		lines = append(lines, d.evidence()...)

		if d.fault() == (why{}) {
			usable = append(usable, d)
		}
	}

	if r := running(v.Running, array); r != nil {
		lines = append(lines, r.evidence()...)
	} else {
		lines = append(lines, v.Last[array].evidence()...)
		lines = append(lines, judge(usable).evidence()...)
	}

	for _, d := range Decide(v, cfg) {
		if d.Array == array {
			lines = append(lines, d.String())
		}
	}

	return lines
}

// evidence is what follows from the superblocks, a sentence a line.
func (j *judgement) evidence() []string {
	var lines []string

	if j.best != nil && len(j.histories) == 0 {
		lines = append(lines, fmt.Sprintf("The freshest superblock is that of %s, at event %d: its table decides.",
			j.best.Path, j.best.Superblock.Events))
	}

	for i, side := range j.histories {
		lines = append(lines, tell(i+1, side))
	}

	return lines
}

// ExplainDevice returns the chain of evidence about one device, by its path.
func ExplainDevice(v View, cfg Config, path string) []string {
	i := slices.IndexFunc(v.Devices, func(d Device) bool { return d.Path == path })
	if i < 0 {
		return []string{path + " is not there."}
	}

	d := &v.Devices[i]

	lines := d.evidence()
	for _, dec := range Decide(v, cfg) {
		concerns := dec.Device == path ||
			slices.ContainsFunc(dec.Members, func(m Member) bool { return m.Path == path }) ||
			dec.Device == "" && d.Superblock != nil && dec.Array == d.Superblock.Array
		if concerns {
			lines = append(lines, dec.String())
		}
	}

	return lines
}

// String is the decision as one line of prose.
func (d Decision) String() string {
	var b strings.Builder

	fmt.Fprintf(&b, "Decision: %v", d.Action)

	if d.Device != "" {
		fmt.Fprintf(&b, " %s", d.Device)
	}

	if !d.Array.IsZero() {
		fmt.Fprintf(&b, " (array %v)", d.Array)
	}

	for _, m := range d.Members {
		if m.Slot == raid.NoSlot {
			fmt.Fprintf(&b, " spare=%s", m.Path)
		} else {
			fmt.Fprintf(&b, " %d=%s", m.Slot, m.Path)
		}
	}

	fmt.Fprintf(&b, ": %s", d.Reason)

	return b.String()
}

// evidence is what was found on d, a sentence a line.
func (d *Device) evidence() []string {
	name := d.Path
	if d.Serial != "" {
		name += " (serial " + d.Serial + ")"
	}

	var lines []string

	sb := d.Superblock

	switch fault := d.fault(); {
	case fault != (why{}):
		lines = append(lines, fmt.Sprintf("%s: %s.", name, fault.text))
	case sb == nil:
		lines = append(lines, name+": it holds no RAID metadata.")
	}

	if d.Worn != "" {
		lines = append(lines, fmt.Sprintf("%s: %s.", name, d.worn().text))
	}

	if d.Shunned != "" {
		lines = append(lines, fmt.Sprintf("%s: %s.", name, d.Shunned))
	}

	if sb == nil {
		return lines
	}

	return append(lines,
		fmt.Sprintf("%s: number %d of array %v, %v by its own word, event %d, %s.",
			name, sb.Number, sb.Array, sb.role(sb.Number), sb.Events, sb.condition()),
		fmt.Sprintf("%s: its table says %s.", name, sb.table()))
}

// condition says whether the array and the member are in sync.
func (sb *Superblock) condition() string {
	words := []string{"clean"}
	if sb.ResyncOffset != raid.MaxSectors {
		words[0] = fmt.Sprintf("not clean (redundancy is right up to sector %d)", sb.ResyncOffset)
	}

	if sb.RecoveryOffset != raid.MaxSectors {
		words = append(words, fmt.Sprintf("recovered up to sector %d", sb.RecoveryOffset))
	}

	if sb.Replacement {
		words = append(words, "to replace another in its slot")
	}

	if sb.WriteMostly {
		words = append(words, "write-mostly")
	}

	if sb.Bad > 0 {
		words = append(words, fmt.Sprintf("%d sectors bad", sb.Bad))
	}

	if sb.Unsupported != "" {
		words = append(words, sb.Unsupported)
	}

	return strings.Join(words, ", ")
}

// table prints the role table; free places are left out.
func (sb *Superblock) table() string {
	var words []string

	for n, role := range sb.Roles {
		if role != raid.RoleSpare {
			words = append(words, fmt.Sprintf("%d: %v", n, role))
		}
	}

	if len(words) == 0 {
		return "that nobody holds a slot"
	}

	return strings.Join(words, ", ")
}

// evidence is what the engine says of r, a sentence a line.
func (r *Running) evidence() []string {
	lines := []string{fmt.Sprintf("The engine runs it: %s.", r.State)}

	for _, m := range r.Members {
		what := "spare"
		if m.Slot != raid.NoSlot {
			what = fmt.Sprintf("slot %d", m.Slot)
		}

		lines = append(lines, strings.TrimSpace(fmt.Sprintf("The engine: %s is %s %s", what, m.State, m.Path))+".")
	}

	return lines
}
