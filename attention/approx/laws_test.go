package approx

import (
	"context"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// lengths cross blocks and pieces.
func lengths() []int {
	if testing.Short() {
		return []int{0, 1, 7, 70, 300}
	}
	return []int{0, 1, 2, 6, 7, 8, 63, 64, 65, 255, 257, 1100, 2500}
}

func shapes() []shape {
	return []shape{{4, 2, 9, 11}, {1, 1, 1, 1}, {3, 3, 16, 40}}
}

// TestOracle compares with the formulas in float64, without and with weights and
// padding.
func TestOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for i, sh := range shapes() {
			for _, op := range operators(t, sh, 0) {
				for _, n := range lengths() {
					if n > 1100 && op.squares() || n > 300 && i > 0 || n == 300 && i > 0 && testing.Short() {
						continue
					}
					for _, variant := range []string{"plain", "weighted", "each head weighted", "padded", "both"} {
						if variant != "plain" && variant != "both" && (i > 0 || testing.Short() && n == 300) {
							continue
						}
						c := randomCall(uint64(n), op.shape, n, n)
						op.dress(c, variant)
						if err := op.run.Run(context.Background(), c.call()); err != nil {
							t.Fatal(err)
						}
						want := op.oracle(c, op.shape)
						for j := range want {
							if c.Valid != nil && !c.Valid[j] && op.self {
								want[j] = nil // of no use
							}
						}
						near(t, fmt.Sprintf("%s %v of %d, %s", op.name, sh, n, variant), c.Dst, want, 1e-4)
					}
				}
			}
		}
	})
}

// dress gives a call weights, or padding with NaN in it.
func dress(c *request, sh shape, variant string) {
	n := c.K.Rows
	switch variant {
	case "weighted", "both":
		c.LogWeights = normal(5, n, 1)
	case "each head weighted":
		c.LogWeights = normal(5, n, sh.kvHeads)
		if n > 3 {
			c.LogWeights.Data[2*sh.kvHeads] = negInf
		}
	}
	if variant == "padded" || variant == "both" {
		c.Valid = make([]bool, n)
		for j := range c.Valid {
			c.Valid[j] = j%3 != 1 && j/4%5 != 2
			if !c.Valid[j] {
				mat.Row(c.K, j)[0], mat.Row(c.V, j)[0] = float32(math.NaN()), float32(math.Inf(1))
			}
		}
	}
}

// TestCross attends from other tokens.
func TestCross(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shapes()[0]
		for _, op := range operators(t, sh, 0) {
			for _, keys := range []int{0, 5, 300} {
				c := randomCall(1, op.shape, 40, keys)
				err := op.run.Run(context.Background(), c.call())
				if op.self {
					if err == nil {
						t.Fatalf("%s takes 40 queries and %d keys", op.name, keys)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				near(t, op.name, c.Dst, op.oracle(c, op.shape), 1e-4)
			}
		}
	})
}

// TestPacked: a packed batch, with empty sequences, gives the bits of each sequence
// alone.
func TestPacked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		list := []int{0, 0, 5, 75, 75, 76, 83, 90, 240}
		for _, op := range operators(t, shapes()[0], 3) {
			c := randomCall(1, op.shape, 240, 240)
			op.dress(c, "both")
			c.Offsets = list
			if err := op.run.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			for b := range len(list) - 1 {
				from, to := list[b], list[b+1]
				one := stepCall(c, from, to, nil)
				one.Dst = mat.New(to-from, c.Dst.Cols)
				if err := op.run.Run(context.Background(), one.call()); err != nil {
					t.Fatal(err)
				}
				sameBits(t, fmt.Sprintf("%s, sequence %d", op.name, b), mat.Rows(c.Dst, from, to), one.Dst)
			}
		}
	})
}

// TestWorkers: any number of workers, of the Config or of the call, gives the same bits.
func TestWorkers(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		n, sh := 3000, shape{6, 3, 48, 64}
		if testing.Short() {
			n, sh = 1100, shape{4, 2, 20, 24}
		}
		one, many := operators(t, sh, 1), operators(t, sh, 5)
		for i, op := range one {
			c := randomCall(1, op.shape, n, n)
			op.dress(c, "padded")
			if err := op.run.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			want := c.Dst
			for _, own := range []int{0, 2} {
				if testing.Short() && own != i%2*2 {
					continue
				}
				c.Dst, c.Workers = mat.New(n, want.Cols), own
				if err := many[i].run.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				sameBits(t, op.name, c.Dst, want)
			}
		}
	})
}

