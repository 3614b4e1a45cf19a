package lm

import (
	"context"
	"iter"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Method is how two models decode together.
type Method uint8

const (
	// Speculative has the small model write Drafts tokens, of which the large one, in a
	// single call, takes those that it would have written itself, and one more: the text is
	// the large model's own.
	Speculative Method = iota
	// Oracle takes the large model's token.
	Oracle
	// Contrastive takes the largest of Contrast.
	Contrastive
	// ProxyTuned takes the largest of Proxy, with a tuned small model.
	ProxyTuned
)

// Router says when the large model is asked; at other tokens the small one writes alone.
type Router uint8

const (
	Always     Router = iota // at each token
	Never                    // at none
	Unsure                   // where the small model's likeliest token has less than Threshold
	Undecided                // where the two likeliest are less than 2 Threshold apart
	lastRouter = Undecided
)

// TogetherConfig says how two models decode together, greedily.
type TogetherConfig struct {
	Method Method
	Router Router
	// Threshold is that of a Router: 0 to 1.
	Threshold float64
	// Alpha and Beta are those of Contrast; Alpha also that of Proxy.
	Alpha, Beta float64
	// Drafts is how many tokens are drafted at a time, 0 for 5.
	Drafts int
	// MaxTokens is how many tokens to generate at the most; 0 is no limit.
	MaxTokens int
	// Stop are tokens that end the text; the text has the one that ended it.
	Stop []int32
}

// Together are models that decode together: Large and Small, and for ProxyTuned also Tuned,
// the small one after tuning. Their tokens must mean the same; where vocabularies differ in
// length the longer ones are cut.
type Together struct {
	Large, Small, Tuned Source
}

// Counts tells how a text came to be.
type Counts struct {
	// Tokens are those of the text.
	Tokens int
	// Large is how often the large model was called.
	Large int
	// Mismatches is how often the large model was asked and what was taken was not what the
	// small one would have written.
	Mismatches int
}

// partner is one of the models: how much of the text it has read.
type partner struct {
	source Source
	read   []int32 // that it has read
	text   []int32 // that drafts go on
	rows   blas32.General
}

func newPartner(s Source, rows int) *partner {
	return &partner{source: s, rows: mat.New(rows, s.Vocab())}
}

// after returns the logits after each of the last rows tokens of a text.
func (p *partner) after(ctx context.Context, text []int32, rows int) (blas32.General, error) {
	keep := 0
	for keep < min(len(p.read), len(text)-rows) && p.read[keep] == text[keep] {
		keep++
	}
	if p.rows.Rows < rows {
		p.rows = mat.New(rows, p.source.Vocab())
	}
	out := mat.Rows(p.rows, 0, rows)
	read := append(p.read[:keep], text[keep:]...)
	p.read = p.read[:0]
	if err := p.source.Continue(ctx, out, keep, text[keep:]); err != nil {
		return out, err
	}
	p.read = read
	return out, nil
}

// Generate continues a prompt, of one token at least, and yields tokens one by one; counts,
// which may be nil, are kept up to date. It ends after MaxTokens, at a token of Stop, or with
// an error.
//
// Speculative decoding takes memory for Drafts + 1 rows of logits of the large model, and its
// text is the large model's own where rows of several tokens give the logits that single ones
// do, but for rounding.
func (m *Together) Generate(ctx context.Context, pkg string, prompt []int32, cfg TogetherConfig, counts *Counts) iter.Seq2[int32, error] {
	return func(yield func(int32, error) bool) {
		if err := m.check(pkg, prompt, &cfg); err != nil {
			yield(0, err)
			return
		}
		if err := check.Call(pkg, ctx, true); err != nil {
			yield(0, err)
			return
		}
		if counts == nil {
			counts = new(Counts)
		}
		t := &together{Together: m, pkg: pkg, cfg: cfg, vocab: m.vocab(), text: slices.Clone(prompt), counts: counts,
			large: newPartner(m.Large, 1), small: newPartner(m.Small, 1)}
		if m.Tuned != nil {
			t.tuned = newPartner(m.Tuned, 1)
		}
		for n := 0; cfg.MaxTokens == 0 || n < cfg.MaxTokens; {
			before := len(t.text)
			if t.drafts = cfg.Drafts; cfg.MaxTokens > 0 { // more would be thrown away
				t.drafts = min(cfg.Drafts, cfg.MaxTokens-n)
			}
			if err := t.round(ctx); err != nil {
				yield(0, err)
				return
			}
			for _, token := range t.text[before:] {
				counts.Tokens++
				if !yield(token, nil) || slices.Contains(cfg.Stop, token) {
					return
				}
				if n++; n == cfg.MaxTokens {
					return
				}
			}
		}
	}
}

func (m *Together) check(pkg string, prompt []int32, cfg *TogetherConfig) error {
	switch {
	case m == nil || m.Large == nil || m.Small == nil:
		return check.Errorf(subquad.ErrCall, "%s: Large or Small is nil, want two models", pkg)
	case cfg.Method == ProxyTuned && m.Tuned == nil:
		return check.Errorf(subquad.ErrCall, "%s: Tuned is nil, want a model for ProxyTuned", pkg)
	case cfg.Method > ProxyTuned || cfg.Router > lastRouter:
		return check.Errorf(subquad.ErrCall, "%s: Method is %d and Router %d, want at most %d and %d", pkg, cfg.Method, cfg.Router, ProxyTuned, lastRouter)
	case !(cfg.Threshold >= 0 && cfg.Threshold <= 1):
		return check.Errorf(subquad.ErrCall, "%s: Threshold is %v, want 0 to 1", pkg, cfg.Threshold)
	case cfg.Drafts < 0 || cfg.Drafts > 1<<10 || cfg.MaxTokens < 0:
		return check.Errorf(subquad.ErrCall, "%s: Drafts is %d and MaxTokens %d, want 0 to 1024 and 0 or more", pkg, cfg.Drafts, cfg.MaxTokens)
	case len(prompt) == 0:
		return check.Errorf(subquad.ErrCall, "%s: the prompt is empty, want a token: what follows is predicted from it", pkg)
	}
	vocab := m.vocab()
	for i, token := range prompt {
		if token < 0 || int(token) >= vocab {
			return check.Errorf(subquad.ErrShape, "%s: token %d of the prompt is %d, want 0 to %d", pkg, i, token, vocab-1)
		}
	}
	if cfg.Drafts == 0 {
		cfg.Drafts = 5
	}
	return nil
}

// vocab is the length of the shortest vocabulary.
func (m *Together) vocab() int {
	n := min(m.Large.Vocab(), m.Small.Vocab())
	if m.Tuned != nil {
		n = min(n, m.Tuned.Vocab())
	}
	return n
}

// together is a text on its way.
type together struct {
	*Together
	pkg                 string
	cfg                 TogetherConfig
	vocab               int // logits that are looked at
	drafts              int // of a round
	text                []int32
	large, small, tuned *partner
	counts              *Counts
	mixed               []float32
	draft               Drafts
}

// round adds a token or, of drafts, several.
func (t *together) round(ctx context.Context) error {
	row, err := t.small.after(ctx, t.text, 1)
	if err != nil {
		return err
	}
	small := row.Data[:t.vocab]
	own, looked := argmax(small), small // own is what the small model would write
	if t.cfg.Method == ProxyTuned {
		if row, err = t.tuned.after(ctx, t.text, 1); err != nil {
			return err
		}
		looked = row.Data[:t.vocab]
	}
	if !t.ask(looked) {
		t.text = append(t.text, argmax(looked))
		return nil
	}
	t.counts.Large++
	if t.cfg.Method == Speculative {
		return t.speculate(ctx, own)
	}
	if row, err = t.large.after(ctx, t.text, 1); err != nil {
		return err
	}
	large := row.Data[:t.vocab]
	token := argmax(large)
	switch t.mixed = scratch.Sized(t.mixed, t.vocab); t.cfg.Method {
	case Contrastive:
		if err := Contrast(t.pkg, t.mixed, large, small, t.cfg.Alpha, t.cfg.Beta); err != nil {
			return err
		}
		token = argmax(t.mixed)
	case ProxyTuned:
		if err := Proxy(t.pkg, t.mixed, large, looked, small, t.cfg.Alpha); err != nil {
			return err
		}
		token = argmax(t.mixed)
	}
	if token != own {
		t.counts.Mismatches++
	}
	t.text = append(t.text, token)
	return nil
}

// speculate adds drafts of the small model, the first of which is there, as far as the large
// one agrees, and the large one's token after them.
func (t *together) speculate(ctx context.Context, first int32) error {
	d := &t.draft
	d.pkg, d.stop = t.pkg, t.cfg.Stop
	d.begin(t.text, t.drafts, t.vocab)
	if err := t.small.draft(ctx, d, d.Add(0, first), 1); err != nil {
		return err
	}
	n := len(d.tokens)
	large, err := t.large.after(ctx, append(slices.Clone(t.text), d.tokens...), n+1)
	if err != nil {
		return err
	}
	return d.walk(func(node int) (int32, bool, error) {
		token := argmax(mat.Row(large, node)[:t.vocab])
		t.text = append(t.text, token)
		if node < n && token != d.tokens[node] {
			t.counts.Mismatches++
		}
		return token, !slices.Contains(t.cfg.Stop, token), nil
	})
}

// ask tells whether the large model is asked about the token after a row of logits.
func (t *together) ask(logits []float32) bool {
	switch t.cfg.Router {
	case Always:
		return true
	case Never:
		return false
	}
	p := make([]float64, len(logits))
	logSoftmax(p, logits)
	first, second := math.Inf(-1), math.Inf(-1)
	for _, l := range p {
		if l > first {
			first, second = l, first
		} else {
			second = max(second, l)
		}
	}
	if t.cfg.Router == Unsure {
		return math.Exp(first) < t.cfg.Threshold
	}
	return (math.Exp(first)-math.Exp(second))/2 < t.cfg.Threshold
}

// argmax returns the first largest; 0 where there is no number.
func argmax(row []float32) int32 {
	best := 0
	for i, v := range row {
		if v > row[best] || row[best] != row[best] {
			best = i
		}
	}
	return int32(best)
}
