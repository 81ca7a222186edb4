package md1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// putBadLog writes entries where raw says that the bad block log is.
func putBadLog(image []byte, raw *Raw, entries ...uint64) {
	at := (raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BblogOffset)).Bytes()
	for i := range raid.Sectors(raw.BblogSize).Bytes() {
		image[at+i] = 0xff
	}

	for i, entry := range entries {
		binary.LittleEndian.PutUint64(image[at+int64(i)*8:], entry)
	}
}

func withBadBlocks(r *Raw) { r.FeatureMap |= FeatureBadBlocks }

func ranges(sectors ...raid.Sectors) []raid.Range {
	all := []raid.Range{}
	for i := 0; i < len(sectors); i += 2 {
		all = append(all, raid.Range{From: sectors[i], To: sectors[i+1]})
	}

	return all
}

func TestProbeBadBlocks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		edit    func(*Raw)
		entries []uint64
		want    []raid.Range
		msg     string // of the error, or why it is unsupported
	}{
		{name: "as the kernel lays them out", entries: []uint64{(2048+100)<<10 | 8}, want: ranges(100, 108)},
		{
			name: "in any order, touching and overlapping", want: ranges(0, 8, 100, 620),
			entries: []uint64{badEntry(2148, 2660), badEntry(2048, 2056), badEntry(2660, 2668), badEntry(2656, 2662)},
		},
		{name: "in front of the data and behind it", entries: []uint64{badEntry(100, 108), badEntry(2040, 2056), badEntry(32760, 32800)}, want: ranges(0, 8, 30712, 30720)},
		{name: "1.0", edit: at1v0, entries: []uint64{badEntry(100, 108)}, want: ranges(100, 108)},
		{name: "none after all"},
		{name: "of no length", entries: []uint64{2048 << 10}, msg: "no length"},
		{name: "behind the device", edit: func(r *Raw) { r.BblogOffset = int32(deviceSize) - 8 - 7 }, msg: "on 32768"},
		{name: "in front of it", edit: func(r *Raw) { r.BblogOffset = -9 }, msg: "at -1"},
		{
			name: "in other units", edit: func(r *Raw) { r.BblogShift = 3 }, entries: []uint64{badEntry(2048, 2056)},
			want: ranges(0, 8), msg: "no place of its own",
		},
		{
			name: "over the data", edit: func(r *Raw) { r.BblogOffset = 2039 }, entries: []uint64{badEntry(2048, 2056)},
			want: ranges(0, 8), msg: "no place of its own",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := sample(withBadBlocks)
			if tt.edit != nil {
				tt.edit(raw)
			}

			image := device(raw)
			if !strings.Contains(tt.msg, "at -1") && !strings.Contains(tt.msg, "on 32768") {
				putBadLog(image, raw, tt.entries...)
			}

			sb, err := Format{}.Probe(source(image))
			if err != nil {
				if tt.msg == "" || !strings.Contains(err.Error(), tt.msg) || !errors.Is(err, metadata.ErrCorrupt) {
					t.Errorf("Probe() error = %v, want ...%s...", err, tt.msg)
				}

				return
			}

			if diff := cmp.Diff(tt.want, sb.BadBlocks); diff != "" && len(tt.want)+len(sb.BadBlocks) > 0 {
				t.Errorf("BadBlocks (-want +got):\n%s", diff)
			}

			if !strings.Contains(sb.Unsupported, tt.msg) || tt.msg == "" && sb.Unsupported != "" {
				t.Errorf("Unsupported = %q, want %q", sb.Unsupported, tt.msg)
			}
		})
	}
}

