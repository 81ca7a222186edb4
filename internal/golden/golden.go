// Package golden opens the member images in testdata/golden, for tests only.
//
// The images were made by the real mdadm and md in a Debian 13 guest; the
// README beside them says how. They are compressed with zstd, whose command is
// needed to read them.
package golden

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Set is one array and its members.
type Set struct {
	Name      string   `json:"name"`
	Level     int      `json:"level"`
	Metadata  string   `json:"metadata"`
	Disks     int      `json:"raid_disks"`
	ArraySize int64    `json:"array_size"` // in bytes
	Seed      uint64   `json:"seed"`
	Sector    int      `json:"sector"`
	Failed    []int    `json:"failed"` // members that md had failed before the last fill
	Members   []string `json:"members"`

	dir string
}

// Dir returns the directory of all sets.
func Dir() string {
	dir := "."

	// Tests run in the directory of their package. Where its sources were is
	// not in a binary that was built with -trimpath.
	for range 8 {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}

		dir = filepath.Join("..", dir)
	}

	return filepath.Join(dir, "testdata", "golden")
}

// Sets returns the sets whose names begin with one of prefixes. It is fatal if
// a prefix matches none.
func Sets(tb testing.TB, prefixes ...string) []Set {
	tb.Helper()

	var sets []Set

	for _, prefix := range prefixes {
		manifests, err := filepath.Glob(filepath.Join(Dir(), prefix+"*", "manifest.json"))
		if err != nil || len(manifests) == 0 {
			tb.Fatalf("no golden set begins with %q in %s (%v)", prefix, Dir(), err)
		}

		for _, manifest := range manifests {
			text, err := os.ReadFile(manifest)
			if err != nil {
				tb.Fatal(err)
			}

			set := Set{dir: filepath.Dir(manifest)}
			if err := json.Unmarshal(text, &set); err != nil {
				tb.Fatalf("%s: %v", manifest, err)
			}

			sets = append(sets, set)
		}
	}

	return sets
}

// Images returns the contents of the members, in the manifest's order.
func (s Set) Images(tb testing.TB) [][]byte {
	tb.Helper()

	images := make([][]byte, len(s.Members))

	for i, name := range s.Members {
		cmd := exec.Command("zstd", "-dcq", filepath.Join(s.dir, name))

		var stderr strings.Builder

		cmd.Stderr = &stderr

		image, err := cmd.Output()
		if err != nil {
			tb.Fatalf("%v: %v %s (the package zstd is needed to read the golden images)", cmd, err, stderr.String())
		}

		images[i] = image
	}

	return images
}

// Extract writes the images into dir and returns their paths: DIR/m0.img and
// so on.
func (s Set) Extract(tb testing.TB, dir string) []string {
	tb.Helper()

	var paths []string

	for i, image := range s.Images(tb) {
		path := filepath.Join(dir, strings.TrimSuffix(s.Members[i], ".zst"))
		if err := os.WriteFile(path, image, 0o644); err != nil {
			tb.Fatal(err)
		}

		paths = append(paths, path)
	}

	return paths
}

// Check returns an error unless content, which lies at offset in the array, is
// what the array was filled with. Preconditions: offset is a multiple of 8.
func (s Set) Check(content []byte, offset int64) error {
	const (
		block = 4096
		word  = 8
	)

	var want [block]byte

	for len(content) > 0 {
		in := int(offset % block)
		part := content[:min(len(content), block-in)]

		for i := 0; i < block; i += word {
			binary.LittleEndian.PutUint64(want[i:], (uint64(offset/block)+1)*0x9E3779B97F4A7C15^s.Seed)
		}

		if !bytes.Equal(part, want[:len(part)]) {
			i := 0
			for part[i] == want[i] {
				i++
			}

			return fmt.Errorf("%s: byte %d is %#x, want %#x", s.Name, offset+int64(i), part[i], want[i])
		}

		content, offset = content[len(part):], offset+int64(len(part))
	}

	return nil
}
