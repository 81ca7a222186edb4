package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
)

// ServedFile is what the file is called that is kept for the next engine and says which
// arrays this one serves.
const ServedFile = "served"

// servedMax bounds that file, in bytes.
const servedMax = 4 << 20

// servedVersion is the version of that file.
const servedVersion = 1

// Served is what the next engine has to know of an array that this one serves, to take
// it over without being told to, or reading what may have been swapped out to it. What each
// of its devices is they say themselves.
type Served struct {
	UUID    string         `json:"uuid"`
	Name    string         `json:"name"`
	Block   string         `json:"block"` // its block device, without /dev/
	Devices []ServedDevice `json:"devices"`
}

// ServedDevice is a device of such an array.
type ServedDevice struct {
	Path   string `json:"path"`
	Serial string `json:"serial"`
}

type servedFile struct {
	Version int      `json:"version"`
	Arrays  []Served `json:"arrays"`
}

// ReadServed reads what the engine before has left.
func ReadServed(from io.Reader) ([]Served, error) {
	var f servedFile

	if err := json.NewDecoder(io.LimitReader(from, servedMax)).Decode(&f); err != nil {
		return nil, fmt.Errorf("host: which arrays were served: %w", err)
	}

	if f.Version != servedVersion {
		return nil, fmt.Errorf("host: which arrays were served: version %d is not understood", f.Version)
	}

	return f.Arrays, nil
}

// noteServed has it be kept which arrays are served, if that has changed. What is handed
// over stays noted.
func (h *Host) noteServed() {
	if h.cfg.Logs == nil {
		return
	}

	h.noting.Lock()
	defer h.noting.Unlock()

	file := servedFile{Version: servedVersion, Arrays: h.allServed()}

	text, err := json.Marshal(file)
	if err != nil || string(text) == h.noted {
		return
	}

	// Where that fails the guardian is gone, and this engine ends with it.
	if keepFile(h.cfg.Logs, ServedFile, text) == nil {
		h.noted = string(text)
	}
}

// keepFile has a text be kept.
func keepFile(shelf crashlog.Shelf, name string, text []byte) error {
	file, err := uring.SharedMemory(name, len(text))
	if err != nil {
		return err
	}

	if _, err := file.WriteAt(text, 0); err != nil {
		return errors.Join(err, file.Close())
	}

	return errors.Join(shelf.Keep(name, file), file.Close())
}

// allServed returns the arrays that the next engine is to take over, by UUID.
func (h *Host) allServed() []Served {
	for uuid, r := range h.running() {
		st, err := r.loop.Status()
		if err != nil {
			continue // it has just ended
		}

		h.mu.Lock()
		if h.arrays[uuid] == r {
			s := r.serves(uuid, st)
			s.Block = blockName(r.loop.Device())
			h.served[uuid] = s
		}
		h.mu.Unlock()
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	all := slices.Collect(maps.Values(h.served))
	slices.SortFunc(all, func(a, b Served) int { return strings.Compare(a.UUID, b.UUID) })

	return all
}

// serves returns what the next engine has to know of r. Members that have failed are not
// waited for.
func (r *running) serves(uuid raid.UUID, st loop.Status) Served {
	ids := slices.Clone(st.Spares)

	for _, m := range append(slices.Clone(st.Members), st.Successor) {
		if m.State == raid.InSync || m.State == raid.Recovering {
			ids = append(ids, m.Device)
		}
	}

	slices.Sort(ids)

	s := Served{UUID: uuid.String(), Name: r.name}

	for _, id := range ids {
		if d := r.devices[id]; d != nil {
			s.Devices = append(s.Devices, ServedDevice{Path: d.Path, Serial: d.Serial})
		}
	}

	return s
}

// TakeOver has all arrays go on whose block devices wait for an engine. One that cannot
// is left to the assembler, which finds out why and what is to be done.
func (h *Host) TakeOver(ctx context.Context, arrays []Served) {
	var all sync.WaitGroup

	for _, s := range arrays {
		uuid, err := raid.ParseUUID(s.UUID)
		if err != nil || !h.inherits(ctx, uuid, s) {
			continue
		}

		all.Go(func() {
			if err := h.takeOver(ctx, s); err != nil {
				h.cfg.Tell(journal.Event{
					Kind: journal.ArrayRefused, Array: s.Name, UUID: s.UUID, Reason: err.Error(),
					Message: fmt.Sprintf("%s is not taken over without raid-assembler: %v", s.Name, err),
				})
			}
		})
	}

	all.Wait()
}

// inherits notes an array that is to be taken over, and reports whether it can be: its block
// device is there.
func (h *Host) inherits(ctx context.Context, uuid raid.UUID, s Served) bool {
	h.mu.Lock()
	h.served[uuid] = s
	h.mu.Unlock()

	if h.abandoned(ctx, uuid) != ublk.AnyDevice {
		return true
	}

	h.mu.Lock()
	delete(h.served, uuid)
	h.mu.Unlock()

	return false
}

// takeOver starts an array of the devices that the engine before had for it. All of
// them: if one is not there it may know better than the others what is current.
func (h *Host) takeOver(ctx context.Context, s Served) error {
	p := api.StartParameters{UUID: s.UUID, Name: s.Name, Degraded: true}
	for _, d := range s.Devices {
		p.Members = append(p.Members, api.StartMember{Device: d.Path, Serial: d.Serial})
	}

	_, err := h.begin(ctx, p, true)

	return err
}

// inherit asks for each device as what the freshest superblock says. Those that it has no
// use for the engine before was about to let go of.
func inherit(all []candidate) (kept, useless []candidate) {
	best := all[0].sb

	for _, c := range all {
		role := best.Role(c.sb.Number)

		if slot, ok := role.Slot(); ok {
			number := int(slot)
			c.asked.Slot = &number
		} else if role != raid.RoleSpare {
			useless = append(useless, c)

			continue
		}

		kept = append(kept, c)
	}

	return kept, useless
}
