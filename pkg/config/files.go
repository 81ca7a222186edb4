package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Name is what the main file is called; drop-ins are in the directory of that
// name with a .d behind it.
const Name = "raid-assembler.conf"

// Directories are where files are looked for, the ones that win first.
var Directories = []string{"/etc", "/run", "/usr/lib"}

// fileBytesMax is more than anybody writes.
const fileBytesMax = 1 << 20

// Read reads the configuration below root, which stands for /. As with systemd,
// the main file is the first that there is. Of drop-ins with one name the first
// counts, so that an empty one, or a link to /dev/null, masks the others. They
// are read after the main file, by name, whatever the directory.
//
// A file that cannot be read is a fault.
func Read(root fs.FS) Config {
	var files []File

	names, faults := paths(root)
	for _, name := range names {
		text, err := readFile(root, name)
		if err != nil {
			faults = append(faults, Fault{Origin: Origin{name, 0}, Text: err.Error()})

			continue
		}

		files = append(files, File{name, text})
	}

	c := Parse(files...)
	c.Faults = append(faults, c.Faults...)

	return c
}

// paths returns the files that count, in the order in which they are read.
func paths(root fs.FS) (main []string, faults []Fault) {
	dropIns := make(map[string]string) // by name

	for _, dir := range Directories {
		if file := path.Join(dir, Name); len(main) == 0 && exists(root, file) {
			main = []string{file}
		}

		dropInDir := path.Join(dir, Name+".d")

		entries, err := fs.ReadDir(root, dropInDir[1:])
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, Fault{Origin: Origin{dropInDir, 0}, Text: reason(err).Error()})
		}

		for _, entry := range entries {
			name := entry.Name()
			if strings.HasSuffix(name, ".conf") && !strings.HasPrefix(name, ".") && dropIns[name] == "" {
				dropIns[name] = path.Join(dropInDir, name)
			}
		}
	}

	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		main = append(main, dropIns[name])
	}

	return main, faults
}

func exists(root fs.FS, file string) bool {
	_, err := fs.Stat(root, file[1:])

	return !errors.Is(err, fs.ErrNotExist)
}

// readFile reads a file of a bounded size.
func readFile(root fs.FS, name string) (string, error) {
	f, err := root.Open(name[1:])
	if err != nil {
		return "", reason(err)
	}

	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	err = errors.Join(err, f.Close())

	switch {
	case err != nil:
		return "", reason(err)
	case len(text) > fileBytesMax:
		return "", fmt.Errorf("it is larger than %d bytes", fileBytesMax)
	default:
		return string(text), nil
	}
}

// reason leaves out the path, which is said beside it.
func reason(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}

	return err
}
