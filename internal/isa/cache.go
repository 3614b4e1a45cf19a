package isa

// secondCache is what a core's second cache is taken to hold, in bytes.
var secondCache = boundCache(detectSecondCache())

// SecondCache returns how many bytes a core's second cache holds: 1 MiB where that is not
// known, at least 256 KiB, and at most 2 MiB, since what is larger is shared by cores. Only
// sizes across outputs may follow it, none that a sum's order depends on.
func SecondCache() int { return secondCache }

func boundCache(bytes int) int {
	if bytes <= 0 {
		return 1 << 20
	}
	return min(max(bytes, 256<<10), 2<<20)
}
