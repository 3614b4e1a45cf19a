package kernel

import "github.com/subquad/subquad/internal/kernel/kerneltest"

var (
	inf, nan   = kerneltest.Inf, kerneltest.NaN
	random     = kerneltest.Random
	matrix     = kerneltest.Matrix
	blank      = kerneltest.Blank
	guarded    = kerneltest.Guarded
	gapsIntact = kerneltest.GapsIntact
	ulp        = kerneltest.ULP
	near       = kerneltest.Near
	sameBits   = kerneltest.SameBits
	dense      = kerneltest.Dense
	flush      = kerneltest.Flushed
	nearFlush  = kerneltest.NearFlush
	mustPanic  = kerneltest.MustPanic
)
