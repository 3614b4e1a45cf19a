//go:build purego || !amd64

package kernel

func unitNow() unit { return false }

func splitRowsUnit(_, _, _ int, _ []float32, _ int, _ []uint16, _ int) { panic(NoKernels) }

func splitPairsUnit(_, _ int, _ []float32, _ int, _ []uint16) bool { panic(NoKernels) }

func turnSplitUnit(_, _ []uint16) { panic(NoKernels) }

func addSplitUnit(_, _, _, _ int, _ []uint16, _ int, _ []uint16, _ int, _ []float32, _ int, _ bool) {
	panic(NoKernels)
}
