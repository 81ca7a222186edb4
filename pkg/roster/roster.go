// Package roster is what a host knows of its arrays from when they last ran:
// which disk had which slot, so that a member that is not here can be named; which
// disks were in sync when it was last seen how far the array had come, so that a set
// that they left behind is not taken for all there is; and on which machine, so that an
// array is this machine's whatever host it names.
//
// It is advice and no more. Nobody needs it to start an array, and nothing that
// the metadata on the disks says is doubted because of it.
package roster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"raid-assembler/pkg/raid"
)

// version is the version of the form of what [Roster.Encode] returns.
const version = 1

// The bounds of a roster. Of arrays, those that were not seen for the longest
// time are left out; the others are more than any host has.
const (
	BytesMax  = 4 << 20
	arraysMax = 256
	slotsMax  = 256
	textMax   = 256 // of bytes
)

// refresh is how old it may be when an array was last seen before that alone is
// worth writing it down.
const refresh = time.Hour

// Roster is the arrays that were seen. The zero value knows none.
type Roster struct {
	Arrays []Array // by UUID
	Spent  []Worn  // disks, by serial
}

// Worn is a disk that was replaced for what it did wrong, and that is not to be used
// unasked.
type Worn struct {
	Serial string    `json:"serial"`
	Array  string    `json:"array"` // the UUID of that which it was replaced in
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Copied bool      `json:"-"` // as of an [Array]
}

// Array is an array as it was when it last ran.
type Array struct {
	UUID       raid.UUID
	Name       string
	Metadata   string
	Machine    string    // that it ran on; empty if that was not known
	Generation uint64    // that all members in sync had then, and none lost before; 0 if not known
	Seen       time.Time // when it last ran
	Members    []Member  // by slot
	// Copied says that this is from a copy which may be long out of date. It is not
	// written down again.
	Copied bool
}

// Member is the disk that last was in sync in a slot. What is not known of it is
// empty.
type Member struct {
	Slot   raid.Slot `json:"slot"`
	Serial string    `json:"serial"`
	Model  string    `json:"model"`
	WWN    string    `json:"wwn"`
	Port   string    `json:"port"`             // where it was plugged in, as in /dev/disk/by-path
	Seen   time.Time `json:"seen"`             // when it last was in sync
	Newest bool      `json:"newest,omitempty"` // it has the array's generation
}

// String names a disk for people.
func (m Member) String() string {
	var words []string

	for _, field := range []struct{ what, value string }{
		{"serial ", m.Serial}, {"", m.Model}, {"WWN ", m.WWN}, {"last at ", m.Port},
	} {
		if field.value != "" {
			words = append(words, field.what+field.value)
		}
	}

	return strings.Join(words, ", ")
}

// known reports whether anything is known of a disk.
func (m Member) known() bool { return m.Serial != "" || m.WWN != "" || m.Port != "" }

// same reports whether m is the disk that other is, in the same place.
func (m Member) same(other Member) bool {
	m.Seen, m.Newest = other.Seen, other.Newest

	return m == other
}

// Find returns what is known of an array, or nil.
func (r *Roster) Find(uuid raid.UUID) *Array {
	if i := r.index(uuid); i >= 0 {
		return &r.Arrays[i]
	}

	return nil
}

// FindNamed returns what is known of the array with a name or a UUID, or nil. Of
// several with one name it is the one that was seen last.
func (r *Roster) FindNamed(name string) *Array {
	if uuid, err := raid.ParseUUID(name); err == nil && r.index(uuid) >= 0 {
		return r.Find(uuid)
	}

	var found *Array

	for i := range r.Arrays {
		if a := &r.Arrays[i]; a.Name == name && (found == nil || a.Seen.After(found.Seen)) {
			found = a
		}
	}

	return found
}

func (r *Roster) index(uuid raid.UUID) int {
	return slices.IndexFunc(r.Arrays, func(a Array) bool { return a.UUID == uuid })
}

// Member returns the disk that last had a slot, or nil.
func (a *Array) Member(slot raid.Slot) *Member {
	i := slices.IndexFunc(a.Members, func(m Member) bool { return m.Slot == slot })
	if i < 0 {
		return nil
	}

	return &a.Members[i]
}

