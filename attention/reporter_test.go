package attention

import (
	"context"
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

func mustReporter(t testing.TB, cfg ReporterConfig) *Reporter {
	t.Helper()
	p, err := NewReporter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReport compares the report on a window with one made of all rows by hand.
func TestReport(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, past, heads, d = 60, 40, 4, 8
		q, k, v := matrix(1, n+past, heads*d), matrix(2, n+past, 2*d), matrix(3, n+past, 2*d)
		c := must(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, Causal: true, Window: 9})
		window := func(query int64) (from, to int64) { return max(0, query-8), query + 1 }
		out, exact := mat.New(n+past, heads*d), mat.New(n+past, heads*d)
		if err := c.Forward(out, q, k, v); err != nil {
			t.Fatal(err)
		}
		mass := 0.0
		if err := must(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, Causal: true}).Forward(exact, q, k, v); err != nil {
			t.Fatal(err)
		}
		for i := past; i < n+past; i++ {
			for h := range heads {
				all, seen := 0.0, 0.0
				from, _ := window(int64(i))
				for j := range i + 1 {
					w := math.Exp(mattest.Dot(mat.Row(q, i)[h*d:][:d], mat.Row(k, j)[h/2*d:]) * float64(c.cfg.Scale))
					all += w
					if j >= int(from) {
						seen += w
					}
				}
				mass += seen / all / (n * heads)
			}
		}
		var mean, largest float64
		worst := 0
		for i := past; i < n+past; i++ {
			for h := range heads {
				e := relative(mat.Row(out, i)[h*d:][:d], mat.Row(exact, i)[h*d:])
				if e > largest {
					largest, worst = e, i
				}
				mean += e / (n * heads)
			}
		}
		p := mustReporter(t, ReporterConfig{Heads: heads, KVHeads: 2, HeadDim: d, Rows: n})
		call := &ReportCall{Out: part(out, past, n+past), Q: part(q, past, n+past), K: []blas32.General{part(k, 0, 30), part(k, 30, n+past)}, V: []blas32.General{part(v, 0, 30), part(v, 30, n+past)}, Visible: window}
		r, err := p.Report(context.Background(), call)
		if err != nil {
			t.Fatal(err)
		}
		near := func(what string, got, want float64) {
			if math.Abs(got-want) > 1e-4*want {
				t.Errorf("%s is %v, want %v", what, got, want)
			}
		}
		near("Mean", r.Mean, mean)
		near("Max", r.Max, largest)
		near("Mass", r.Mass, mass)
		if r.Rows != n || r.Worst != int64(worst) || !(r.LeastMass > 0 && r.LeastMass < r.Mass) || r.Mean < 0.05 {
			t.Errorf("%+v, the worst row is %d", r, worst)
		}
		near("the largest of HeadMax", max(r.HeadMax[0], r.HeadMax[1], r.HeadMax[2], r.HeadMax[3]), largest)
		near("the mean of HeadMean", (r.HeadMean[0]+r.HeadMean[1]+r.HeadMean[2]+r.HeadMean[3])/heads, mean)
		// Exact attention's own report, of some rows.
		call.Out, call.Visible = part(exact, past, n+past), nil
		if r, err = mustReporter(t, ReporterConfig{Heads: heads, KVHeads: 2, HeadDim: d}).Report(context.Background(), call); err != nil {
			t.Fatal(err)
		}
		if r.Rows != 32 || r.Max > 1e-5 || r.Mass == r.Mass {
			t.Errorf("of exact attention: %+v", r)
		}
		// The same of an operator.
		if r, err = p.Compare(context.Background(), c, &Call{Dst: out, Q: q, K: []blas32.General{k}, V: []blas32.General{v}}, window); err != nil || r.Rows != n || !(r.Mass > 0 && r.Mean > 0) {
			t.Errorf("of an operator: %+v, error %v", r, err)
		}
		// NaN shows.
		call.Out = part(mat.New(n+past, heads*d), past, n+past)
		call.Out.Data[len(call.Out.Data)-1] = float32(math.NaN())
		if r, err = p.Report(context.Background(), call); err != nil || r.Max == r.Max || r.Worst != n+past-1 {
			t.Errorf("with NaN: %+v, error %v", r, err)
		}
	})
}

func TestReportErrors(t *testing.T) {
	if _, err := NewReporter(ReporterConfig{Heads: 1, HeadDim: 1, Rows: -1}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	if _, err := NewReporter(ReporterConfig{}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	p := mustReporter(t, ReporterConfig{Heads: 2, HeadDim: 4})
	for want, change := range map[string]func(c *ReportCall){
		"q has 7 columns, want Heads*HeadDim = 8":                   func(c *ReportCall) { c.Q.Cols-- },
		"out has 2 rows, want 3":                                    func(c *ReportCall) { c.Out.Rows-- },
		"K has 2 rows in all and q 3, want the keys of all queries": func(c *ReportCall) { c.K[0].Rows-- },
		"v has 2 rows, want 3":                                      func(c *ReportCall) { c.V[0].Rows-- },
	} {
		x := matrix(1, 3, 8)
		c := &ReportCall{Out: x, Q: x, K: []blas32.General{x}, V: []blas32.General{x}}
		change(c)
		if _, err := p.Report(context.Background(), c); !errors.Is(err, ErrShape) || err.Error() != "attention: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	none := blas32.General{Cols: 8}
	r, err := p.Report(context.Background(), &ReportCall{Out: none, Q: none, Visible: func(int64) (int64, int64) { return 0, 1 }})
	if err != nil || r.Rows != 0 || r.Mean != 0 {
		t.Errorf("of nothing: %+v, error %v", r, err)
	}
}
