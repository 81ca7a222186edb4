package policy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
)

// image is a member in memory.
type image []byte

func (im image) source() metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(im), Size: raid.Sectors(len(im) / raid.SectorSize), Block: raid.SectorSize,
	}
}

// set is the members of one array, and who writes their superblocks.
type set struct {
	images []image
	keeper metadata.Keeper
	state  metadata.State
}

// newSet creates an array with spares as the operator would, clean, and starts
// to keep it.
func newSet(t *testing.T, level raid.Level, disks, spares int) *set {
	t.Helper()

	s := &set{}

	var devices []metadata.NewMember

	for i := range disks + spares {
		s.images = append(s.images, make(image, 8<<20))
		devices = append(devices, metadata.NewMember{Source: s.images[i].source(), Device: raid.UUID{0xdd, byte(i)}})
	}

	stages, err := md1.Create(metadata.NewArray{
		Version: "1.2", Array: testArray, Name: "data", Geometry: raid.Geometry{
			Level: level, Layout: raid.LeftSymmetric, Disks: disks, Chunk: 128,
		},
		AssumeClean: true, Now: time.Unix(1e9, 0),
	}, devices)
	if err != nil {
		t.Fatal(err)
	}

	s.write(stages, func(int) bool { return true })

	s.keep(t)

	s.state = metadata.State{
		ResyncOffset: raid.MaxSectors, Members: make(map[metadata.MemberID]metadata.MemberRecord),
		Now: time.Unix(1e9, 0),
	}

	for i := range s.images {
		record := metadata.MemberRecord{State: raid.InSync, Slot: raid.Slot(i)}
		if i >= disks {
			record = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
		}

		s.state.Members[metadata.MemberID(i)] = record
	}

	return s
}

// keep starts to keep the array.
func (s *set) keep(t *testing.T) {
	t.Helper()

	var attachments []metadata.Attachment
	for _, im := range s.images {
		attachments = append(attachments, metadata.Attachment{Superblock: probe(t, im), Source: im.source()})
	}

	var err error
	if s.keeper, err = (md1.Format{}).Keep(attachments); err != nil {
		t.Fatal(err)
	}
}

func probe(t *testing.T, im image) *metadata.Superblock {
	t.Helper()

	sb, err := md1.Format{}.Probe(im.source())
	if err != nil {
		t.Fatal(err)
	}

	return sb
}

func (s *set) write(stages [][]metadata.Write, reaches func(member int) bool) {
	for _, stage := range stages {
		for _, w := range stage {
			if reaches(int(w.Member)) {
				copy(s.images[w.Member][w.Sector.Bytes():], w.Data)
			}
		}
	}
}

// record writes a round of superblocks, which reaches the members given, or
// all of them.
func (s *set) record(members ...int) {
	s.write(s.keeper.Record(s.state), func(m int) bool {
		return len(members) == 0 || strings.Contains(fmt.Sprint(members), fmt.Sprint(m))
	})
}

func (s *set) mark(member int, r metadata.MemberRecord) {
	s.state.Members[metadata.MemberID(member)] = r
}

// devices returns what a scan of the members finds.
func (s *set) devices(t *testing.T) []Device {
	t.Helper()

	var devices []Device

	for i, im := range s.images {
		sb := probe(t, im)
		devices = append(devices, Device{
			Path: fmt.Sprintf("/dev/sd%c", 'a'+i), Size: im.source().Size,
			Superblock: &Superblock{
				Array: sb.Array, Device: sb.Device, Name: sb.Name, Geometry: sb.Geometry, Number: sb.Number,
				Roles: sb.Roles, Events: sb.Events, DataSize: sb.DataSize, ResyncOffset: sb.ResyncOffset,
				RecoveryOffset: sb.RecoveryOffset, Unsupported: sb.Unsupported,
			},
		})
	}

	return devices
}

