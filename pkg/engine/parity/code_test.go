package parity

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// slowProduct is the second opinion: it multiplies bit by bit.
func slowProduct(a, b byte) byte {
	product := byte(0)

	for bit := range 8 {
		if b>>bit&1 == 1 {
			shifted := uint(a) << bit
			for high := 14; high >= 8; high-- {
				if shifted>>high&1 == 1 {
					shifted ^= 0x11d << (high - 8)
				}
			}

			product ^= byte(shifted)
		}
	}

	return product
}

// slowProducts holds what slowProduct says of every two bytes.
var slowProducts = func() (table [256][256]byte) {
	for a := range table {
		for b := range table {
			table[a][b] = slowProduct(byte(a), byte(b))
		}
	}

	return table
}()

// slowPQ sums byte by byte.
func slowPQ(size int, data [][]byte) (p, q []byte) {
	p, q = make([]byte, size), make([]byte, size)
	power := byte(1)

	for _, d := range data {
		for i, v := range d {
			p[i] ^= v
			q[i] ^= slowProducts[power][v]
		}

		power = slowProduct(power, 2)
	}

	return p, q
}

// noise returns size bytes that seed determines.
func noise(seed uint64, size int) []byte {
	block := make([]byte, size)

	for i := range block {
		seed = seed*6364136223846793005 + 1442695040888963407
		block[i] = byte(seed >> 56)
	}

	return block
}

// kernels runs f with each set of kernels that this processor has.
func kernels(t *testing.T, f func(t *testing.T)) {
	t.Helper()

	had := [...]bool{hasGFNI, hasAVX2}

	for _, k := range []struct {
		name       string
		gfni, avx2 bool
	}{{"GFNI", true, true}, {"AVX2", false, true}, {"portable", false, false}} {
		if k.gfni && !had[0] || k.avx2 && !had[1] {
			t.Logf("the processor has no %s", k.name)

			continue
		}

		hasGFNI, hasAVX2 = k.gfni, k.avx2
		t.Run(k.name, f)
	}

	hasGFNI, hasAVX2 = had[0], had[1]
}

// row returns chunks of noise by exponent, and right parities.
func row(seed uint64, exponents, size int, gap func(e int) bool) (data [][]byte, p, q []byte) {
	data = make([][]byte, exponents)

	for e := range data {
		if !gap(e) {
			data[e] = noise(seed+uint64(e)<<32, size)
		}
	}

	p, q = slowPQ(size, data)

	return data, p, q
}

func noGap(int) bool { return false }

// TestEveryNumber: for every number of chunks that anyone has, the parities are
// those of the slow way, and every two chunks that are lost come back, as does
// each chunk by Q.
func TestEveryNumber(t *testing.T) {
	kernels(t, func(t *testing.T) {
		for _, exponents := range []int{
			1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
			17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 253, 255,
		} {
			const size = 512 + 3
			c := NewCode(exponents)
			data, wantP, wantQ := row(uint64(exponents), exponents, size, noGap)
			p, q := noise(1, size), noise(2, size)
			c.PQ(p, q, data)

			if !bytes.Equal(p, wantP) || !bytes.Equal(q, wantQ) {
				t.Fatalf("PQ of %d chunks is wrong", exponents)
			}

			step := 1 + exponents/40 // of 255, a few hundred pairs

			for x := 0; x < exponents; x += step {
				lost := data[x]
				data[x] = noise(3, size)
				c.RecoverQ(data, q, x)

				if !bytes.Equal(data[x], lost) {
					t.Fatalf("RecoverQ of chunk %d of %d is wrong", x, exponents)
				}

				for y := 0; y < exponents; y += step {
					if x == y {
						continue
					}

					lostX, lostY := data[x], data[y]
					data[x], data[y] = noise(3, size), noise(4, size)
					c.RecoverTwo(data, p, q, x, y)

					if !bytes.Equal(data[x], lostX) || !bytes.Equal(data[y], lostY) {
						t.Fatalf("RecoverTwo of chunks %d and %d of %d is wrong", x, y, exponents)
					}
				}
			}
		}
	})
}

