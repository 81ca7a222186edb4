package md1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// sampleChunk is small enough for the bits of the sample to reach into a second
// page: 31744 sectors in chunks of one.
const sampleChunk raid.Sectors = 1

// withIntent gives a sample a bitmap with room for three pages.
func withIntent(r *Raw) {
	r.FeatureMap, r.BitmapOffset, r.BblogOffset = FeatureBitmapOffset, 8, 32
	r.DataOffset, r.DataSize, r.Size, r.Chunksize = 1024, 31744, 31744, 8
}

// putIntent writes a whole bitmap superblock, and bits.
func putIntent(image []byte, raw *Raw, events uint64, edits ...func(*bitmap)) {
	var b bitmap

	le := binary.LittleEndian
	le.PutUint32(b[:], bitmapMagic)
	le.PutUint32(b[offBitmapVersion:], bitmapPlain)
	copy(b[offBitmapUUID:], raw.SetUUID[:])
	le.PutUint64(b[offBitmapEvents:], events)
	le.PutUint64(b[offBitmapEventsCleared:], 17)
	le.PutUint64(b[offBitmapSyncSize:], raw.Size)
	le.PutUint32(b[offBitmapChunk:], uint32(sampleChunk.Bytes()))
	le.PutUint32(b[offBitmapSleep:], 5)
	b[200] = 0x5a // of which nobody knows what it is

	for _, edit := range edits {
		edit(&b)
	}

	at := image[bitmapPlace(raw).Bytes():]
	copy(at, b[:])
	copy(at[bitmapHeaderSize:], []byte{0x81, 0, 3})
}

// intentDisks returns the members of an array of three with a bitmap.
func intentDisks(t *testing.T, spares int) disks {
	t.Helper()

	supers := array(3+spares, withIntent)
	d := newDisks(supers...)

	for i := range 3 {
		putIntent(d[i], supers[i], 42)
	}

	return d
}

func mustBitmap(t *testing.T, k metadata.Keeper) metadata.Bitmap {
	t.Helper()

	b := k.Bitmap()
	if b == nil {
		t.Fatal("the array has no bitmap")
	}

	return b
}

func whole(members ...metadata.MemberRecord) metadata.State {
	return metadata.State{ResyncOffset: 0, Members: records(members...), Now: now}
}

func TestBitmap(t *testing.T) {
	d := intentDisks(t, 0)
	k := d.keep(t)
	b := mustBitmap(t, k)

	want := metadata.BitmapInfo{Chunk: 1, Sectors: 31744, Events: 42, Cleared: 17, Sleep: 5 * time.Second}
	if diff := cmp.Diff(want, b.Info()); diff != "" {
		t.Errorf("Info() (-want +got):\n%s", diff)
	}

	if sb := d.probe(t)[0]; !cmp.Equal(&want, sb.Bitmap) {
		t.Errorf("Superblock.Bitmap = %+v", sb.Bitmap)
	}

	if size, skip := b.Blocks(); size != 4096 || skip != 256 || len(b.Bits()) != 3968 || b.Bits()[0] != 0x81 || b.Bits()[2] != 3 {
		t.Fatalf("Blocks() = %d, %d, %d bytes of bits %x", size, skip, len(b.Bits()), b.Bits()[:4])
	}

	// One stage for the superblocks of the bitmaps, and one for those of the
	// members.
	stages := k.Record(whole(inSync(0), inSync(1), inSync(2)))
	if len(stages) != 2 || len(stages[0]) != 3 || len(stages[1]) != 3 {
		t.Fatalf("Record() = %d stages", len(stages))
	}

	d.apply(t, stages)

	b.Bits()[3967] = 0x80
	b.SetCleared(41)
	d.apply(t, [][]metadata.Write{b.Write(0)})
	d.apply(t, [][]metadata.Write{b.Write(1)})

	for i, sb := range d.probe(t) {
		at := d[i][bitmapPlace(sb.Raw.(*Raw)).Bytes():]
		header := bitmap(at[:bitmapHeaderSize])

		if header.events() != 43 || header[200] != 0x5a || header.info(31744).Cleared != 41 || header.state() != 0 {
			t.Errorf("member %d: %+v", i, header.info(31744))
		}

		if at[256] != 0x81 || at[256+3967] != 0x80 || sb.Bitmap.Events != sb.Events {
			t.Errorf("member %d: bits %x", i, at[256:260])
		}
	}
}

