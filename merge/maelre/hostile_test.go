package maelre

import (
	"bytes"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestHostileCheckpoints opens checkpoints that another program has changed.
func TestHostileCheckpoints(t *testing.T) {
	weightstest.Mutate(t, stored(weightsFor(6, 5, 2, 3), 6), "", func(file, _ []byte) (func() error, error) {
		m, err := Read(bytes.NewReader(file), int64(len(file)), Config{Heads: 3, Ratios: []float64{.5}, Workers: 1})
		if err != nil {
			return nil, err
		}
		cols := m.Classes()
		if cols == 0 {
			cols = m.Dim()
		}
		return func() error { return m.Forward(mat.New(1, cols), input(1, 9, m.Dim())) }, nil
	})
}
