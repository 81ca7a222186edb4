package parity

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// slowXOR is the second opinion: byte by byte.
func slowXOR(size int, srcs [][]byte) []byte {
	sum := make([]byte, size)
	for i := range sum {
		for _, src := range srcs {
			sum[i] ^= src[i]
		}
	}

	return sum
}

// split cuts buf into n blocks of one length, at least one.
func split(buf []byte, n uint8) [][]byte {
	count := max(1, int(n)%9)
	size := len(buf) / count

	blocks := make([][]byte, count)
	for i := range blocks {
		blocks[i] = buf[i*size : (i+1)*size : (i+1)*size]
	}

	return blocks
}

// FuzzXOR: the fast and the slow way agree, also in place, whichever source is
// the destination; the sources stay as they were; every block of a stripe can
// be made again from the others; and Check finds the first byte that is wrong.
func FuzzXOR(f *testing.F) {
	f.Add([]byte(""), uint8(1), uint16(0))
	f.Add([]byte("abcdefgh"), uint8(1), uint16(3))
	f.Add([]byte("abcdefghi"), uint8(3), uint16(1))
	f.Add(bytes.Repeat([]byte("0123456789"), 700), uint8(4), uint16(999))

	f.Fuzz(func(t *testing.T, buf []byte, n uint8, at uint16) {
		data := split(buf, n)
		want := slowXOR(len(data[0]), data)
		before := bytes.Clone(buf)

		p := bytes.Repeat([]byte{0xa5}, len(want))
		XOR(p, data...)

		if !bytes.Equal(p, want) {
			t.Fatalf("XOR of %d blocks = %x, want %x", len(data), p, want)
		}

		if !bytes.Equal(buf, before) {
			t.Fatal("XOR changed a source")
		}

		for i := range data {
			inPlace := split(bytes.Clone(buf), n)
			XOR(inPlace[i], inPlace...)

			if !bytes.Equal(inPlace[i], want) {
				t.Fatalf("XOR into source %d of %d = %x, want %x", i, len(data), inPlace[i], want)
			}

			others := append([][]byte{p}, data[:i]...)
			others = append(others, data[i+1:]...)
			again := make([]byte, len(p))
			XOR(again, others...)

			if !bytes.Equal(again, data[i]) {
				t.Fatalf("block %d made from the others = %x, want %x", i, again, data[i])
			}
		}

		if got := Check(p, data...); got != -1 {
			t.Fatalf("Check of right parity = %d, want -1", got)
		}

		if len(p) > 0 {
			wrong := int(at) % len(p)
			for i := wrong; i < len(p); i += 5 {
				p[i] ^= 0x10
			}

			if got := Check(p, data...); got != wrong {
				t.Fatalf("Check = %d, want %d", got, wrong)
			}
		}
	})
}

// TestXORInto: a read-modify-write takes the old data out of the parity and
// puts the new in.
func TestXORInto(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	blocks := make([][]byte, 5)

	for i := range blocks {
		blocks[i] = make([]byte, 4096+3)
		_, _ = random.Read(blocks[i]) // never fails
	}

	data, changed := blocks[:4], blocks[4]
	p := make([]byte, len(changed))
	XOR(p, data...)
	XORInto(p, data[2])
	XORInto(p, changed)

	data[2] = changed
	if got := Check(p, data...); got != -1 {
		t.Errorf("Check after the update = %d, want -1", got)
	}

	XORInto(p, p)

	if !bytes.Equal(p, make([]byte, len(p))) {
		t.Error("XORInto of itself is not zero")
	}
}

// TestMismatchPanics: blocks of different length are a fault of ours, and a sum
// of only a part of them would pass for parity.
func TestMismatchPanics(t *testing.T) {
	a, b := make([]byte, 8), make([]byte, 9)

	for name, f := range map[string]func(){
		"XOR of a short source":   func() { XOR(b, b, a) },
		"XOR of a long source":    func() { XOR(a, a, b) },
		"XOR of nothing":          func() { XOR(a) },
		"XORInto":                 func() { XORInto(a, b) },
		"Check":                   func() { Check(a, b) },
		"Check against no blocks": func() { Check(a) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// TestNothingAllocates: they are called for every stripe, from threads that
// must not wait for memory.
func TestNothingAllocates(t *testing.T) {
	srcs := [][]byte{make([]byte, 4096), make([]byte, 4096), make([]byte, 4096)}
	p := make([]byte, 4096)

	allocs := testing.AllocsPerRun(100, func() {
		XOR(p, srcs...)
		XORInto(p, srcs[0])
		XORInto(p, srcs[0])

		if Check(p, srcs...) != -1 {
			t.Error("parity is wrong")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func BenchmarkXOR(b *testing.B) {
	srcs := make([][]byte, 3)
	for i := range srcs {
		srcs[i] = make([]byte, 64<<10)
	}

	p := make([]byte, 64<<10)

	b.SetBytes(int64(len(srcs) * len(p)))

	for b.Loop() {
		XOR(p, srcs...)
	}
}

func BenchmarkCheck(b *testing.B) {
	srcs := make([][]byte, 3)
	for i := range srcs {
		srcs[i] = make([]byte, 64<<10)
	}

	p := make([]byte, 64<<10)

	b.SetBytes(int64(len(srcs) * len(p)))

	for b.Loop() {
		if Check(p, srcs...) != -1 {
			b.Fatal("parity is wrong")
		}
	}
}
