package transformer

import (
	"io"
	"math"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/state"
)

// kindPolicy begins the file of a layer's past under a policy: what its kvcache.State does not
// know of itself.
const kindPolicy = "subqpo.1"

// WriteTo implements lm.LayerState. The policy itself is not in the file, but what tells it
// from others is.
func (c *policyState) WriteTo(w io.Writer) (int64, error) {
	head := state.NewWriter(w, kindPolicy, []int64{int64(c.owner.Fingerprint())})
	head.Ints(int64(c.most))
	return head.End(c.State)
}

// ReadStateWith implements lm.ConfigReader.
func (m *mixer) ReadStateWith(r io.Reader, cfg lm.StateConfig) (lm.LayerState, error) {
	if cfg.Policies == nil {
		return m.ReadState(r)
	}
	p := cfg.Policies(m.layer)
	if p == nil {
		return m.ReadState(r)
	}
	cfg.MaxTokens = 0 // the file's
	empty, err := m.newPolicy(cfg, *p)
	if err != nil {
		return nil, err
	}
	c := empty.(*policyState)
	head := state.NewReader(r, "transformer", subquad.ErrState, kindPolicy, []int64{int64(m.Fingerprint())})
	most := head.Int()
	if err := head.End(); err != nil {
		return nil, err
	}
	if most < 0 || most > math.MaxInt {
		return nil, check.Errorf(subquad.ErrState, "transformer: a stored state of MaxTokens %d", most)
	}
	c.most = int(most)
	if c.State, err = c.op.ReadState(r); err != nil {
		return nil, err
	}
	if own := c.State.Config().MaxTokens; own != c.most {
		return nil, check.Errorf(subquad.ErrState, "transformer: a stored state of MaxTokens %d with keys of at most %d", c.most, own)
	}
	return c, nil
}
