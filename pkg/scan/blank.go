package scan

import (
	"bytes"
	"context"
	"fmt"

	"raid-assembler/pkg/metadata"
)

const (
	// blankPiece is how much is read at a time.
	blankPiece = 1 << 20
	// samples are the places that are looked at first, sampleBytes at each: what is
	// full is known as such at once.
	samples     = 256
	sampleBytes = 64 << 10
)

// nothing is what a blank device holds.
var nothing [blankPiece]byte

// Sample looks at the start and the end of a device, and at places in between.
// Returns the offset of a byte that is not zero, or -1 if it saw none.
func Sample(ctx context.Context, src metadata.Source) (int64, error) {
	buf := make([]byte, sampleBytes)
	last := max(0, src.Size.Bytes()-sampleBytes)

	for i := range int64(samples) {
		// In whole blocks, however large a device's are.
		at := last / (samples - 1) * i &^ 4095
		if i == samples-1 {
			at = last
		}

		if found, err := content(ctx, src, buf, at); found >= 0 || err != nil {
			return found, err
		}
	}

	return -1, nil
}

// Content reads all of a device, some places first. Returns the offset of a byte
// that is not zero, or -1 if all are. Progress is told how far it has come.
//
// Returns an error if it was not all read: what cannot be read is not known to be
// zero.
func Content(ctx context.Context, src metadata.Source, progress func(done int64)) (int64, error) {
	if found, err := Sample(ctx, src); found >= 0 || err != nil {
		return found, err
	}

	buf := make([]byte, blankPiece)

	for at := int64(0); at < src.Size.Bytes(); at += blankPiece {
		if found, err := content(ctx, src, buf, at); found >= 0 || err != nil {
			return found, err
		}

		progress(min(at+blankPiece, src.Size.Bytes()))
	}

	return -1, nil
}

// content reads as much as fits into buf, or there is.
func content(ctx context.Context, src metadata.Source, buf []byte, at int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}

	buf = buf[:min(int64(len(buf)), src.Size.Bytes()-at)]
	if n, err := src.ReadAt(buf, at); n < len(buf) {
		return -1, fmt.Errorf("read %d bytes at %d: %w", len(buf), at, err)
	}

	if bytes.Equal(buf, nothing[:len(buf)]) {
		return -1, nil
	}

	return at + int64(bytes.IndexFunc(buf, func(r rune) bool { return r != 0 })), nil
}
