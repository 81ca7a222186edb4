package md1

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestLayout pins the offset of every field to those of the kernel's header,
// so that a field added or resized by mistake fails here and not on a disk.
func TestLayout(t *testing.T) {
	want := map[string]int{
		"magic": 0, "major_version": 4, "feature_map": 8, "pad0": 12, "set_uuid": 16, "set_name": 32, "ctime": 64,
		"level": 72, "layout": 76, "size": 80, "chunksize": 88, "raid_disks": 92, "bitmap_offset": 96,
		"new_level": 100, "reshape_position": 104, "delta_disks": 112, "new_layout": 116, "new_chunk": 120,
		"new_offset": 124, "data_offset": 128, "data_size": 136, "super_offset": 144, "recovery_offset": 152,
		"dev_number": 160, "cnt_corrected_read": 164, "device_uuid": 168, "devflags": 184, "bblog_shift": 185,
		"bblog_size": 186, "bblog_offset": 188, "utime": 192, "events": 200, "resync_offset": 208, "sb_csum": 216,
		"max_dev": 220, "logical_block_size": 224, "-": 228,
	}

	got, offset := map[string]int{}, 0
	for f := range reflect.TypeFor[Header]().Fields() {
		got[f.Tag.Get("json")] = offset
		offset += binary.Size(reflect.Zero(f.Type).Interface())
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("offsets (-want +got):\n%s", diff)
	}

	if offset != headerSize {
		t.Errorf("size = %d, want %d", offset, headerSize)
	}

	for name, offset := range map[string]int{
		"feature_map": offFeatureMap, "data_offset": offDataOffset, "recovery_offset": offRecoveryOffset,
		"dev_number": offDevNumber, "utime": offUtime, "events": offEvents, "resync_offset": offResyncOffset,
		"sb_csum": offSbCsum, "max_dev": offMaxDev, "size": offSize, "data_size": offDataSize,
	} {
		if offset != want[name] {
			t.Errorf("constant of %s = %d, want %d", name, offset, want[name])
		}
	}
}

// TestFeatures pins the bits to MD_FEATURE_* of the kernel's header.
func TestFeatures(t *testing.T) {
	for want, got := range map[Feature]Feature{
		0x1: FeatureBitmapOffset, 0x2: FeatureRecoveryOffset, 0x4: FeatureReshapeActive, 0x8: FeatureBadBlocks,
		0x10: FeatureReplacement, 0x20: FeatureReshapeBackwards, 0x40: FeatureNewOffset, 0x80: FeatureRecoveryBitmap,
		0x100: FeatureClustered, 0x200: FeatureJournal, 0x400: FeaturePPL, 0x800: FeatureMultiplePPLs,
		0x1000: FeatureRAID0Layout, 0x1fff: featuresKnown,
	} {
		if got != want {
			t.Errorf("feature bit = %#x, want %#x", uint32(got), uint32(want))
		}
	}
}

func TestDecode(t *testing.T) {
	good := sample().Encode()
	edit := func(offset int, b byte) []byte {
		buf := bytes.Clone(good)
		buf[offset] ^= b

		return buf
	}

	for _, tt := range []struct {
		name string
		buf  []byte
		err  error
		msg  string
	}{
		{name: "valid", buf: good},
		{name: "empty", err: metadata.ErrNotFound, msg: "md1: 0 bytes"},
		{name: "cut off header", buf: good[:headerSize-1], err: metadata.ErrNotFound, msg: "255 bytes"},
		{name: "other magic", buf: edit(0, 1), err: metadata.ErrNotFound, msg: "md1: no superblock"},
		{name: "version 0", buf: edit(4, 1), err: metadata.ErrNotFound, msg: "md1: no superblock"},
		{name: "flipped bit", buf: edit(offEvents, 1), err: metadata.ErrCorrupt, msg: "md1: checksum 0x"},
		{name: "flipped role", buf: edit(headerSize+255, 1), err: metadata.ErrCorrupt, msg: "md1: checksum 0x"},
		{name: "huge max_dev", buf: edit(offMaxDev+3, 0x80), err: metadata.ErrCorrupt, msg: "max_dev 2147483776 exceeds"},
		{name: "cut off roles", buf: good[:511], err: metadata.ErrCorrupt, msg: "511 of 512 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := Decode(tt.buf)
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.msg) {
				t.Fatalf("Decode() error = %v, want %v: ...%s...", err, tt.err, tt.msg)
			}

			if (raw == nil) == (err == nil) {
				t.Fatalf("Decode() = %v, %v, want exactly one", raw, err)
			}
		})
	}
}

