package approx

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestLinformerKeys: no sequence has more keys than E has columns.
func TestLinformerKeys(t *testing.T) {
	l := value[*Linformer](t)(NewLinformer(LinformerConfig{Heads: 1, HeadDim: 2, E: mat.New(3, 4)}))
	c := randomCall(1, l.shape, 6, 9)
	c.Offsets, c.KOffsets = []int{0, 6, 6}, []int{0, 4, 9}
	const want = "approx: sequence 1 has 5 keys, want at most the columns of E = 4"
	if err := l.Run(context.Background(), c.call()); !errors.Is(err, ErrShape) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestLinformerWaves: sequences that are not held together have the same bits.
func TestLinformerWaves(t *testing.T) {
	const tokens, many = 3, 200
	l := value[*Linformer](t)(NewLinformer(LinformerConfig{Heads: 2, HeadDim: 64, E: normal(4, 2*512, tokens)}))
	c := randomCall(1, l.shape, tokens*many, tokens*many)
	c.Offsets = offsets(many, tokens)
	if err := l.Run(context.Background(), c.call()); err != nil {
		t.Fatal(err)
	}
	for _, b := range []int{0, 31, 32, 199} {
		one := stepCall(c, b*tokens, (b+1)*tokens, nil)
		one.Dst = mat.New(tokens, c.Dst.Cols)
		if err := l.Run(context.Background(), one.call()); err != nil {
			t.Fatal(err)
		}
		sameBits(t, fmt.Sprint("sequence ", b), mat.Rows(c.Dst, b*tokens, (b+1)*tokens), one.Dst)
	}
}
