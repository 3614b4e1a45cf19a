package merge

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
)

func goldenPiToMe(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		res := golden.NewResults(f, e.Prefix)
		metric, x := batch(f, e.Prefix+"metric"), batch(f, e.Prefix+"x")
		size := optional(f, e.Prefix+"size", len(metric))
		kind, class := e.Text("kind"), 0
		cfg := Config{Order: Published, ClassToken: e.Bool("class_token"), Alpha: float32(e.Float("alpha", 1))}
		if cfg.ClassToken {
			class = 1
		}
		method, ok := map[string]Method{"pitome": PiToMe, "pitome_bsm": PiToMeBSM, "text": PiToMeText, "bsm": ToMe}[kind]
		if !ok {
			t.Fatalf("%s kind %q", e.Prefix, kind)
		}
		cfg.Method = method
		margin := float32(e.Float("margin", 0))
		if method == ToMe {
			margin = 0
		}
		ratio := e.Float("ratio", 1)
		s := f.Shape(e.Prefix + "metric")
		e.Sizes(map[string]int{"B": s[0], "T": s[1]})
		e.Done("seed")
		m := newMatcher(t, cfg)
		for b := range metric {
			n := metric[b].Rows
			if method != ToMe {
				n -= class
			}
			want := int(math.Floor(float64(n) - float64(n)*ratio))
			var p Plan
			var r matchRun
			must(t, r.match(context.Background(), m, &Call{Plan: &p, Metric: metric[b], R: want, AtMost: true, Margin: margin}))
			if b == 0 {
				res.AddInts("r", []int64{int64(p.Tokens() - p.Len())})
			}
			applied(t, res, &p, x[b], size[b], p.Len(), p.Tokens())
			if method == ToMe {
				pairs(t, f, e.Prefix, res, &p, b, everyOther(p.Tokens(), 0), everyOther(p.Tokens(), 1), false)
				continue
			}
			without := func(list []int32) (out []int64) {
				for _, t := range list {
					out = append(out, int64(int(t)-class))
				}
				return out
			}
			res.AddInts("a_idx", without(r.src))
			res.AddInts("b_idx", without(r.dst))
			res.AddInts("protected_idx", without(r.head[min(class, len(r.head)):]))
			energy := make([]float32, 0, n)
			for _, v := range r.energy[class:p.Tokens()] {
				energy = append(energy, float32(v))
			}
			res.Add("energy", blas32.General{Rows: len(energy), Cols: 1, Stride: 1, Data: energy})
			pairs(t, f, e.Prefix, res, &p, b, ints(r.src), ints(r.dst), method != PiToMeBSM)
		}
		res.Compare()
	}
}
