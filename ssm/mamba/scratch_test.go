package mamba

import (
	"runtime"
	"testing"
)

// TestScratchBytes compares what a model's first call leaves in memory with what was
// said before: blocks share it.
func TestScratchBytes(t *testing.T) {
	for _, n := range []int{1, 100, 1500} {
		for name, m := range models(t) {
			ids, dst, likelihood := tokens(1, n), zeros(n, vocab), make([]float32, n-1)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: dst, LogLikelihood: likelihood}))
			runtime.GC()
			runtime.ReadMemStats(&after)
			if held, said := int64(after.HeapAlloc)-int64(before.HeapAlloc), m.ScratchBytes(n); held > said {
				t.Errorf("%s: %d tokens hold %d bytes, said %d", name, n, held, said)
			}
			if thousand, million := m.ScratchBytes(1<<10), m.ScratchBytes(1<<20); million != thousand {
				t.Errorf("%s: a million tokens hold %d bytes, a thousand %d", name, million, thousand)
			}
		}
	}
}
