package attention

import (
	"context"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// Step appends the keys and values of the next tokens of a sequence, one or many,
// to its state and attends from their queries: q is [tokens, Heads*HeadDim], k
// [tokens, KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim]. Any division of a sequence into steps gives what Forward
// gives, up to rounding and to what the state's Format loses.
//
// Each byte of the state is read once for all query heads that share it. It costs
// 2 (HeadDim + ValueDim) flop for each query head and token of the state or its
// window, and allocates nothing once a shape has been seen, except for a state
// that grows.
//
// Run has a step's options. Config.Skip is not used: nothing is left out. Errors are
// those of Run; after one the state has the tokens that Len says.
func (a *Attention) Step(dst, q, k, v blas32.General, st *State) error {
	d := a.steps.Get()
	defer a.steps.Put(d)
	d.one, d.single = [2]blas32.General{k, v}, [1]*State{st}
	return d.step(context.Background(), a, &Call{Dst: dst, Q: q, K: d.one[:1], V: d.one[1:]}, false, d.single[:])
}

// StepScratchBytes returns the working memory that a step of that many new tokens
// needs, at the most, besides its arguments, when its state has as many as keys,
// the new ones included, in one piece or a ring. It grows by the keys up to 32,768
// and not with them; pages, a Rotation, and a call's options take more, and rows of Int8
// that stand turned TurnedScratchBytes.
func (a *Attention) StepScratchBytes(tokens, keys int) int64 {
	cfg, sizes := &a.cfg, &a.sizes
	unit := a.stepTile.Unit()
	kCols, vCols := int64(whole(cfg.HeadDim, unit)), int64(whole(cfg.ValueDim, unit))
	queries := int64(min(tokens, max(1, sizes.StepRows/cfg.Heads)))
	rows := queries * int64(cfg.Heads)
	splits := int64(max(1, min(64, (keys+sizes.StepKeys-1)/sizes.StepKeys)))
	head := rows / int64(cfg.KVHeads)
	all := rows*kCols + head*kCols + rows*splits*(vCols+2)
	const pieces = 4
	wide := int64(1)
	if cfg.HeadDim%unit != 0 || cfg.ValueDim%unit != 0 {
		wide = int64(sizes.StepTile)
	}
	worker := rows*int64(sizes.StepTile+tile.Pad+2) + 3*splits + pieces*(12+4*queries) + wide*max(kCols, vCols) + 2*int8Keys*head
	workers := parallel.Workers(cfg.Workers)
	return 4*(all+int64(workers)*worker) + a.integerBytes(rows, workers) + 1<<11 + 1<<8
}

// Append is Step without queries: it puts keys and values into the state, a
// prefix that was attended to elsewhere, say. So does Run without Dst and Q. Errors match
// those of Step.
func (s *State) Append(k, v blas32.General) error {
	if s.op == nil {
		return check.Unmade("attention")
	}
	a := s.op
	d := a.steps.Get()
	defer a.steps.Put(d)
	d.one, d.single = [2]blas32.General{k, v}, [1]*State{s}
	c := &Call{K: d.one[:1], V: d.one[1:]}
	if s.cfg.SharedValues {
		c.V = nil
	}
	d.silent = true
	return d.step(context.Background(), a, c, false, d.single[:])
}

// StepBatch is Step for the next token of each of many states: row i of the
// matrices belongs to states[i]. See Call.States for several tokens each. Errors match those
// of Run.
func (a *Attention) StepBatch(dst, q, k, v blas32.General, states []*State) error {
	d := a.steps.Get()
	defer a.steps.Put(d)
	d.one = [2]blas32.General{k, v}
	return d.step(context.Background(), a, &Call{Dst: dst, Q: q, K: d.one[:1], V: d.one[1:]}, true, states)
}

// Owns tells whether a state belongs to the operator: whether it was made by one with
// the same Config.
func (a *Attention) Owns(st *State) bool { return st != nil && st.op != nil && st.op.print == a.print }

// stepCall is Run for a call with states.
func (a *Attention) stepCall(ctx context.Context, call *Call) error {
	d := a.steps.Get()
	defer a.steps.Put(d)
	d.list = d.list[:0]
	switch {
	case call.State != nil && call.States != nil:
		return check.Errorf(ErrCall, "attention: State together with States")
	case call.State != nil:
		s, _ := call.State.(*State)
		if s == nil {
			return check.NoState[*State]("attention", "State", call.State)
		}
		d.list = append(d.list, s)
		d.silent = call.Q.Data == nil && call.Dst.Data == nil
	default:
		for i, x := range call.States {
			s, _ := x.(*State)
			if s == nil {
				clear(d.list)
				return check.NoState[*State]("attention", fmt.Sprintf("States[%d]", i), x)
			}
			d.list = append(d.list, s)
		}
	}
	return d.step(ctx, a, call, call.States != nil, d.list)
}

// checkStep checks a step, of one state or of many. It fills
// d.offsets, d.states, d.rows and d.depth.
func (d *stepRun) checkStep(many bool, states []*State) error {
	a, c, cfg := d.op, &d.call, &d.op.cfg
	if d.silent {
		c.Q, c.Dst = blas32.General{Cols: cfg.Heads * cfg.HeadDim}, blas32.General{Cols: cfg.Heads * cfg.ValueDim}
	}
	if err := check.Matrix(ErrShape, "attention", "q", c.Q, -1, cfg.Heads*cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "attention", "dst", c.Dst, c.Q.Rows, cfg.Heads*cfg.ValueDim, "Heads*ValueDim"); err != nil {
		return err
	}
	if err := checkOptions(c); err != nil {
		return err
	}
	if err := d.lay(many, states); err != nil {
		return err
	}
	if c.KOffsets != nil || c.QueryPos != nil || c.KeyPos != nil || c.Stats != nil {
		return check.Errorf(ErrCall, "attention: State together with KOffsets, QueryPos, KeyPos or Stats")
	}
	if cfg.ReLU && (c.LSE.Rows > 0 || c.Partial || c.Entropy.Rows > 0) {
		return check.Errorf(ErrCall, "attention: LSE, Partial or Entropy together with ReLU")
	}
	if err := d.checkKeys(); err != nil {
		return err
	}
	if err := d.checkLogWeights(); err != nil {
		return err
	}
	if err := d.checkMass(); err != nil {
		return err
	}
	if err := d.checkTree(); err != nil {
		return err
	}
	if err := d.checkSelect(); err != nil {
		return err
	}
	for i, s := range d.states {
		n, most := d.news(i), s.cfg.MaxTokens
		if most > 0 && n > most-s.Held() {
			return check.Errorf(ErrFull, "attention: %d tokens after %d, want at most MaxTokens = %d", n, s.Held(), most)
		}
		if int64(n) > mostTokens-int64(s.n) {
			return check.Errorf(ErrFull, "attention: %d tokens after %d, want no more than 2^60 in all", n, s.n)
		}
	}
	// Extra keys are as in a call without states; matrices of biases and masks are made
	// for one sequence.
	p := &d.probe
	p.op, p.qOffsets, p.src = a, append(p.qOffsets[:0], d.offsets...), p.src[:0]
	raw := p.source(0)
	raw.heads, raw.rows, raw.k, raw.v, raw.weights = 1, 0, c.K, c.V, c.LogWeights
	if len(c.V) == 0 {
		raw.v = c.K
	}
	if len(d.states) == 1 {
		raw.rows = d.states[0].n + d.news(0)
	}
	raw.offsets = append(raw.offsets[:0], 0, raw.rows)
	if err := p.checkExtra(c.Extra); err != nil {
		return err
	}
	for _, src := range p.src[1:] {
		for _, s := range src.states {
			if !d.look && slices.Contains(d.states, s) {
				return check.Errorf(ErrState, "attention: an Extra's state is one that the call appends to")
			}
		}
	}
	if err := p.checkFits(c); err != nil {
		return err
	}
	if err := p.checkOutputs(c); err != nil {
		return err
	}
	d.view()
	return nil
}

// lay finds which rows are whose.
func (d *stepRun) lay(many bool, states []*State) error {
	if d.owned == nil {
		d.owned = d.checkState
	}
	b := pack.Batch[*State]{Rows: d.call.Q.Rows, Offsets: d.call.Offsets}
	if d.silent {
		b.Rows = 0
		for _, k := range d.call.K {
			b.Rows += max(k.Rows, 0)
		}
	}
	switch {
	case !many && states[0] == nil:
		return check.NilState("attention", "State")
	case !many:
		b.State = states[0]
	default:
		if b.States = states; states == nil {
			b.States = []*State{}
		}
	}
	if err := d.batch.Lay("attention", b, d.owned); err != nil {
		return err
	}
	d.states, d.offsets = d.batch.States, append(d.offsets[:0], 0)
	for _, x := range d.batch.Segments {
		d.offsets = append(d.offsets, x.To)
	}
	for _, s := range d.states {
		if s.cfg.SharedValues != d.states[0].cfg.SharedValues {
			return check.Errorf(ErrState, "attention: some states have SharedValues and others not")
		}
	}
	return nil
}

// checkState checks that a state is one of the operator's.
func (d *stepRun) checkState(name string, s *State) error {
	switch {
	case s == nil:
		return check.NilState("attention", name)
	case !d.op.Owns(s):
		return check.Errorf(ErrState, "attention: %s belongs to an operator of another Config", name)
	}
	return nil
}

// checkKeys checks that there are keys and values for all queries, or none.
func (d *stepRun) checkKeys() error {
	c, cfg := &d.call, &d.op.cfg
	shared := len(d.states) > 0 && d.states[0].cfg.SharedValues
	values := 0
	d.rows = 0
	for _, v := range c.V {
		values += v.Rows
	}
	if !shared && len(c.K) != len(c.V) || shared && values > 0 {
		return check.Errorf(ErrShape, "attention: V has %d segments and %d rows, want as many segments as K = %d, or none with SharedValues", len(c.V), values, len(c.K))
	}
	for i, k := range c.K {
		if k.Rows == 0 && k.Cols == 0 && (shared || c.V[i].Rows == 0) {
			continue
		}
		if err := checkSegment(&rawNames, "K", i, len(c.K), k, -1, cfg.KVHeads*cfg.HeadDim, rawNames.kCols); err != nil {
			return err
		}
		if !shared {
			if err := checkSegment(&rawNames, "V", i, len(c.K), c.V[i], k.Rows, cfg.KVHeads*cfg.ValueDim, rawNames.vCols); err != nil {
				return err
			}
		}
		if d.rows += k.Rows; d.rows < 0 {
			return check.Errorf(ErrShape, "attention: K has more rows than an int holds")
		}
	}
	if d.silent {
		d.look = false
		return nil
	}
	if d.rows != 0 && d.rows != c.Q.Rows {
		return check.Errorf(ErrShape, "attention: k has %d rows, want as many as q = %d, or none", d.rows, c.Q.Rows)
	}
	d.look = d.rows == 0
	return nil
}

// checkLogWeights checks that there are log-weights for all new tokens, or none.
func (d *stepRun) checkLogWeights() error {
	w := d.call.LogWeights
	if w.Rows == 0 && w.Data == nil {
		return nil
	}
	if d.look {
		return check.Errorf(ErrCall, "attention: LogWeights without keys: those of a state came with its keys")
	}
	for i, s := range d.states {
		if !s.cfg.LogWeights {
			return check.Errorf(ErrCall, "attention: LogWeights for state %d, whose StateConfig.LogWeights is not set", i)
		}
	}
	cols := w.Cols
	if cols != 1 {
		cols = d.op.cfg.KVHeads
	}
	return check.Matrix(ErrShape, "attention", "LogWeights", w, d.offsets[len(d.states)], cols, "1 or KVHeads")
}

// news is how many tokens a state gets.
func (d *stepRun) news(i int) int {
	if d.look {
		return 0
	}
	return d.offsets[i+1] - d.offsets[i]
}

// storeAtOnce is how many numbers are stored between two looks at the context: some
// milliseconds of them.
const storeAtOnce = 1 << 17

// store puts tokens into a state: rows from ... of the call's new keys. The state's
// length does not change yet.
func (d *stepRun) store(ctx context.Context, s *State, from, n int) error {
	if err := s.makeRoom(n); err != nil {
		return err
	}
	pos := s.n
	at := 0 // of the segment, in the call's rows
	for i, k := range d.call.K {
		for row := max(from, at); row < min(from+n, at+k.Rows); {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, to, room := s.place(pos)
			count := min(room, from+n-row, at+k.Rows-row, max(1, storeAtOnce/k.Cols))
			part := mat.Rows(k, row-at, row-at+count)
			if s.schedule != nil && s.cfg.Policy != rope.EachStep {
				var err error
				if part, err = d.rotated(&d.kRotated, s.rotation, part, pos, s.n); err != nil {
					return err
				}
			}
			b.k.put(to, part)
			if s.cfg.LogWeights {
				w := d.call.LogWeights
				if w.Rows > 0 {
					w = mat.Rows(w, row, row+count)
				}
				b.putLogWeights(to, count, w)
			}
			if !b.shared {
				b.v.put(to, mat.Rows(d.call.V[i], row-at, row-at+count))
			}
			row += count
			pos += count
		}
		at += k.Rows
	}
	s.high = max(s.high, pos)
	return nil
}

// rotated returns a copy of rows of keys or queries, turned to their positions.
// The first of them stands at pos in storage; base is the state's length.
func (d *stepRun) rotated(memory *[]float32, r *rope.Rotation, x blas32.General, pos, base int) (blas32.General, error) {
	*memory = scratch.Floats(*memory, x.Rows*x.Cols)
	y := mat.Of(*memory, x.Rows, x.Cols)
	mat.Copy(y, x)
	if d.call.Tree == nil {
		return y, r.Rotate(y, int64(pos))
	}
	d.at = d.at[:0]
	for i := range x.Rows {
		d.at = append(d.at, int64(base+d.depth[pos-base+i]))
	}
	return y, r.RotateAt(y, d.at)
}
