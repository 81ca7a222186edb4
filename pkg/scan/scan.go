// Package scan says what is on one device: what the metadata modules find
// there, what else it holds, and where the two contradict each other.
//
// It decides nothing. A device that two formats claim, or that is a member and
// partitioned as a whole, is reported as such: which of the two is left over
// from an earlier use can often not be told from what is on the disk, and the
// wrong guess destroys the other. Reads are bounded, whatever the device says.
package scan

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Creates returns the metadata module that makes metadata of the version given,
// as people call it; an empty one is the usual.
func Creates(version string) (metadata.Format, string, error) {
	var all []string

	for _, format := range Formats() {
		versions := format.Versions()
		if version == "" {
			return format, versions[0], nil
		}

		if slices.Contains(versions, version) {
			return format, version, nil
		}

		all = append(all, versions...)
	}

	return nil, "", fmt.Errorf("metadata %q: one of %s", version, strings.Join(all, ", "))
}

// Result is what was found on a device.
type Result struct {
	// Superblock is nil if there is none that can be trusted. While there are
	// Conflicts it says what the device claims to be, and must not be used.
	Superblock *metadata.Superblock
	// Module is the name of the module that found it.
	Module string

	// Conflicts says, in words for people, what contradicts the superblock.
	Conflicts []string
	// Beside are the superblocks of other modules among the Conflicts.
	Beside []*metadata.Superblock

	// Err says why there may be a superblock and none is returned: it wraps
	// [metadata.ErrCorrupt], or says that the device could not be read.
	Err error

	// Signatures are what else there is, contradiction or not, in order of
	// their place. With a superblock they are usually the content of the
	// array, or left over from before it.
	Signatures []Signature
}

// Empty reports whether nothing that anybody knows was found. That does not
// make a device blank: see [Zeros].
func (r *Result) Empty() bool {
	return r.Superblock == nil && r.Err == nil && len(r.Signatures) == 0
}

// Scan has each of formats probe src, and looks for what other programs keep
// on devices.
func Scan(src metadata.Source, formats ...metadata.Format) Result {
	var (
		r          Result
		corrupt    []error
		unreadable []error
	)

	ends := readEnds(src)
	src.ReaderAt = ends

	for _, format := range formats {
		sb, err := format.Probe(src)

		switch {
		case err == nil && r.Superblock == nil:
			r.Superblock, r.Module = sb, format.Name()
		case err == nil:
			r.Beside = append(r.Beside, sb)
			r.Conflicts = append(r.Conflicts, fmt.Sprintf("%s beside %s",
				describe(sb, format.Name()), describe(r.Superblock, r.Module)))
		case errors.Is(err, metadata.ErrNotFound):
		case errors.Is(err, metadata.ErrCorrupt):
			corrupt = append(corrupt, err)
		default:
			unreadable = append(unreadable, err)
		}
	}

	if ends.err != nil {
		unreadable = append(unreadable, fmt.Errorf("scan: %w", ends.err))
	}

	r.Signatures = find(src, ends)
	r.disown(src, formats)

	// Such a superblock is news only where no module knows it for its own.
	if r.Superblock != nil || len(corrupt) > 0 {
		r.Signatures = slices.DeleteFunc(r.Signatures, r.known)
	}

	if r.Superblock == nil {
		// What is corrupt says more than what could not be read.
		if r.Err = errors.Join(corrupt...); r.Err == nil {
			r.Err = errors.Join(unreadable...)
		}

		return r
	}

	// The damaged one may be the one that counts.
	for _, err := range corrupt {
		r.Conflicts = append(r.Conflicts, err.Error())
	}

	r.contradict(src.Size)

	return r
}

// known reports whether a signature is that of the superblock, or may be.
func (r *Result) known(s Signature) bool {
	return s.Kind == kindStray || s.Kind == r.Module || s.Kind == kindOld && r.Module == moduleOld
}

// disown gives up a superblock that the disk's last partition has as well, by
// the same module: it is the partition's, and is where the disk would have its
// own because both have the same end.
func (r *Result) disown(src metadata.Source, formats []metadata.Format) {
	for _, s := range r.Signatures {
		if r.Superblock == nil || !s.table || s.damaged || s.last.Empty() || s.last.To > src.Size {
			continue
		}

		part := metadata.Source{
			ReaderAt: io.NewSectionReader(src, s.last.From.Bytes(), s.last.Len().Bytes()),
			Size:     s.last.Len(), Block: src.Block, Serial: src.Serial,
		}

		for _, format := range formats {
			sb, err := format.Probe(part)
			if format.Name() != r.Module || err != nil || sb.Array != r.Superblock.Array ||
				sb.Number != r.Superblock.Number || sb.DataOffset+s.last.From <= r.Superblock.DataOffset {
				continue
			}

			r.Superblock, r.Module = nil, ""
			at := (s.last.From + sb.DataOffset + sb.DataSize).Bytes()
			r.Signatures = slices.DeleteFunc(r.Signatures, func(s Signature) bool { return s.Kind == kindOld })
			r.Signatures = append(r.Signatures, Signature{Kind: kindStray, Offset: at, Detail: "of the last partition"})

			return
		}
	}
}

// contradict notes which signatures contradict the superblock.
func (r *Result) contradict(size raid.Sectors) {
	for _, s := range r.Signatures {
		if why := s.contradictsAll(r.Superblock, size); why != "" {
			r.Conflicts = append(r.Conflicts, why)
		}
	}
}

func describe(sb *metadata.Superblock, module string) string {
	return fmt.Sprintf("a superblock of %s (%s, array %v)", module, sb.Format, sb.Array)
}