// TestEverySize: what the kernels do at a time never shows, in length or in
// alignment.
func TestEverySize(t *testing.T) {
	sizes := []int{512, 4096, 12288, 65536, 98304, 262144}
	for size := range 520 {
		sizes = append(sizes, size)
	}

	kernels(t, func(t *testing.T) {
		c := NewCode(5)

		for i, size := range sizes {
			data, wantP, wantQ := row(uint64(size), 5, size+i%64, func(e int) bool { return e == i%7 })
			for e := range data {
				if data[e] != nil {
					data[e] = data[e][i%64:]
				}
			}

			wantP, wantQ = wantP[i%64:], wantQ[i%64:]

			for _, want := range []struct{ p, q bool }{{true, true}, {true, false}, {false, true}} {
				room := noise(7, 2*size+3)
				p, q := room[1:1+size:1+size], room[2+size:2+2*size:2+2*size]
				edges := [...]byte{room[0], room[1+size], room[2+2*size]}

				if !want.p {
					p = nil
				}

				if !want.q {
					q = nil
				}

				c.PQ(p, q, data)

				if p != nil && !bytes.Equal(p, wantP) || q != nil && !bytes.Equal(q, wantQ) {
					t.Fatalf("PQ of blocks of %d bytes is wrong (%+v)", size, want)
				}

				if edges != [...]byte{room[0], room[1+size], room[2+2*size]} {
					t.Fatalf("PQ of blocks of %d bytes wrote beyond them (%+v)", size, want)
				}
			}
		}
	})
}

// TestXOREverySize: the same for XOR and Check, and more sources than Check
// takes at a time.
func TestXOREverySize(t *testing.T) {
	kernels(t, func(t *testing.T) {
		for size := 1; size < 9000; size += 1 + size/7 {
			for _, n := range []int{1, 2, 3, 8, 9, 17, 33} {
				data, want, _ := row(uint64(size), n, size, noGap)
				room := noise(7, size+2)
				p, before, after := room[1:1+size:1+size], room[0], room[1+size]
				XOR(p, data...)

				if !bytes.Equal(p, want) {
					t.Fatalf("XOR of %d blocks of %d bytes is wrong", n, size)
				}

				if room[0] != before || room[1+size] != after {
					t.Fatalf("XOR of %d blocks of %d bytes wrote beyond them", n, size)
				}

				if got := Check(p, data...); got != -1 {
					t.Fatalf("Check of %d right blocks of %d bytes = %d, want -1", n, size, got)
				}

				p[size-1]++

				if got := Check(p, data...); got != size-1 {
					t.Fatalf("Check of %d blocks of %d bytes = %d, want %d", n, size, got, size-1)
				}
			}
		}
	})
}

// TestCode: any row, with any gaps: an update makes the parities that the new
// data has, lost chunks come back, a check says where a parity is wrong first,
// and one wrong block is found whichever it is.
func TestCode(t *testing.T) {
	kernels(t, func(t *testing.T) { rapid.Check(t, testCode) })
}

func testCode(t *rapid.T) {
	exponents := rapid.OneOf(rapid.IntRange(2, 32), rapid.SampledFrom([]int{253, 255})).Draw(t, "exponents")
	size := rapid.OneOf(rapid.IntRange(1, 700), rapid.SampledFrom([]int{4096, 4097, 12288})).Draw(t, "size")
	x := rapid.IntRange(0, exponents-1).Draw(t, "x")
	y := (x + rapid.IntRange(1, exponents-1).Draw(t, "y")) % exponents
	gaps := rapid.Uint64().Draw(t, "gaps")
	data, p, q := row(rapid.Uint64().Draw(t, "seed"), exponents, size, func(e int) bool {
		return e != x && e != y && gaps>>(e%64)&1 == 1
	})
	c := NewCode(exponents)

	// Nothing is wrong yet.
	if wrongP, wrongQ := c.CheckPQ(p, q, data); wrongP != -1 || wrongQ != -1 {
		t.Fatalf("CheckPQ of right parities = %d, %d, want -1, -1", wrongP, wrongQ)
	}

	if got := c.Locate(p, q, data); got != Nowhere {
		t.Fatalf("Locate = %d, want Nowhere", got)
	}

	// Part of x is written.
	lo := rapid.IntRange(0, size-1).Draw(t, "lo")
	hi := rapid.IntRange(lo+1, size).Draw(t, "hi")
	delta := noise(11, hi-lo)
	XORInto(data[x][lo:hi], delta)

	wantP, wantQ := slowPQ(size, data)
	onlyP, onlyQ := bytes.Clone(p), bytes.Clone(q)
	c.Update(p[lo:hi], q[lo:hi], x, delta)
	c.Update(onlyP[lo:hi], nil, x, delta)
	c.Update(nil, onlyQ[lo:hi], x, delta)

	for _, got := range [][2][]byte{{p, q}, {onlyP, onlyQ}} {
		if !bytes.Equal(got[0], wantP) || !bytes.Equal(got[1], wantQ) {
			t.Fatal("parities are wrong after Update")
		}
	}

	// x and y are lost.
	wantX, wantY := bytes.Clone(data[x]), bytes.Clone(data[y])
	data[x], data[y] = noise(12, size), noise(13, size)
	c.RecoverTwo(data, p, q, x, y)

	if !bytes.Equal(data[x], wantX) || !bytes.Equal(data[y], wantY) {
		t.Fatalf("RecoverTwo of chunks %d and %d of %d is wrong", x, y, exponents)
	}

	data[y] = noise(13, size)
	c.RecoverQ(data, q, y)

	if !bytes.Equal(data[y], wantY) {
		t.Fatalf("RecoverQ of chunk %d of %d is wrong", y, exponents)
	}

	testWrong(t, c, data, p, q, x)
}

