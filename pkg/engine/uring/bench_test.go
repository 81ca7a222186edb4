package uring

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkNop is the cost of an operation that does nothing: ours and the kernel's, at several batch sizes.
func BenchmarkNop(b *testing.B) {
	for _, size := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r, err := New(Config{Entries: 64})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			batch := make([]CQE, 64)
			b.ReportAllocs()
			for done := 0; done < b.N; {
				for range size {
					r.SQE().PrepNop()
				}
				if err := r.SubmitAndWait(size); err != nil {
					b.Fatal(err)
				}
				done += r.Reap(batch)
			}
		})
	}
}
