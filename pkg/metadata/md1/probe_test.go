package md1

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

func TestProbe(t *testing.T) {
	raw := sample(func(r *Raw) { r.DevRoles[5] = 3 }) // beyond the last slot
	sb := mustProbe(t, source(device(raw)))

	table := append([]raid.Role(nil), raw.DevRoles...)
	table[5] = raid.RoleSpare

	want := &metadata.Superblock{
		Format:   "1.2",
		Array:    raid.UUID{0: 0xaa, 15: 0x01},
		Device:   raid.UUID{0: 0xbb},
		Name:     "gold",
		Host:     "lab",
		Geometry: raid.Geometry{Level: 5, Layout: 2, Disks: 3, Chunk: 128, Size: 30720},
		Created:  time.Date(2023, 11, 14, 22, 13, 20, 250_000_000, time.UTC),
		Updated:  time.Date(2023, 11, 14, 22, 15, 0, 0, time.UTC),
		Events:   42, Number: 1, Roles: table,
		DataOffset: 2048, DataSize: 30720,
		ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
		Raw: sb.Raw,
	}
	if diff := cmp.Diff(want, sb, cmp.AllowUnexported(Raw{})); diff != "" {
		t.Errorf("Probe() (-want +got):\n%s", diff)
	}
}

// TestProbeReads checks what single fields of the superblock are read as.
func TestProbeReads(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Raw)
		got  func(*metadata.Superblock) any
		want any
	}{
		{"1.0", at1v0, func(sb *metadata.Superblock) any { return sb.Format }, "1.0"},
		{"1.1", at1v1, func(sb *metadata.Superblock) any { return sb.Format }, "1.1"},
		{
			"own slot beyond the last one", func(r *Raw) { r.DevRoles[r.DevNumber] = 3 },
			func(sb *metadata.Superblock) any { return sb.Role(sb.Number) }, raid.RoleFaulty,
		},
		{
			"no host", func(r *Raw) { r.SetName = SetName{'g', 'o', 'l', 'd'} },
			func(sb *metadata.Superblock) any { return []string{sb.Host, sb.Name} },
			[]string{"", "gold"},
		},
		{
			"colon in the name", func(r *Raw) { r.SetName = SetName{'h', ':', 'a', ':', 'b'} },
			func(sb *metadata.Superblock) any { return []string{sb.Host, sb.Name} },
			[]string{"h", "a:b"},
		},
		{
			"name of full length", func(r *Raw) { r.SetName = SetName([]byte(strings.Repeat("n", 32))) },
			func(sb *metadata.Superblock) any { return sb.Name }, strings.Repeat("n", 32),
		},
		{
			"what a linear array rounds to", func(r *Raw) { r.Level, r.Chunksize = -1, 96 },
			func(sb *metadata.Superblock) any { return sb.Geometry },
			raid.Geometry{Level: raid.LevelLinear, Layout: 2, Disks: 3, Chunk: 96},
		},
		{
			"dirty", func(r *Raw) { r.ResyncOffset = 0 },
			func(sb *metadata.Superblock) any { return sb.ResyncOffset }, raid.Sectors(0),
		},
		{
			"resync offset beyond int64", func(r *Raw) { r.ResyncOffset = 1 << 63 },
			func(sb *metadata.Superblock) any { return sb.Clean() }, true,
		},
		{
			"recovering", func(r *Raw) { r.FeatureMap, r.RecoveryOffset = FeatureRecoveryOffset, 1024 },
			func(sb *metadata.Superblock) any { return sb.RecoveryOffset }, raid.Sectors(1024),
		},
		{
			// md writes this between the end of a recovery and the next step.
			"recovered", func(r *Raw) { r.FeatureMap, r.RecoveryOffset = FeatureRecoveryOffset, all },
			func(sb *metadata.Superblock) any { return sb.RecoveryOffset }, raid.MaxSectors,
		},
		{
			"recovery offset without its feature", func(r *Raw) { r.RecoveryOffset = 1024 },
			func(sb *metadata.Superblock) any { return sb.RecoveryOffset }, raid.MaxSectors,
		},
		{
			"no such year", func(r *Raw) { r.Ctime = 1<<timeBits - 1 },
			func(sb *metadata.Superblock) any { return sb.Created },
			time.Time{},
		},
		{
			// It is what the others have in that field: md takes no notice of it.
			"raid0 has no size, and no layout without its feature",
			func(r *Raw) { r.Level, r.Chunksize = 0, 100 },
			func(sb *metadata.Superblock) any { return sb.Geometry },
			raid.Geometry{Disks: 3, Chunk: 100},
		},
		{
			"the layout of a raid0",
			func(r *Raw) { r.Level, r.Chunksize, r.FeatureMap = 0, 100, FeatureRAID0Layout },
			func(sb *metadata.Superblock) any { return sb.Layout }, raid.Alternate,
		},
		{
			"raid1 has no chunk", func(r *Raw) { r.Level, r.Layout = 1, 0 },
			func(sb *metadata.Superblock) any { return sb.Geometry },
			raid.Geometry{Level: 1, Disks: 3, Size: 30720},
		},
		{
			"a level that nobody knows", func(r *Raw) { r.Level = -4 },
			func(sb *metadata.Superblock) any { return sb.Level }, raid.Level(-4),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sb := mustProbe(t, source(device(sample(tt.edit))))
			if diff := cmp.Diff(tt.want, tt.got(sb)); diff != "" {
				t.Errorf("Probe() (-want +got):\n%s", diff)
			}

			if sb.Unsupported != "" {
				t.Errorf("Unsupported = %q, want none", sb.Unsupported)
			}
		})
	}
}

func TestProbeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Raw)
		msg  string
	}{
		{"layout feature elsewhere", func(r *Raw) { r.FeatureMap = FeatureRAID0Layout }, "RAID0_LAYOUT at level raid5"},
		{"a version that nobody knows", func(r *Raw) { r.MajorVersion = 2 }, "version 2.x is not known"},
		{"no disks", func(r *Raw) { r.RaidDisks = 0 }, "raid_disks 0 is not between 1 and 1920"},
		{"many disks", func(r *Raw) { r.RaidDisks = 1921 }, "raid_disks 1921 is not"},
		{"no size", func(r *Raw) { r.Size = 0 }, "size 0 is not between 1 and data_size 30720"},
		{"size over data", func(r *Raw) { r.Size = 30721 }, "size 30721 is not"},
		{"huge size", func(r *Raw) { r.Size = all }, "size 18446744073709551615 is not"},
		{"no chunk", func(r *Raw) { r.Chunksize = 0 }, "chunksize 0 is not between 1 and the 30720"},
		{"chunk over size", func(r *Raw) { r.Chunksize = 32768 }, "chunksize 32768 is not"},
		{"odd chunk", func(r *Raw) { r.Chunksize = 100 }, "chunksize 100 is no power of two at level raid5"},
		{"little data", func(r *Raw) { r.Level, r.DataSize = 0, 9 }, "data_size 9 is less than 10"},
		{"data over superblock", func(r *Raw) { r.DataOffset = 8 }, "data_offset 8 is below 9"},
		{"data over the larger superblock", func(r *Raw) {
			r.DataOffset, r.MaxDev = 15, maxRoles
			r.DevRoles = append(r.DevRoles, make(DevRoles, maxRoles-128)...)
		}, "data_offset 15 is below 16"},
		{"new data over superblock", func(r *Raw) {
			r.FeatureMap, r.NewOffset = FeatureNewOffset, -2040
		}, "data_offset 8 is below 9"},
		{"new data before the device", func(r *Raw) {
			r.FeatureMap, r.NewOffset = FeatureNewOffset, -4096
		}, "exceed the 32768 sectors"},
		{"data behind the end", func(r *Raw) { r.DataSize = 30721 }, "data_size 30721 exceed the 32768"},
		{"data start behind the end", func(r *Raw) { r.DataOffset = 40000 }, "data_offset 40000 and"},
		{"sum overflows", func(r *Raw) { r.DataOffset, r.DataSize = 4096, all-4095 }, "exceed the 32768"},
		{"huge offset", func(r *Raw) { r.DataOffset = all }, "data_offset 18446744073709551615 and"},
		{"1.0 data over superblock", func(r *Raw) { at1v0(r); r.DataSize = 32753 }, "exceed the 32752"},
		{"1.0 data moved over superblock", func(r *Raw) { at1v0(r); r.DataOffset = 17 }, "exceed the 32752"},
		{"bad block shift", func(r *Raw) { r.BblogShift = 64 }, "bblog_shift 64 is not below 64"},
		{"bad blocks nowhere", func(r *Raw) { r.FeatureMap, r.BblogOffset = FeatureBadBlocks, 0 }, "log of 8 sectors at"},
		{"many bad blocks", func(r *Raw) { r.FeatureMap, r.BblogSize = FeatureBadBlocks, 9 }, "log of 9 sectors"},
		{"no number", func(r *Raw) { r.DevNumber = 128 }, "dev_number 128 is not below max_dev 128"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sb, err := Format{}.Probe(source(device(sample(tt.edit))))
			if !errors.Is(err, metadata.ErrCorrupt) || !strings.Contains(err.Error(), tt.msg) {
				t.Fatalf("Probe() error = %v, want ErrCorrupt: ...%s...", err, tt.msg)
			}

			if sb != nil {
				t.Errorf("Probe() = %v beside an error", sb)
			}
		})
	}
}

