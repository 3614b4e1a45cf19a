package main

import (
	"context"
	"fmt"
	"image/color"
	"io"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/picture"
	"github.com/subquad/subquad/ssm/delta"
)

// What a state of one size recalls without any training: keys are orthogonal vectors, up
// to as many as the state has key channels, and are written several times with other
// values, of which the last one counts.
const (
	stateDim = 64 // key and value channels of a state
	book     = 256
	writings = 4
)

// rule is a recurrence whose state is compared.
type rule struct {
	name  string
	color color.Color
	cfg   delta.Config
}

func rules() []rule {
	base := delta.Config{Heads: 1, KeyDim: stateDim, ValueDim: stateDim, Scale: 1}
	linear, fading, erasing := base, base, base
	fading.Decay, fading.LogDecay = delta.ConstantDecay, []float32{-0.01}
	erasing.Erase, erasing.Normalize = delta.EraseKey, true
	return []rule{
		{"linear", picture.Black, linear},
		{"with decay", picture.Orange, fading},
		{"delta rule", picture.Blue, erasing},
	}
}

// keyCounts are how many keys are written.
var keyCounts = []int{1, 2, 4, 8, 16, 32, 48, 64, 96, 128}

// capacity prints and returns what part of the last values each rule recalls.
func capacity(ctx context.Context, o options, stdout io.Writer) ([]*result, error) {
	list := rules()
	fmt.Fprintf(stdout, "\nuntrained: keys written %d times each to a state of %d x %d, up to %d of them orthogonal; recall of the last values\n%9s", writings, stateDim, stateDim, stateDim, "keys")
	for _, r := range list {
		fmt.Fprintf(stdout, " %12s", r.name)
	}
	fmt.Fprintln(stdout)
	var results []*result
	for _, n := range keyCounts {
		res := &result{tokens: n, recall: make([]float64, len(list))}
		tries := min(o.sequences, 20)
		for i := range tries {
			w := newWritten(rand.New(rand.NewPCG(o.seed, uint64(n)<<32|uint64(i))), n)
			for k, r := range list {
				right, err := w.recall(ctx, r.cfg)
				if err != nil {
					return nil, err
				}
				res.recall[k] += float64(right) / float64(n*tries)
			}
		}
		fmt.Fprintf(stdout, "%9d", n)
		for _, v := range res.recall {
			fmt.Fprintf(stdout, " %12.3f", v)
		}
		fmt.Fprintln(stdout)
		results = append(results, res)
	}
	return results, nil
}

// written is a sequence of writings of keys, and the values that are to be recalled.
type written struct {
	keys   blas32.General // [n, stateDim], of length 1
	values blas32.General // [book, stateDim]
	key    []int          // of each token
	value  []int
	last   []int // of each key
}

func newWritten(r *rand.Rand, n int) *written {
	w := &written{keys: matrix(n, stateDim), values: matrix(book, stateDim), last: make([]int, n)}
	for i := range n {
		orthogonal(r, w.keys, i)
	}
	for i := range w.values.Data {
		w.values.Data[i] = 1
		if r.IntN(2) == 0 {
			w.values.Data[i] = -1
		}
	}
	for range writings {
		for _, k := range r.Perm(n) {
			v := r.IntN(book)
			w.key, w.value, w.last[k] = append(w.key, k), append(w.value, v), v
		}
	}
	return w
}

// orthogonal makes row i of keys a random vector of length 1, orthogonal to those before
// it while there are fewer than channels.
func orthogonal(r *rand.Rand, keys blas32.General, i int) {
	row := keys.Data[i*keys.Stride:][:keys.Cols]
	for j := range row {
		row[j] = float32(r.NormFloat64())
	}
	for range 2 { // once more, for the rounding of the first time
		for k := 0; k < i && i < keys.Cols; k++ {
			other := keys.Data[k*keys.Stride:][:keys.Cols]
			asm.Axpy(row, -asm.Dot(row, other), other)
		}
		asm.Scale(row, float32(1/math.Sqrt(float64(asm.Dot(row, row)))), row)
	}
}

// recall returns how many keys have the last of their values nearest to what a rule's state
// says of them.
func (w *written) recall(ctx context.Context, cfg delta.Config) (right int, err error) {
	op, err := delta.New(cfg)
	if err != nil {
		return 0, err
	}
	st, err := op.NewState(delta.StateConfig{})
	if err != nil {
		return 0, err
	}
	rows := func(from blas32.General, which []int) blas32.General {
		m := matrix(len(which), stateDim)
		for i, j := range which {
			copy(m.Data[i*stateDim:][:stateDim], from.Data[j*from.Stride:])
		}
		return m
	}
	k := rows(w.keys, w.key)
	if err := op.Run(ctx, &delta.Call{Dst: matrix(len(w.key), stateDim), Q: k, K: k, V: rows(w.values, w.value), State: st}); err != nil {
		return 0, err
	}
	// A beta of 0 reads and writes nothing.
	n := w.keys.Rows
	read := matrix(n, stateDim)
	if err := op.Run(ctx, &delta.Call{Dst: read, Q: w.keys, K: w.keys, V: matrix(n, stateDim), Beta: matrix(n, 1), State: st}); err != nil {
		return 0, err
	}
	for i, last := range w.last {
		y, best := read.Data[i*stateDim:][:stateDim], 0
		for v := range book {
			if asm.Dot(y, w.values.Data[v*stateDim:][:stateDim]) > asm.Dot(y, w.values.Data[best*stateDim:][:stateDim]) {
				best = v
			}
		}
		if best == last {
			right++
		}
	}
	return right, nil
}

// drawCapacity draws recall against the number of keys.
func drawCapacity(path string, results []*result) error {
	legend := picture.Legend()
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = fmt.Sprintf("an untrained state of %d x %d", stateDim, stateDim), "keys, each written 4 times", "recall of the last values"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, powers(results)
	p.X.Padding, p.Y.Padding = 0, 0
	p.Add(plotter.NewGrid())
	for k, r := range rules() {
		l := picture.Line{Name: r.name, Color: r.color, Points: true}
		for _, res := range results {
			l.XY = append(l.XY, plotter.XY{X: float64(res.tokens), Y: res.recall[k]})
		}
		if err := l.Add(p, legend); err != nil {
			return err
		}
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 1/1.2, float64(keyCounts[len(keyCounts)-1])*1.2, 0, 1.05
	return picture.Row(path, 7, 4, legend, p)
}
