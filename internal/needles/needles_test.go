package needles

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// weights are the softmax of a query head over all keys.
func weights(q []float32, k blas32.General) []float64 {
	p, top := make([]float64, k.Rows), math.Inf(-1)
	for t := range p {
		for j, x := range mat.Row(k, t) {
			p[t] += float64(q[j]) * float64(x) / math.Sqrt(float64(k.Cols))
		}
		top = max(top, p[t])
	}
	sum := 0.0
	for t := range p {
		p[t] = math.Exp(p[t] - top)
		sum += p[t]
	}
	for t := range p {
		p[t] /= sum
	}
	return p
}

// TestTasks: needles get their share of the weight, whatever stands around them, sinks theirs,
// and distractors are alike and get little.
func TestTasks(t *testing.T) {
	const n, d, heads = 8192, 128, 2
	base := Config{Seed: 3, Tokens: n, Dim: d, Group: heads, Sigma: 3, Mass: 0.9, Threads: 2, Hops: 4, Width: 1, Topic: 0.7, Segment: 64, RetrievalHeads: heads}
	like, sinks := base, base
	like.Distractors, like.Likeness = 8, 0.6
	sinks.Sinks, sinks.SinkMass = 4, 0.5
	for what, cfg := range map[string]Config{"single": base, "multikey": like, "sinks": sinks} {
		x := New(cfg)
		k, v := mat.New(n, d), mat.New(n, d)
		x.Fill(k, v, 0)
		part := mat.New(100, d)
		x.Fill(part, mat.New(100, d), 50)
		for i, y := range part.Data {
			if y != k.Data[50*d+i] {
				t.Fatalf("%s: element %d differs in a part", what, i)
			}
		}
		q := make([]float32, heads*d)
		needle, sunk := 0.0, 0.0
		for i := range 8 {
			x.Query(q, i)
			p := weights(q[:d], k)
			share, at := 0.0, x.Positions[i/4][i%4]
			for t := range cfg.Sinks {
				share += p[t]
			}
			needle += p[at] / (1 - share) / 8
			sunk += share / 8
			for _, l := range x.likes {
				if p[l.at] > 0.5 {
					t.Errorf("%s: a distractor of needle %d gets %.2f", what, l.needle, p[l.at])
				}
			}
		}
		if needle < 0.75 || needle > 0.97 {
			t.Errorf("%s: needles get %.2f of the weight, want about 0.9", what, needle)
		}
		if math.Abs(sunk-cfg.SinkMass) > 0.3 {
			t.Errorf("%s: sinks get %.2f of the weight, want %v", what, sunk, cfg.SinkMass)
		}
		if want := 16 * cfg.Distractors / 2; len(x.likes) > want || len(x.likes) < want-3 {
			t.Errorf("%s: %d distractors", what, len(x.likes))
		}
		for _, l := range x.likes[:min(5, len(x.likes))] {
			dot := 0.0
			for j, c := range x.Codes[x.Code(l.needle)] {
				dot += c * float64(mat.Row(k, l.at)[j]) / math.Sqrt(d)
			}
			if math.Abs(dot-x.Cosine*0.6) > 0.35 {
				t.Errorf("a distractor has %.2f of its needle's code, want %.2f", dot, x.Cosine*0.6)
			}
		}
	}
	for order, sign := range map[Order]int{Forward: 1, Backward: -1} {
		cfg := base
		cfg.Order = order
		for _, thread := range New(cfg).Positions {
			for i, p := range thread[1:] {
				if (p-thread[i])*sign <= 0 {
					t.Errorf("order %d: needles at %v", order, thread)
				}
			}
		}
	}
	diffuse := base
	diffuse.Threads, diffuse.RetrievalHeads = 0, 0
	x := New(diffuse)
	k := mat.New(n, d)
	x.Fill(k, mat.New(n, d), 0)
	q := make([]float32, heads*d)
	x.Query(q, 5)
	for t2, p := range weights(q[:d], k) {
		if p > 0.2 {
			t.Errorf("without needles token %d gets %.2f", t2, p)
		}
	}
}