// testWrong: one block is wrong, in a few bytes; then another one as well.
func testWrong(t *rapid.T, c *Code, data [][]byte, p, q []byte, x int) {
	first := rapid.IntRange(0, len(p)-1).Draw(t, "first")
	spoil := func(block []byte) {
		for i := first; i < len(block); i += 1 + i/3 {
			block[i] ^= byte(i)%255 + 1
		}
	}

	for _, wrong := range []struct {
		block        []byte
		want         int
		wantP, wantQ int
	}{{data[x], x, first, first}, {p, InP, first, -1}, {q, InQ, -1, first}} {
		before := bytes.Clone(wrong.block)
		spoil(wrong.block)

		if got := c.Locate(p, q, data); got != wrong.want {
			t.Fatalf("Locate = %d, want %d", got, wrong.want)
		}

		if wrongP, wrongQ := c.CheckPQ(p, q, data); wrongP != wrong.wantP || wrongQ != wrong.wantQ {
			t.Fatalf("CheckPQ = %d, %d, want %d, %d", wrongP, wrongQ, wrong.wantP, wrong.wantQ)
		}

		if wrongP, wrongQ := c.CheckPQ(nil, q, data); wrongP != -1 || wrongQ != wrong.wantQ {
			t.Fatalf("CheckPQ without P = %d, %d, want -1, %d", wrongP, wrongQ, wrong.wantQ)
		}

		if wrongP, wrongQ := c.CheckPQ(p, nil, data); wrongP != wrong.wantP || wrongQ != -1 {
			t.Fatalf("CheckPQ without Q = %d, %d, want %d, -1", wrongP, wrongQ, wrong.wantP)
		}

		copy(wrong.block, before)
	}

	// Two bytes that blame different blocks.
	if first > 0 {
		p[0] ^= 1
		data[x][first] ^= 1

		if got := c.Locate(p, q, data); got != Unclear {
			t.Fatalf("Locate of two wrong blocks = %d, want Unclear", got)
		}
	}
}

// TestLocateNoBlock: what is wrong in both parities as if a chunk were wrong that
// is not there is no chunk's fault.
func TestLocateNoBlock(t *testing.T) {
	c := NewCode(6)

	data, p, q := row(1, 6, 512, func(e int) bool { return e == 3 })

	for e, want := range map[int]int{2: 2, 3: Unclear, 6: Unclear, 200: Unclear} {
		wrongP, wrongQ := bytes.Clone(p), bytes.Clone(q)
		wrongP[100] ^= 5
		wrongQ[100] ^= slowProduct(c.power[e], 5)

		if got := c.Locate(wrongP, wrongQ, data); got != want {
			t.Errorf("Locate of an error with exponent %d = %d, want %d", e, got, want)
		}
	}
}

// TestRightPolynomial: Q as Linux has it, calculated by hand.
func TestRightPolynomial(t *testing.T) {
	p, q := make([]byte, 1), make([]byte, 1)
	NewCode(3).PQ(p, q, [][]byte{{0x01}, {0x80}, {0x81}})

	// 1*0x01 + 2*0x80 + 4*0x81 = 0x01 + 0x1d + (0x3a + 0x04)
	if p[0] != 0x00 || q[0] != 0x22 {
		t.Errorf("P, Q = %#x, %#x, want 0x0, 0x22", p[0], q[0])
	}
}

