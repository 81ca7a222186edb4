package asr

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// images is where the images go that dmraid is to be asked of. It wants SCSI disks.
var images = flag.String("images", "", "write the images of the states that dmraid was asked of to this directory")

// states returns the disks of arrays in each state, in the order in which dmraid
// saw them as sda, sdb and so on.
func states(tb testing.TB) map[string][]conformance.Disk {
	tb.Helper()

	stripes := blanks(4)
	makeArray(tb, stripes, params(raid.Geometry{Level: raid.Level0, Disks: 4, Chunk: 128}))

	all := blanks(3)
	makeArray(tb, all, params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	made := map[string][]conformance.Disk{"stripes": stripes}
	snapshot := func(name string, which ...int) {
		for _, i := range which {
			d := all[i]
			d.Image = append([]byte{}, d.Image...)
			made[name] = append(made[name], d)
		}
	}

	snapshot("mirror", 0, 1, 2)

	k := keep(tb, all)
	st := both(metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot})
	st.ResyncOffset = 0
	apply(all, k.Record(st))
	snapshot("dirty", 0, 1, 2)

	st.Members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(st))
	snapshot("degraded", 1, 2)

	st.Members[2] = metadata.MemberRecord{State: raid.Recovering, Slot: 0}
	apply(all, k.Record(st))
	snapshot("recovering", 1, 2)

	st.Members[2] = metadata.MemberRecord{State: raid.InSync, Slot: 0}
	st.ResyncOffset = raid.MaxSectors
	apply(all, k.Record(st))
	snapshot("recovered", 1, 2)
	snapshot("recovered-with-the-old", 0, 1, 2)

	return made
}

// TestDmraid compares what dmraid 1.0.0.rc16 of Debian 12 said of our images with
// what we say, and makes sure that they are still the same.
func TestDmraid(t *testing.T) {
	for name, disks := range states(t) {
		digest := sha256.New()

		for i := range disks {
			digest.Write(disks[i].Image)

			if *images != "" {
				path := filepath.Join(*images, fmt.Sprintf("%s-%d", name, i))
				if err := os.WriteFile(path, disks[i].Image, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}

		text, err := os.ReadFile(filepath.Join("testdata", "dmraid", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}

		said := string(text)
		if first, _, _ := strings.Cut(said, "\n"); first != fmt.Sprintf("%x", digest.Sum(nil)) {
			t.Errorf("%s: dmraid was asked of other images: ask it of %x", name, digest.Sum(nil))
		}

		for i := range disks {
			sb := probe(t, &disks[i])
			kind, sectors := "mirror", sb.Size

			switch {
			case sb.Level == raid.Level0:
				kind, sectors = "stripe", sb.DataSize
			case sb.Role(sb.Number) == raid.RoleSpare:
				kind, sectors = "spare", sb.DataSize
			}

			// It calls whatever has not failed ok, a disk that is being filled as well.
			want := fmt.Sprintf("/dev/sd%c: asr, \"asr_%s\", %s, ok, %d sectors, data@ 0\n", 'a'+i, sb.Name, kind, sectors)
			if !strings.Contains(said, want) {
				t.Errorf("%s: dmraid does not say\n%sbut\n%s", name, want, said)
			}
		}
	}
}
