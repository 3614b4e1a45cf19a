package merge

import (
	"math"

	"github.com/subquad/subquad/internal/check"
)

// maxLayers bounds the layers of a schedule.
const maxLayers = 1 << 20

// Schedule returns how many tokens to merge away in each layer, r on the average: rising in a line from r (1-inflect) to r (1+inflect), rounded toward zero. An
// inflect of 0 is the same number everywhere, -1 merges most in the first layer and
// nothing in the last (ToMe's parse_r). A single layer has r. Errors match ErrConfig.
func Schedule(layers, r int, inflect float64) ([]int, error) {
	switch {
	case layers < 0 || layers > maxLayers:
		return nil, check.Errorf(ErrConfig, "merge: a schedule of %d layers, want 0 to %d", layers, maxLayers)
	case r < 0 || r > maxTokens:
		return nil, check.Errorf(ErrConfig, "merge: a schedule of r = %d, want 0 to %d", r, maxTokens)
	case !(inflect >= -1 && inflect <= 1):
		return nil, check.Errorf(ErrConfig, "merge: inflect is %v, want -1 to 1", inflect)
	}
	list := make([]int, layers)
	if layers == 1 {
		list[0] = r
		return list, nil
	}
	first := math.Trunc(float64(r) * (1 - inflect))
	step := 2 * (float64(r) - first) / float64(layers-1)
	for i := range list {
		list[i] = int(first + float64(step*float64(i)))
	}
	return list, nil
}

// ScheduleRatio returns how many tokens to merge away in each layer, for a sequence
// of n, when every layer merges that part of its tokens, rounded down. Errors match ErrConfig.
func ScheduleRatio(layers, n int, ratio float64) ([]int, error) {
	if layers < 0 || layers > maxLayers || n < 0 || n > maxTokens || !(ratio >= 0 && ratio <= 1) {
		return nil, check.Errorf(ErrConfig, "merge: a schedule of %d layers, %d tokens and ratio %v, want 0 to %d, 0 to %d and a ratio of 0 to 1", layers, n, ratio, maxLayers, maxTokens)
	}
	list := make([]int, layers)
	for i := range list {
		list[i] = int(ratio * float64(n))
		n -= list[i]
	}
	return list, nil
}
