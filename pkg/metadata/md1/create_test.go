package md1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// params returns those of a RAID5 of three.
func params(edits ...func(*metadata.NewArray)) metadata.NewArray {
	p := metadata.NewArray{
		Version: minor(2).String(), Array: raid.UUID{0xaa}, Name: "data", Host: "lab", Now: now,
		Geometry: raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 128},
	}
	for _, edit := range edits {
		edit(&p)
	}

	return p
}

// create creates an array on blank devices of the sizes given, of which 0
// stands for one that is missing.
func create(tb testing.TB, p metadata.NewArray, sizes ...raid.Sectors) (disks, error) {
	tb.Helper()

	var (
		d       disks
		devices []metadata.NewMember
	)

	for i, size := range sizes {
		d = append(d, make([]byte, size.Bytes()))
		devices = append(devices, metadata.NewMember{Device: raid.UUID{0xdd, byte(i)}})

		if size > 0 {
			devices[i].Source = source(d[i])
		}
	}

	stages, err := Create(p, devices)
	if err != nil {
		return nil, err
	}

	d.apply(tb, stages)

	return d, nil
}

// TestCreate creates what mdadm created for the golden images, with their
// sizes, and compares what describes the members.
func TestCreateLikeMdadm(t *testing.T) {
	for _, name := range []string{
		"md10-raid1-2", "md11-raid5-3", "md12-raid0-3", "md12-raid1-2-spare", "md12-raid10-f2-3", "md12-raid10-n2-4",
		"md12-raid4-3", "md12-raid5-la-3", "md12-raid6-ra-6", "md12-raid1-2-bitmap", "md12-raid5-ls-4-bitmap-spare",
		"md12-raid5-ppl-3",
	} {
		t.Run(name, func(t *testing.T) {
			g := conformance.LoadGolden(t, name)
			theirs := mustProbe(t, g.Source(0))

			var sizes []raid.Sectors
			for i := range g.Images {
				sizes = append(sizes, g.Source(i).Size)
			}

			geometry := theirs.Geometry
			geometry.Size = 0

			bitmap := metadata.BitmapAuto
			if theirs.Bitmap != nil {
				bitmap = metadata.BitmapInternal
			}

			d, err := create(t, metadata.NewArray{
				Version: minorOf(theirs).String(), Array: theirs.Array, Name: theirs.Name, Host: theirs.Host,
				Geometry: geometry, Now: theirs.Created, Bitmap: bitmap, PPL: theirs.PPL != nil,
			}, sizes...)
			if err != nil {
				t.Fatal(err)
			}

			for i := range d {
				theirs := mustProbe(t, g.Source(i)).Raw.(*Raw)
				ours := mustProbe(t, source(d[i])).Raw.(*Raw)

				// md has run the array since, and made the last member of a
				// RAID5 of a spare, with the next number.
				want := theirs.Header
				want.Utime, want.Events, want.SbCsum = ours.Utime, 0, ours.SbCsum
				want.ResyncOffset, want.DevNumber, want.DeviceUUID = ours.ResyncOffset, uint32(i), ours.DeviceUUID
				// mdadm leaves it where the level has none.
				want.Chunksize = ours.Chunksize

				if diff := cmp.Diff(want, ours.Header); diff != "" {
					t.Errorf("member %d (-mdadm +ours):\n%s", i, diff)
				}

				if ours.FeatureMap&FeatureBitmapOffset != 0 {
					compareBitmaps(t, theirs, g.Source(i), ours, source(d[i]))
				}
			}
		})
	}
}

// compareBitmaps compares what describes bitmaps. md has run theirs since.
func compareBitmaps(t *testing.T, theirs *Raw, their metadata.Source, ours *Raw, our metadata.Source) {
	t.Helper()

	want, err := readBitmap(theirs, their)
	if err != nil {
		t.Fatal(err)
	}

	got, err := readBitmap(ours, our)
	if err != nil {
		t.Fatal(err)
	}

	clear(want[offBitmapEvents:offBitmapSyncSize])
	binary.LittleEndian.PutUint32(want[offBitmapReserved:], 0)

	if diff := cmp.Diff(want[:], got[:]); diff != "" {
		t.Errorf("bitmap (-mdadm +ours):\n%s", diff)
	}
}

