package parity

import "golang.org/x/sys/cpu"

// The widest instructions that the processor has decide which kernels are used.
// They are variables so that tests try all that it has.
var (
	hasAVX2 = cpu.X86.HasAVX2
	hasGFNI = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512GFNI
)

// How many bytes a kernel does at a time.
const (
	pieceXOR  = 256
	pieceAVX2 = 128 // for both parities: there are no more registers
	pieceGFNI = 256
)

// xorFast sets dst to the XOR of srcs up to the length that it returns.
func xorFast(dst []byte, srcs [][]byte) int {
	done := len(dst) &^ (pieceXOR - 1)

	switch {
	case done == 0 || !hasAVX2:
		return 0
	case hasGFNI:
		xorAVX512(dst, srcs, done)
	default:
		xorAVX2(dst, srcs, done)
	}

	return done
}

// pqFast sets p and q to the parities of data up to the length that it returns.
func pqFast(p, q []byte, data [][]byte) int {
	switch {
	case hasGFNI && len(p) >= pieceGFNI:
		done := len(p) &^ (pieceGFNI - 1)
		pqGFNI(p, q, data, done)

		return done
	case hasAVX2 && len(p) >= pieceAVX2:
		done := len(p) &^ (pieceAVX2 - 1)
		pqAVX2(p, q, data, done)

		return done
	default:
		return 0
	}
}

//go:noescape
func xorAVX2(dst []byte, srcs [][]byte, size int)

//go:noescape
func xorAVX512(dst []byte, srcs [][]byte, size int)

//go:noescape
func pqAVX2(p, q []byte, data [][]byte, size int)

//go:noescape
func pqGFNI(p, q []byte, data [][]byte, size int)
