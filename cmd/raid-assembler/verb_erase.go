package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

// eraseOptions are the flags of erase.
type eraseOptions struct {
	format        string
	force, dryRun bool
}

func (p *program) eraseVerb() *cobra.Command {
	var opts eraseOptions

	cmd := &cobra.Command{
		Use:   "erase PATH...",
		Short: "erase RAID metadata from devices or image files",
		Long: `Erase RAID metadata, and nothing else: of every known format, at every place
where a format may keep it. What other programs left stays, and so does the
content of the array, but without its metadata nobody knows how to read it.

All devices are looked at before the first is changed, and none is changed if
one is refused: a device in use always; one that is a member of an array, or may
be, unless forced. Spares are erased without that. Afterwards each device is
read again: nothing may be found any more.

With --json the output is a list with one object for each path: "path",
"refused" (empty, or why), "erased" (it was done) and "found": what is erased,
"format", "offset_bytes" and "bytes".

Exit status: 0 if nothing is left to erase; 2 if something could not be read,
written or erased; 3 if refused.`,
		Args: cobra.MinimumNArgs(1),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			return p.erase(args, opts)
		}),
	}

	var names []string
	for _, f := range scan.Formats() {
		names = append(names, f.Name())
	}

	flags := cmd.Flags()
	flags.StringVar(&opts.format, "format", "", "erase metadata of this format only: "+strings.Join(names, ", "))
	flags.BoolVar(&opts.force, "force", false, "erase members of arrays too")
	flags.BoolVar(&opts.dryRun, "dry-run", false, "say what would be erased, and change nothing")

	return cmd
}

// eraseReport is what erase says of one path.
type eraseReport struct {
	Path    string      `json:"path"`
	Refused string      `json:"refused"`
	Erased  bool        `json:"erased"`
	Found   []eraseSpot `json:"found"`

	file   *os.File
	source metadata.Source
}

// eraseSpot is a place where metadata of a format is, or may be.
type eraseSpot struct {
	Format string `json:"format"`
	Offset int64  `json:"offset_bytes"`
	Bytes  int    `json:"bytes"`

	zeros []byte
}

func (p *program) erase(paths []string, opts eraseOptions) (exitCode, error) {
	formats := scan.Formats()
	if opts.format != "" {
		formats = slices.DeleteFunc(formats, func(f metadata.Format) bool { return f.Name() != opts.format })
		if len(formats) == 0 {
			return exitUsage, fmt.Errorf("--format %q is not known", opts.format)
		}
	}

	reports := make([]eraseReport, len(paths))
	defer func() {
		for _, r := range reports {
			if r.file == nil {
				continue
			}

			_ = r.file.Close() // what was written is synced

			if r.Erased {
				announce(r.Path)
			}
		}
	}()

	refused := false

	for i, path := range paths {
		reports[i] = eraseReport{Path: path, Found: []eraseSpot{}}
		if err := reports[i].look(formats, opts); err != nil {
			return exitFailed, err
		}

		refused = refused || reports[i].Refused != ""
	}

	if !refused && !opts.dryRun {
		for i := range reports {
			if err := reports[i].erase(formats); err != nil {
				return exitFailed, err
			}
		}
	}

	if err := p.printErased(reports, refused); err != nil {
		return exitFailed, err
	}

	if refused {
		return exitRefused, nil
	}

	return exitDone, nil
}

// look opens the device for itself, and finds what there is to erase.
func (r *eraseReport) look(formats []metadata.Format, opts eraseOptions) error {
	flags := unix.O_RDWR | unix.O_NONBLOCK
	if info, err := os.Stat(r.Path); err == nil && !info.Mode().IsRegular() {
		flags |= unix.O_EXCL // of a block device: nobody else has claimed it
	}

	file, err := os.OpenFile(r.Path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		r.Refused = "it is in use"

		return nil
	}

	if err != nil {
		return err
	}

	r.file = file
	if r.source, err = sourceOf(file); err != nil {
		return fmt.Errorf("%s: %w", r.Path, err)
	}

	for _, f := range formats {
		writes, err := f.Erase(r.source)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Path, err)
		}

		for _, w := range writes {
			r.Found = append(r.Found, eraseSpot{f.Name(), w.Sector.Bytes(), len(w.Data), w.Data})
		}
	}

	slices.SortFunc(r.Found, func(a, b eraseSpot) int { return cmp.Compare(a.Offset, b.Offset) })

	if len(r.Found) > 0 && !opts.force {
		r.Refused = member(scan.Scan(r.source, formats...))
	}

	return nil
}

