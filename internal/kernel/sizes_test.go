package kernel

import (
	"testing"

	"github.com/subquad/subquad/internal/isa"
)

// TestSizes checks that every tier has its sizes, whatever this machine can run.
func TestSizes(t *testing.T) {
	for tier := isa.Generic; int(tier) < len(sizesOf); tier++ {
		s := sizesOf[tier]
		if s.lanes < 1 || s.tileRows < 4 || s.tileRows > maxTileRows || s.panelCols < 1 || s.panelCols > maxPanelCols || s.panelCols%s.lanes != 0 {
			t.Errorf("%v: %+v", tier, s)
		}
		if ScanBlock%s.lanes != 0 || s.scanStates < 1 || s.decodeRows < 1 || s.decodeCols < 1 || tier != isa.Generic && s.decodeCols%decodeUnit != 0 {
			t.Errorf("%v: %+v", tier, s)
		}
	}
	for _, tier := range isa.Available() {
		if int(tier) >= len(sizesOf) {
			t.Errorf("%v has no sizes", tier)
		}
	}
}
