package policy

import (
	"fmt"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// blankDisk is a disk with nothing on it, in the domain "d", where such are put to use
// in the slot of b's lost member:
//
//	P   proven to be blank; D: disproved; N: not known
//	p   in that slot; e: in its enclosure
//	y   in a domain where it is put to use anywhere; o: in no domain
//	s   smaller; l: larger; t: turns; k: of 4096-byte blocks; x: shunned; n: just refused
func blankDisk(i int, flags string) Device {
	d := Device{
		Path: fmt.Sprintf("/dev/sd%c", 'a'+i), Serial: fmt.Sprint(i), Size: 1100, Block: 512, Blank: Unproven,
		Domains: []string{"d"}, FillsSlot: []string{"d"},
	}

	for _, flag := range flags {
		switch flag {
		case 'P':
			d.Blank = Proven
		case 'D':
			d.Blank, d.Content = Disproved, "byte 65536 is not zero"
		case 'N':
			d.Blank = NotKnown
		case 'p':
			d.Port = "pci-1-sas-exp0x5-phy1-lun-0"
		case 'e':
			d.Port = "pci-1-sas-exp0x5-phy2-lun-0"
		case 'y':
			d.Fills, d.FillsSlot = []string{"d"}, nil
		case 'o':
			d.Fills, d.FillsSlot = []string{"other"}, []string{"other"}
		case 's':
			d.Size = 1049
		case 'l':
			d.Size = 5000
		case 't':
			d.Rotational = true
		case 'k':
			d.Block = 4096
		case 'x':
			d.Shunned = "it was removed by hand"
		}
	}

	return d
}

// TestFill checks which blank disks are put to use, and that none is before it is
// proven to be one.
func TestFill(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
	}{
		{"in the slot", "b:0 b:- blank:p", "prove /dev/sdc b"},
		{"once it is proven", "b:0 b:- blank:pP", "add-spare /dev/sdc b"},
		{"not when it holds something", "b:0 b:- blank:pD", "leave-alone /dev/sdc"},
		{"not when nobody knows", "b:0 b:- blank:pN", ""},
		{"not in another slot", "b:0 b:- blank:eP", ""},
		{"not where no port is known", "b:0 b:- blank:P", ""},
		{"anywhere, if so chosen", "b:0 b:- blank:yP", "add-spare /dev/sdc b"},
		{"the slot first", "b:0 b:- blank:yP blank:yp", "prove /dev/sdd b"},
		{"then the enclosure", "b:0 b:- blank:yP blank:ye", "prove /dev/sdd b"},
		{"then what is proven", "b:0 b:- blank:y blank:yPl", "add-spare /dev/sdd b"},
		{"then the smaller", "b:0 b:- blank:yl blank:y", "prove /dev/sdd b"},
		{"another when one is not blank", "b:0 b:- blank:yD blank:y", "leave-alone /dev/sdc, prove /dev/sdd b"},
		{"in no domain of the array", "b:0 b:- blank:ypoP", ""},
		{"a spare comes first", "b:0 b:- b:Su blank:pP", "add-spare /dev/sdc b"},
		{"and one of another array", "a:0 a:1 a:S b:0 b:- blank:pP", "add-spare /dev/sdc b"},
		{"nobody needs it", "b:0 b:1 blank:pP", ""},
		{"one for each", "b:0 b:- c:0 c:- blank:yP blank:yP blank:yP", "add-spare /dev/sde b, add-spare /dev/sdf c"},
		{"smaller by a sector", "b:0 b:- blank:pPs", ""},
		{"of another kind", "b:0 b:- blank:pPt", ""},
		{"of larger blocks", "b:0 b:- blank:pPk", ""},
		{"but not for such", "b:0k b:- blank:pPk", "add-spare /dev/sdc b"},
		{"removed by hand", "b:0 b:- blank:pPx", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := lending(t, raid.Level1, 2, tt.text).View

			var got []string

			for _, dec := range Decide(v, DefaultConfig()) {
				text := dec.Action.String() + " " + dec.Device
				if dec.Action == AddSpare || dec.Action == Prove {
					text += fmt.Sprintf(" %c", dec.Array[0])
				}

				got = append(got, text)
			}

			if text := strings.Join(got, ", "); text != tt.want {
				t.Errorf("Decide() = %q, want %q", text, tt.want)
			}
		})
	}
}

// TestFillRefused checks that another disk is tried after one was refused, and that a
// container is given disks of its own blocks only.
func TestFillRefused(t *testing.T) {
	v := lending(t, raid.Level1, 2, "b:0k b:- blank:yP blank:yP blank:yPk").View
	v.Refused = map[raid.UUID]map[string]bool{{'b'}: {"/dev/sdc": true}}

	add := func() string {
		for _, dec := range Decide(v, DefaultConfig()) {
			if dec.Action == AddSpare {
				return dec.Device
			}
		}

		return ""
	}

	if got := add(); got != "/dev/sdd" {
		t.Errorf("Decide() gives %q, want sdd", got)
	}

	v.Running[0].Container = raid.UUID{5}

	if got := add(); got != "/dev/sde" {
		t.Errorf("Decide() gives %q to a container, want sde", got)
	}
}
