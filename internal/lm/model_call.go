package lm

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/ssm"
)

// Call runs a model over tokens. Outputs that are left zero are not made. The packages of
// models have Calls of their own, with those of these fields that they can honour, where
// they are documented.
type Call struct {
	Tokens  []int32
	State   *State
	Offsets []int
	States  []*State

	Hidden        blas32.General
	Residuals     []blas32.General
	Logits        blas32.General
	Last          blas32.General
	LogLikelihood []float32
	Targets       []int32

	Pooled  []float32
	Pooling Pooling
	Mask    []bool
	Classes []float32

	Filter  func(layer int) ssm.DeltaFilter
	Workers int
}

// drafting is what a call of drafts has besides: the parents of the tokens of a tree, what
// attention reads, and that nothing is kept for Truncate.
type drafting struct {
	tree   []int
	near   Near
	passes bool
}

// target returns the token that the one at t predicts.
func (c *Call) target(t int) int32 {
	if c.Targets == nil {
		return c.Tokens[t+1]
	}
	return c.Targets[t]
}

// Forward sets dst [n, V] to the logits after each of a sequence's tokens.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.Run(context.Background(), &Call{Tokens: tokens, Logits: dst})
}

// Step sets dst [n, V] to the logits after each of the next tokens.
func (m *Model) Step(dst blas32.General, tokens []int32, st *State) error {
	if err := m.checkState("State", st); err != nil {
		return err
	}
	return m.Run(context.Background(), &Call{Tokens: tokens, Logits: dst, State: st})
}

// StepBatch sets dst [states, V] to the logits after one more token for each state.
func (m *Model) StepBatch(dst blas32.General, tokens []int32, states []*State) error {
	if states == nil {
		states = []*State{}
	}
	return m.Run(context.Background(), &Call{Tokens: tokens, States: states, Logits: dst})
}

// Run runs a call. Errors match ErrShape, ErrCall, ErrState or ErrFull, or are ctx.Err()
// itself once ctx is done; outputs are then unspecified, and a state stands after a whole
// number of pieces of the call's tokens, in all layers: Len tells where.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := check.Call(m.cfg.Package, ctx, call != nil); err != nil {
		return err
	}
	return m.runWith(ctx, call, drafting{}, parallel.Choose(m.cfg.Workers, call.Workers))
}

// runDrafts is Run of tokens that may be taken back.
func (m *Model) runDrafts(ctx context.Context, call *Call, d drafting) error {
	d.passes = true
	return m.runWith(ctx, call, d, parallel.Choose(m.cfg.Workers, call.Workers))
}

func (m *Model) runWith(ctx context.Context, call *Call, drafts drafting, workers int) error {
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	if err := s.accept(m, call); err != nil {
		return err
	}
	defer s.release()
	s.drafts = drafts
	return check.Wrap(ctx, m.cfg.Package, s.runCall(ctx, workers))
}

// accept checks a call and lays its sequences out, for release to forget.
func (s *run) accept(m *Model, call *Call) error {
	if !m.streams && (call.State != nil || call.States != nil) {
		return check.Errorf(subquad.ErrCall, "%s: a state is given, but the model cannot go on from one", m.cfg.Package)
	}
	batch := pack.Batch[*State]{Rows: len(call.Tokens), Offsets: call.Offsets, State: call.State, States: call.States}
	if err := s.layout.Lay(m.cfg.Package, batch, m.valid); err != nil {
		return err
	}
	if err := m.check(call, s.layout.Segments); err != nil {
		s.layout.Clear()
		return err
	}
	s.m, s.call = m, *call
	return nil
}

// check returns an error where a call does not fit the model.
func (m *Model) check(c *Call, sequences []pack.Segment) error {
	pkg, n := m.cfg.Package, len(c.Tokens)
	for _, g := range sequences {
		if err := m.checkLength("Tokens", g.To-g.From); err != nil {
			return err
		}
	}
	for t, id := range c.Tokens {
		if id < 0 || int(id) >= m.vocab {
			return check.Errorf(subquad.ErrShape, "%s: Tokens[%d] is %d, want 0 to %d", pkg, t, id, m.vocab-1)
		}
	}
	if c.Residuals != nil && len(c.Residuals) != len(m.cfg.Layers)+1 {
		return check.Errorf(subquad.ErrShape, "%s: Residuals has %d elements, want Layers+1 = %d", pkg, len(c.Residuals), len(m.cfg.Layers)+1)
	}
	for _, r := range c.Residuals {
		if !mat.Given(r) {
			continue
		}
		if err := check.Matrix(subquad.ErrShape, pkg, "Residuals", r, n, m.dim, "Dim"); err != nil {
			return err
		}
	}
	for _, o := range [...]struct {
		name       string
		m          blas32.General
		rows, cols int
		what       string
	}{
		{"Hidden", c.Hidden, n, m.dim, "Dim"},
		{"Logits", c.Logits, n, m.vocab, "Vocab"},
		{"Last", c.Last, len(sequences), m.vocab, "Vocab"},
	} {
		if !mat.Given(o.m) {
			continue
		}
		if err := check.Matrix(subquad.ErrShape, pkg, o.name, o.m, o.rows, o.cols, o.what); err != nil {
			return err
		}
	}
	if mat.Given(c.Last) {
		for i, g := range sequences {
			if g.From == g.To {
				return check.Errorf(subquad.ErrShape, "%s: Last is wanted, but sequence %d has no tokens", pkg, i)
			}
		}
	}
	if m.cfg.Head.Weights == nil && (mat.Given(c.Logits) || mat.Given(c.Last) || len(c.LogLikelihood) > 0) {
		return check.Errorf(subquad.ErrCall, "%s: logits are wanted, but the checkpoint has no head", pkg)
	}
	if err := m.checkTargets(c); err != nil {
		return err
	}
	if err := m.checkPooling(c, len(sequences)); err != nil {
		return err
	}
	if err := c.checkApart(pkg); err != nil {
		return err
	}
	return check.Workers(subquad.ErrCall, pkg, c.Workers)
}

