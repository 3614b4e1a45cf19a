package transformer

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"math"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/state"
)

// Replacement is an operator that takes the place of a layer's exact attention: see
// Config.Attention and Replace.
type Replacement struct {
	operator attention.Operator
	newState func(StateConfig) (attention.Past, error)
	read     func(io.Reader) (attention.Past, error)
	clone    func(attention.Past) attention.Past
}

// Replace returns a replacement, whose states are made by newState, for a state of the model
// with a StateConfig, and read by read: op's own NewState and ReadState.
//
//	op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.Scale, Window: 1024})
//	...
//	return transformer.Replace(op, func(transformer.StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{}) }, op.ReadState), nil
func Replace[S interface {
	attention.Past
	Clone() S
}](op attention.Operator, newState func(StateConfig) (S, error), read func(io.Reader) (S, error)) *Replacement {
	if op == nil || newState == nil || read == nil {
		return &Replacement{} // which Open refuses
	}
	return &Replacement{
		operator: op,
		newState: func(cfg StateConfig) (attention.Past, error) {
			st, err := newState(cfg)
			if err != nil {
				return nil, err
			}
			return st, nil
		},
		read: func(r io.Reader) (attention.Past, error) {
			st, err := read(r)
			if err != nil {
				return nil, err
			}
			return st, nil
		},
		clone: func(p attention.Past) attention.Past { return p.(S).Clone() },
	}
}

// fingerprint is that of what an empty state is stored as, which has its operator's.
func (r *Replacement) fingerprint() (uint64, error) {
	if r.operator == nil {
		return 0, check.Errorf(ErrConfig, "transformer: a Replacement without an operator or a way to make and read its states")
	}
	st, err := r.newState(StateConfig{})
	if err != nil {
		return 0, err
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		return 0, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%T", r.operator)
	h.Write(file.Bytes())
	return h.Sum64(), nil
}

// replace asks for what is to stand in place of a layer's attention.
func (c *checkpoint) replace(m *mixer, layer int, cfg attention.Config) {
	with, err := c.cfg.Attention(layer, cfg)
	if with != nil && err == nil {
		m.print, err = with.fingerprint()
	}
	if m.with = with; err != nil && c.Err == nil {
		c.Err = fmt.Errorf("transformer: attention of layer %d: %w", layer, err)
	}
}

// replaced is the state of a layer whose attention is another operator.
type replaced struct {
	attention.Past
	most  int // tokens, 0 for any number
	owner *Replacement
}

// past is what an operator of a layer is given.
func (c *cache) past() attention.Past     { return c.State }
func (st *replaced) past() attention.Past { return st.Past }

// Clone implements lm.LayerState.
func (st *replaced) Clone() lm.LayerState { return st.copied() }

func (st *replaced) copied() *replaced {
	return &replaced{st.owner.clone(st.Past), st.most, st.owner}
}

// CopyFrom implements lm.LayerState.
func (st *replaced) CopyFrom(from lm.LayerState) error {
	other, ok := from.(*replaced)
	if !ok {
		return errAnother
	}
	*st = *other.copied()
	return nil
}

// Room implements lm.LayerState.
func (st *replaced) Room(tokens int) error { return roomFor(st.most, st.Len(), tokens) }

// kindReplaced begins the file of another operator's state: what that does not know of itself.
const kindReplaced = "subqre.1"

// WriteTo implements lm.LayerState.
func (st *replaced) WriteTo(w io.Writer) (int64, error) {
	head := state.NewWriter(w, kindReplaced, nil)
	head.Ints(int64(st.most))
	return head.End(st.Past)
}

// readState reads what replaced.WriteTo wrote.
func (r *Replacement) readState(from io.Reader) (lm.LayerState, error) {
	head := state.NewReader(from, "transformer", subquad.ErrState, kindReplaced, nil)
	most := head.Int()
	if most < 0 || most > math.MaxInt {
		head.Fail("it is of MaxTokens %d", most)
	}
	if err := head.End(); err != nil {
		return nil, err
	}
	past, err := r.read(from)
	if err != nil {
		return nil, err
	}
	return &replaced{past, int(most), r}, nil
}

// roomFor returns an error where a number of tokens is too large for a state of some.
func roomFor(most, have, tokens int) error {
	if most > 0 && tokens > most-have {
		return check.Errorf(subquad.ErrFull, "%d tokens after %d, want at most MaxTokens = %d", tokens, have, most)
	}
	return nil
}

// replacedMark is a copy.
type replacedMark struct{ copy *replaced }

// Bytes implements lm.Mark.
func (m *replacedMark) Bytes() int64 { return m.copy.Bytes() }

// Clone implements lm.Mark.
func (m *replacedMark) Clone() lm.Mark { return &replacedMark{m.copy.copied()} }

// NewMark implements lm.LayerState.
func (st *replaced) NewMark() lm.Mark { return &replacedMark{st.copied()} }

// Save implements lm.LayerState.
func (st *replaced) Save(mark lm.Mark) { mark.(*replacedMark).copy = st.copied() }

// Restore implements lm.LayerState.
func (st *replaced) Restore(mark lm.Mark) error { return st.CopyFrom(mark.(*replacedMark).copy) }

// CanTruncate implements lm.LayerState: it tries with a copy.
func (st *replaced) CanTruncate(n int) bool {
	return n == 0 || n == st.Len() || st.copied().Past.Truncate(n) == nil
}