// TestCodeAllocatesNothing: neither with many chunks nor with few.
func TestCodeAllocatesNothing(t *testing.T) {
	kernels(t, func(t *testing.T) {
		for _, exponents := range []int{2, 8, 30} {
			c := NewCode(exponents)
			data, p, q := row(1, exponents, 12288+100, noGap)
			delta := noise(2, 12288+100)

			if allocs := testing.AllocsPerRun(20, func() {
				c.PQ(p, q, data)
				c.PQ(p, nil, data)
				c.PQ(nil, q, data)
				c.RecoverTwo(data, p, q, 0, 1)
				c.RecoverQ(data, q, 1)
				c.CheckPQ(p, q, data)
				c.Locate(p, q, data)
				c.Update(p, q, 1, delta)
				XOR(p, data...)
				Check(p, data...)
			}); allocs != 0 {
				t.Errorf("%v allocations with %d chunks, want 0", allocs, exponents)
			}
		}
	})
}

// TestCodePanics: a caller's mistake must not become wrong parity.
func TestCodePanics(t *testing.T) {
	c := NewCode(3)
	a, b := make([]byte, 8), make([]byte, 9)

	for name, f := range map[string]func(){
		"no exponents":         func() { NewCode(0) },
		"too many exponents":   func() { NewCode(256) },
		"too few chunks":       func() { c.PQ(a, a, [][]byte{a, a}) },
		"a long chunk":         func() { c.PQ(a, a, [][]byte{a, a, b}) },
		"a long P":             func() { c.PQ(b, a, [][]byte{a, a, a}) },
		"a short Q":            func() { c.PQ(b, a, [][]byte{b, b, b}) },
		"no such exponent":     func() { c.Update(a, a, 3, a) },
		"a negative exponent":  func() { c.Update(a, a, -1, a) },
		"a long delta":         func() { c.Update(a, a, 1, b) },
		"a long delta for Q":   func() { c.Update(nil, a, 1, b) },
		"lost beyond the row":  func() { c.RecoverQ([][]byte{a, a, a}, a, 3) },
		"one lost twice":       func() { c.RecoverTwo([][]byte{a, a, a}, a, a, 1, 1) },
		"nowhere to put it":    func() { c.RecoverQ([][]byte{a, a, nil}, a, 2) },
		"nowhere for both":     func() { c.RecoverTwo([][]byte{a, nil, a}, a, a, 1, 2) },
		"recovery without Q":   func() { c.RecoverQ([][]byte{a, a, a}, nil, 2) },
		"recovery without P":   func() { c.RecoverTwo([][]byte{a, a, a}, nil, a, 0, 1) },
		"locating without one": func() { c.Locate(nil, a, [][]byte{a, a, a}) },
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

// FuzzCode: the fast and the slow way agree about bytes that a fuzzer makes.
func FuzzCode(f *testing.F) {
	f.Add([]byte("abcdefghi"), uint8(3), uint8(0), uint8(1))
	f.Add(bytes.Repeat([]byte("0123456789"), 700), uint8(4), uint8(2), uint8(7))

	f.Fuzz(func(t *testing.T, buf []byte, n, x, y uint8) {
		exponents := 2 + int(n)%29
		size := len(buf) / exponents
		data := make([][]byte, exponents)

		for e := range data {
			data[e] = bytes.Clone(buf[e*size : (e+1)*size])
		}

		c := NewCode(exponents)
		p, q := make([]byte, size), make([]byte, size)
		c.PQ(p, q, data)

		if wantP, wantQ := slowPQ(size, data); !bytes.Equal(p, wantP) || !bytes.Equal(q, wantQ) {
			t.Fatalf("PQ of %d chunks of %d bytes is wrong", exponents, size)
		}

		lostX, lostY := int(x)%exponents, int(y)%exponents
		if lostX == lostY {
			return
		}

		wantX, wantY := bytes.Clone(data[lostX]), bytes.Clone(data[lostY])

		clear(data[lostX])
		clear(data[lostY])
		c.RecoverTwo(data, p, q, lostX, lostY)

		if !bytes.Equal(data[lostX], wantX) || !bytes.Equal(data[lostY], wantY) {
			t.Fatalf("RecoverTwo of chunks %d and %d of %d is wrong", lostX, lostY, exponents)
		}
	})
}

func BenchmarkPQ(b *testing.B) {
	c := NewCode(8)
	data, p, q := row(1, 8, 64<<10, noGap)

	b.SetBytes(8 * 64 << 10)

	for b.Loop() {
		c.PQ(p, q, data)
	}
}