func TestProbeUnsupported(t *testing.T) {
	const (
		journal = "the array has a journal device"
		cluster = "the array is shared by a cluster"
		noLog   = "a partial parity log on a level that has none"
	)

	for _, tt := range []struct {
		name string
		edit func(*Raw)
		want string
		read string // Unreadable
	}{
		{"unknown bit", func(r *Raw) { r.FeatureMap = 0x6000 }, "unknown feature bits 0x6000", "same"},
		{"pad0", func(r *Raw) { r.Pad0 = 1 }, "reserved bytes are not zero", "same"},
		{"pad3", func(r *Raw) { r.Pad3[27] = 1 }, "reserved bytes are not zero", "same"},
		{"reshape", func(r *Raw) { r.FeatureMap = FeatureReshapeActive }, "a reshape is active", "same"},
		{"journal", func(r *Raw) { r.FeatureMap = FeatureJournal }, journal, "same"},
		{"journal role", func(r *Raw) { r.DevRoles[7] = raid.RoleJournal }, journal, "same"},
		{"PPL", func(r *Raw) { r.FeatureMap, r.Level = FeaturePPL, 4 }, noLog, ""},
		{"PPLs", func(r *Raw) { r.FeatureMap, r.Level = FeatureMultiplePPLs, 4 }, noLog, ""},
		{"cluster", func(r *Raw) { r.FeatureMap = FeatureClustered }, cluster, ""},
		{"replacement", func(r *Raw) { r.FeatureMap, r.DevRoles[4] = FeatureReplacement, 1 }, "", ""},
		{
			"three", func(r *Raw) { r.DevRoles[4], r.DevRoles[5] = 1, 1 },
			"three members are in one slot", "",
		},
		{
			"several", func(r *Raw) { r.FeatureMap = FeatureJournal | FeatureClustered },
			journal + ", " + cluster, journal,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.read == "same" {
				tt.read = tt.want
			}

			sb := mustProbe(t, source(device(sample(tt.edit))))
			if sb.Unsupported != tt.want || sb.Unreadable != tt.read {
				t.Errorf("Unsupported = %q, Unreadable = %q, want %q, %q", sb.Unsupported, sb.Unreadable, tt.want, tt.read)
			}
		})
	}

	src := source(device(sample()))
	src.Block = 8192

	if sb := mustProbe(t, src); !strings.Contains(sb.Unsupported, "logical blocks of 8192 bytes") {
		t.Errorf("Unsupported = %q on large blocks", sb.Unsupported)
	}
}