// TestBitmapBlocks checks which blocks there are, that what is behind the last
// one is left alone, and that blocks are only written to members with a slot.
func TestBitmapBlocks(t *testing.T) {
	supers := array(4, withIntent)
	d := newDisks(supers...)
	for i := range 3 {
		putIntent(d[i], supers[i], 42)
	}

	// 256 bytes and 3968 of bits: a page, and one sector of 128 bytes.
	k := d.keep(t)
	b := mustBitmap(t, k)

	if writes := b.Write(0); len(writes) != 0 {
		t.Errorf("%d writes before any record", len(writes))
	}

	d.apply(t, k.Record(whole(inSync(0), faulty(1), recovering(2, 8), spare())))

	var got []string
	for _, block := range []int{0, 1} {
		for _, w := range b.Write(block) {
			got = append(got, fmt.Sprintf("%d: %d+%d", w.Member, w.Sector, len(w.Data)))
		}
	}

	if want := []string{"0: 16+4096", "2: 16+4096", "0: 24+512", "2: 24+512"}; !slices.Equal(want, got) {
		t.Errorf("writes %v, want %v", got, want)
	}
}

// TestBitmapFound checks whose bits are believed.
func TestBitmapFound(t *testing.T) {
	at := func(events uint64, edits ...func(*bitmap)) func(image []byte, raw *Raw) {
		return func(image []byte, raw *Raw) { putIntent(image, raw, events, edits...) }
	}
	state := func(bits uint32) func(*bitmap) {
		return func(b *bitmap) { binary.LittleEndian.PutUint32(b[offBitmapState:], bits) }
	}
	field := func(offset int, value uint32) func(*bitmap) {
		return func(b *bitmap) { binary.LittleEndian.PutUint32(b[offset:], value) }
	}

	for _, tt := range []struct {
		name  string
		first func(image []byte, raw *Raw) // what the first member has; the second has one that is right
		edit  func([]*Raw)
		alone bool   // nobody else has one
		want  string // "none", "stale" or the first byte
	}{
		{name: "the freshest's", first: at(42), want: "81"},
		{name: "md wrote it and then lost power", first: at(43), want: "81"},
		{name: "of version 3", first: at(42, field(offBitmapVersion, 3)), alone: true, want: "81"},
		{name: "with other bits", first: func(image []byte, raw *Raw) {
			putIntent(image, raw, 43)
			image[bitmapPlace(raw).Bytes()+bitmapHeaderSize] = 0x12
		}, want: "93"},
		{name: "an old one", first: at(41), alone: true, want: "stale"},
		{name: "an old one, and another is right", first: at(41), want: "81"},
		{name: "that of a member that has failed", alone: true, first: at(42), edit: func(all []*Raw) {
			for _, r := range all {
				r.DevRoles[0] = raid.RoleFaulty
			}
		}, want: "stale"},
		{name: "that of a member that is being filled", alone: true, first: at(42), edit: func(all []*Raw) {
			all[0].FeatureMap |= FeatureRecoveryOffset
		}, want: "stale"},
		{name: "one that says so", first: at(42, state(bitmapStale)), alone: true, want: "stale"},
		{name: "one that could not be written", first: at(42, state(bitmapWriteError)), alone: true, want: "stale"},
		{name: "garbage, and another is right", first: func([]byte, *Raw) {}, want: "81"},
		{name: "garbage", first: func([]byte, *Raw) {}, alone: true, want: "none"},
		{name: "chunk of three", first: at(42, field(offBitmapChunk, 1536)), alone: true, want: "none"},
		{name: "tiny chunk", first: at(42, field(offBitmapChunk, 256)), alone: true, want: "none"},
		{name: "no sleep", first: at(42, field(offBitmapSleep, 0)), alone: true, want: "none"},
		{name: "much behind", first: at(42, field(offBitmapWriteBehind, 16384)), alone: true, want: "none"},
		{name: "no room for it", first: at(42), edit: func(all []*Raw) {
			for _, r := range all {
				r.BblogOffset = 15
			}
		}, want: "none"},
		{name: "reaches into the data of one", first: at(42), edit: func(all []*Raw) {
			all[2].DataOffset, all[2].DataSize, all[2].BblogSize = 23, 31744, 0
		}, want: "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			supers := array(3, withIntent)
			if tt.edit != nil {
				tt.edit(supers)
			}

			d := newDisks(supers...)
			tt.first(d[0], supers[0])

			if !tt.alone {
				putIntent(d[1], supers[1], 42)
			}

			k := d.keep(t)
			b := k.Bitmap()

			got := "none"
			if b != nil && b.Info().Stale {
				got = "stale"
			} else if b != nil {
				got = fmt.Sprintf("%x", b.Bits()[0])
			}

			if got != tt.want {
				t.Fatalf("bitmap %s, want %s", got, tt.want)
			}

			if got == "stale" && (b.Info().Cleared != 42 || b.Info().Covers(42) || bytes.Contains(b.Bits(), []byte{0})) {
				t.Errorf("%+v, bits %x", b.Info(), b.Bits()[:8])
			}

			record := whole(inSync(0), inSync(1), inSync(2))
			d.apply(t, k.Record(record))

			// Somebody else believes what we wrote.
			again := d.keep(t).Bitmap()
			if (again == nil) != (b == nil) || b != nil && (again.Info().Stale || !bytes.Equal(again.Bits(), b.Bits())) {
				t.Errorf("after a record: %v", again)
			}
		})
	}
}

