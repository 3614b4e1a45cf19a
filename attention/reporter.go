package attention

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// ReporterConfig fixes a Reporter.
type ReporterConfig struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Rows is how many queries are sampled, 0 for 32.
	Rows int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Reporter compares the outputs of an approximation of causal attention, any of
// them, with exact attention on sampled queries. It is immutable and safe for
// concurrent use.
type Reporter struct {
	cfg     ReporterConfig
	att     *Attention
	scratch scratch.List[reportRun]
}

// NewReporter returns a reporter, or an error that matches ErrConfig.
func NewReporter(cfg ReporterConfig) (*Reporter, error) {
	if cfg.Rows < 0 {
		return nil, check.Errorf(ErrConfig, "attention: Rows is %d, want 0 or more", cfg.Rows)
	}
	if cfg.Rows == 0 {
		cfg.Rows = 32
	}
	att, err := New(Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Workers: cfg.Workers})
	if err != nil {
		return nil, err
	}
	return &Reporter{cfg: cfg, att: att}, nil
}

// ReportCall is what a Reporter is asked.
type ReportCall struct {
	// Out is what the approximation gave for the sequence's last queries, [queries,
	// Heads*ValueDim], and Q are these, [queries, Heads*HeadDim].
	Out, Q blas32.General
	// K and V are all keys and values up to the last query, as in Call.
	K, V []blas32.General
	// Visible returns the keys from <= j < to that the query at a position sees as they
	// are, such as CCA.Window; nil if that is of no interest. It is called by several
	// goroutines at once.
	Visible func(query int64) (from, to int64)
}

// Report tells how far an approximation is from exact causal attention. Errors
// are of whole rows of one head: |out - exact| / |exact|.
type Report struct {
	// Rows is how many queries were compared.
	Rows int
	// Mean and Max are over rows and heads, HeadMean and HeadMax, one for each head,
	// over rows. Worst is the position of the query with the largest error.
	Mean, Max         float64
	HeadMean, HeadMax []float64
	Worst             int64
	// Mass and LeastMass are the mean and the least share of exact attention's weight
	// that lies on the keys of ReportCall.Visible; NaN without it.
	Mass, LeastMass float64
}

// Compare has an operator attend to one sequence, as the call says, and reports on what
// it gave; visible is ReportCall.Visible, or nil. Errors match ErrShape or ErrCall, or are
// those of op.
func (p *Reporter) Compare(ctx context.Context, op Operator, call *Call, visible func(query int64) (from, to int64)) (*Report, error) {
	if err := check.Call("attention", ctx, op != nil && call != nil); err != nil {
		return nil, err
	}
	if call.State != nil || call.States != nil || call.Offsets != nil {
		return nil, check.Errorf(ErrCall, "attention: a report on a call with a state or Offsets, want one whole sequence")
	}
	if err := op.Run(ctx, call); err != nil {
		return nil, err
	}
	return p.Report(ctx, &ReportCall{Out: call.Dst, Q: call.Q, K: call.K, V: call.V, Visible: visible})
}

// reportRun is the working memory of a report. n queries are sampled.
type reportRun struct {
	q              []float32 // [n, H D], the sampled queries
	exact, seenOut []float32 // [n, H Dv], exact attention to all keys, and to those of Seen
	lse, seenLSE   []float32 // [n, H], likewise
	positions      []int64   // [n]
	call           Call
	ask            func(query int64) (from, to int64) // ReportCall.Visible
	past, window   func(query int64) (from, to int64) // Call.Visible, of the number of a sampled query
}

// Report compares the outputs of about Rows queries, one from each of as many
// equal stretches, the last one among them; always the same ones. It costs what
// exact attention costs for that many queries, and packing the keys once (twice
// with Seen), and memory that does not grow with the sequence. Rows whose exact
// output is 0 count with the error 0 where the approximation's is, otherwise +Inf. Errors
// match ErrShape or ErrCall.
func (p *Reporter) Report(ctx context.Context, c *ReportCall) (*Report, error) {
	if err := check.Call("attention", ctx, c != nil); err != nil {
		return nil, err
	}
	cfg := &p.att.cfg
	if err := check.Matrix(ErrShape, "attention", "q", c.Q, -1, cfg.Heads*cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return nil, err
	}
	if err := check.Matrix(ErrShape, "attention", "out", c.Out, c.Q.Rows, cfg.Heads*cfg.ValueDim, "Heads*ValueDim"); err != nil {
		return nil, err
	}
	keys := 0
	for _, k := range c.K {
		keys += k.Rows
	}
	if keys < c.Q.Rows {
		return nil, check.Errorf(ErrShape, "attention: K has %d rows in all and q %d, want the keys of all queries", keys, c.Q.Rows)
	}
	r := p.scratch.Get()
	defer p.scratch.Put(r)
	return r.report(ctx, p, c, int64(keys-c.Q.Rows))
}

