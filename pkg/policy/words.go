package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// list joins words as prose does.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}

	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// paths names devices as a command line would.
func paths(devices []*Device) string {
	words := make([]string, len(devices))
	for i, d := range devices {
		words[i] = d.Path
	}

	return strings.Join(words, " ")
}

// slotNames is "slot 2" or "slots 1 and 2".
func slotNames(slots []raid.Slot) string {
	words := make([]string, len(slots))
	for i, s := range slots {
		words[i] = fmt.Sprint(int(s))
	}

	if len(slots) == 1 {
		return "slot " + words[0]
	}

	return "slots " + list(words)
}

// are is the verb that goes with [slotNames].
func are(slots []raid.Slot) string {
	if len(slots) == 1 {
		return "is"
	}

	return "are"
}

// absence says what a role that is no slot means for a device that thinks it
// has one.
func absence(r raid.Role) string {
	if r == raid.RoleSpare {
		return "missing"
	}

	return r.String()
}

func slots[V any](m map[raid.Slot]V) []raid.Slot { return slices.Sorted(maps.Keys(m)) }
