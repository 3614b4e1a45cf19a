package kernel

import (
	"github.com/subquad/subquad/internal/isa"
)

// Prefetch asks for the memory of x, so that it comes while other work is done. It
// changes nothing, and does nothing where a tier has no means for it.
func Prefetch(x []float32) {
	const most = 1024 // lines to a kernel call
	tier := isa.Active()
	if tier == isa.Generic {
		return
	}
	for len(x) > 0 {
		n := min(len(x), prefetchLine*most)
		prefetchSIMD(tier, &x[0], (n+prefetchLine-1)/prefetchLine)
		x = x[n:]
	}
}