func TestRecordBadBlocks(t *testing.T) {
	supers := array(3)
	supers[1] = sample(withBadBlocks)
	d := newDisks(supers...)
	putBadLog(d[1], supers[1], badEntry(100, 104), badEntry(2048+64, 2048+128))
	k := d.keep(t)

	if k.BadBlockRoom(0) != 512 || k.BadBlockRoom(1) != 511 {
		t.Errorf("room for %d and %d entries, want 512, and one less where one is not of the data", k.BadBlockRoom(0), k.BadBlockRoom(1))
	}

	bad := func(slot raid.Slot, bad []raid.Range) metadata.MemberRecord {
		return metadata.MemberRecord{State: raid.InSync, Slot: slot, BadBlocks: bad}
	}

	for _, tt := range []struct {
		name string
		bad  []raid.Range // of the second member; nil leaves them
		want []raid.Range
	}{
		{"left alone", nil, ranges(64, 128)},
		{"more", ranges(64, 128, 300, 301), ranges(64, 128, 300, 301)},
		{"split", ranges(64, 70, 80, 128, 300, 301), ranges(64, 70, 80, 128, 300, 301)},
		{"more than an entry holds", ranges(64, 1100), ranges(64, 1100)},
		{"none", ranges(), nil},
		{"some again", ranges(8, 9), ranges(8, 9)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.apply(t, k.Record(metadata.State{Now: now, Members: records(inSync(0), bad(1, tt.bad), bad(2, ranges()))}))

			supers := d.probe(t)
			if diff := cmp.Diff(tt.want, supers[1].BadBlocks); diff != "" && len(tt.want)+len(supers[1].BadBlocks) > 0 {
				t.Errorf("BadBlocks (-want +got):\n%s", diff)
			}

			raw := supers[1].Raw.(*Raw)
			if outside := []uint64{badEntry(100, 104)}; len(tt.want) > 0 {
				if _, got := badBlocks(raw, raw.badEntries); !cmp.Equal(outside, got) {
					t.Errorf("entries outside the data %#x, want %#x", got, outside)
				}
			}

			for _, sb := range []*metadata.Superblock{supers[0], supers[2]} {
				if len(sb.BadBlocks) > 0 || sb.Raw.(*Raw).FeatureMap != 0 {
					t.Errorf("member %d: bad blocks %v", sb.Number, sb.BadBlocks)
				}
			}
		})
	}
}

// TestBadLogTorn changes logs at random and tears every write between all of
// its sectors: what was bad before and after is bad in between, and nothing is
// that was neither.
func TestBadLogTorn(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	raw := sample(withBadBlocks)
	l := newBadLog(raw, source(device(raw)), nil)
	l.on = true

	page := bytes.Repeat([]byte{0xff}, l.room*badEntrySize)
	before := map[uint64]bool{}
	torn, moved := 0, 0

	for range 400 {
		after := map[uint64]bool{}

		var bad []raid.Range

		n, at := 1+rng.IntN(240), raid.Sectors(0)
		for range n {
			at += 8 * (1 + raid.Sectors(rng.IntN(3)))
			if keep := before[badEntry(2048+at, 2048+at+4)]; keep == (rng.IntN(8) > 0) {
				bad = append(bad, raid.Range{From: at, To: at + 4})
				after[badEntry(2048+at, 2048+at+4)] = true
			}
		}

		images := l.set(bad)
		if len(images) > 1 {
			moved++
		}

		for _, image := range images {
			for cuts := range 1 << (len(page) / 512) {
				if rng.IntN(16) > 0 {
					continue
				}

				mixed := bytes.Clone(page)
				for s := range len(page) / 512 {
					if cuts&(1<<s) != 0 {
						copy(mixed[s*512:][:512], image[s*512:][:512])
					}
				}

				checkBetween(t, mixed, before, after)

				torn++
			}

			copy(page, image)
		}

		if len(bad) == 0 {
			l.on = true // its entries stay, and count as bad here
			clear(page)
			copy(page, bytes.Repeat([]byte{0xff}, len(page)))
			l.count = 0
		}

		before = after
	}

	if torn < 1000 || moved < 100 {
		t.Errorf("%d torn writes, %d changes in several stages", torn, moved)
	}
}

func checkBetween(t *testing.T, page []byte, before, after map[uint64]bool) {
	t.Helper()

	got := map[uint64]bool{}

	for ; len(page) > 0; page = page[badEntrySize:] {
		entry := binary.LittleEndian.Uint64(page)
		if entry == badEntryNone {
			break
		}

		got[entry] = true
		if !before[entry] && !after[entry] {
			t.Fatalf("entry %#x was never bad", entry)
		}
	}

	for entry := range before {
		if after[entry] && !got[entry] {
			t.Fatalf("entry %#x is lost", entry)
		}
	}
}

// TestBadLogFull changes a log that has no room for what was beside what is.
func TestBadLogFull(t *testing.T) {
	raw := sample(withBadBlocks)
	l := newBadLog(raw, source(device(raw)), nil)

	fill := func(shift raid.Sectors) (bad []raid.Range) {
		for i := range raid.Sectors(512) {
			bad = append(bad, raid.Range{From: i*16 + shift, To: i*16 + shift + 8})
		}

		return bad
	}

	for shift := range raid.Sectors(3) {
		images := l.set(fill(shift))
		if len(images) != 1 || binary.LittleEndian.Uint64(images[0][511*8:]) != badEntry(2048+511*16+shift, 2048+511*16+shift+8) {
			t.Errorf("shift %d: %d images", shift, len(images))
		}
	}

	defer func() {
		if recover() == nil {
			t.Error("a log holds more than it has room for")
		}
	}()

	l.set(append(fill(0), raid.Range{From: 1 << 20, To: 1<<20 + 1}))
}