// TestBitmapCut writes all of a bitmap to a member that comes into its slot,
// and cuts it off after every write and in the midst of each: whoever reads a
// bitmap there believes it only if it is the array's.
func TestBitmapCut(t *testing.T) {
	for name, change := range map[string]func(b metadata.Bitmap) error{
		"a spare":       func(metadata.Bitmap) error { return nil },
		"another chunk": func(b metadata.Bitmap) error { return b.Rechunk(8) },
	} {
		t.Run(name, func(t *testing.T) {
			d := intentDisks(t, 1)
			putIntent(d[3], sample(withIntent), 42) // an old one
			k := d.keep(t)
			b := mustBitmap(t, k)

			d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2), spare())))

			b.Bits()[len(b.Bits())-1] = 0x40
			d.apply(t, [][]metadata.Write{b.Write(1)})

			if err := change(b); err != nil {
				t.Fatal(err)
			}

			stages := k.Record(whole(faulty(0), inSync(1), inSync(2), recovering(0, 0)))

			for _, stage := range stages {
				for _, w := range stage {
					place := d[w.Member][w.Sector.Bytes():][:len(w.Data)]
					before := bytes.Clone(place)

					for cut := 0; cut <= len(place); cut += 512 {
						copy(place, before)
						copy(place, w.Data[:cut])
						believed(t, d[w.Member], b)
						copy(place, w.Data)
						copy(place, before[:cut])
						believed(t, d[w.Member], b)
					}

					copy(place, w.Data)
				}
			}

			for _, i := range []int{1, 2, 3} {
				raw := mustProbe(t, source(d[i])).Raw.(*Raw)
				if found := d[i][bitmapPlace(raw).Bytes()+256:][:len(b.Bits())]; !bytes.Equal(found, b.Bits()) {
					t.Errorf("member %d has other bits", i)
				}
			}
		})
	}
}

// believed checks that md would not believe a bitmap that lacks bits of b.
func believed(t *testing.T, image []byte, b metadata.Bitmap) {
	t.Helper()

	sb := mustProbe(t, source(image))
	if _, slotted := sb.Role(sb.Number).Slot(); !slotted || sb.Bitmap == nil || sb.Bitmap.Stale || sb.RecoveryOffset != raid.MaxSectors {
		return
	}

	bits := image[bitmapPlace(sb.Raw.(*Raw)).Bytes()+256:]

	for c := range sb.Bitmap.Sectors {
		mine := b.Bits()[c/b.Info().Chunk/8]&(1<<(c/b.Info().Chunk%8)) != 0
		n := c / sb.Bitmap.Chunk

		if mine && bits[n/8]&(1<<(n%8)) == 0 && b.Info().Chunk <= sb.Bitmap.Chunk {
			t.Fatalf("the bit of sector %d is lost, at event %d of the bitmap and %d of the member", c, sb.Bitmap.Events, sb.Events)
		}
	}
}

func TestBitmapRechunk(t *testing.T) {
	d := intentDisks(t, 0)
	k := d.keep(t)
	b := mustBitmap(t, k)

	for _, tt := range []struct {
		chunk raid.Sectors
		want  string // the first bytes, or why not
	}{
		{0, "no power of two"},
		{12, "no power of two"},
		{4, "of at least 8"},
		{1 << 22, "no power of two"},
		{8, "0500"}, // sectors 0, 7, 16 and 17
		{16, "03"},
		{8, "0f00"},
		{1 << 20, "01"},
	} {
		err := b.Rechunk(tt.chunk)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "md1: ") {
				t.Errorf("Rechunk(%d) error = %v, want ...%s...", tt.chunk, err, tt.want)
			}

			continue
		}

		if got := fmt.Sprintf("%x", b.Bits()); !strings.HasPrefix(got, tt.want) || b.Info().Chunk != tt.chunk {
			t.Errorf("Rechunk(%d): bits %.8s, want %s", tt.chunk, got, tt.want)
		}

		d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2))))

		if again := mustBitmap(t, d.keep(t)); again.Info().Chunk != tt.chunk || !bytes.Equal(again.Bits(), b.Bits()) {
			t.Errorf("read again: %+v", again.Info())
		}
	}

	raw := sample(withIntent, func(r *Raw) { r.BblogOffset = 16 })
	raws := []*Raw{raw}
	small := newDisks(raws...)
	putIntent(small[0], raw, 42, func(b *bitmap) { binary.LittleEndian.PutUint32(b[offBitmapChunk:], 1<<20) })

	if err := mustBitmap(t, small.keep(t)).Rechunk(8); err != nil {
		t.Errorf("a bitmap of 736 bytes in 4096: %v", err)
	}
}

