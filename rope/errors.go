package rope

import (
	"math"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// The sentinels of this package are those of the whole module: see package subquad.
var (
	// ErrConfig is matched by errors about a Config, a scheme, a bias or a config.json.
	ErrConfig = subquad.ErrConfig
	// ErrShape is matched by errors about the size of a matrix or slice.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about a call: a nil one, options that contradict
	// each other, numbers of workers, and positions that cannot be used.
	ErrCall = subquad.ErrCall
	// ErrPosition is ErrCall, under the name it had for positions.
	ErrPosition = ErrCall
)

func configErrorf(format string, args ...any) error {
	return check.Errorf(ErrConfig, "rope: "+format, args...)
}

func callErrorf(format string, args ...any) error {
	return check.Errorf(ErrCall, "rope: "+format, args...)
}

// maxWidth is more features than any head has: neither a Config nor a file can make
// the package take memory without a bound.
const maxWidth = 1 << 16

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// positive returns an error unless v is a number above 0.
func positive(field string, v float64) error {
	if !(v > 0) || math.IsInf(v, 0) {
		return configErrorf("%s is %v, want a number above 0", field, v)
	}
	return nil
}

// notNegative returns an error unless v is a number from 0 on.
func notNegative(field string, v float64) error {
	if !(v >= 0) || math.IsInf(v, 0) {
		return configErrorf("%s is %v, want a number from 0 on", field, v)
	}
	return nil
}

// orOne returns what v points to, or 1.
func orOne(v *float64) float64 {
	if v == nil {
		return 1
	}
	return *v
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// or returns v, or def where v is 0.
func or[T int | int64 | float64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