func TestCreate(t *testing.T) {
	d, err := create(t, params(), 32768, 0, 40000, 32768, 32768)
	if err != nil {
		t.Fatal(err)
	}

	for i, image := range d {
		if i == 1 {
			continue
		}

		sb := mustProbe(t, source(image))
		if sb.Number != i || sb.Events != 0 || sb.ResyncOffset != 0 || sb.Size != 30720 || sb.Disks != 3 {
			t.Errorf("device %d: %+v", i, sb)
		}

		want := []raid.Role{0, raid.RoleSpare, 2, raid.RoleSpare, raid.RoleSpare}
		if diff := cmp.Diff(want, sb.Roles[:5]); diff != "" {
			t.Errorf("device %d: roles (-want +got):\n%s", i, diff)
		}
	}

	d, err = create(t, params(func(p *metadata.NewArray) { p.AssumeClean, p.Size = true, 1280 }), 32768, 32768, 32768)
	if err != nil {
		t.Fatal(err)
	}

	if sb := mustProbe(t, source(d[0])); !sb.Clean() || sb.Size != 1280 || sb.DataSize != 30720 {
		t.Errorf("Probe() = %+v, want it clean, with a size of 1280", sb)
	}
}

// TestCreateOnLarge checks where the data begins on large devices, by what
// mdadm's rule comes to.
func TestCreateOnLarge(t *testing.T) {
	const gib raid.Sectors = 2 << 20

	for _, tt := range []struct{ size, offset, bblog raid.Sectors }{
		{gib, 4096, 16},               // head room 1 MiB
		{8 * gib, 16384 + 2048, 16},   // 8 MiB
		{10 * gib, 16384 + 2048, 136}, // 8 MiB, and 64 KiB for a bitmap
		{100 * gib, 131072 + 2048, 136},
		{1000 * gib, 262144 + 2048, 264},
	} {
		p := params()

		raw, err := newArray(p, []metadata.NewMember{
			{Source: sparse(tt.size)}, {Source: sparse(tt.size)}, {Source: sparse(tt.size)},
		})
		if err != nil {
			t.Fatal(err)
		}

		raw, err = placed(*raw, 2, metadata.NewMember{Source: sparse(tt.size)}, nil)
		if err != nil {
			t.Fatal(err)
		}

		if got := raid.Sectors(raw.DataOffset); got != tt.offset || raid.Sectors(raw.BblogOffset) != tt.bblog {
			t.Errorf("%d GiB: data at %d, bad block log at %d, want %d, %d",
				tt.size/gib, got, raw.BblogOffset, tt.offset, tt.bblog)
		}
	}
}

// sparse returns a blank device of any size.
func sparse(size raid.Sectors) metadata.Source {
	return metadata.Source{ReaderAt: &sparseDevice{}, Size: size, Block: raid.SectorSize}
}