// TestBitmapBound checks that no bitmap superblock makes us take memory that
// nobody has.
func TestBitmapBound(t *testing.T) {
	huge := sample(withIntent, func(r *Raw) { r.Size, r.DataSize = 1<<50, 1<<50 })

	var b bitmap

	putIntent(make([]byte, 1<<20), huge, 42, func(made *bitmap) { b = *made })

	if err := b.valid(syncSectors(huge)); err == nil {
		t.Error("a bitmap of 2^50 bits is valid")
	}

	for _, layout := range []uint32{0x102, 0x10201, 0, 0xffff, 0x201} {
		r := sample(func(r *Raw) {
			r.Level, r.Layout, r.Size, r.RaidDisks, r.Chunksize = 10, layout, 1<<62, 1920, 1
		})
		if got := syncSectors(r); got < 0 {
			t.Errorf("layout %#x: %d sectors", layout, got)
		}
	}
}

func TestBitmapAllocates(t *testing.T) {
	d := intentDisks(t, 0)
	k := d.keep(t)
	b := mustBitmap(t, k)
	st := whole(inSync(0), inSync(1), inSync(2))
	k.Record(st)
	b.Write(0)

	if n := testing.AllocsPerRun(50, func() {
		k.Record(st)
		b.Write(0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAttach takes back a member that was away.
func TestAttach(t *testing.T) {
	d := intentDisks(t, 0)
	k, err := Format{}.Keep(d.attachments(t)[:2])
	if err != nil {
		t.Fatal(err)
	}

	mustBitmap(t, k)
	d.apply(t, k.Record(whole(inSync(0), inSync(1))))

	id, err := k.Attach(d.attachments(t)[2])
	if err != nil || id != 2 {
		t.Fatalf("Attach() = %d, %v", id, err)
	}

	back := metadata.MemberRecord{State: raid.Recovering, Slot: 2, Recovered: 64, ByBitmap: true}
	d.apply(t, k.Record(whole(inSync(0), inSync(1), back)))

	sb := d.probe(t)[2]
	if !sb.ByBitmap || sb.RecoveryOffset != 64 || sb.Number != 2 || sb.Role(2) != 2 ||
		sb.Raw.(*Raw).FeatureMap != FeatureBitmapOffset|FeatureRecoveryOffset|FeatureRecoveryBitmap {
		t.Errorf("Probe() = %+v", sb.Raw.(*Raw).Header)
	}

	d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2))))

	if sb := d.probe(t)[2]; sb.ByBitmap || sb.RecoveryOffset != raid.MaxSectors {
		t.Errorf("Probe() = %+v", sb.Raw.(*Raw).Header)
	}

	other := newDisks(sample(func(r *Raw) { r.SetUUID[3]++ })).attachments(t)[0]
	if _, err := k.Attach(other); err == nil {
		t.Error("Attach() takes a member of another array")
	}

	cramped := newDisks(sample(withIntent, func(r *Raw) { r.DataOffset, r.BblogOffset = 18, 8 })).attachments(t)[0]
	if _, err := k.Attach(cramped); err == nil || !strings.Contains(err.Error(), "no room for a bitmap") {
		t.Errorf("Attach() of a member without room for the bitmap: %v", err)
	}

	if id, err := k.Attach(d.attachments(t)[2]); err != nil || id != 3 || k.(*keeper).members[3].number == 2 {
		t.Errorf("Attach() of a number that is taken = %d, %v", id, err)
	}
}

// TestReplacement records a member and another that is to take its place.
func TestReplacement(t *testing.T) {
	d := newDisks(array(4)...)
	k := d.keep(t)
	successor := metadata.MemberRecord{State: raid.Recovering, Slot: 1, Recovered: 8, Replacement: true}

	d.apply(t, k.Record(whole(inSync(0), inSync(1), inSync(2), successor)))

	got := d.probe(t)
	if sb := got[3]; !sb.Replacement || sb.RecoveryOffset != 8 || sb.Role(3) != 1 || got[1].Replacement {
		t.Errorf("Probe() = %+v", sb.Raw.(*Raw).Header)
	}

	if want := "3: 43 0 0121-"; !strings.Contains(describe(got), want) {
		t.Errorf("superblocks:\n%s\nwant %s", describe(got), want)
	}

	d.apply(t, k.Record(whole(inSync(0), faulty(1), inSync(2), inSync(1))))

	if sb := d.probe(t)[3]; sb.Replacement || sb.RecoveryOffset != raid.MaxSectors || sb.Unsupported != "" {
		t.Errorf("Probe() = %+v", sb.Raw.(*Raw).Header)
	}
}
