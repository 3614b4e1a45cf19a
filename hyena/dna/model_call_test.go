package dna

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

func TestPooling(t *testing.T) {
	m := small.random(4).model(t, small.config())
	tokens := bases(1, 500)
	masks := map[string][]bool{"all": nil, "none": make([]bool, 500), "some": make([]bool, 500), "one": make([]bool, 500)}
	for i := range 500 {
		masks["some"][i] = i%3 == 1 && i > 250
	}
	masks["one"][400] = true
	c := everything(m, tokens)
	must(t, m.Run(t.Context(), c))
	for name, mask := range masks {
		for pooling := Mean; pooling <= Last; pooling++ {
			want, count := make([]float64, m.cfg.Dim), 0
			for i := range tokens {
				if mask != nil && !mask[i] {
					continue
				}
				for d, v := range mat.Row(c.Hidden, i) {
					switch {
					case pooling <= Sum:
						want[d] += float64(v)
					case pooling == Last || count == 0:
						want[d] = float64(v)
					case pooling == Max:
						want[d] = math.Max(want[d], float64(v))
					}
				}
				count++
			}
			got := make([]float32, m.cfg.Dim)
			must(t, m.Run(t.Context(), &Call{Tokens: tokens, Pooled: got, Pooling: pooling, Mask: mask}))
			for d := range want {
				if pooling == Mean && count > 0 {
					want[d] /= float64(count)
				}
				if math.Abs(float64(got[d])-want[d]) > 1e-5*(1+math.Abs(want[d])) {
					t.Errorf("%s, pooling %d: element %d is %v, want %v", name, pooling, d, got[d], want[d])
				}
			}
		}
	}
	emb := make([]float32, m.cfg.Dim)
	must(t, m.EmbedInto(t.Context(), emb, strings.ToLower(m.Tokenizer(NoSpecial).Decode(tokens))))
	same(t, "EmbedInto", emb, c.Pooled)
}

// TestHeads checks the two classification heads against the hidden states.
func TestHeads(t *testing.T) {
	s := small.random(5)
	s.State["score.weight"] = weightstest.Tensor{Shape: []int{3, small.dim}, Data: make([]float32, 3*small.dim)}
	for c := range 3 {
		s.State["score.weight"].Data[c*small.dim+c] = 1 // picks a column
	}
	last := s.model(t, small.config())
	mean := s.renamed(func(n string) string { return strings.Replace(n, "score.", "head.output_transform.", 1) })
	mean.State["head.output_transform.bias"] = weightstest.Tensor{Shape: []int{3}, Data: []float32{1, 2, 3}}
	pooled := mean.model(t, small.config())
	tuned := mean.renamed(func(n string) string { return strings.Replace(n, "head.", "decoder.0.", 1) }).model(t, small.config())
	tokens := bases(1, 30)
	for name, pad := range map[string]struct {
		at, want int
	}{"none": {-1, 29}, "after": {20, 19}, "before": {0, 29}} {
		ids := slices.Clone(tokens)
		if pad.at >= 0 {
			ids[pad.at] = Official.Pad()
		}
		c := everything(last, ids)
		c.Classes = make([]float32, 3)
		must(t, last.Run(t.Context(), c))
		near(t, "padding "+name, c.Classes, mat.Row(c.Hidden, pad.want)[:3], 1e-6)
	}
	c := everything(pooled, tokens)
	c.Classes = make([]float32, 3)
	must(t, pooled.Run(t.Context(), c))
	near(t, "mean", c.Classes, []float32{c.Pooled[0] + 1, c.Pooled[1] + 2, c.Pooled[2] + 3}, 1e-6)
	again := everything(tuned, tokens)
	again.Classes = make([]float32, 3)
	must(t, tuned.Run(t.Context(), again))
	same(t, "decoder.0", again.Classes, c.Classes)
	c = everything(pooled, nil)
	c.Classes = make([]float32, 3)
	must(t, pooled.Run(t.Context(), c))
	same(t, "no tokens", c.Classes, []float32{1, 2, 3})
	must(t, last.Run(t.Context(), &Call{Classes: make([]float32, 3)}))
}

