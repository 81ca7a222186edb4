//go:build isal

package main

// #cgo LDFLAGS: -lisal
// #include <isa-l/raid.h>
// #include <stdlib.h>
import "C"

import "unsafe"

// isalXOR returns a call of ISA-L that sets p to the XOR of data.
func isalXOR(p []byte, data [][]byte) func() {
	vectors := pointers(append(append([][]byte{}, data...), p))

	return func() { C.xor_gen(C.int(len(data)+1), C.int(len(p)), vectors) }
}

// isalPQ returns a call of ISA-L that sets p and q to the parities of data.
func isalPQ(p, q []byte, data [][]byte) func() {
	vectors := pointers(append(append([][]byte{}, data...), p, q))

	return func() { C.pq_gen(C.int(len(data)+2), C.int(len(p)), vectors) }
}

// pointers returns what C takes for blocks that are not in Go's heap.
func pointers(blocks [][]byte) *unsafe.Pointer {
	array := (*unsafe.Pointer)(C.malloc(C.size_t(len(blocks)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	entries := unsafe.Slice(array, len(blocks))

	for i, block := range blocks {
		entries[i] = unsafe.Pointer(&block[0])
	}

	return array
}