func TestCreateRefuses(t *testing.T) {
	three := []raid.Sectors{32768, 32768, 32768}

	for _, tt := range []struct {
		name  string
		edit  func(*metadata.NewArray)
		sizes []raid.Sectors
		msg   string
	}{
		{"minor", func(p *metadata.NewArray) { p.Version = "1.3" }, three, "no metadata version \"1.3\""},
		{"no slots", func(p *metadata.NewArray) { p.Disks = 0 }, three, "0 slots of at most 1920"},
		{"few devices", func(p *metadata.NewArray) { p.Disks = 4 }, three, "4 slots of at most 1920, and 3 devices"},
		{"all missing", func(*metadata.NewArray) {}, []raid.Sectors{0, 0, 0}, "no device for any slot"},
		{"spare of a raid0", func(p *metadata.NewArray) { p.Level, p.Disks = 0, 2 }, three, "raid0 has no use for a spare"},
		{"PPL of a raid6", func(p *metadata.NewArray) { p.Level, p.PPL = 6, true }, three, "partial parity logs only at raid5"},
		{"PPL and a bitmap", func(p *metadata.NewArray) { p.PPL, p.Bitmap = true, metadata.BitmapInternal }, three, "without a bitmap"},
		{"no name", func(p *metadata.NewArray) { p.Name = "" }, three, `name "" of host "lab"`},
		{"colon", func(p *metadata.NewArray) { p.Name = "a:b" }, three, `name "a:b" of host`},
		{"slash", func(p *metadata.NewArray) { p.Name = "../b" }, three, `name "../b" of host`},
		{"colon in the host", func(p *metadata.NewArray) { p.Host = "a:b" }, three, `of host "a:b"`},
		{"long name", func(p *metadata.NewArray) { p.Name = strings.Repeat("n", 32) }, three, "1 to 31 bytes"},
		{"no chunk", func(p *metadata.NewArray) { p.Chunk = 0 }, three, "0 sectors of each member"},
		{"negative chunk", func(p *metadata.NewArray) { p.Chunk = -1 }, three, "chunk of -1"},
		{"odd chunk", func(p *metadata.NewArray) { p.Chunk = 100 }, three, "device 0: chunksize 100 is no power of two"},
		{"large chunk", func(p *metadata.NewArray) { p.Chunk = 65536 }, three, "0 sectors of each member"},
		{"large size", func(p *metadata.NewArray) { p.Size = 30721 }, three, "30721 sectors of each member, and the smallest has"},
		{"small device", func(*metadata.NewArray) {}, []raid.Sectors{32768, 32768, 2000}, "smallest has room for 0"},
		{
			"tiny device of a raid0", func(p *metadata.NewArray) { p.Level = 0 },
			[]raid.Sectors{32768, 32768, 20},
			"device 2: no room for a 1.2",
		},
		{
			"small device of a raid0", func(p *metadata.NewArray) { p.Level = 0 },
			[]raid.Sectors{32768, 32768, 2050},
			"data_size 2 is less than 10",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := create(t, params(tt.edit), tt.sizes...)
			if err == nil || !strings.Contains(err.Error(), tt.msg) || !strings.HasPrefix(err.Error(), "md1: ") {
				t.Errorf("Create() error = %v, want ...%s...", err, tt.msg)
			}
		})
	}
}

// TestCreateLongHost checks that a name that has no room for its host goes
// without, as mdadm has it.
func TestCreateLongHost(t *testing.T) {
	fits, long := strings.Repeat("h", 26), strings.Repeat("h", 27)

	for host, want := range map[string]string{fits: fits, long: ""} {
		d, err := create(t, params(func(p *metadata.NewArray) { p.Host = host }), 32768, 32768, 32768)
		if err != nil {
			t.Fatal(err)
		}

		if sb := mustProbe(t, source(d[0])); sb.Host != want || sb.Name != "data" {
			t.Errorf("Host, Name = %q, %q, want %q, data", sb.Host, sb.Name, want)
		}
	}
}

// TestCreateErases checks that what was on a device is not found beside the
// new superblock.
func TestCreateErases(t *testing.T) {
	d := disks{device(sample(at1v0)), device(sample(), sample(at1v1, func(r *Raw) { r.DataOffset = 16 }))}

	stages, err := Create(params(func(p *metadata.NewArray) { p.Level, p.Layout, p.Disks = 1, 0, 2 }), []metadata.NewMember{
		{Source: source(d[0])}, {Source: source(d[1])},
	})
	if err != nil {
		t.Fatal(err)
	}

	d.apply(t, stages)

	for _, sb := range d.probe(t) {
		if sb.Array != (raid.UUID{0xaa}) || sb.Level != raid.Level1 {
			t.Errorf("Probe() = %+v", sb)
		}
	}
}

// examine returns what mdadm, which we did not write, says of an image.
func examine(t *testing.T, image []byte) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "member.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(conformance.Tool(t, "mdadm", "mdadm"), "--examine", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")

	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("mdadm: %v\n%s", err, out)
	}

	return string(out)
}