// TestKeeper gives policy what the engine's keeper of superblocks writes. Each
// of the two is right by its own tests; together they must not bring a failed
// member back.
func TestKeeper(t *testing.T) {
	faulty := func(slot raid.Slot) metadata.MemberRecord {
		return metadata.MemberRecord{State: raid.Faulty, Slot: slot}
	}

	for _, tt := range []struct {
		name   string
		happen func(s *set)
		use    string
		reason string
		stale  string
	}{
		{"nothing", func(s *set) { s.record() }, "0a 1b 2c Sd", "all 3 members are here", ""},
		{"crash as it gets dirty", func(s *set) {
			s.record()
			s.state.ResyncOffset = 0
			s.record(1)
		}, "0a 1b 2c Sd", "all 3 members are here", ""},
		{"a member fails", func(s *set) {
			s.record()
			s.mark(2, faulty(2))
			s.record()
		}, "0a 1b Sd", "slot 2 is recorded as missing", "which /dev/sda at event 2 calls faulty"},
		{"crash as a member fails", func(s *set) {
			s.record()
			s.mark(2, faulty(2))
			s.record(0)
		}, "0a 1b Sd", "slot 2 is recorded as missing", "which /dev/sda at event 2 calls faulty"},
		{"a member is removed", func(s *set) {
			s.record()
			delete(s.state.Members, 2)
			s.keeper.Forget(2)
			s.record()
		}, "0a 1b Sd", "slot 2 is recorded as missing", "which /dev/sda at event 2 calls missing"},
		{"a spare takes over", func(s *set) {
			s.mark(2, faulty(2))
			s.mark(3, metadata.MemberRecord{State: raid.Recovering, Slot: 2, Recovered: 1024})
			s.record()
		}, "0a 1b 2d", "1 of them not recovered yet", "calls faulty"},
		{"crash as a spare takes over", func(s *set) {
			s.record()
			s.mark(2, faulty(2))
			s.mark(3, metadata.MemberRecord{State: raid.Recovering, Slot: 2})
			s.record(0, 1)
		}, "0a 1b", "1 of them not recovered yet", "calls faulty"},
		{"a spare is done", func(s *set) {
			s.mark(2, faulty(2))
			s.mark(3, metadata.MemberRecord{State: raid.InSync, Slot: 2})
			s.record()
		}, "0a 1b 2d", "all 3 members are here", "calls faulty"},
		{"crash as a spare is done", func(s *set) {
			s.mark(2, faulty(2))
			s.mark(3, metadata.MemberRecord{State: raid.Recovering, Slot: 2, Recovered: 1024})
			s.record()
			s.mark(3, metadata.MemberRecord{State: raid.InSync, Slot: 2})
			s.record(0, 1)
		}, "0a 1b 2d", "1 of them not recovered yet", "calls faulty"},
		{"grown without a spare that was away", func(s *set) {
			s.record()

			for i := range s.images {
				s.images[i] = append(s.images[i], make(image, 1<<20)...)
			}

			s.keep(t)
			delete(s.state.Members, 3)
			s.keeper.Forget(3)

			if _, err := s.keeper.Grow(0); err != nil {
				t.Fatal(err)
			}

			s.record()
		}, "0a 1b 2c", "all 3 members are here", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSet(t, raid.Level5, 3, 1)
			tt.happen(s)

			ds := Decide(View{Devices: s.devices(t)}, DefaultConfig())
			if ds[0].Action != Start || use(ds[0]) != tt.use || !strings.Contains(ds[0].Reason, tt.reason) {
				t.Errorf("Decide() = %v, want start %q (... %s ...)", ds[0], tt.use, tt.reason)
			}

			for _, d := range ds[1:] {
				if tt.stale == "" || d.Device != "/dev/sdc" || !strings.Contains(d.Reason, tt.stale) {
					t.Errorf("Decide() = %v, want /dev/sdc stale: %q", d, tt.stale)
				}
			}

			if stale := len(ds) > 1; stale != (tt.stale != "") {
				t.Errorf("stale = %v, want %q", ds[1:], tt.stale)
			}
		})
	}
}

// TestKeeperHalves lets each half of a mirror be run without the other, and
// checks that neither is believed over the other.
func TestKeeperHalves(t *testing.T) {
	s := newSet(t, raid.Level1, 2, 0)
	s.record()

	before := append(image(nil), s.images[0]...)

	s.mark(0, metadata.MemberRecord{State: raid.Faulty, Slot: 0})
	s.record()
	s.record()

	// The other half, on another day.
	other := newSet(t, raid.Level1, 2, 0)
	copy(other.images[0], before)
	other.record()
	other.mark(1, metadata.MemberRecord{State: raid.Faulty, Slot: 1})
	other.record()
	s.images[0] = other.images[0]

	d := Decide(View{Devices: s.devices(t)}, DefaultConfig())[0]
	if d.Action != Refuse || !strings.Contains(d.Reason, "each went on without the other") {
		t.Errorf("Decide() = %v, want a refusal", d)
	}
}