// putBitmap writes a bitmap superblock where raw says that it is.
func putBitmap(image []byte, raw *Raw, version uint32, events uint64) {
	buf := image[(raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BitmapOffset)).Bytes():]
	binary.LittleEndian.PutUint32(buf, 0x6d746962)
	binary.LittleEndian.PutUint32(buf[4:], version)
	copy(buf[8:], raw.SetUUID[:])
	binary.LittleEndian.PutUint64(buf[24:], events)
}

func TestProbeBitmap(t *testing.T) {
	for _, tt := range []struct {
		name    string
		offset  int32
		version uint32
		want    string
	}{
		{"plain", 8, 4, ""},
		{"clustered", 8, 5, "the bitmap is clustered (version 5)"},
		{"lockless", 8, 6, "the bitmap is lockless (version 6)"},
		{"off the grid", 13, 6, "the bitmap is lockless (version 6)"},
		{"at the end", int32(deviceSize - 9), 6, "the bitmap is lockless (version 6)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := sample(func(r *Raw) { r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, tt.offset })
			image := device(raw)
			putBitmap(image, raw, tt.version, 0)

			if sb := mustProbe(t, source(image)); sb.Unsupported != tt.want {
				t.Errorf("Unsupported = %q, want %q", sb.Unsupported, tt.want)
			}
		})
	}

	for _, offset := range []int32{-8, -9, -1 << 31, 1<<31 - 1, int32(deviceSize)} {
		raw := sample(func(r *Raw) { r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, offset })
		if sb := mustProbe(t, source(device(raw))); sb.Unsupported != "" {
			t.Errorf("bitmap offset %d: Unsupported = %q, want none", offset, sb.Unsupported)
		}
	}
}

func TestProbePlaces(t *testing.T) {
	old := sample(at1v0, func(r *Raw) { r.Events = 7; r.SetUUID = UUID{0: 0xcc} })
	torn := device(sample(), old)
	torn[raid.Sectors(old.SuperOffset).Bytes()+offEvents] ^= 1

	moved := sample()
	moved.SuperOffset = 63 // as on a partition

	disk := make([]byte, deviceSize.Bytes())
	copy(disk[raid.Sectors(8).Bytes():], moved.Encode())

	small := device(sample())[:raid.Sectors(23).Bytes()]

	for _, tt := range []struct {
		name  string
		image []byte
		err   error
		msg   []string
	}{
		{name: "one", image: device(sample())},
		{name: "blank", image: device(), err: metadata.ErrNotFound},
		{name: "small", image: small, err: metadata.ErrNotFound},
		{name: "of a partition", image: disk, err: metadata.ErrNotFound},
		{name: "two", image: device(sample(), old), err: metadata.ErrCorrupt, msg: []string{
			"a 1.0 superblock at sector 32752 (array cc000000:00000000:00000000:00000000, 7 events)",
			"a 1.2 superblock at sector 8 (array aa000000:00000000:00000000:00000001, 42 events)",
			"on one device",
		}},
		{name: "one and a torn one", image: torn, err: metadata.ErrCorrupt, msg: []string{
			"a 1.0 superblock at sector 32752 (checksum ", "a 1.2 superblock", "on one device",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Format{}.Probe(source(tt.image))
			if !errors.Is(err, tt.err) {
				t.Fatalf("Probe() error = %v, want %v", err, tt.err)
			}

			for _, msg := range tt.msg {
				if !strings.Contains(err.Error(), msg) {
					t.Errorf("Probe() error = %v, want ...%s...", err, msg)
				}
			}
		})
	}
}

// badSectors fails every read that touches [from, to), in bytes.
type badSectors struct {
	io.ReaderAt
	from, to int64
}

var errMedium = errors.New("medium error")

func (b badSectors) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, errMedium
	}

	return b.ReaderAt.ReadAt(p, off)
}

