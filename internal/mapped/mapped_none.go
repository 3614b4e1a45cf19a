//go:build !linux && !darwin

package mapped

import (
	"errors"
	"fmt"
	"runtime"
)

// backing is nothing here.
type backing struct{}

func createIn(string) (backing, error) {
	return backing{}, fmt.Errorf("mapped: a file as memory on %s, want linux or darwin: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (backing) extend(int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }
func (backing) unmap([][]byte) error              { return nil }
