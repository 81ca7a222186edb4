package journal

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const catalogFile = "../../systemd/raid-assembler.catalog"

// entry is one message of a catalog.
type entry struct {
	header map[string]string
	text   string
}

// readCatalog returns the entries of the catalog by their identifiers.
func readCatalog(t *testing.T) map[string]entry {
	t.Helper()

	text, err := os.ReadFile(catalogFile)
	if err != nil {
		t.Fatal(err)
	}

	entries := make(map[string]entry)

	for part := range strings.SplitSeq(string(text), "\n-- ") {
		id, rest, _ := strings.Cut(part, "\n")
		if strings.HasPrefix(id, "#") {
			continue // what stands before the first
		}

		if _, twice := entries[id]; twice {
			t.Errorf("%s is there twice", id)
		}

		header, body, _ := strings.Cut(rest, "\n\n")
		e := entry{header: make(map[string]string)}

		for line := range strings.Lines(header) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			e.header[key] = value
		}

		for line := range strings.Lines(body) {
			if !strings.HasPrefix(line, "#") {
				e.text += line
			}
		}

		entries[id] = e
	}

	return entries
}

func TestTableAndCatalogAgree(t *testing.T) {
	catalog := readCatalog(t)
	placeholder := regexp.MustCompile(`@(\w+)@`)
	// What appendRecord sends.
	fields := []string{"RAID_ARRAY", "RAID_UUID", "RAID_MEMBER", "RAID_SERIAL", "RAID_SLOT", "RAID_REASON"}

	for _, kind := range Kinds() {
		e, ok := catalog[kind.ID]
		if !ok {
			t.Errorf("%s (%s) is not in the catalog", kind.Name, kind.ID)

			continue
		}

		delete(catalog, kind.ID)

		for _, key := range []string{"Subject", "Defined-By", "Documentation"} {
			if e.header[key] == "" {
				t.Errorf("%s has no %s", kind.Name, key)
			}
		}

		if what, todo, ok := strings.Cut(strings.TrimSpace(e.text), "\n\n"); !ok || what == "" || todo == "" {
			t.Errorf("%s does not say what happened, then what to do: %q", kind.Name, e.text)
		}

		for _, m := range placeholder.FindAllStringSubmatch(e.header["Subject"]+e.text, -1) {
			if !slices.Contains(fields, m[1]) {
				t.Errorf("%s uses %s, which is never sent", kind.Name, m[0])
			}
		}
	}

	for id, e := range catalog {
		t.Errorf("the catalog has %s (%s), which the table has not", id, e.header["Subject"])
	}
}

func TestKindsAreDistinctAndWellFormed(t *testing.T) {
	id := regexp.MustCompile(`^[0-9a-f]{32}$`)
	names, ids := make(map[string]bool), make(map[string]bool)

	for _, kind := range Kinds() {
		if names[kind.Name] || ids[kind.ID] || !id.MatchString(kind.ID) || kind.Name == "" {
			t.Errorf("%+v is not distinct or not well formed", kind)
		}

		if kind.Priority < Critical || kind.Priority > Info {
			t.Errorf("%s has priority %d", kind.Name, kind.Priority)
		}

		names[kind.Name], ids[kind.ID] = true, true
	}

	if !slices.Contains(Kinds(), NewDevice) || !slices.Contains(Kinds(), MessagesLost) {
		t.Errorf("Kinds() = %v, want the first and the last of the table in it", slices.Sorted(maps.Keys(names)))
	}
}

// TestJournalctlCompilesTheCatalog holds the file against its real reader.
func TestJournalctlCompilesTheCatalog(t *testing.T) {
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		t.Fatal("journalctl is missing: tools/setup.sh installs it")
	}

	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")

	text, err := os.ReadFile(catalogFile)
	if err != nil {
		t.Fatal(err)
	}

	for _, step := range []error{
		os.MkdirAll(dir, 0o755),
		os.MkdirAll(filepath.Join(root, "var/lib/systemd/catalog"), 0o755),
		os.WriteFile(filepath.Join(dir, "raid-assembler.catalog"), text, 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}

	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), journalctl, append(args, "--root="+root)...).CombinedOutput()
		if err != nil {
			t.Fatalf("journalctl %v: %v\n%s", args, err, out)
		}

		return string(out)
	}

	if out := run("--update-catalog"); strings.TrimSpace(out) != "" {
		t.Errorf("journalctl --update-catalog: %s", out)
	}

	list := run("--list-catalog")
	for _, kind := range Kinds() {
		if !strings.Contains(list, fmt.Sprintf("%s raid-assembler: ", kind.ID)) {
			t.Errorf("%s is not in what journalctl compiled", kind.Name)
		}
	}
}
