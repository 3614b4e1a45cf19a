package landmark

import (
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// MetaConfig fixes meta-token attention; the fields are those of
// attention.Config, with its defaults.
type MetaConfig struct {
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	Workers                           int
}

// Meta is the attention of meta-tokens to each other (Shah et al. 2025, arXiv
// 2509.16278), a layer after ordinary causal attention:
//
//	out = softmax(Scale q k^T + M) v, M[i][j] = 0 where j <= i and both are meta-tokens, else -Inf.
//
// Queries of other tokens see nothing and get 0, so that a residual connection
// passes them; the paper does not say what they get. The rows of meta-tokens are
// gathered and attended to as a sequence of their own: n tokens of which m are
// meta-tokens cost as much as causal attention over m, with no mask.
//
// A Meta is immutable and safe for concurrent use.
type Meta struct {
	cfg     attention.Config
	print   state.Fingerprint    // of the states that belong to it
	att     *attention.Attention // over meta-tokens
	scratch scratch.List[metaRun]
}

// NewMeta returns an operator, or an error that matches attention.ErrConfig.
func NewMeta(cfg MetaConfig) (*Meta, error) {
	att, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers})
	if err != nil {
		return nil, check.Named("landmark", err)
	}
	m := &Meta{att: att, cfg: att.Config()}
	m.print = state.NewFingerprint("meta", m.fingerprint()...)
	return m, nil
}

// Bytes returns 0: the operator has neither weights nor tables. States, pages and
// working memory count for themselves.
func (m *Meta) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that Forward takes for a sequence with
// that many meta-tokens, at the most, besides its arguments.
func (m *Meta) ScratchBytes(metaTokens int) int64 {
	cfg := &m.cfg
	width := int64(cfg.Heads+cfg.KVHeads) * int64(cfg.HeadDim+cfg.ValueDim)
	return m.att.ScratchBytes(metaTokens, metaTokens) + 4*int64(metaTokens)*width + 1<<10
}
