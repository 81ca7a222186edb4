package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// notes are small files in a directory, one a fact, for a daemon that is started
// anew. The directory is one that does not survive a boot.
type notes struct{ dir string }

// unfinished is the end of the name of a file that is being written.
const unfinished = ".new"

// read returns what each file says, by name.
func (n notes) read() (map[string]string, error) {
	all := make(map[string]string)

	entries, err := os.ReadDir(n.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}

	if err != nil {
		return nil, fmt.Errorf("daemon: notes: %w", err)
	}

	for _, entry := range entries {
		if entry.IsDir() || strings.HasSuffix(entry.Name(), unfinished) {
			continue
		}

		text, err := os.ReadFile(filepath.Join(n.dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("daemon: notes: %w", err)
		}

		all[entry.Name()] = string(text)
	}

	return all, nil
}

// write has a file say something else, or nothing of that.
func (n notes) write(name, text string) error {
	file := filepath.Join(n.dir, name)

	err := os.MkdirAll(n.dir, 0o755)
	if err == nil {
		err = os.WriteFile(file+unfinished, []byte(text), 0o644)
	}

	if err == nil {
		err = os.Rename(file+unfinished, file)
	}

	if err != nil {
		return fmt.Errorf("daemon: notes: %w", err)
	}

	return nil
}

// erase removes a file. One that cannot be removed counts again after a restart, and
// says so then.
func (n notes) erase(name string) { _ = os.Remove(filepath.Join(n.dir, name)) }
