package daemon

import (
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestChoose has each half of a mirror run without the other. Neither is served
// when both are here, until the operator chooses one, and the other is filled anew.
func TestChoose(t *testing.T) {
	for name, order := range map[string][]int{"one order": {0, 1}, "the other": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				set := w.set("data", raid.Level1, 2, 0)
				w.machine = "" // or it would be known which half is newer
				w.run()

				for _, half := range set {
					w.plug(half)
					w.pass(policyDeadline)

					if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
						t.Fatal(err)
					}

					w.unplug(half)
					w.pass(second)
				}

				w.plug(set[order[0]], set[order[1]])
				w.pass(policyDeadline)
				w.mustBe("")
				w.chosen(t, set)
			})
		})
	}
}

// chosen has the first half of a split mirror chosen.
func (w *world) chosen(t *testing.T, set []*fakeDisk) {
	t.Helper()

	lines, err := w.daemon.explain(t.Context(), "data")
	if text := strings.Join(lines, "\n"); err != nil || !strings.Contains(text, "History 1: it is on "+set[0].Path) &&
		!strings.Contains(text, "History 2: it is on "+set[0].Path) || !strings.Contains(text, "--choose "+set[1].Path) {
		t.Errorf("explain = %s, %v", text, err)
	}

	p := array("data")
	p.Choose = true

	_, err = w.daemon.assemble(t.Context(), p)
	mustRefuse(t, err, "nothing is chosen")

	p.Devices = []string{"data0", "data1"}
	_, err = w.daemon.assemble(t.Context(), p)
	mustRefuse(t, err, "each went on without the other")

	p.Devices, p.ReadOnly = []string{"data0"}, true
	_, err = w.daemon.assemble(t.Context(), p)
	mustRefuse(t, err, "is given no members: without --choose")

	p.ReadOnly, p.DryRun = false, true

	out, err := w.daemon.assemble(t.Context(), p)
	if err != nil || !strings.Contains(out.Done[0], "would be started with") ||
		!strings.Contains(out.Done[0], "would have "+strings.TrimPrefix(set[1].Path, "/dev/")+" as spare filled anew") {
		t.Errorf("a dry run: %q, %v", out.Done, err)
	}

	w.mustBe("")

	p.DryRun = false

	if out, err = w.daemon.assemble(t.Context(), p); err != nil || out.Array == nil {
		t.Fatalf("assemble --choose = %+v, %v", out, err)
	}

	w.mustBe("data 0:data0:in-sync 1:data1:recovering")

	if !slices.Contains(w.asked, "fill anew data1") {
		t.Errorf("the engine was asked for %q, want data1 filled anew", w.asked)
	}

	_, err = w.daemon.assemble(t.Context(), p)
	mustRefuse(t, err, "it runs: raid-assembler add --force")
	w.recovered()

	if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
		t.Fatal(err)
	}

	w.pass(second)

	_, err = w.daemon.assemble(t.Context(), p)
	mustRefuse(t, err, "there is nothing to choose")

	p.Choose, p.Devices = false, nil
	if _, err := w.daemon.assemble(t.Context(), p); err != nil {
		t.Error(err)
	}

	w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
}