// announce has udev look at a device again, which does not watch members.
func announce(path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().IsRegular() {
		return
	}

	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		major, minor := deviceNumber(stat.Rdev)
		// It is done all the same if nobody hears of it.
		_ = os.WriteFile(fmt.Sprintf("/sys/dev/block/%d:%d/uevent", major, minor), []byte("change"), 0)
	}
}

// member says of which array a device is a member, or may be; or nothing.
func member(found scan.Result) string {
	switch {
	case found.Err != nil:
		return fmt.Sprintf("it may be a member of an array: %v", found.Err)
	case len(found.Conflicts) > 0:
		return "it may be a member of an array: it has " + strings.Join(found.Conflicts, ", ")
	case found.Superblock == nil && len(found.Signatures) > 0:
		// The last partition may end where its disk does.
		return fmt.Sprintf("it may be another's, such as a partition's, for it has %v", found.Signatures[0])
	case found.Superblock == nil:
		return ""
	}

	for _, sb := range found.Superblock.All() {
		if role := sb.Role(sb.Number); !sb.Array.IsZero() && role != raid.RoleSpare {
			return fmt.Sprintf("%v of array %s (%v, %v)", role, sb.Name, sb.Array, sb.Level)
		}
	}

	return ""
}

// erase overwrites what look found, and checks that nothing is left.
func (r *eraseReport) erase(formats []metadata.Format) error {
	if len(r.Found) == 0 {
		return nil
	}

	// As udevd does and expects: it looks again when the lock is gone.
	if err := unix.Flock(int(r.file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", r.Path, err)
	}

	for _, s := range r.Found {
		if _, err := r.file.WriteAt(s.zeros, s.Offset); err != nil {
			return err
		}
	}

	if err := r.file.Sync(); err != nil {
		return err
	}

	// What is read now comes from the device.
	if err := unix.Fadvise(int(r.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("%s: drop what is cached: %w", r.Path, err)
	}

	return r.verify(formats)
}

// verify reads what was erased, and has the formats look for what they know.
func (r *eraseReport) verify(formats []metadata.Format) error {
	for _, s := range r.Found {
		got := make([]byte, s.Bytes)
		if _, err := r.file.ReadAt(got, s.Offset); err != nil {
			return err
		}

		if !bytes.Equal(got, s.zeros) {
			return fmt.Errorf("%s: %d bytes at %d were erased, and are not", r.Path, s.Bytes, s.Offset)
		}
	}

	for _, f := range formats {
		if _, err := f.Probe(r.source); !errors.Is(err, metadata.ErrNotFound) {
			return fmt.Errorf("%s: metadata of %s is still found: %w", r.Path, f.Name(), err)
		}
	}

	r.Erased = true

	return nil
}

func (p *program) printErased(reports []eraseReport, refused bool) error {
	if p.json {
		return printJSON(p.out, reports)
	}

	for _, r := range reports {
		switch {
		case r.Refused != "":
			p.complain(fmt.Errorf("%s: %s", r.Path, r.Refused))

			continue
		case len(r.Found) == 0:
			p.printf("%s: no RAID metadata\n", word(r.Path))
		}

		did := "would be erased"
		if r.Erased {
			did = "erased"
		}

		for _, s := range r.Found {
			p.printf("%s: %s: %s, %d bytes at %d\n", word(r.Path), did, s.Format, s.Bytes, s.Offset)
		}
	}

	if refused {
		p.notef("Nothing was changed. Members are erased with --force; devices in use are not.\n")
	}

	return nil
}
