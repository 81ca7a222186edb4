package roster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func worn(serial string, after time.Duration) Worn {
	return Worn{Serial: serial, Array: "u", Reason: "reads failed", Since: start.Add(after)}
}

// TestWorn checks that worn disks are known, also by the next one, until they are
// trusted again.
func TestWorn(t *testing.T) {
	var r Roster

	r.WearOut(worn("b", 0))
	r.WearOut(worn("a", time.Second))
	r.WearOut(worn("b", time.Minute))

	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}

	read, err := Decode(text)
	if diff := cmp.Diff(r, read); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}

	now := Roster{Spent: []Worn{worn("b", time.Hour), worn("c", time.Hour)}}
	now.Merge(read)

	if diff := cmp.Diff([]Worn{worn("a", time.Second), worn("b", time.Hour), worn("c", time.Hour)}, now.Spent); diff != "" {
		t.Error(diff)
	}

	if !now.Trust("a") || now.Trust("a") || now.Worn("a") != nil || now.Worn("") != nil || now.Worn("b") == nil {
		t.Errorf("after a is trusted: %+v", now.Spent)
	}
}

// TestWornUnsound checks that what makes no sense is not taken in, and that there is a
// bound.
func TestWornUnsound(t *testing.T) {
	for _, list := range []string{`{"serial":""}`, `{"serial":"a"},{"serial":"a"}`, `{"serial":"a\u0000"},{"serial":"a\u0001"}`} {
		if r, err := Decode([]byte(`{"version":1,"worn":[` + list + `]}`)); err == nil || len(r.Spent) > 0 {
			t.Errorf("Decode of %s: %v", list, err)
		}
	}

	var r Roster
	for i := range wornMax + 1 {
		r.WearOut(worn(fmt.Sprint(i, strings.Repeat("x", 300)), time.Duration(i)*time.Second))
	}

	text, err := r.Encode()
	if len(r.Spent) != wornMax || r.Worn("0"+strings.Repeat("x", 300)) != nil || err != nil || len(text) > BytesMax {
		t.Errorf("%d are known, in %d bytes, %v", len(r.Spent), len(text), err)
	}
}
