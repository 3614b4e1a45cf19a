package kernel

import (
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestPrefetch asks for memory up to an end.
func TestPrefetch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		x := guarded(t, 40000, false)
		for _, n := range []int{0, 1, 16, 17, 40000} {
			Prefetch(x[len(x)-n:])
		}
		for _, cols := range []int{0, 1, 17, 40, 20000} {
			PrefetchRows(guardedMatrix(t, 1, 3, cols, false))
		}
	})
}
