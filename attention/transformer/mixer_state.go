package transformer

import (
	"io"
	"math"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// cache is the keys and values of a layer, a list of which the last can be taken back or,
// with a window, a ring.
type cache struct {
	*attention.State
	most   int // tokens, 0 for any number
	length int // that the rotation is of
	policy rope.Policy
	owner  planner
}

var errAnother = check.Errorf(subquad.ErrState, "the state of another mixer")

// ring tells whether the state has a window: what it has overwritten is gone.
func (c *cache) ring() bool { return c.Config().Window > 0 }

// Alike tells whether another state of the layer has the same StateConfig.
func (c *cache) Alike(other lm.LayerState) bool {
	d, ok := other.(*cache)
	if !ok {
		return false
	}
	a, b := c.Config(), d.Config()
	return a.Format == b.Format && a.Window == b.Window && a.Keep == b.Keep && c.length == d.length && c.policy == d.policy
}

// planner makes states for sequences of a known length.
type planner interface {
	planned(tokens int) (*attention.State, error)
	depends() bool
	Fingerprint() uint64
}

// Plan implements lm.Planner.
func (c *cache) Plan(tokens int) {
	if !c.owner.depends() || c.length == tokens {
		return
	}
	if st, err := c.owner.planned(tokens); err == nil { // as NewState made one of no length
		c.State, c.length = st, tokens
	}
}

// Clone implements lm.LayerState.
func (c *cache) Clone() lm.LayerState { return c.clone() }

func (c *cache) clone() *cache {
	d := *c
	d.State = c.State.Clone()
	return &d
}

// CopyFrom implements lm.LayerState.
func (c *cache) CopyFrom(from lm.LayerState) error {
	other, ok := from.(*cache)
	if !ok {
		return errAnother
	}
	if err := c.State.CopyFrom(other.State); err != nil {
		return err
	}
	kept := c.State
	*c = *other
	c.State = kept
	return nil
}

// Room implements lm.LayerState.
func (c *cache) Room(tokens int) error { return roomFor(c.most, c.Len(), tokens) }

// mark is the length of a list or a copy of a ring.
type mark struct {
	n    int
	copy *cache
}

// Bytes implements lm.Mark.
func (m *mark) Bytes() int64 {
	if m.copy != nil {
		return m.copy.Bytes()
	}
	return 8
}

// Clone implements lm.Mark.
func (m *mark) Clone() lm.Mark {
	if m.copy != nil {
		return &mark{m.n, m.copy.clone()}
	}
	return &mark{n: m.n}
}

// NewMark implements lm.LayerState.
func (c *cache) NewMark() lm.Mark {
	if c.ring() {
		return &mark{copy: c.clone()}
	}
	return new(mark)
}

// Save implements lm.LayerState.
func (c *cache) Save(to lm.Mark) {
	m := to.(*mark)
	m.n = c.Len()
	switch {
	case !c.ring():
		m.copy = nil
	case m.copy == nil:
		m.copy = c.clone()
	default:
		if err := m.copy.CopyFrom(c); err != nil {
			panic(err) // it is a clone
		}
	}
}

// Restore implements lm.LayerState.
func (c *cache) Restore(from lm.Mark) error {
	m := from.(*mark)
	if m.copy != nil {
		return c.CopyFrom(m.copy)
	}
	return c.Truncate(m.n)
}

// Undo implements lm.Undoer: also a ring can take some tokens back.
func (c *cache) Undo(n int) error { return c.State.Truncate(n) }

// CanTruncate implements lm.LayerState: a ring is only taken back to what it is copied at.
func (c *cache) CanTruncate(n int) bool { return !c.ring() || n == 0 || n == c.Len() }

// kindCache begins the file of a cache: what its attention.State does not know of itself.
const kindCache = "subqkv.1"

// WriteTo implements lm.LayerState.
func (c *cache) WriteTo(w io.Writer) (int64, error) {
	head := state.NewWriter(w, kindCache, []int64{int64(c.owner.Fingerprint())})
	head.Ints(int64(c.most), int64(c.length), int64(c.policy))
	return head.End(c.State)
}

// readCache reads what stands before an attention.State.
func readCache(r io.Reader, fingerprint uint64) (*cache, error) {
	head := state.NewReader(r, "transformer", subquad.ErrState, kindCache, []int64{int64(fingerprint)})
	most, length, policy := head.Int(), head.Int(), head.Int()
	if err := head.End(); err != nil {
		return nil, err
	}
	if min(most, length) < 0 || max(most, length) > math.MaxInt || policy < 0 || policy > int64(rope.Rerotate) {
		return nil, check.Errorf(subquad.ErrState, "transformer: a stored state of MaxTokens %d, Length %d and Policy %d", most, length, policy)
	}
	return &cache{most: int(most), length: int(length), policy: rope.Policy(policy)}, nil
}

// checkRead refuses what no cache of the layer keeps: keys that have less room than it says, which
// a model asks before the first of its layers takes a token, and with shared values or not.
func (c *cache) checkRead(shared bool) error {
	own := c.Config()
	if own.SharedValues != shared || own.LogWeights {
		return check.Errorf(subquad.ErrState, "transformer: a stored state with SharedValues %v and LogWeights %v, want %v and false", own.SharedValues, own.LogWeights, shared)
	}
	if own.Window == 0 && own.MaxTokens != c.most {
		return check.Errorf(subquad.ErrState, "transformer: a stored state of MaxTokens %d with keys of at most %d", c.most, own.MaxTokens)
	}
	return nil
}
