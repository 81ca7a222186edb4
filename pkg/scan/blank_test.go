package scan

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

func blankSource(image []byte) metadata.Source {
	return metadata.Source{ReaderAt: bytes.NewReader(image), Size: raid.Sectors(len(image) / 512), Block: 512}
}

// TestContent checks that one byte is found wherever it is, and that all is read
// before a device is called blank.
func TestContent(t *testing.T) {
	const size = 5<<20 + 512

	image := make([]byte, size)

	var done int64
	if at, err := Content(t.Context(), blankSource(image), func(n int64) { done = n }); at != -1 || err != nil || done != size {
		t.Errorf("Content() of zeros = %d, %v, and %d bytes read, want -1 and %d", at, err, done, size)
	}

	for _, at := range []int64{0, 511, 64 << 10, 128<<10 + 12, 1 << 20, 3<<20 + 1234567, size - 513, size - 1} {
		for _, value := range []byte{1, 0xff} {
			image[at] = value

			got, err := Content(t.Context(), blankSource(image), func(int64) {})
			if got != at || err != nil {
				t.Errorf("Content() with byte %d = %#x: %d, %v", at, value, got, err)
			}

			image[at] = 0
		}
	}

	for at := int64(0); at < size; at += sampleBytes + 1 {
		image[at] = 1
	}

	if got, err := Sample(t.Context(), blankSource(image)); got < 0 || err != nil {
		t.Errorf("Sample() of what is full everywhere = %d, %v", got, err)
	}
}

// broken cannot be read at one place.
type broken struct {
	metadata.Source

	at int64
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, errors.New("medium error")
	}

	return b.Source.ReadAt(p, off)
}

// TestContentUnread checks that what was not read is not called blank.
func TestContentUnread(t *testing.T) {
	src := blankSource(make([]byte, 4<<20))
	src.ReaderAt = broken{src, 3<<20 + 7777}

	if at, err := Content(t.Context(), src, func(int64) {}); at != -1 || err == nil {
		t.Errorf("Content() of what cannot be read = %d, %v", at, err)
	}

	ctx, cancel := context.WithCancel(t.Context())

	at, err := Content(ctx, blankSource(make([]byte, 4<<20)), func(int64) { cancel() })
	if at != -1 || !errors.Is(err, context.Canceled) {
		t.Errorf("Content() that is cancelled = %d, %v", at, err)
	}
}

// TestContentOfFormats checks that nothing that a program has left is called blank,
// whatever else there is: one sign, at the place where it puts it.
func TestContentOfFormats(t *testing.T) {
	for name, sign := range map[string]struct {
		at   int64
		text string
	}{
		"btrfs": {65536 + 64, "_BHRfS_M"}, "luks": {0, "LUKS\xba\xbe"}, "zfs": {128 << 10, "\x0c\xb1\xba\x00"},
		"lvm": {512, "LABELONE"}, "bcache": {4096 + 24, "\xc6\x85\x73\xf6"}, "iso9660": {32769, "CD001"},
		"data": {64<<10 + 4096, "some text"},
	} {
		t.Run(name, func(t *testing.T) {
			image := make([]byte, 8<<20)
			copy(image[sign.at:], sign.text)

			if at, err := Content(t.Context(), blankSource(image), func(int64) {}); at != sign.at || err != nil {
				t.Errorf("Content() = %d, %v, want %d", at, err, sign.at)
			}
		})
	}
}
