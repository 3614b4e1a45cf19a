package dna

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// EmbedConfig says how regions are embedded.
type EmbedConfig struct {
	// Window is how many bases a pass reads; 0 stands for 16,384, or the model's longest
	// where that is less. A region of more bases is read in several.
	Window int
	// Overlap is how many bases a window repeats of the one before, which count once; 0 to
	// Window-1.
	Overlap int
	// Flank is how many bases before and after a region are read with it, as far as the
	// sequence has them, and not counted.
	Flank int
	// Layer is the layer whose hidden states count, after that many blocks, the embeddings
	// being 0; nil stands for those after the last norm.
	Layer *int
	// Pooling makes one vector of a region's states: Mean (0), Sum, Max, First or Last, those of
	// bases alone.
	Pooling Pooling
	// BothStrands takes the mean of the vectors of both strands.
	BothStrands bool
	// SkipLower leaves lower-case letters out of the vector; a region of nothing else gives 0.
	SkipLower bool
	// Workers is how many goroutines may be used, 0 for the configuration's.
	Workers int
}

// EmbedRegions sets dst [regions, D] to a vector of each region: what Pooling makes of the
// hidden states of its bases, on the strand that the region is on. A region that is empty or
// not all within its sequence matches ErrCall and names the region; nothing is read then. Other
// errors match ErrConfig or ErrShape, or are those of from or ctx.Err().
func (m *Model) EmbedRegions(ctx context.Context, dst blas32.General, from Sequences, regions []Region, cfg EmbedConfig) error {
	if err := check.Call("dna", ctx, true); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "dna", "dst", dst, len(regions), m.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if from == nil {
		return check.Errorf(ErrCall, "dna: the sequences are nil")
	}
	window, err := m.window("EmbedConfig", cfg.Window)
	if err != nil {
		return err
	}
	switch {
	case cfg.Overlap < 0 || cfg.Overlap >= window:
		return check.Errorf(ErrConfig, "dna: EmbedConfig.Overlap is %d, want 0 to Window-1 = %d", cfg.Overlap, window-1)
	case cfg.Flank < 0 || cfg.Flank > 1<<30:
		return check.Errorf(ErrConfig, "dna: EmbedConfig.Flank is %d, want 0 to %d", cfg.Flank, 1<<30)
	case cfg.Layer != nil && (*cfg.Layer < 0 || *cfg.Layer > m.cfg.Layers):
		return check.Errorf(ErrConfig, "dna: EmbedConfig.Layer is %d, want 0 to Layers = %d", *cfg.Layer, m.cfg.Layers)
	case cfg.Pooling > Last:
		return check.Errorf(ErrConfig, "dna: EmbedConfig.Pooling is %d, want at most %d", cfg.Pooling, Last)
	}
	if err := check.Workers(ErrConfig, "dna", cfg.Workers); err != nil {
		return err
	}
	for i, r := range regions {
		bases, ok := from.Len(r.Contig)
		switch {
		case !ok:
			return check.Errorf(ErrCall, "dna: region %d: there is no record %.100q", i, r.Contig)
		case r.From < 0 || r.To <= r.From || r.To > bases:
			return check.Errorf(ErrCall, "dna: region %d is %.100s:%d-%d, want a base at least within its %d", i, r.Contig, r.From, r.To, bases)
		case r.To-r.From > 1<<30:
			return check.Errorf(ErrCall, "dna: region %d is %.100s:%d-%d, want at most %d bases", i, r.Contig, r.From, r.To, 1<<30)
		}
	}
	e := embedder{model: m, tokens: m.Tokenizer(NoSpecial), window: window, cfg: cfg}
	for i, r := range regions {
		if err := e.region(ctx, mat.Row(dst, i), from, r); err != nil {
			return err
		}
	}
	return nil
}

// embedder embeds regions.
type embedder struct {
	model  *Model
	tokens *Tokenizer
	window int
	cfg    EmbedConfig
	states []float32 // of a window
}

func (e *embedder) region(ctx context.Context, dst []float32, from Sequences, r Region) error {
	bases, _ := from.Len(r.Contig)
	begin := max(0, r.From-int64(e.cfg.Flank))
	text := make([]byte, min(bases, r.To+int64(e.cfg.Flank))-begin)
	if err := from.ReadBases(text, r.Contig, begin); err != nil {
		return err
	}
	readAsDNA(text)
	first, last := int(r.From-begin), int(r.To-begin)
	if r.Reverse {
		if err := ReverseComplement(text, text); err != nil {
			return err
		}
		first, last = len(text)-last, len(text)-first
	}
	if err := e.strand(ctx, dst, text, first, last); err != nil || !e.cfg.BothStrands {
		return err
	}
	if err := ReverseComplement(text, text); err != nil {
		return err
	}
	other := make([]float32, len(dst))
	if err := e.strand(ctx, other, text, len(text)-last, len(text)-first); err != nil {
		return err
	}
	for i, v := range other {
		dst[i] = (dst[i] + v) / 2
	}
	return nil
}

// strand sets dst to the vector of bases first to last-1 of a text.
func (e *embedder) strand(ctx context.Context, dst []float32, text []byte, first, last int) error {
	ids, err := e.tokens.AppendDNA(nil, string(text))
	if err != nil {
		return err
	}
	p := pool{dst: make([]float64, len(dst)), pooling: e.cfg.Pooling}
	for from := 0; from < len(ids); from += e.window - e.cfg.Overlap {
		to := min(from+e.window, len(ids))
		begin := from
		if from > 0 {
			begin += e.cfg.Overlap
		}
		if begin = max(begin, first); begin < min(to, last) {
			states, err := e.hidden(ctx, ids[from:to])
			if err != nil {
				return err
			}
			for t := begin; t < min(to, last); t++ {
				if c := text[t]; !e.cfg.SkipLower || c < 'a' {
					p.add(mat.Row(states, t-from))
				}
			}
		}
		if to == len(ids) || to >= last {
			break
		}
	}
	p.end(dst)
	return nil
}

// hidden returns the states of a window's tokens.
func (e *embedder) hidden(ctx context.Context, ids []int32) (blas32.General, error) {
	m := e.model
	if n := len(ids) * m.cfg.Dim; cap(e.states) < n {
		e.states = make([]float32, n)
	}
	states := mat.Of(e.states[:cap(e.states)], len(ids), m.cfg.Dim)
	c := &Call{Tokens: ids, Workers: e.cfg.Workers}
	if e.cfg.Layer == nil {
		c.Hidden = states
	} else {
		c.Residuals = make([]blas32.General, m.cfg.Layers+1)
		c.Residuals[*e.cfg.Layer] = states
	}
	return states, m.Run(ctx, c)
}

// pool makes one vector of many.
type pool struct {
	dst     []float64
	pooling Pooling
	n       int
}

func (p *pool) add(row []float32) {
	first := p.n == 0
	p.n++
	switch p.pooling {
	case Mean, Sum:
		for i, v := range row {
			p.dst[i] += float64(v)
		}
	case Max:
		for i, v := range row {
			if first || float64(v) > p.dst[i] {
				p.dst[i] = float64(v)
			}
		}
	case First, Last:
		if first || p.pooling == Last {
			for i, v := range row {
				p.dst[i] = float64(v)
			}
		}
	}
}

func (p *pool) end(dst []float32) {
	scale := 1.0
	if p.pooling == Mean && p.n > 0 {
		scale = 1 / float64(p.n)
	}
	for i, v := range p.dst {
		dst[i] = float32(v * scale)
	}
}
