package md1

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestGrow has arrays use more of their members, with a bitmap that has room
// for it and one that has not.
func TestGrow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(*metadata.NewArray)
		sizes []raid.Sectors
		size  raid.Sectors
		want  string // the size, and the bitmap; or why not
	}{
		{name: "to all there is", sizes: []raid.Sectors{32768, 32768, 32768, 32768}, want: "30720, chunk 8"},
		{name: "to the smallest", sizes: []raid.Sectors{32768, 32768, 20000, 32768}, want: "17920, chunk 8"},
		{name: "to the smallest, a spare", sizes: []raid.Sectors{32768, 32768, 32768, 20000}, want: "17920, chunk 8"},
		{name: "rounded", sizes: []raid.Sectors{32768, 32768, 32768, 32768}, size: 20001, want: "19968, chunk 8"},
		{name: "too far", sizes: []raid.Sectors{32768, 32768, 32768, 32768}, size: 40000, want: "has room for 30720"},
		{name: "not at all", sizes: []raid.Sectors{32768, 32768, 32768, 32768}, size: 1024, want: "of which it uses 1024"},
		{name: "1.1", edit: func(p *metadata.NewArray) { p.Version = "1.1" }, sizes: []raid.Sectors{32768, 32768, 32768, 32768}, want: "30720, chunk 8"},
		{name: "1.0", edit: func(p *metadata.NewArray) { p.Version = "1.0" }, sizes: []raid.Sectors{32768, 32768, 32768, 32768}, want: "32640, chunk 8"},
		{
			name: "RAID10", edit: func(p *metadata.NewArray) { p.Level, p.Layout = 10, 0x102 },
			sizes: []raid.Sectors{32768, 32768, 32768, 32768}, want: "30720, chunk 8",
		},
		{
			name: "RAID10, far", edit: func(p *metadata.NewArray) { p.Level, p.Layout = 10, 0x201 },
			sizes: []raid.Sectors{32768, 32768, 32768}, want: "layout 0x201 cannot grow",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := create(t, params(func(p *metadata.NewArray) {
				p.Size, p.Bitmap, p.BitmapChunk, p.AssumeClean = 1024, metadata.BitmapInternal, 8, true

				if tt.edit != nil {
					tt.edit(p)
				}
			}), tt.sizes...)
			if err != nil {
				t.Fatal(err)
			}

			k := d.keep(t)
			b := mustBitmap(t, k)
			clear(b.Bits())
			d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2), spare())))

			old := b.Info().Sectors

			size, err := k.Grow(tt.size)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "md1: ") {
					t.Errorf("Grow() error = %v, want ...%s...", err, tt.want)
				}

				return
			}

			d.apply(t, k.Record(metadata.State{
				ResyncOffset: old, Members: records(inSync(0), inSync(1), inSync(2), spare()), Now: now,
			}))

			for i, sb := range d.probe(t) {
				if sb.Size != size || sb.DataSize < size || sb.Unsupported != "" {
					t.Errorf("member %d: size %d of %d", i, sb.Size, sb.DataSize)
				}
			}

			again := mustBitmap(t, d.keep(t))
			if got := fmt.Sprintf("%d, chunk %d", size, again.Info().Chunk); got != tt.want {
				t.Errorf("size %s, want %s", got, tt.want)
			}

			for c := range again.Info().Sectors / again.Info().Chunk {
				is := again.Bits()[c/8]&(1<<(c%8)) != 0
				if fresh := (c+1)*again.Info().Chunk > old; is != fresh {
					t.Fatalf("the bit of sector %d is set: %t, those from %d on are new", c*again.Info().Chunk, is, old)
				}
			}
		})
	}
}

// TestGrowDevice has an array use what its devices did not have when it was
// created, and keeps a bitmap that has room for coarser bits only.
func TestGrowDevice(t *testing.T) {
	d, err := create(t, params(func(p *metadata.NewArray) {
		p.Level, p.Layout, p.Disks, p.Chunk = 1, 0, 2, 0
		p.Bitmap, p.BitmapChunk, p.AssumeClean = metadata.BitmapInternal, 8, true
	}), 8192, 8192)
	if err != nil {
		t.Fatal(err)
	}

	for i := range d {
		d[i] = append(d[i], make([]byte, 300<<20)...)
	}

	k := d.keep(t)
	b := mustBitmap(t, k)
	d.apply(t, k.Record(whole(inSync(0), inSync(1))))

	size, err := k.Grow(0)
	if want := raid.Sectors(len(d[0])/512) - 2048; err != nil || size != want {
		t.Fatalf("Grow() = %d, %v, want %d", size, err, want)
	}

	if got := b.Info(); got.Chunk != 32 || got.Sectors != size {
		t.Errorf("bitmap %+v, want a chunk of 32: 19200 bits in 3840 bytes", got)
	}

	d.apply(t, k.Record(whole(inSync(0), inSync(1))))

	for i, sb := range d.probe(t) {
		if sb.Size != size || sb.DataSize != size || sb.Bitmap == nil || sb.Bitmap.Chunk != 32 {
			t.Errorf("member %d: size %d of %d, bitmap %+v", i, sb.Size, sb.DataSize, sb.Bitmap)
		}
	}

	flat := newDisks(array(2, func(r *Raw) { r.Level, r.Layout, r.FeatureMap = 0, 1, FeatureRAID0Layout })...)
	if _, err := flat.keep(t).Grow(0); err == nil || !strings.Contains(err.Error(), "raid0 uses all") {
		t.Errorf("Grow() error = %v", err)
	}
}

// TestGrowCut cuts the power in the first record of an array that grows, at each
// write and with any of those that were under way: what is found then is as
// large as it was or as it was to be, and does not call in sync what is new.
func TestGrowCut(t *testing.T) {
	const before, after = 1024, 30720

	d, err := create(t, params(func(p *metadata.NewArray) {
		p.Size, p.Bitmap, p.BitmapChunk, p.AssumeClean = before, metadata.BitmapInternal, 8, true
	}), 32768, 32768, 32768)
	if err != nil {
		t.Fatal(err)
	}

	k := d.keep(t)
	clear(mustBitmap(t, k).Bits())
	d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2))))

	if _, err := k.Grow(0); err != nil {
		t.Fatal(err)
	}

	st := metadata.State{ResyncOffset: before, Members: records(inSync(0), inSync(1), inSync(2)), Now: now}
	stages := k.Record(st)
	cuts := 0

	for i, stage := range stages {
		for written := range 1 << len(stage) {
			left := d.clone()
			left.apply(t, stages[:i])

			for j, w := range stage {
				if written&(1<<j) != 0 {
					left.apply(t, [][]metadata.Write{{w}})
				}
			}

			found := left.attachments(t)
			slices.SortStableFunc(found, func(a, b metadata.Attachment) int {
				return cmp.Compare(b.Superblock.Events, a.Superblock.Events)
			})

			best := found[0].Superblock
			if best.Size != before && (best.Size != after || best.ResyncOffset > before) {
				t.Fatalf("stage %d, writes %b: a size of %d, in sync up to %d", i, written, best.Size, best.ResyncOffset)
			}

			again, err := Format{}.Keep(found)
			if err != nil {
				t.Fatalf("stage %d, writes %b: %v", i, written, err)
			}

			cuts++

			if got := mustBitmap(t, again).Info().Sectors; got != best.Size {
				t.Fatalf("stage %d, writes %b: a bitmap of %d sectors for %d", i, written, got, best.Size)
			}
		}
	}

	if cuts < 8 {
		t.Errorf("%d cuts of %d stages, want more", cuts, len(stages))
	}
}