func TestProbeUnreadable(t *testing.T) {
	src := source(device(sample()))

	src.ReaderAt = badSectors{bytes.NewReader(device(sample())), 32752 * 512, 32768 * 512}
	mustProbe(t, src) // 1.2 is found, whatever is where 1.0 would be

	src.ReaderAt = badSectors{bytes.NewReader(device(sample())), 4096, 8192}
	if _, err := (Format{}).Probe(src); !errors.Is(err, errMedium) || !strings.Contains(err.Error(), "read sector 8") {
		t.Errorf("Probe() error = %v, want %v", err, errMedium)
	}

	// The device is shorter than it claims.
	src = source(device(sample()))
	src.ReaderAt = bytes.NewReader(nil)

	if _, err := (Format{}).Probe(src); !errors.Is(err, io.EOF) {
		t.Errorf("Probe() error = %v, want %v", err, io.EOF)
	}
}

// FuzzProbe holds Probe to exactly one result, to bounds that hold, and to
// bounded reads, whatever is on the device and however large it is.
func FuzzProbe(f *testing.F) {
	f.Add(sample().Encode(), uint16(deviceSize), uint8(2))
	f.Add(sample(at1v0).Encode(), uint16(deviceSize), uint8(0))
	f.Add(sample(at1v1).Encode(), uint16(deviceSize), uint8(1))
	f.Add([]byte{}, uint16(23), uint8(1))
	f.Fuzz(func(t *testing.T, super []byte, size uint16, at uint8) {
		const readMax = 9 * blockSize

		reader := &sparseDevice{super: resum(super)}
		reader.super = reader.super[:min(len(reader.super), blockSize)]
		src := metadata.Source{ReaderAt: reader, Size: raid.Sectors(size), Block: raid.SectorSize}

		if place, ok := minor(at % 3).place(src.Size); ok {
			reader.at = place.Bytes()
		}

		sb, err := Format{}.Probe(src)
		if (sb == nil) == (err == nil) {
			t.Fatalf("Probe() = %v, %v, want exactly one", sb, err)
		}

		if reader.read > readMax {
			t.Errorf("Probe() read %d bytes, want at most %d", reader.read, readMax)
		}

		if err != nil {
			return
		}

		if sb.DataOffset < 0 || sb.DataSize <= 0 || sb.DataOffset+sb.DataSize > src.Size || sb.Size > sb.DataSize {
			t.Errorf("data area %d+%d, size %d, on %d sectors", sb.DataOffset, sb.DataSize, sb.Size, src.Size)
		}

		if sb.Number >= len(sb.Roles) || sb.Disks < 1 || sb.ResyncOffset < 0 || sb.RecoveryOffset < 0 {
			t.Errorf("Probe() = %+v", sb)
		}

		if _, err := json.Marshal(sb); err != nil {
			t.Errorf("superblock as JSON: %v", err)
		}
	})
}

// sparseDevice holds a superblock and zeros, and counts the bytes read.
type sparseDevice struct {
	super []byte
	at    int64
	read  int
}

func (d *sparseDevice) ReadAt(p []byte, off int64) (int, error) {
	d.read += len(p)

	clear(p)

	if off <= d.at && d.at < off+int64(len(p)) {
		copy(p[d.at-off:], d.super)
	} else if d.at < off && off < d.at+int64(len(d.super)) {
		copy(p, d.super[off-d.at:])
	}

	return len(p), nil
}

// TestProbeAllocates checks that no field of a superblock makes Probe allocate
// much, with every length at its maximum.
func TestProbeAllocates(t *testing.T) {
	image := device(sample(func(r *Raw) {
		r.MaxDev, r.DevRoles = maxRoles, append(r.DevRoles, make(DevRoles, maxRoles-128)...)
	}))
	src := source(image)

	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()

		for b.Loop() {
			mustProbe(b, src)
		}
	})
	if got := result.AllocedBytesPerOp(); got > 1<<20 {
		t.Errorf("Probe() allocates %d bytes, want at most 1 MiB", got)
	}
}