// Newest returns the disks that have the array's generation, as far as that is known:
// whoever has less was left behind by them.
func (a *Array) Newest() []Member {
	return slices.DeleteFunc(slices.Clone(a.Members), func(m Member) bool {
		return a.Generation == 0 || !m.Newest
	})
}

// Outdated returns the names of the arrays of which now knows other disks as the newest
// than r does.
func (r *Roster) Outdated(now Roster) []string {
	var names []string

	same := func(m, n Member) bool { return m.Slot == n.Slot && m.Serial == n.Serial }

	for _, a := range now.Arrays {
		var was []Member
		if known := r.Find(a.UUID); known != nil {
			was = known.Newest()
		}

		if !slices.EqualFunc(was, a.Newest(), same) {
			names = append(names, a.Name)
		}
	}

	return names
}

// GoBack takes in that an array runs which is older than it was: somebody wanted that,
// or had no other. Who was newer is forgotten, and the generation that the array had is
// returned; 0 if it is not older, which a copy cannot say, or to is 0, as an engine of
// before tells nothing.
func (r *Roster) GoBack(uuid raid.UUID, to uint64) (from uint64) {
	a := r.Find(uuid)
	if a == nil || a.Copied || to == 0 || to >= a.Generation {
		return 0
	}

	from, a.Generation = a.Generation, 0

	return from
}

// Note takes in an array that runs, with the members that are in sync. What it
// says of a slot takes the place of what was known, and so does its generation, if it
// has one; what a copy says is forgotten. It reports whether that is worth writing down.
func (r *Roster) Note(a Array) bool {
	a.Members = slices.DeleteFunc(slices.Clone(a.Members), func(m Member) bool { return !m.known() })
	for i := range a.Members {
		a.Members[i].Newest = a.Generation != 0
	}

	a.clean()

	old := r.Find(a.UUID)

	switch {
	case old == nil:
		r.Arrays = append(r.Arrays, a)
		r.bound()

		return true
	case old.Copied:
		*old = a

		return true
	}

	news := old.Name != a.Name || old.Metadata != a.Metadata || old.Machine != a.Machine ||
		a.Seen.Sub(old.Seen) >= refresh || a.Generation != 0 && !slices.EqualFunc(a.Members, old.Newest(), Member.same)
	old.Name, old.Metadata, old.Machine = a.Name, a.Metadata, a.Machine

	for _, m := range a.Members {
		switch had := old.Member(m.Slot); {
		case had == nil:
			old.Members = append(old.Members, m)
			news = true
		case !had.same(m):
			*had = m
			news = true
		}
	}

	if news {
		old.take(a)
	}

	old.sort()

	return news
}

// take takes in when an array was seen, and its generation if that is known.
func (a *Array) take(now Array) {
	a.Seen = now.Seen
	for _, m := range now.Members {
		a.Member(m.Slot).Seen = m.Seen
	}

	if now.Generation == 0 {
		return
	}

	a.Generation = now.Generation
	for i := range a.Members {
		a.Members[i].Newest = now.Member(a.Members[i].Slot) != nil
	}
}

// MarkCopied notes that r is a copy which may be long out of date.
func (r *Roster) MarkCopied() {
	for i := range r.Arrays {
		r.Arrays[i].Copied = true
	}

	for i := range r.Spent {
		r.Spent[i].Copied = true
	}
}

// Merge takes in what was written down. Of an array the younger of both holds, and the
// other one only says who had the slots of which it says nothing.
func (r *Roster) Merge(before Roster) {
	for _, a := range before.Arrays {
		now := r.Find(a.UUID)
		if now == nil {
			r.Arrays = append(r.Arrays, a)

			continue
		}

		if !a.Seen.Before(now.Seen) {
			*now = a

			continue
		}

		unknown := now.Generation == 0
		if unknown {
			now.Generation = a.Generation
		}

		for _, m := range a.Members {
			switch had := now.Member(m.Slot); {
			case had == nil:
				m.Newest = m.Newest && unknown
				now.Members = append(now.Members, m)
			case unknown && had.same(m):
				had.Newest = m.Newest
			}
		}

		now.sort()
	}

	// What a copy says of disks is over when there is word from where it was copied.
	if len(before.Arrays)+len(before.Spent) > 0 {
		r.Spent = slices.DeleteFunc(r.Spent, func(w Worn) bool { return w.Copied })
	}

	r.mergeWorn(before.Spent)
	r.bound()
}

