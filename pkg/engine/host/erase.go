package host

import (
	"errors"
	"fmt"
	"strings"

	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/metadata"
)

// otherMetadata is what a device holds of other formats than an array's.
type otherMetadata struct {
	names  []string         // of the formats
	erased []metadata.Write // after which none of it is found
	as     []metadata.Write // what is there now
}

// otherThan finds the metadata of formats but for the one called own, of which quick is
// enough to tell whether there is any. It finds none on a device that is of a container of
// that one: an array of it may have data there.
func otherThan(own string, formats []metadata.Format, quick, src metadata.Source) (otherMetadata, error) {
	var found otherMetadata

	for _, f := range formats {
		sb, err := f.Probe(quick)
		if f.Name() == own && err == nil && !sb.Container.IsZero() {
			return otherMetadata{}, nil
		}

		if f.Name() == own || errors.Is(err, metadata.ErrNotFound) {
			continue
		}

		writes, err := f.Erase(src)
		if err != nil {
			return otherMetadata{}, fmt.Errorf("metadata of %s: %w", f.Name(), err)
		}

		if len(writes) > 0 {
			found.names = append(found.names, f.Name())
		}

		for _, w := range writes {
			was := make([]byte, len(w.Data))
			if _, err := src.ReadAt(was, w.Sector.Bytes()); err != nil {
				return otherMetadata{}, fmt.Errorf("metadata of %s: %w", f.Name(), err)
			}

			found.erased = append(found.erased, w)
			found.as = append(found.as, metadata.Write{Sector: w.Sector, Data: was})
		}
	}

	return found, nil
}

// writeAll writes to a device and makes it durable.
func writeAll(d *member.Device, writes []metadata.Write) error {
	if len(writes) == 0 {
		return nil
	}

	for _, w := range writes {
		if err := d.Write(w.Data, w.Sector); err != nil {
			return err
		}
	}

	return d.Flush()
}

// addAlone gives an array a spare, whose metadata of other formats goes: it would be two
// things. Should the array not take it, it is what it was.
func (h *Host) addAlone(g gift, cause string) error {
	other, err := otherThan(g.array.format, h.cfg.Formats, g.source, g.dev.Source())
	if err != nil {
		return err
	}

	if len(other.names) > 0 {
		cause += fmt.Sprintf("; its metadata of %s is erased", strings.Join(other.names, " and "))
	}

	err = writeAll(g.dev, other.erased)
	if err == nil {
		err = h.addSpare(g, cause)
	}

	if err != nil {
		err = errors.Join(err, writeAll(g.dev, other.as))
	}

	return err
}
