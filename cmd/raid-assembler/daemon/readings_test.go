package daemon

import (
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

// scanned is a host that finds all that is on a disk.
type scanned struct{ *world }

func (s scanned) Probe(disk Disk) Finding {
	s.mu.Lock()
	defer s.mu.Unlock()

	return finding(scan.Scan(s.disks[disk.Serial].source(), scan.Formats()...))
}

// onto makes an array of a version on disks, beside whatever they hold.
func onto(t *testing.T, version, name string, at time.Time, disks ...*fakeDisk) {
	t.Helper()

	format, _, err := scan.Creates(version)
	if err != nil {
		t.Fatal(err)
	}

	var members []metadata.NewMember
	for i, f := range disks {
		members = append(members, metadata.NewMember{Source: f.source(), Device: raid.UUID{name[0], 0xdd, byte(i)}})
	}

	_, stages, err := format.Create(metadata.NewArray{
		Version: version, Array: raid.UUID{name[0]}, Name: name, AssumeClean: true, Now: at,
		Geometry: raid.Geometry{Level: raid.Level1, Disks: len(disks)},
	}, members)
	if err != nil {
		t.Fatal(err)
	}

	for _, stage := range stages {
		for _, w := range stage {
			copy(disks[w.Member].image[w.Sector.Bytes():], w.Data)
		}
	}
}

// TestReadings has disks with metadata of two formats be members of the array whose
// other member is here and which was written last, and of none if that is not clear.
func TestReadings(t *testing.T) {
	const (
		md   = "md 0:a:in-sync 1:b:in-sync"
		imsm = "imsm 0:a:in-sync 1:c:in-sync"
	)

	for name, tt := range map[string]struct {
		older, newer, disks, want string
	}{
		"left over from imsm":                 {"imsm", "1.2", "ab", md},
		"left over from md":                   {"1.2", "imsm", "ac", imsm},
		"left over from md 1.0":               {"1.0", "imsm", "ac", imsm},
		"the members of both are here":        {"imsm", "1.2", "abc", ""},
		"the member of the older one is here": {"imsm", "1.2", "ac", ""},
		"no member of either is here":         {"imsm", "1.2", "a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				disks := map[rune]*fakeDisk{'a': w.disk("a"), 'b': w.disk("b"), 'c': w.disk("c")}

				for i, version := range []string{tt.older, tt.newer} {
					other := disks['b']
					if version == "imsm" {
						other = disks['c']
					}

					array := "md"
					if version == "imsm" {
						array = version
					}

					onto(t, version, array, time.Now().Add(time.Duration(i-2)*time.Hour), disks['a'], other)
				}

				w.run()
				w.pass(time.Second)

				w.daemon.cfg.Host = scanned{w}

				for _, serial := range tt.disks {
					w.plug(disks[serial])
				}

				w.pass(2 * time.Second)

				// A degraded start after the deadline is of the other member alone.
				w.mustBe(tt.want)
			})
		})
	}
}

// TestReadingChanges: what is only one reading as long as no member of the other array
// is here is in conflict again when one comes.
func TestReadingChanges(t *testing.T) {
	set := newWorld(t).set("data", raid.Level1, 2, 0)
	onto(t, "imsm", "old", time.Now().Add(-24*time.Hour), set...)

	read := func(f *fakeDisk) *disk {
		found := finding(scan.Scan(f.source(), scan.Formats()...))

		return &disk{Disk: f.Disk, found: found, doubts: found.Conflicts}
	}

	both, again, alone := read(set[0]), read(set[1]), read(set[1])
	alone.found = Finding{}

	sb, err := md1.Format{}.Probe(set[1].source())
	if err != nil {
		t.Fatal(err)
	}

	alone.found.Superblock = sb

	if got := both.chosen([]*disk{both, alone}); got == nil || got.Format != "1.2" {
		t.Errorf("chosen() = %+v, want that of md", got)
	}

	if got := both.chosen([]*disk{both, alone, again}); got != nil {
		t.Errorf("chosen() = %+v, want none", got)
	}

	sb.Roles[sb.Number], sb.Roles[0] = raid.RoleFaulty, raid.RoleFaulty

	if got := both.chosen([]*disk{both, alone}); got != nil {
		t.Errorf("chosen() = %+v of what the other calls faulty, want none", got)
	}
}
