package sparse

import (
	"testing"

	"github.com/subquad/subquad/internal/golden"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/sparse", map[string]func(*testing.T, *golden.File){
		"attention.moba": goldenMoBA,
		"attention.nsa":  goldenNSA,
	})
}
