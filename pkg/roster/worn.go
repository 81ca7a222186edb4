package roster

import (
	"cmp"
	"errors"
	"slices"
)

// wornMax bounds the disks that are known to be worn: of more, those are left out that
// have been so for the longest time.
const wornMax = 1024

// WearOut notes that a disk is worn. What was known of it before is forgotten.
func (r *Roster) WearOut(w Worn) {
	w.clean()
	r.Trust(w.Serial)
	r.Spent = append(r.Spent, w)
	r.boundWorn()
}

// Trust forgets that a disk is worn, and reports whether it was.
func (r *Roster) Trust(serial string) bool {
	n := len(r.Spent)
	r.Spent = slices.DeleteFunc(r.Spent, func(w Worn) bool { return w.Serial == tidy(serial) })

	return len(r.Spent) < n
}

// Worn returns what is known of a disk that is worn, or nil.
func (r *Roster) Worn(serial string) *Worn {
	if i := slices.IndexFunc(r.Spent, func(w Worn) bool { return w.Serial == tidy(serial) }); serial != "" && i >= 0 {
		return &r.Spent[i]
	}

	return nil
}

// mergeWorn takes in the disks that were worn before.
func (r *Roster) mergeWorn(before []Worn) {
	for _, w := range before {
		if r.Worn(w.Serial) == nil {
			r.Spent = append(r.Spent, w)
		}
	}

	r.boundWorn()
}

func (r *Roster) boundWorn() {
	slices.SortFunc(r.Spent, func(a, b Worn) int { return b.Since.Compare(a.Since) })
	r.Spent = r.Spent[:min(len(r.Spent), wornMax)]
	slices.SortFunc(r.Spent, func(a, b Worn) int { return cmp.Compare(a.Serial, b.Serial) })
}

// takeWorn takes in what was written down, or says what is wrong with it.
func (r *Roster) takeWorn(written []Worn) error {
	for _, w := range written {
		if w.clean(); w.Serial == "" || r.Worn(w.Serial) != nil {
			return errors.New("roster: a worn disk that has no serial, or is there twice")
		}

		r.Spent = append(r.Spent, w)
	}

	r.boundWorn()

	return nil
}

func (w *Worn) clean() { w.Serial, w.Array, w.Reason = tidy(w.Serial), tidy(w.Array), tidy(w.Reason) }