func TestCallErrors(t *testing.T) {
	m := small.random(10).model(t, small.config())
	for want, change := range map[string]func(c *Call){
		"dna: Tokens has 701 elements, more than MaxLen = 700":            func(c *Call) { c.Tokens = bases(1, 701) },
		"dna: Tokens[2] is 16, want 0 to 15":                              func(c *Call) { c.Tokens = []int32{7, 7, 16} },
		"dna: Tokens[0] is -1, want 0 to 15":                              func(c *Call) { c.Tokens = []int32{-1} },
		"dna: Hidden has 11 columns, want Dim = 12":                       func(c *Call) { c.Hidden.Cols = 11 },
		"dna: Hidden has 19 rows, want 20":                                func(c *Call) { c.Hidden.Rows = 19 },
		"dna: Logits has 15 columns, want Vocab = 16":                     func(c *Call) { c.Logits.Cols = 15 },
		"dna: LogLikelihood has 20 elements, want len(Tokens)-1 = 19":     func(c *Call) { c.LogLikelihood = make([]float32, 20) },
		"dna: Targets has 21 elements, want at most len(Tokens) = 20":     func(c *Call) { c.Targets = make([]int32, 21) },
		"dna: Targets[1] is 99, want less than 16":                        func(c *Call) { c.Targets = []int32{1, 99} },
		"dna: LogLikelihood has 19 elements, want len(Targets) = 3":       func(c *Call) { c.Targets = []int32{1, 2, 3} },
		"dna: Pooled has 3 elements, want Dim = 12":                       func(c *Call) { c.Pooled = make([]float32, 3) },
		"dna: Pooling is 9, want Mean, Sum, Max, First or Last":           func(c *Call) { c.Pooling = 9 },
		"dna: Mask has 0 elements, want len(Tokens) = 20":                 func(c *Call) { c.Mask = []bool{} },
		"dna: Classes is wanted, but the checkpoint has no head for them": func(c *Call) { c.Classes = make([]float32, 2) },
		"dna: Workers is -2, want 0 to 65536":                             func(c *Call) { c.Workers = -2 },
		"dna: Residuals has 1 elements, want Layers+1 = 3":                func(c *Call) { c.Residuals = make([]blas32.General, 1) },
		"dna: Residuals has 1 rows, want 20":                              func(c *Call) { c.Residuals = []blas32.General{{}, zeros(1, 12), {}} },
		"dna: Logits is 20 x 16 with stride 16 but has only 319 elements": func(c *Call) { c.Logits.Data = c.Logits.Data[:319] },
	} {
		c := everything(m, bases(1, 20))
		change(c)
		before := slices.Clone(c.Pooled)
		err := m.Run(t.Context(), c)
		if err == nil || err.Error() != want || !errors.Is(err, ErrShape) && !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrCall) {
			t.Errorf("error %v, want %s", err, want)
		}
		same(t, "written in spite of the error", c.Pooled, before)
		if err := m.RunBatch(t.Context(), []*Call{everything(m, nil), c}); err == nil || err.Error() != "dna: call 1: "+want {
			t.Errorf("in a batch: error %v", err)
		}
	}
	for _, text := range []string{"HELLO", "ACGT\n", "A[SEP]"} {
		emb, cfg := make([]float32, m.Config().Dim), m.Config()
		if err := m.EmbedInto(t.Context(), emb, text); !errors.Is(err, ErrCall) {
			t.Errorf("%q: error %v", text, err)
		}
		cfg.AnyText = true
		must(t, small.random(1).model(t, cfg).EmbedInto(t.Context(), emb, text))
	}
	dnaText, rnaText := make([]float32, m.Config().Dim), make([]float32, m.Config().Dim)
	must(t, m.EmbedInto(t.Context(), dnaText, "ATTGCAt"))
	must(t, m.EmbedInto(t.Context(), rnaText, "AUUGCAu"))
	same(t, "RNA", rnaText, dnaText)
	if err := m.EmbedInto(t.Context(), nil, "ACGT"); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}