// TestEncodeOddRoles checks that half a word at the end is summed, and that
// what lies behind the roles is neither summed nor lost.
func TestEncodeOddRoles(t *testing.T) {
	raw := sample(func(r *Raw) {
		r.MaxDev, r.DevRoles = 127, r.DevRoles[:127]
		r.DevRoles[126] = 0xabcd
		r.tail = bytes.Repeat([]byte{0x5a}, 100)
	})

	buf := raw.Encode()

	got, err := Decode(buf)
	if err != nil {
		t.Fatal(err)
	}

	// SbCsum is what Encode computed.
	raw.SbCsum = got.SbCsum
	if diff := cmp.Diff(raw, got, cmp.AllowUnexported(Raw{})); diff != "" {
		t.Errorf("Decode(Encode()) (-want +got):\n%s", diff)
	}

	buf[superSize(127)-1] ^= 1
	if _, err := Decode(buf); !errors.Is(err, metadata.ErrCorrupt) {
		t.Errorf("Decode() with the last role changed = %v, want ErrCorrupt", err)
	}
}

func TestRawJSON(t *testing.T) {
	raw := sample(func(r *Raw) {
		r.SetName = SetName([]byte("a\"b\n\xff:x" + string(make([]byte, 25))))
		r.DevRoles[4] = raid.RoleFaulty
	})

	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}

	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}

	for key, want := range map[string]any{
		"set_uuid": "aa000000:00000000:00000000:00000001",
		"set_name": `a\"b\n\xff:x`,
		"events":   42.0,
		"level":    5.0,
		"dev_roles": []any{
			0.0, 1.0, 65535.0, 2.0, 65534.0,
		},
	} {
		if diff := cmp.Diff(want, got[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

// FuzzDecode holds Decode to one of three answers for any bytes at all, and
// Encode to giving back what was accepted.
func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add(append(sample(func(r *Raw) { r.MaxDev, r.DevRoles = 3, r.DevRoles[:3] }).Encode(), 1, 2, 3))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for _, buf := range [][]byte{buf, resum(buf)} {
			raw, err := Decode(buf)
			if (raw == nil) == (err == nil) {
				t.Fatalf("Decode() = %v, %v, want exactly one", raw, err)
			}

			if err != nil && !errors.Is(err, metadata.ErrNotFound) && !errors.Is(err, metadata.ErrCorrupt) {
				t.Fatalf("Decode() error = %v, want ErrNotFound or ErrCorrupt", err)
			}

			if err == nil && !bytes.Equal(raw.Encode(), buf[:min(len(buf), blockSize)]) {
				t.Fatal("Encode(Decode(buf)) differs from buf")
			}
		}
	})
}

// resum returns a copy of buf that is a superblock as far as magic and
// checksum go, so that fuzzing gets past them.
func resum(buf []byte) []byte {
	buf = bytes.Clone(buf)
	if len(buf) < headerSize {
		return buf
	}

	binary.LittleEndian.PutUint32(buf, magic)
	binary.LittleEndian.PutUint32(buf[4:], majorVersion)

	if size := superSize(int(binary.LittleEndian.Uint16(buf[offMaxDev:]))); size <= len(buf) {
		putChecksum(buf[:size])
	}

	return buf
}