// TestMdadmAgrees has mdadm read what we write: new arrays of every kind, and
// arrays that fail, recover and grow. Its checksum field says whether it
// computes ours.
func TestMdadmAgrees(t *testing.T) {
	agree := func(t *testing.T, d disks) {
		t.Helper()

		for i, image := range d {
			compareExamine(t, mustProbe(t, source(image)), examine(t, bytes.Clone(image)))

			if t.Failed() {
				t.Fatalf("mdadm says of member %d:\n%s", i, examine(t, image))
			}
		}
	}

	for minor := range 3 {
		for _, g := range []raid.Geometry{
			{Level: raid.Level0, Disks: 2, Chunk: 24},
			{Level: raid.Level1, Disks: 2},
			{Level: raid.Level4, Disks: 3, Chunk: 128},
			{Level: raid.Level5, Layout: raid.RightAsymmetric, Disks: 3, Chunk: 1024},
			{Level: raid.Level6, Layout: raid.LeftSymmetric, Disks: 4, Chunk: 8},
			{Level: raid.Level10, Layout: 0x102, Disks: 3, Chunk: 128},
		} {
			t.Run(fmt.Sprintf("1.%d %v", minor, g.Level), func(t *testing.T) {
				sizes := []raid.Sectors{8192, 10001, 8192, 8192}
				if !g.Level.HasRedundancy() {
					sizes = sizes[:g.Disks]
				}

				d, err := create(t, params(func(p *metadata.NewArray) { p.Version, p.Geometry = versionOf(minor), g }), sizes...)
				if err != nil {
					t.Fatal(err)
				}

				agree(t, d)
			})
		}

		t.Run(fmt.Sprintf("1.%d through its life", minor), func(t *testing.T) {
			d, err := create(t, params(func(p *metadata.NewArray) { p.Version = versionOf(minor) }), 8192, 8192, 8192, 8192)
			if err != nil {
				t.Fatal(err)
			}

			k := d.keep(t)

			for _, st := range []metadata.State{
				{ResyncOffset: 1000, Members: records(inSync(0), inSync(1), inSync(2), spare())},
				{ResyncOffset: raid.MaxSectors, Members: records(inSync(0), inSync(1), inSync(2), spare())},
				{Members: records(inSync(0), faulty(1), inSync(2), recovering(1, 4096))},
			} {
				st.Now = now
				d.apply(t, k.Record(st))
				agree(t, d)
			}

			d = append(d, make([]byte, len(d[0])))
			if _, _, _, err := k.Add(source(d[4]), raid.UUID{0xee}); err != nil {
				t.Fatal(err)
			}

			d.apply(t, k.Record(metadata.State{Members: records(inSync(0), gone(), inSync(2), inSync(1), spare()), Now: now}))
			agree(t, d)
		})
	}
}

// TestCreateCut cuts the power while an array is created over what was an array
// of another minor version, with any of the writes under way: a device holds the
// old superblock, none or the new one, and never two or a broken one.
func TestCreateCut(t *testing.T) {
	old, err := create(t, params(func(p *metadata.NewArray) { p.Version, p.Array = "1.0", raid.UUID{7} }), 32768, 32768, 32768)
	if err != nil {
		t.Fatal(err)
	}

	var devices []metadata.NewMember
	for i := range old {
		devices = append(devices, metadata.NewMember{Source: source(old[i]), Device: raid.UUID{0xdd, byte(i)}})
	}

	stages, err := Create(params(), devices)
	if err != nil {
		t.Fatal(err)
	}

	found := map[string]int{}

	for i, stage := range stages {
		for written := range 1 << len(stage) {
			left := old.clone()
			left.apply(t, stages[:i])

			for j, w := range stage {
				if written&(1<<j) != 0 {
					left.apply(t, [][]metadata.Write{{w}})
				}
			}

			for member, image := range left {
				sb, err := Format{}.Probe(source(image))

				switch {
				case errors.Is(err, metadata.ErrNotFound):
					found["none"]++
				case err != nil:
					t.Fatalf("stage %d, writes %b, device %d: %v", i, written, member, err)
				case sb.Array == raid.UUID{7}:
					found["old"]++
				default:
					found["new"]++
				}
			}
		}
	}

	if found["none"] == 0 || found["old"] == 0 || found["new"] == 0 {
		t.Errorf("found %v, want some of each", found)
	}
}
