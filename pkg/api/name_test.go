package api

import (
	"strings"
	"testing"
)

// TestNames makes names of what may be on a disk, and checks that those that
// need no change are the valid ones.
func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"data": "data", "a": "a", "Data-1_x.y": "Data-1_x.y", "0": "0",
		strings.Repeat("n", 32): strings.Repeat("n", 32), strings.Repeat("n", 40): strings.Repeat("n", 32),
		"": "", ".": "", "..": "", "-": "", ".hidden": "hidden", "-rf": "rf", "../../etc": "_.._etc",
		"a b\nc": "a_b_c", "a\x00": "a_", "Süd": "S_d", "a:b": "a_b", "a=b": "a_b", `a\b`: "a_b", "a/b": "a_b",
	} {
		if got := SafeName(name); got != want {
			t.Errorf("SafeName(%q) = %q, want %q", name, got, want)
		}

		if got, want := ValidName(name), name == want && name != ""; got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}
