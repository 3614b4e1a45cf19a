package hyena

import (
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// Scratch is working memory, kept between calls, that operators may share: those
// of a model's layers, for instance, which run one after the other. The zero value is
// ready, and safe for concurrent use; it must not be copied.
type Scratch struct {
	convs     scratch.List[convRun]
	operators scratch.List[operatorRun]
	modals    scratch.List[modalRun]
	gated     scratch.List[gatedRun]
	h3s       scratch.List[h3Run]
	s4ds      scratch.List[s4dRun]
}

// mostTokens bounds the tokens that sizes are computed for: more than a machine
// can address, few enough that no size overflows.
const mostTokens = math.MaxInt / 64

// floatBytes returns the bytes of a float32 array of these dimensions, the largest
// int64 where they are more than it can count.
func floatBytes(dims ...int) int64 {
	n := check.Product(math.MaxInt64/4, dims...)
	if n < 0 {
		return math.MaxInt64
	}
	return 4 * n
}

// sumBytes adds sizes, none of them negative, with the largest int64 as the limit.
func sumBytes(sizes ...int64) (sum int64) {
	for _, n := range sizes {
		if sum += n; sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}

// chooseWorkers returns how many goroutines a call uses.
func chooseWorkers(config, call int) (int, error) {
	if err := check.Workers(ErrCall, pkg, call); err != nil {
		return 0, err
	}
	return parallel.Choose(config, call), nil
}
