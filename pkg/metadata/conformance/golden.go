package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Manifest describes an array that the real mdadm and md created, filled and
// stopped: manifest.json in a folder of testdata/golden.
type Manifest struct {
	Name      string
	Level     raid.Level
	Metadata  string
	RaidDisks int    `json:"raid_disks"`
	ArraySize int64  `json:"array_size"` // in bytes
	Seed      uint64 // of the content
	Sector    int    // logical block size of the members
	Failed    []int  // members that md failed before the array was last filled
	Members   []string
}

// Golden is a golden set with its members in memory.
type Golden struct {
	Manifest
	Images [][]byte
	Said   []string // by member, what mdadm --examine said when the set was made
}

// GoldenNames returns the names of the golden sets that begin with prefix.
func GoldenNames(tb testing.TB, prefix string) []string {
	tb.Helper()

	dirs, err := filepath.Glob(filepath.Join(goldenRoot(tb), prefix+"*"))
	if err != nil || len(dirs) == 0 {
		tb.Fatalf("golden sets %q: none in %s (%v)", prefix, goldenRoot(tb), err)
	}

	for i, dir := range dirs {
		dirs[i] = filepath.Base(dir)
	}

	return dirs
}

// LoadGolden returns the golden set with the name given.
func LoadGolden(tb testing.TB, name string) *Golden {
	tb.Helper()

	dir := filepath.Join(goldenRoot(tb), name)
	g := &Golden{}

	if err := json.Unmarshal(readFile(tb, dir, "manifest.json"), &g.Manifest); err != nil {
		tb.Fatalf("golden set %s: %v", name, err)
	}

	// Each member's part begins with a heading: "# m0".
	g.Said = strings.Split("\n"+string(readFile(tb, dir, "examine.txt")), "\n# ")[1:]
	if len(g.Said) != len(g.Members) {
		tb.Fatalf("golden set %s: mdadm examined %d members of %d", name, len(g.Said), len(g.Members))
	}

	for _, member := range g.Members {
		g.Images = append(g.Images, decompress(tb, filepath.Join(dir, member)))
	}

	return g
}

// Source returns member i to be probed.
func (g *Golden) Source(i int) metadata.Source {
	serial, _, _ := strings.Cut(g.Members[i], ".")

	return metadata.Source{
		ReaderAt: bytes.NewReader(g.Images[i]),
		Size:     raid.Sectors(len(g.Images[i]) / raid.SectorSize),
		Block:    g.Sector,
		Serial:   serial,
	}
}

// Tool returns the path of a program that a test cannot do without, of a
// Debian package. A test that passed without its oracle would say more than
// was tested.
func Tool(tb testing.TB, name, debian string) string {
	tb.Helper()

	path, err := exec.LookPath(name)
	if err != nil {
		// Administrators' tools are not in everybody's path.
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}

	if err != nil {
		tb.Fatalf("%s is not installed: apt-get install %s", name, debian)
	}

	return path
}

func decompress(tb testing.TB, path string) []byte {
	tb.Helper()

	out, err := exec.Command(Tool(tb, "zstd", "zstd"), "-dqc", path).Output()
	if err != nil {
		tb.Fatalf("zstd %s: %v", path, err)
	}

	return out
}

// goldenRoot returns testdata/golden of the module that the test runs in.
func goldenRoot(tb testing.TB) string {
	tb.Helper()

	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}

	for parent := dir; ; parent = filepath.Dir(parent) {
		if _, err := os.Stat(filepath.Join(parent, "go.mod")); err == nil {
			return filepath.Join(parent, "testdata", "golden")
		}

		if parent == filepath.Dir(parent) {
			tb.Fatalf("no go.mod above %s", dir)
		}
	}
}

func readFile(tb testing.TB, elem ...string) []byte {
	tb.Helper()

	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		tb.Fatal(err)
	}

	return data
}
