package transformer

import (
	"context"
	"iter"

	"github.com/subquad/subquad/internal/lm"
)

// Source is a model and a sequence that it reads, which can go back: what decodes together
// with another. NewSource of this package's and of package mamba's Model make them.
type Source = lm.Source

// NewSource returns a Source of the model that has read nothing. Errors are those of NewState.
func (m *Model) NewSource() (Source, error) { return m.stack.NewSource() }

// NewSourceWith is NewSource of a model that remembers what a configuration says: little, to
// draft for itself (ModelDraft). Without Snapshots the state has as many as it needs to go
// back. Errors match ErrConfig.
func (m *Model) NewSourceWith(cfg StateConfig) (Source, error) { return m.stack.NewSourceWith(cfg) }

// Method is how two models decode together; see the constants.
type Method = lm.Method

// Router says when the large model is asked; at other tokens the small one writes alone.
type Router = lm.Router

const (
	// Speculative has the small model write Drafts tokens, of which the large one, in a single
	// call, takes those that it would have written itself, and one more: the text is the large
	// model's own (Leviathan et al. 2023, arXiv 2211.17192).
	Speculative = lm.Speculative
	// Oracle takes the large model's token, Contrastive the largest of Contrast, ProxyTuned
	// that of Proxy.
	Oracle      = lm.Oracle
	Contrastive = lm.Contrastive
	ProxyTuned  = lm.ProxyTuned

	Always    = lm.Always    // at each token
	Never     = lm.Never     // at none
	Unsure    = lm.Unsure    // where the small model's likeliest token has less than Threshold
	Undecided = lm.Undecided // where the two likeliest are less than 2 Threshold apart
)

// TogetherConfig says how two models decode together, greedily: by which Method and Router,
// with Threshold, Alpha and Beta, for how many Drafts at a time (0 for 5), for MaxTokens (0 is
// no limit), until a token of Stop, which the text has as its last.
type TogetherConfig = lm.TogetherConfig

// Counts tells how a text came to be: how many Tokens it has, how often the Large model was
// called, and how often what it said was not what the small one would have written.
type Counts = lm.Counts

// Together are models that decode together (Zhang et al., FS-GEN, 2024, arXiv 2406.12295): a
// large and a small one, and for ProxyTuned the small one after tuning. Their tokens must mean
// the same; where vocabularies differ in length the longer ones are cut. It must not be used
// by two goroutines at once.
type Together struct{ Large, Small, Tuned Source }

// Generate continues a prompt, of one token at least, and yields tokens one by one; counts,
// which may be nil, are kept up to date. It ends as cfg says, or with an error: ErrCall or
// ErrShape of the arguments, those of the models, or ctx.Err().
func (t *Together) Generate(ctx context.Context, prompt []int32, cfg TogetherConfig, counts *Counts) iter.Seq2[int32, error] {
	m := &lm.Together{}
	if t != nil {
		m.Large, m.Small, m.Tuned = t.Large, t.Small, t.Tuned
	}
	return m.Generate(ctx, "transformer", prompt, cfg, counts)
}

// Contrast sets dst to small + beta (large - small) where the large model's logit is at least
// ln(alpha) below its largest, and to -Inf elsewhere: contrastive decoding (Li et al. 2022,
// arXiv 2210.15097) in the form of FS-GEN, with alpha 0.1 and beta 0.5 there. A beta of 1 is
// the large model alone, 0 the small one; (1+b) large - b small, as others write it, is beta =
// 1+b. alpha is 0 (no limit) to 1. Rows may differ in length; dst has the shorter one. Errors
// match ErrShape or ErrCall.
func Contrast(dst, large, small []float32, alpha, beta float64) error {
	return lm.Contrast("transformer", dst, large, small, alpha, beta)
}

// Proxy sets dst to large + alpha (tuned - small): what tuning a small model has changed,
// carried over to a large one (Liu et al. 2024, arXiv 2401.08565). dst has the shortest row.
// Errors match ErrShape or ErrCall.
func Proxy(dst, large, tuned, small []float32, alpha float64) error {
	return lm.Proxy("transformer", dst, large, tuned, small, alpha)
}

// Critical returns softmax(2 right - wrong)[token], of the logits before a token of two models,
// tuned on what was right and on what was wrong: low where the token is critical (cDPO, Lin et
// al. 2024, arXiv 2411.19943). Errors match ErrShape.
func Critical(right, wrong []float32, token int32) (float64, error) {
	return lm.Critical("transformer", right, wrong, token)
}

// Divergence returns KL(softmax test || softmax reference) of a row of logits, in nats: how
// far an int8 model is from its float32 one, say, or a dialogue from a fresh one. Errors match
// ErrShape.
func Divergence(test, reference []float32) (float64, error) {
	return lm.Divergence("transformer", test, reference)
}

// Drift is how the mean divergence of turns goes on; see FitDrift.
type Drift = lm.Drift

// FitDrift fits D[t+1] - D[t] = Constant + Slope D[t] to the divergences of three turns or
// more, by least squares (after Dongre et al., "Drift No More", 2025, arXiv 2510.07777, whose
// text was not to be had: re-derived from summaries). With a Slope between -2 and 0 they come
// to rest at Equilibrium. Errors match ErrShape.
func FitDrift(turns []float64) (Drift, error) { return lm.FitDrift("transformer", turns) }

// Accept is the test of speculative sampling (Leviathan et al. 2023, arXiv 2211.17192): of
// drafts d_i, drawn from the distributions draft[i], it keeps those up to the first with
// uniform[i] > target[i][d_i] / draft[i][d_i], and adds one token: drawn from max(target[i] -
// draft[i], 0) at a rejection, or from the last row of target. The tokens are distributed as
// the target's own, exactly, if draft is what the drafts were drawn from (one-hot, for greedy
// ones). target has one row more than draft; uniform has a random number from [0, 1) for each
// draft and one for the token that is added. With done the drafts end the text, and nothing is
// added where all are kept. It appends to dst. Errors match ErrShape.
func Accept(dst, drafts []int32, draft, target [][]float64, uniform []float64, done bool) ([]int32, error) {
	return lm.Accept("transformer", dst, drafts, draft, target, uniform, done)
}
