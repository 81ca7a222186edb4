package md1

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// examineBitmap returns what mdadm says of the bitmap of a member. In a file
// it looks for one at the start.
func examineBitmap(t *testing.T, image []byte) string {
	t.Helper()

	raw := mustProbe(t, source(image)).Raw.(*Raw)

	path := filepath.Join(t.TempDir(), "bitmap")
	if err := os.WriteFile(path, image[bitmapPlace(raw).Bytes():], 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(conformance.Tool(t, "mdadm", "mdadm"), "--examine-bitmap", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C")

	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("mdadm: %v\n%s", err, out)
	}

	return string(out)
}

// TestCreateBitmap has mdadm read the members and bitmaps that we create, and
// what becomes of them.
func TestCreateBitmap(t *testing.T) {
	for minor := range 3 {
		for _, g := range []raid.Geometry{
			{Level: raid.Level1, Disks: 2},
			{Level: raid.Level4, Disks: 3, Chunk: 128},
			{Level: raid.Level5, Layout: raid.ParityLast, Disks: 3, Chunk: 8},
			{Level: raid.Level6, Layout: 10, Disks: 4, Chunk: 16},
			{Level: raid.Level10, Layout: 0x102, Disks: 3, Chunk: 128},
			{Level: raid.Level10, Layout: 0x201, Disks: 4, Chunk: 128},
		} {
			t.Run(fmt.Sprintf("1.%d %v %#x", minor, g.Level, uint32(g.Layout)), func(t *testing.T) {
				d, err := create(t, params(func(p *metadata.NewArray) {
					p.Version, p.Geometry, p.Bitmap, p.BitmapChunk = versionOf(minor), g, metadata.BitmapInternal, 8
				}), 16384, 20001, 16384, 16384)
				if err != nil {
					t.Fatal(err)
				}

				k := d.keep(t)
				b := mustBitmap(t, k)
				chunks := int(b.Info().Sectors+7) / 8

				for i, image := range d {
					sb := mustProbe(t, source(image))
					compareExamine(t, sb, examine(t, image))

					if sb.Bitmap == nil || sb.Bitmap.Stale || sb.Bitmap.Chunk != 8 {
						t.Errorf("member %d: bitmap %+v", i, sb.Bitmap)
					}

					said := examineBitmap(t, image)
					if got := examined(said)["Bitmap"]; got != fmt.Sprintf("%d bits (chunks), %d dirty (100.0%%)", chunks, chunks) {
						t.Errorf("member %d: mdadm says:\n%s", i, said)
					}
				}

				var members []metadata.MemberRecord
				for i := range d {
					members = append(members, spare())
					if i < g.Disks {
						members[i] = inSync(raid.Slot(i))
					}
				}

				clear(b.Bits())
				b.Bits()[1] = 6
				d.apply(t, k.Record(metadata.State{Members: records(members...), Now: now}))
				d.apply(t, [][]metadata.Write{b.Write(0), b.Write(len(b.Bits()) / 4096)})

				said := examined(examineBitmap(t, d[1]))
				if !strings.Contains(said["Bitmap"], " 2 dirty") || said["Events"] != "1" || said["State"] != "OK" {
					t.Errorf("mdadm says %v", said)
				}
			})
		}
	}
}

// TestCreateBitmapPlace checks when there is a bitmap, and where and how fine
// mdadm would make it.
func TestCreateBitmapPlace(t *testing.T) {
	const mib raid.Sectors = 2048

	for _, tt := range []struct {
		size   raid.Sectors // of each of four members of a RAID5
		minor  int
		choice metadata.BitmapChoice
		asked  raid.Sectors
		want   string
	}{
		{size: 34 * mib, want: "none"},
		{size: 36 * mib, want: "at 8, chunk 131072, log at 16"},
		{size: 36 * mib, choice: metadata.BitmapNone, want: "none"},
		{size: 16 * mib, choice: metadata.BitmapInternal, want: "at 8, chunk 131072, log at 16"},
		{size: 16 * mib, choice: metadata.BitmapInternal, asked: 8, want: "at 8, chunk 8, log at 16"},
		{size: 16 * mib, choice: metadata.BitmapInternal, asked: 8, minor: 0, want: "at 8, chunk 8, log at 16"},
		{size: 16 * mib, choice: metadata.BitmapInternal, asked: 12, want: "a bitmap chunk of 12 sectors"},
		{size: 1024 * mib, choice: metadata.BitmapInternal, asked: 8, want: "of at least 128"},
		{size: 1024 * 1024 * mib, want: "at 8, chunk 131072, log at 16"},
		{size: 1024 * 1024 * mib, minor: 3, want: "at -16, chunk 131072, log at -8"},
		{size: 300 * 1024 * 1024 * mib, want: "at 8, chunk 1048576, log at 160"},
	} {
		// 3 stands for 1.0.
		minor := 2
		if tt.minor == 3 {
			minor = 0
		}

		p := params(func(p *metadata.NewArray) {
			p.Disks, p.Version, p.Bitmap, p.BitmapChunk, p.Chunk = 4, versionOf(minor), tt.choice, tt.asked, 1024
		})

		if got := placeOf(t, p, tt.size); !strings.Contains(got, tt.want) {
			t.Errorf("%d MiB: %s, want %s", tt.size/mib, got, tt.want)
		}
	}

	if _, err := create(t, params(func(p *metadata.NewArray) { p.Level, p.Bitmap = 0, metadata.BitmapInternal }), 32768, 32768, 32768); err == nil {
		t.Error("a RAID0 has a bitmap")
	}
}

func placeOf(t *testing.T, p metadata.NewArray, size raid.Sectors) string {
	t.Helper()

	device := metadata.NewMember{Source: sparse(size)}

	raw, err := newArray(p, []metadata.NewMember{device, device, device, device})
	if err != nil {
		t.Fatal(err)
	}

	header, err := newBitmap(p, raw)
	if err != nil {
		return err.Error()
	}

	if header == nil {
		return "none"
	}

	if raw, err = placed(*raw, minorNamed(p.Version), device, header); err != nil {
		t.Fatal(err)
	}

	if err := bitmapFits(raw, size, bitmapBytes(syncSectors(raw), header.chunkSectors()), 4096); err != nil {
		t.Error(err)
	}

	return fmt.Sprintf("at %d, chunk %d, log at %d", raw.BitmapOffset, header.chunkSectors(), raw.BblogOffset)
}

// TestCreateFlags checks that members are what they were asked to be.
func TestCreateFlags(t *testing.T) {
	var d disks

	devices := make([]metadata.NewMember, 3)
	for i := range devices {
		d = append(d, make([]byte, deviceSize.Bytes()))
		devices[i] = metadata.NewMember{Source: source(d[i]), WriteMostly: i > 0, FailFast: i > 1}
	}

	stages, err := Create(params(func(p *metadata.NewArray) { p.Geometry = raid.Geometry{Level: raid.Level1, Disks: 3} }), devices)
	if err != nil {
		t.Fatal(err)
	}

	d.apply(t, stages)
	d.apply(t, d.keep(t).Record(whole(inSync(0), inSync(1), inSync(2))))

	for i, sb := range d.probe(t) {
		if sb.WriteMostly != (i > 0) || sb.FailFast != (i > 1) {
			t.Errorf("member %d: write-mostly %t, failfast %t", i, sb.WriteMostly, sb.FailFast)
		}
	}
}

// TestCreateLayouts creates arrays of every layout there is, and a linear one.
func TestCreateLayouts(t *testing.T) {
	all := []raid.Geometry{{Level: raid.LevelLinear, Disks: 2}, {Level: raid.Level0, Disks: 2, Chunk: 24, Layout: 2}}
	for layout := range raid.Layout(6) {
		all = append(all, raid.Geometry{Level: raid.Level5, Layout: layout, Disks: 3, Chunk: 128})
	}

	for _, layout := range []raid.Layout{0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 19, 20} {
		all = append(all, raid.Geometry{Level: raid.Level6, Layout: layout, Disks: 5, Chunk: 1 << 11})
	}

	for _, layout := range []raid.Layout{0x102, 0x103, 0x201, 0x202, 0x10201, 0x10301} {
		all = append(all, raid.Geometry{Level: raid.Level10, Layout: layout, Disks: 5, Chunk: 8})
	}

	for _, g := range all {
		sizes := []raid.Sectors{32768, 32768, 32768, 32768, 32768}[:g.Disks]

		d, err := create(t, params(func(p *metadata.NewArray) { p.Geometry = g }), sizes...)
		if err != nil {
			t.Errorf("%+v: %v", g, err)

			continue
		}

		sb := mustProbe(t, source(d[0]))
		if sb.Level != g.Level || sb.Chunk != g.Chunk || sb.Layout != g.Layout || sb.Unsupported != "" {
			t.Errorf("%+v: %+v", g, sb.Geometry)
		}

		fields := examined(examine(t, d[0]))
		if fields["Raid Level"] != g.Level.String() || !strings.Contains(fields["Checksum"], "correct") {
			t.Errorf("%+v: mdadm says %v", g, fields)
		}
	}
}