// bound leaves out what is too much, and sorts.
func (r *Roster) bound() {
	slices.SortFunc(r.Arrays, func(a, b Array) int { return b.Seen.Compare(a.Seen) })
	r.Arrays = r.Arrays[:min(len(r.Arrays), arraysMax)]
	slices.SortFunc(r.Arrays, func(a, b Array) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
}

func (a *Array) sort() {
	slices.SortFunc(a.Members, func(m, n Member) int { return cmp.Compare(m.Slot, n.Slot) })
}

// clean bounds texts that come from disks, and has them print.
func (a *Array) clean() {
	texts := []*string{&a.Name, &a.Metadata, &a.Machine}

	for i := range a.Members {
		m := &a.Members[i]
		texts = append(texts, &m.Serial, &m.Model, &m.WWN, &m.Port)
	}

	for _, text := range texts {
		*text = tidy(*text)
	}

	a.sort()
}

// tidy bounds a text that comes from a disk, and has it print.
func tidy(text string) string {
	text = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return '?'
		}

		return c
	}, text)

	for len(text) > textMax {
		cut := []rune(text)
		text = string(cut[:len(cut)-1-(len(text)-textMax)/5])
	}

	return text
}

// written is a roster as it is written down.
type written struct {
	Version int            `json:"version"`
	Arrays  []writtenArray `json:"arrays"`
	Worn    []Worn         `json:"worn,omitempty"`
}

type writtenArray struct {
	UUID       string    `json:"uuid"`
	Name       string    `json:"name"`
	Metadata   string    `json:"metadata"`
	Machine    string    `json:"machine,omitempty"`
	Generation uint64    `json:"generation"`
	Seen       time.Time `json:"seen"`
	Members    []Member  `json:"members"`
}

// Encode returns r as text.
func (r *Roster) Encode() ([]byte, error) {
	w := written{Version: version, Arrays: []writtenArray{}}

	for _, worn := range r.Spent {
		if !worn.Copied {
			w.Worn = append(w.Worn, worn)
		}
	}

	for _, a := range r.Arrays {
		if a.Copied {
			continue
		}

		w.Arrays = append(w.Arrays, writtenArray{
			a.UUID.String(), a.Name, a.Metadata, a.Machine, a.Generation, a.Seen, a.Members,
		})
	}

	text, err := json.MarshalIndent(w, "", " ")

	return append(text, '\n'), err
}

// Decode reads what Encode returned. What else there is is not trusted: it
// returns either a roster that is sound or an error.
func Decode(text []byte) (Roster, error) {
	var w written

	if len(text) > BytesMax {
		return Roster{}, fmt.Errorf("roster: more than %d bytes", BytesMax)
	}

	if err := json.Unmarshal(text, &w); err != nil {
		return Roster{}, fmt.Errorf("roster: %w", err)
	}

	if w.Version != version {
		return Roster{}, fmt.Errorf("roster: it is of version %d, and only %d is known", w.Version, version)
	}

	if len(w.Arrays) > arraysMax {
		return Roster{}, fmt.Errorf("roster: %d arrays, and at most %d are known", len(w.Arrays), arraysMax)
	}

	var r Roster

	for _, wa := range w.Arrays {
		uuid, err := raid.ParseUUID(wa.UUID)
		if err == nil && r.index(uuid) >= 0 {
			err = errors.New("it is there twice")
		}

		if err == nil {
			err = sound(wa.Members)
		}

		if err != nil {
			return Roster{}, fmt.Errorf("roster: array %q: %w", wa.UUID, err)
		}

		a := Array{uuid, wa.Name, wa.Metadata, wa.Machine, wa.Generation, wa.Seen, wa.Members, false}
		a.clean()
		r.Arrays = append(r.Arrays, a)
	}

	r.bound()

	if err := r.takeWorn(w.Worn); err != nil {
		return Roster{}, err
	}

	return r, nil
}

// sound says what is wrong with members.
func sound(members []Member) error {
	seen := make(map[raid.Slot]bool)

	for _, m := range members {
		if m.Slot < 0 || m.Slot >= slotsMax || seen[m.Slot] {
			return fmt.Errorf("slot %d, which is there twice or cannot be", m.Slot)
		}

		seen[m.Slot] = true
	}

	return nil
}