func (r *reportRun) report(ctx context.Context, p *Reporter, c *ReportCall, first int64) (*Report, error) {
	cfg := &p.att.cfg
	n := min(p.cfg.Rows, c.Q.Rows)
	r.q = scratch.Floats(r.q, n*c.Q.Cols)
	r.positions = r.positions[:0]
	for i := range n {
		// Spread within the stretches, so that nothing periodic hides.
		low, high := int64(i)*int64(c.Q.Rows)/int64(n), int64(i+1)*int64(c.Q.Rows)/int64(n)
		at := high - 1
		if i < n-1 {
			at = low + int64(uint64(i+1)*0x9E3779B97F4A7C15>>33)%(high-low)
		}
		r.positions = append(r.positions, first+at)
		copy(r.q[i*c.Q.Cols:], mat.Row(c.Q, int(at)))
	}
	matrix := func(data *[]float32, cols int) blas32.General {
		*data = scratch.Floats(*data, n*cols)
		return blas32.General{Rows: n, Cols: cols, Stride: cols, Data: *data}
	}
	if r.past == nil {
		// The kernel counts the sampled queries from 0.
		r.past = func(query int64) (from, to int64) { return 0, r.positions[query] + 1 }
		r.window = func(query int64) (from, to int64) {
			from, to = r.ask(r.positions[query])
			return from, min(to, r.positions[query]+1)
		}
	}
	r.ask = c.Visible
	defer func() { r.call, r.ask = Call{}, nil }()
	r.call = Call{
		Dst: matrix(&r.exact, c.Out.Cols), LSE: matrix(&r.lse, cfg.Heads),
		Q: blas32.General{Rows: n, Cols: c.Q.Cols, Stride: c.Q.Cols, Data: r.q}, K: c.K, V: c.V, QueryPos: []int64{0}, Visible: r.past,
	}
	if err := p.att.Run(ctx, &r.call); err != nil {
		return nil, err
	}
	out := &Report{Rows: n, HeadMean: make([]float64, cfg.Heads), HeadMax: make([]float64, cfg.Heads), Mass: math.NaN(), LeastMass: math.NaN()}
	for i := range n {
		for h := range cfg.Heads {
			got := mat.Row(c.Out, int(r.positions[i]-first))[h*cfg.ValueDim:][:cfg.ValueDim]
			e := relative(got, mat.Row(r.call.Dst, i)[h*cfg.ValueDim:])
			out.Mean += e / float64(n*cfg.Heads)
			out.HeadMean[h] += e / float64(n)
			out.HeadMax[h] = max(out.HeadMax[h], e)
			if e > out.Max || e != e {
				out.Max, out.Worst = e, r.positions[i]
			}
		}
	}
	if c.Visible == nil || n == 0 {
		return out, nil
	}
	r.call.Dst, r.call.LSE, r.call.Visible = matrix(&r.seenOut, c.Out.Cols), matrix(&r.seenLSE, cfg.Heads), r.window
	if err := p.att.Run(ctx, &r.call); err != nil {
		return nil, err
	}
	out.Mass, out.LeastMass = 0, 1
	for i, seen := range r.seenLSE {
		mass := min(1, math.Exp(float64(seen)-float64(r.lse[i])))
		out.Mass += mass
		out.LeastMass = min(out.LeastMass, mass)
	}
	out.Mass /= float64(len(r.seenLSE))
	return out, nil
}

// relative is |got - want| / |want|.
func relative(got, want []float32) float64 {
	diff, norm := 0.0, 0.0
	for i, g := range got {
		d, w := float64(g)-float64(want[i]), float64(want[i])
		diff += d * d
		norm += w * w
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}