// TestSizes: a token of size s counts as s equal ones, the law of merged tokens.
func TestSizes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, size = 70, 3
		for _, op := range operators(t, shapes()[0], 0) {
			if f := featuredOf(op.run); f != nil && f.causal {
				continue // the copies see one another
			}
			if !op.weighs() {
				continue
			}
			if op.name == "nystrom" { // the convolution is of rows
				cfg := op.run.(*Nystrom).cfg
				cfg.Conv = blas32.General{}
				op.run = value[*Nystrom](t)(NewNystrom(cfg))
			}
			few := randomCall(1, op.shape, n, n)
			few.LogWeights = mat.New(n, 1)
			for j := range n {
				few.LogWeights.Data[j] = float32(math.Log(size))
			}
			if err := op.run.Run(context.Background(), few.call()); err != nil {
				t.Fatal(err)
			}
			many := randomCall(1, op.shape, n*size, n*size)
			for j := range n * size {
				copy(mat.Row(many.Q, j), mat.Row(few.Q, j/size))
				copy(mat.Row(many.K, j), mat.Row(few.K, j/size))
				copy(mat.Row(many.V, j), mat.Row(few.V, j/size))
			}
			if m, ok := op.run.(*MRA2); ok { // so that blocks are of the same tokens
				cfg := m.cfg
				cfg.Block *= size
				op.run = &MRA2{cfg: cfg, shape: m.shape, tile: m.tile}
			}
			if err := op.run.Run(context.Background(), many.call()); err != nil {
				t.Fatal(err)
			}
			want := make([][]float64, n)
			for i := range want {
				for _, x := range mat.Row(many.Dst, i*size) {
					want[i] = append(want[i], float64(x))
				}
			}
			near(t, op.name, few.Dst, want, 2e-4)
		}
	})
}

// TestPermutation: the order of keys does not matter to what sums them up.
func TestPermutation(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 500
		for _, op := range operators(t, shapes()[0], 0) {
			if op.name != "linear" && op.name != "efficient" {
				continue
			}
			c := randomCall(1, op.shape, 30, n)
			d := randomCall(1, op.shape, 30, n)
			for j := range n {
				copy(mat.Row(d.K, (j*7+3)%n), mat.Row(c.K, j))
				copy(mat.Row(d.V, (j*7+3)%n), mat.Row(c.V, j))
			}
			for _, call := range []*request{c, d} {
				if err := op.run.Run(context.Background(), call.call()); err != nil {
					t.Fatal(err)
				}
			}
			want := make([][]float64, 30)
			for i := range want {
				for _, x := range mat.Row(c.Dst, i) {
					want[i] = append(want[i], float64(x))
				}
			}
			near(t, op.name, d.Dst, want, 1e-5)
		}
	})
}

// TestHuge: keys and queries in the hundreds give finite results.
func TestHuge(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, op := range operators(t, shapes()[0], 0) {
			c := randomCall(1, op.shape, 300, 300)
			for _, m := range []blas32.General{c.Q, c.K} {
				for i := range m.Rows {
					for j := range mat.Row(m, i) {
						mat.Row(m, i)[j] *= 300
					}
				}
			}
			if err := op.run.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			for i := range c.Dst.Rows {
				for _, x := range mat.Row(c.Dst, i) {
					if !finite(x) {
						t.Fatalf("%s: row %d is %v", op.name, i, mat.Row(c.Dst, i))
					}
				}
			}
		}
	})
}

// TestNobody: sequences of nothing but padding give 0.
func TestNobody(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, op := range operators(t, shapes()[0], 0) {
			if op.name == "xca" {
				continue // a token's own values are what comes out
			}
			for _, n := range []int{1, 7, 8, 300} {
				c := randomCall(1, op.shape, n, n)
				c.Valid = make([]bool, n)
				if err := op.run.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					for _, x := range mat.Row(c.Dst, i) {
						if x != 0 {
							t.Fatalf("%s of %d: row %d is %v", op.name, n, i, mat.Row(c.Dst, i))
						}
					}
				}
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	for _, workers := range []int{1, 4} {
		for _, op := range operators(t, shape{4, 2, 16, 18}, workers) {
			for _, variant := range []string{"plain", "both"} {
				c := randomCall(1, op.shape, 600, 600)
				op.dress(c, variant)
				call := c.call()
				got := isatest.Allocations(func() {
					if err := op.run.Run(context.Background(), call); err != nil {
						t.Fatal(err)
					}
				})
				if got != 0 {
					t.Errorf("%s, %s, %d workers: %v allocations", op.name, variant, workers, got)
				}
			}
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	part := math.MaxInt // after which share of the questions the next end is
	if testing.Short() {
		part = 3
	}
	for _, op := range operators(t, shapes()[0], 0) {
		c := randomCall(1, op.shape, 300, 300)
		if err := op.run.Run(ctx, c.call()); err != context.Canceled {
			t.Errorf("%s: error %v", op.name, err)
		}
		c.Workers = 1
		for asked := 0; ; asked += 1 + asked/part {
			err := op.run.Run(&statetest.Ending{Context: context.Background(), Left: asked}, c.call())
			if err == nil {
				break
			}
			if err != context.Canceled {
				t.Fatalf("%s: error %v of a context that is done after %d questions", op.name, err, asked)
			}
		}
	}
}
