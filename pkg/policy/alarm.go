package policy

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// Alarm is a state of an array that somebody should see to. It holds until it has
// passed, whoever was told.
type Alarm struct {
	Array raid.UUID
	Name  string // as the engine or the metadata has it
	Kind  AlarmKind
	Text  string
}

// AlarmKind is a kind of alarm.
type AlarmKind string

// The kinds.
const (
	AlarmBroken   AlarmKind = "broken"   // it lost more members than it survives
	AlarmDegraded AlarmKind = "degraded" // it lacks members, and no spare can take their place
	AlarmNoSpare  AlarmKind = "no-spare" // a spare takes the place of a member, and there is no other
	AlarmFailing  AlarmKind = "failing"  // a member is to be replaced, and no spare can take its place
	AlarmRefused  AlarmKind = "refused"  // it is not started, whoever arrives
	AlarmWaiting  AlarmKind = "waiting"  // it is not started without members that are missing
	AlarmFlapping AlarmKind = "flapping" // a device comes and goes, and is left alone for a while
)

// Alarms returns what there is to see to where ds was decided about v, by array.
func Alarms(v View, ds []Decision, cfg Config) []Alarm {
	var (
		alarms []Alarm
		loans  []loan
	)

	devices := sorted(v.Devices)
	tenders := make([]*tender, len(v.Running))

	for i := range v.Running {
		tenders[i] = newTender(&v.Running[i], devices, v)
		tenders[i].failing = tenders[i].worst(v, cfg)

		if t := tenders[i]; t.takes() && len(t.vacant()) == 0 {
			loans = append(loans, t.loans(nil, devices)...)
		}
	}

	for _, t := range tenders {
		if kind, text := t.alarm(ds, loans); kind != "" {
			alarms = append(alarms, Alarm{t.array.UUID, t.array.Name, kind, text})
		}
	}

	for _, dec := range ds {
		switch {
		case dec.Cause == Flapping:
			alarms = append(alarms, Alarm{dec.Array, dec.Name, AlarmFlapping, dec.Reason})
		case dec.Device != "":
		case dec.Action == Refuse:
			alarms = append(alarms, Alarm{dec.Array, dec.Name, AlarmRefused, dec.Reason})
		case dec.Action == Wait && dec.Left < 0:
			alarms = append(alarms, Alarm{dec.Array, dec.Name, AlarmWaiting, dec.Reason})
		}
	}

	slices.SortFunc(alarms, func(a, b Alarm) int { return slices.Compare(a.Array[:], b.Array[:]) })

	return alarms
}

// alarm returns what there is to see to about an array that runs, if anything.
func (t *tender) alarm(ds []Decision, loans []loan) (kind AlarmKind, text string) {
	if t.array.State == raid.Broken {
		return AlarmBroken, "it lost more members than it survives"
	}

	spares, vacant, filling := t.left(ds), t.vacant(), t.filling()
	last := spares <= 0

	if last {
		best, _ := t.choose(slices.DeleteFunc(slices.Clone(loans), func(l loan) bool {
			return l.owner == t || moves(ds, l.device)
		}))
		last = best < 0
	}

	switch {
	case len(vacant) > spares:
		return AlarmDegraded, fmt.Sprintf("%s %s vacant, and no spare is here that fits",
			slotNames(vacant), are(vacant))
	case t.failing.member != nil && last:
		return AlarmFailing, t.need() + ", and no spare is here that fits"
	case len(vacant) == 0 && len(filling) > 0 && last:
		return AlarmNoSpare, fmt.Sprintf("a spare is put to work in %s, and no other is left", slotNames(filling))
	default:
		return "", ""
	}
}

// left returns how many spares the array has when ds is done.
func (t *tender) left(ds []Decision) int {
	spares := t.ready()

	for _, dec := range ds {
		if (dec.Action == AddSpare || dec.Action == Prove) && dec.Array == t.array.UUID {
			spares++
		}

		if dec.Action == AddSpare && dec.From == t.array.UUID {
			spares--
		}
	}

	return spares
}

// moves reports whether a device is given to an array by ds.
func moves(ds []Decision, d *Device) bool {
	return slices.ContainsFunc(ds, func(dec Decision) bool { return dec.Action == AddSpare && dec.Device == d.Path })
}

// filling returns the slots that are being filled.
func (t *tender) filling() []raid.Slot {
	var slots []raid.Slot

	for i, m := range t.array.Members {
		if m.State == raid.Recovering && m.Slot != raid.NoSlot && t.attached[i] != nil {
			slots = append(slots, m.Slot)
		}
	}

	return slots
}
