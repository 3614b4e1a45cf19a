// Command attention shows what FlexRoPE's temporal decay is for: a video of many
// more frames than a model was trained with, and one frame that looks back at all
// of them, with the decay and without.
//
//	go run ./examples/attention
//	go run ./examples/attention -trained 8 -times 32 -skip 1e-6
//
// It prints how much of its weight the last frame spends on distances that
// training never showed, and how long attention over the whole video takes:
// without decay, with it, and with tiles left out that the decay makes negligible.
// It writes a picture of the last frame's weights.
//
// There is no trained model here. Queries and keys are noise around what all
// tokens have in common, rotated over FAR's three axes (frame, row, column), so
// that similarity falls with distance as far as rotations make it fall.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/rope"
)

const (
	about = `attention shows what FlexRoPE's temporal decay is for: a video of many more frames than a model
was trained with, and one frame that looks back at all of them, with the decay and without.`
	usage = `	go run ./examples/attention
	go run ./examples/attention -trained 8 -times 32 -skip 1e-6`
)

// options are the command's flags.
type options struct {
	trained, times, side, heads, workers int
	eps, skip                            float64
	out                                  string
	progress                             *program.Progress // nil for none
}

func main() { program.Main("attention", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("attention", about, usage)
	f.IntVar(&o.trained, "trained", 16, "`frames` that the model was trained with")
	f.IntVar(&o.times, "times", 16, "how many times as long the video is")
	f.IntVar(&o.side, "side", 8, "a frame is side x side `tokens`")
	f.IntVar(&o.heads, "heads", 4, "attention heads")
	f.Float64Var(&o.eps, "eps", 0.01, "weight of a frame as far back as training reached, beside the present one's")
	f.Float64Var(&o.skip, "skip", 1e-4, "`share` of a query's weight that skipped tiles may take away")
	f.StringVar(&o.out, "out", "attention", "write `name`.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	switch {
	case o.trained < 1 || o.times < 1 || o.side < 1 || o.heads < 1:
		return errors.New("-trained, -times, -side and -heads must be 1 or more")
	case float64(o.trained)*float64(o.times)*float64(o.side)*float64(o.side) > 1<<20:
		return errors.New("more than a million tokens")
	}
	if err := program.Writable(o.out + ".png"); err != nil {
		return err
	}
	o.progress = program.NewProgress(stderr, "")
	defer o.progress.End()
	results, err := compare(ctx, o)
	if err != nil {
		return err
	}
	frames, tokens := o.trained*o.times, o.trained*o.times*o.side*o.side
	fmt.Fprintf(stdout, "%d frames of %d x %d, trained with %d: %d tokens, %d heads of %d, kernels for %s\n\n",
		frames, o.side, o.side, o.trained, tokens, o.heads, headDim, asm.Active())
	fmt.Fprintf(stdout, "%-44s %16s %9s %12s\n", "", "beyond training", "seconds", "difference")
	for _, r := range results {
		fmt.Fprintf(stdout, "%-44s %14.1f %% %9.2f %12s\n", r.name, 100*r.beyond(o.trained), r.elapsed.Seconds(), r.difference)
	}
	if err := draw(o.out+".png", o.trained, results); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nwrote %s.png\n", o.out)
	return err
}

// result is one way to attend.
type result struct {
	name       string
	weights    []float64 // of the last frame, by frame, over all heads
	elapsed    time.Duration
	difference string // of the whole output from that without skipping
}

// beyond is the share of the weight farther back than the trained frames.
func (r *result) beyond(trained int) (sum float64) {
	for _, w := range r.weights[:max(len(r.weights)-trained, 0)] {
		sum += w
	}
	return sum
}

func compare(ctx context.Context, o options) ([]*result, error) {
	v, err := newVideo(o)
	if err != nil {
		return nil, err
	}
	slope, err := rope.FlexRoPESlope(int64(o.trained), o.eps)
	if err != nil {
		return nil, err
	}
	o.progress.Begin("attending", 3)
	var results []*result
	var exact blas32.General
	for _, c := range []struct {
		name  string
		slope float32
		skip  float64
	}{
		{"no decay", 0, 0},
		{fmt.Sprintf("FlexRoPE, slope %.2f", slope), slope, 0},
		{fmt.Sprintf("FlexRoPE, tiles of %g in all skipped", o.skip), slope, o.skip},
	} {
		bias, err := rope.NewFlexRoPE(rope.FlexRoPEConfig{Slopes: []float32{c.slope}, TokensPerFrame: o.side * o.side})
		if err != nil {
			return nil, err
		}
		att, err := attention.New(attention.Config{Heads: o.heads, HeadDim: headDim, Bias: bias, Skip: float32(c.skip), Workers: o.workers})
		if err != nil {
			return nil, err
		}
		r := &result{name: c.name}
		out := matrix(v.q.Rows, v.q.Cols)
		begin := time.Now()
		if err := att.Run(ctx, &attention.Call{Dst: out, Q: v.q, K: []blas32.General{v.k}, V: []blas32.General{v.v}}); err != nil {
			return nil, err
		}
		r.elapsed = time.Since(begin)
		if r.weights, err = v.lastFrame(ctx, att, o); err != nil {
			return nil, err
		}
		if c.skip > 0 {
			r.difference = fmt.Sprintf("%.1e", largestDifference(out, exact))
		}
		exact = out
		results = append(results, r)
		o.progress.Add(1)
	}
	o.progress.End()
	return results, nil
}

func largestDifference(a, b blas32.General) float64 {
	largest := 0.0
	for i, x := range a.Data {
		largest = max(largest, math.Abs(float64(x)-float64(b.Data[i])))
	}
	return largest
}
