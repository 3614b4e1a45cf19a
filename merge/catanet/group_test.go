package catanet

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// softmax64 adds attention of one query to keys to out.
func softmax64(out []float64, q []float32, keys, values [][]float32, scale float64) {
	sum, mean := 0.0, make([]float64, len(out))
	for j, k := range keys {
		dot := 0.0
		for d, v := range q {
			dot += float64(v) * float64(k[d])
		}
		w := math.Exp(dot * scale)
		sum += w
		for c, v := range values[j] {
			mean[c] += w * float64(v)
		}
	}
	for c, v := range mean {
		out[c] += v / sum
	}
}

// TestGroupAttention compares with float64, also where the published code fails: keys
// that run out more than once before the groups do.
func TestGroupAttention(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const heads, dim, width = 2, 3, 4
		for _, size := range []int{1, 3, 8, 50} {
			for _, n := range []int{0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 16, 17, 40} {
				for _, centers := range []int{0, 1, 5} {
					q, k, v := random(1, n, heads*dim), random(2, n, heads*dim), random(3, n, heads*width)
					ck, cv := random(4, centers, heads*dim), random(5, centers, heads*width)
					bucket := make([]int32, n)
					for i := range bucket {
						bucket[i] = int32(i*7%5) << (n % 2 * 28) // few buckets, or many
					}
					op, err := NewGroupAttention(GroupConfig{Heads: heads, HeadDim: dim, ValueDim: width, GroupSize: size})
					must(t, err)
					got := mat.New(n, heads*width)
					must(t, op.Run(context.Background(), &GroupCall{Dst: got, Q: q, K: k, V: v, Bucket: bucket, CenterK: ck, CenterV: cv}))
					order := make([]int, n)
					for i := range order {
						order[i] = i
					}
					slices.SortStableFunc(order, func(a, b int) int { return int(bucket[a] - bucket[b]) })
					side := min(size, n)
					for place, token := range order {
						for h := range heads {
							head := func(m blas32.General, t, w int) []float32 { return mat.Row(m, t)[h*w:][:w] }
							var keys, values [][]float32
							for at := place / side * side; at < place/side*side+2*side; at++ {
								mirror := at % (2 * n)
								if mirror >= n {
									mirror = 2*n - 1 - mirror
								}
								keys, values = append(keys, head(k, order[mirror], dim)), append(values, head(v, order[mirror], width))
							}
							want := make([]float64, width)
							softmax64(want, head(q, token, dim), keys, values, 1/math.Sqrt(dim))
							if centers > 0 {
								keys, values = nil, nil
								for j := range centers {
									keys, values = append(keys, head(ck, j, dim)), append(values, head(cv, j, width))
								}
								softmax64(want, head(q, token, dim), keys, values, 1/math.Sqrt(dim))
							}
							for c, w := range want {
								if g := float64(head(got, token, width)[c]); math.Abs(g-w) > 1e-5 {
									t.Fatalf("n=%d size=%d centres=%d token %d: %v, want %v", n, size, centers, token, g, w)
								}
							}
						}
					}
				}
			}
		}
	})
}

// TestGroupPacked: sequences of a packed call are as each by itself, for any Workers.
func TestGroupPacked(t *testing.T) {
	offsets := []int{0, 13, 13, 40, 41}
	q, k, v := random(1, 41, 6), random(2, 41, 6), random(3, 41, 6)
	bucket := make([]int32, 41)
	for i := range bucket {
		bucket[i] = int32(i % 3)
	}
	for _, workers := range []int{1, 4} {
		op, err := NewGroupAttention(GroupConfig{Heads: 2, HeadDim: 3, GroupSize: 8, Workers: workers})
		must(t, err)
		all, part := mat.New(41, 6), mat.New(41, 6)
		c := GroupCall{Dst: all, Q: q, K: k, V: v, Bucket: bucket, Offsets: offsets}
		must(t, op.Run(context.Background(), &c))
		for i, from := range offsets[:4] {
			to := offsets[i+1]
			cut := func(m blas32.General) blas32.General { return mat.Rows(m, from, to) }
			must(t, op.Forward(cut(part), cut(q), cut(k), cut(v), bucket[from:to]))
		}
		if !slices.Equal(all.Data, part.Data) {
			t.Errorf("%d workers: packed sequences differ from those alone", workers)
		}
		if n := isatest.Allocations(func() { must(t, op.Run(context.Background(), &c)) }); n != 0 {
			t.Errorf("%d workers: %v allocations", workers, n)
		}
	}
}

func TestGroupErrors(t *testing.T) {
	op, err := NewGroupAttention(GroupConfig{Heads: 2, HeadDim: 3, GroupSize: 4})
	must(t, err)
	x := random(1, 5, 6)
	base := GroupCall{Dst: mat.New(5, 6), Q: x, K: x, V: x, Bucket: make([]int32, 5)}
	for _, c := range []struct {
		change func(*GroupCall)
		kind   error
		text   string
	}{
		{func(c *GroupCall) { c.Q = mat.New(5, 5) }, ErrShape, "q has 5 columns, want Heads*HeadDim = 6"},
		{func(c *GroupCall) { c.K = mat.New(4, 6) }, ErrShape, "k has 4 rows, want 5"},
		{func(c *GroupCall) { c.V = mat.New(5, 7) }, ErrShape, "v has 7 columns"},
		{func(c *GroupCall) { c.Dst = c.Q }, ErrShape, "dst shares elements"},
		{func(c *GroupCall) { c.Bucket = c.Bucket[:4] }, ErrShape, "Bucket has 4 elements"},
		{func(c *GroupCall) { c.Bucket = []int32{0, 0, -3, 0, 0} }, ErrCall, "Bucket[2] is -3"},
		{func(c *GroupCall) { c.Offsets = []int{0, 4} }, ErrCall, "Offsets ends with 4, want the number of rows = 5"},
		{func(c *GroupCall) { c.Offsets = []int{0, 4, 3, 5} }, ErrCall, "Offsets runs backwards, from 4 to 3 at 2"},
		{func(c *GroupCall) { c.CenterK = mat.New(2, 6) }, ErrShape, "CenterV has 0 rows, want 2"},
		{func(c *GroupCall) { c.CenterK, c.CenterV = mat.New(2, 5), mat.New(2, 6) }, ErrShape, "CenterK has 5 columns"},
	} {
		call := base
		c.change(&call)
		if err := op.Run(context.Background(), &call); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, want %q", err, c.text)
		}
	}
	for _, cfg := range []GroupConfig{{Heads: 1, HeadDim: 1}, {HeadDim: 1, GroupSize: 1}, {Heads: 1, GroupSize: 1}, {Heads: 1, HeadDim: 1, GroupSize: -1}, {Heads: 1, HeadDim: 1, GroupSize: 1, Scale: float32(math.Inf(1))}} {
		if _, err := NewGroupAttention(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
}