// checkApart returns an error where outputs share elements.
func (c *Call) checkApart(pkg string) error {
	list := [...]blas32.General{c.Hidden, c.Logits, c.Last, vector(c.LogLikelihood), vector(c.Pooled), vector(c.Classes)}
	names := [...]string{"Hidden", "Logits", "Last", "LogLikelihood", "Pooled", "Classes"}
	for i, a := range list {
		for j, b := range list[:i] {
			if mat.Overlap(a, b) {
				return check.Errorf(subquad.ErrShape, "%s: %s shares elements with %s", pkg, names[i], names[j])
			}
		}
		for j, r := range c.Residuals {
			if mat.Overlap(a, r) {
				return check.Errorf(subquad.ErrShape, "%s: %s shares elements with Residuals[%d]", pkg, names[i], j)
			}
		}
	}
	for i, a := range c.Residuals {
		for j, b := range c.Residuals[:i] {
			if mat.Overlap(a, b) {
				return check.Errorf(subquad.ErrShape, "%s: Residuals[%d] shares elements with Residuals[%d]", pkg, i, j)
			}
		}
	}
	return nil
}

// vector is a list as a matrix of one row, of none where it is empty.
func vector(x []float32) blas32.General {
	if len(x) == 0 {
		return blas32.General{}
	}
	return mat.Vector(x)
}

// checkLength returns an error about more tokens than a sequence may have.
func (m *Model) checkLength(name string, tokens int) error {
	if m.cfg.MaxLen > 0 && tokens > m.cfg.MaxLen {
		return check.Errorf(m.cfg.TooLong, "%s: %s has %d elements, more than MaxLen = %d", m.cfg.Package, name, tokens, m.cfg.MaxLen)
	}
	return nil
}

func (m *Model) checkTargets(c *Call) error {
	pkg, n := m.cfg.Package, len(c.Tokens)
	if c.Targets == nil {
		if len(c.LogLikelihood) != 0 && len(c.LogLikelihood) != n-1 {
			return check.Errorf(subquad.ErrShape, "%s: LogLikelihood has %d elements, want len(Tokens)-1 = %d", pkg, len(c.LogLikelihood), n-1)
		}
		return nil
	}
	if len(c.Targets) > n {
		return check.Errorf(subquad.ErrShape, "%s: Targets has %d elements, want at most len(Tokens) = %d", pkg, len(c.Targets), n)
	}
	for t, id := range c.Targets {
		if int(id) >= m.vocab {
			return check.Errorf(subquad.ErrShape, "%s: Targets[%d] is %d, want less than %d", pkg, t, id, m.vocab)
		}
	}
	return check.Vector(subquad.ErrShape, pkg, "LogLikelihood", c.LogLikelihood, len(c.Targets), "len(Targets)")
}

func (m *Model) checkPooling(c *Call, sequences int) error {
	pkg := m.cfg.Package
	want := func(name string, x []float32, wide int, what string) error {
		total := check.Product(math.MaxInt, sequences, wide)
		switch {
		case x == nil || int64(len(x)) == total:
			return nil
		case sequences == 1:
			return check.Vector(subquad.ErrShape, pkg, name, x, wide, what)
		}
		return check.Errorf(subquad.ErrShape, "%s: %s has %d elements, want %d sequences * %s = %d", pkg, name, len(x), sequences, what, total)
	}
	switch {
	case c.Mask != nil && len(c.Mask) != len(c.Tokens):
		return check.Errorf(subquad.ErrShape, "%s: Mask has %d elements, want len(Tokens) = %d", pkg, len(c.Mask), len(c.Tokens))
	case c.Pooling > Last:
		return check.Errorf(subquad.ErrCall, "%s: Pooling is %d, want Mean, Sum, Max, First or Last", pkg, c.Pooling)
	case c.Classes != nil && m.cfg.Classifier == nil:
		return check.Errorf(subquad.ErrCall, "%s: Classes is wanted, but the checkpoint has no head for them", pkg)
	}
	if err := want("Pooled", c.Pooled, m.dim, "Dim"); err != nil {
		return err
	}
	return want("Classes", c.Classes, m.Classes(), "Classes()")
}

// Classes returns the number of classes of the checkpoint's head, 0 if it has none.
func (m *Model) Classes() int {
	if m.cfg.Classifier == nil {
		return 0
	}
	_, classes := m.cfg.Classifier.Weights.Dims()
	return classes
}
