package attention

import (
	"context"
	"fmt"
	"io"
	"reflect"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Operator is attention of any kind: exact, or an approximation or relative of it.
// Models, the Reporter and token merging take any of them.
//
// Run computes one call. Every operator takes Dst, Q, K, V and Workers; what else of
// a Call an operator can do, its own Run says. An option that it cannot honour is an
// error that matches ErrCall, as is a nil ctx or call. When ctx is done Run returns
// ctx.Err() itself, at most about 20 ms late.
type Operator interface {
	// Run sets what call asks for, or returns an error before anything is written.
	Run(ctx context.Context, call *Call) error
}

// Past is a sequence so far, as an operator remembers it: a *State for exact
// attention, a *cca.State for CCA. Each operator makes its own with NewState and takes
// no other: one that is nil or of another kind is an error that matches ErrState.
type Past interface {
	// Len is how many tokens the state has seen.
	Len() int
	// Bytes is the memory that the state holds.
	Bytes() int64
	// Reset goes back to before the first token and keeps the memory.
	Reset()
	// Truncate takes back the last tokens, so that n are left; an error that matches
	// ErrState, and changes nothing, says that the method cannot go back that far.
	Truncate(n int) error
	// WriteTo writes the state for a ReadState of an operator of the same configuration.
	io.WriterTo
}

// Call is a call of any Operator with everything optional. Only Dst, Q, K and V are
// needed. The fields are described as Attention takes them; see each operator's
// Run for those that it can use.
type Call struct {
	// Dst is [queries, Heads*ValueDim], Q [queries, Heads*HeadDim].
	Dst, Q blas32.General
	// K and V are the keys and values in order, cut into segments of any number of
	// rows: pages, a wrapped ring, a prefix and what follows it. K[i] is [keys,
	// KVHeads*HeadDim] and V[i], of as many rows, [keys, KVHeads*ValueDim].
	K, V []blas32.General

	// State makes the call a step of decoding: K and V are appended to the state, and
	// the queries are its last tokens. Without keys the queries attend to the tokens that
	// the state has.
	// Of the options below, all can be used but KOffsets, QueryPos, KeyPos and Stats;
	// LogWeights are those of the new keys, and Mass is [tokens of the state, Heads],
	// for one state that is not a ring. Without Dst and Q keys are only appended.
	State Past
	// States makes the call a step of several sequences; Offsets then says which rows
	// are whose, by default one each. The rest is as with State.
	States []Past
	// Prefill lets 16 queries or more of a state, of a prompt say, attend in Forward's tiles,
	// which are made for many: several times as fast, with other rounding. It is for calls
	// without Tree, Mask, Bias, Visible, Extra, Select, Mass, Entropy, Weights and Read, of an operator
	// without Bias and ReLU, and states whose tokens follow each other and are not rotated at each step;
	// of others it changes nothing.
	Prefill bool
	// Tree makes the new tokens nodes of a tree (speculative decoding, Miao et al.
	// 2023, arXiv 2305.09781): Tree[i] is the parent of token i, an earlier one, or -1
	// for the state's last token. A token sees what was there, its ancestors and
	// itself, and stands at the position that its depth gives. State.Accept keeps a
	// path.
	Tree []int
	// Select, if not nil, has a Selection for each state: the positions that the
	// queries see, in place of all that the state holds. Its tokens are those that the
	// state has seen and the call's own, which are seen only if they are named; nodes of a
	// Tree are named by their order. Causality, windows, masks and Visible hold besides.
	// Rows that are not named are not read, and one that names all gives the bits of nil.
	// For a selection of its own for each key head, make each a sequence: an operator
	// of Heads/KVHeads heads and one key head, with as many states as there are key heads,
	// gives the bits of one state.
	Select []Selection
	// Weights, if not nil, has for each state the weight that each selected token got from
	// all queries together, [tokens, Heads]: the tokens in the order in which Select names
	// them, those that it names in vain with 0, or without Select all that the state
	// holds after the call, oldest first. It costs what Mass does. Not for rings.
	Weights [][]float32
	// Read, if not nil, takes up how much of the states the call reads.
	Read *Read

	// Offsets and KOffsets pack several sequences: sequence b has rows Offsets[b] to
	// Offsets[b+1] of Q and KOffsets[b] to KOffsets[b+1] of the keys (cu_seqlens
	// elsewhere). Both begin with 0 and end with the number of rows; sequences may be
	// empty. A nil KOffsets is Offsets; with nil Offsets all is one sequence.
	Offsets, KOffsets []int
	// QueryPos and KeyPos are the positions of the first query and the first key of
	// each sequence. By default keys begin at 0 and the last query stands at the
	// last key. They matter to Causal, Window, LookAhead, Visible and biases, and
	// let a part of the keys be attended to as what it is of the whole.
	QueryPos, KeyPos []int64

	// LogWeights is added to the logits of keys: [keys, 1], or [keys, KVHeads]. With
	// log n a key counts as n equal ones: a merged, pooled or clustered token. -Inf
	// hides a key.
	LogWeights blas32.General
	// Bias is added to the logits, besides Config.Bias.
	Bias Bias
	// Mask hides keys, besides Causal and the window.
	Mask Mask
	// Visible returns the range from <= position < to of the keys that a query at a
	// position may see, besides Causal and the window. Several goroutines call it at
	// once.
	Visible func(query int64) (from, to int64)
	// Extra are more keys and values in the same softmax, each with heads, packing and
	// visibility of its own; at most 64.
	Extra []Extra
	// Partial leaves Config.Sinks out, for results that Merge puts together.
	Partial bool

	// LSE, [queries, Heads], receives the logarithm of the softmax's denominator,
	// sink included.
	LSE blas32.General
	// Mass, [keys, Heads], receives the weight that each key got from all queries
	// together, for keys of K. Entropy, [queries, Heads], receives the entropy
	// -sum p ln p of each query's weights, those of Extra and the sink left out.
	// Either needs the scores a second time: about as much again as the first half
	// of the work, and 4 bytes for each query and head. All rows of Mass are set: of a
	// step, those of keys that it does not read to 0.
	Mass, Entropy blas32.General
	// Stats, if not nil, takes up the call's mass, entropy and value norms; see Stats.
	Stats *Stats

	// Options are those of one operator alone: *cca.Options for cca.CCA, say. An operator
	// that is given another's returns an error that matches ErrCall; Attention has none.
	Options any
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Extra are keys and values beside the raw ones in the same softmax: pooled
// cores, landmarks, memory tokens. They have no position: causality, windows,
// biases and Mask do not apply to them.
type Extra struct {
	// Heads is their number of heads, a divisor of Config.Heads; 0 stands for
	// Config.KVHeads, or for those of State.
	Heads int
	// K[i] is [keys, Heads*HeadDim], V[i] [keys, Heads*ValueDim].
	K, V []blas32.General
	// Offsets packs the sequences, like KOffsets; nil only for one sequence.
	Offsets []int
	// State has the keys and values in place of K and V, in its own format and read
	// where they stand; States has one for each sequence, in place of State and
	// Offsets. The operator of such a state must have Heads key heads of HeadDim
	// and ValueDim, and may otherwise be any. A Rotation whose
	// Policy is rope.EachStep is an error.
	State  *State
	States []*State
	// LogWeights is [keys, 1] or [keys, Heads], like those of the call, added to those
	// that a state has. The keys of a state are those it holds, oldest first.
	LogWeights blas32.General
	// Visible returns the range of a sequence's extra keys that a query at a position
	// sees: numbered from 0 or, where they are a state's, by their positions in it. nil
	// shows all of them. Several goroutines call it at once.
	Visible func(query int64) (from, to int64)
}

// maxExtras bounds the elements of Call.Extra.
const maxExtras = 64

// Bias is a term added to the logits, made tile by tile. Package rope has some.
// Its methods are called by several goroutines at once. One with a method Heads() int, as
// those have, is refused by operators of another number of heads, unless it is 1.
type Bias interface {
	// AddTo adds to s[i][j] the bias of head between the query at position query+i
	// and the key at position key+j.
	AddTo(s blas32.General, head int, query, key int64)
	// Most returns a number that the bias of no pair in that rectangle of queries
	// and keys exceeds; it may be +Inf. -Inf says that none of them is seen.
	Most(head int, query, key int64, queries, keys int) float32
}

// Mask tells which keys a query sees. Its methods are called by several
// goroutines at once.
type Mask interface {
	// Hide sets s[i][j] to -Inf where the query at position query+i does not see the
	// key at position key+j, and leaves the others.
	Hide(s blas32.General, head int, query, key int64)
	// Sight tells in short what Hide would do to that rectangle of queries and keys;
	// Some is always right.
	Sight(head int, query, key int64, queries, keys int) Sight
}

// Sight is how much of a rectangle of queries and keys is seen.
type Sight int

// What Mask.Sight returns.
const (
	Some Sight = iota // look closer: Hide tells of each
	None              // no query sees any of the keys
	All               // each query sees all of them
)

// MaxPosition bounds positions in both directions, so that sums of them do not overflow.
const MaxPosition = 1 << 60

// checkForward checks a call without states. It fills r.src.
func (r *forwardRun) checkForward(c *Call) error {
	cfg := &r.op.cfg
	shape := func(name string, m blas32.General, rows, cols int, what string) error {
		return check.Matrix(ErrShape, "attention", name, m, rows, cols, what)
	}
	if err := shape("q", c.Q, -1, cfg.Heads*cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if err := shape("dst", c.Dst, c.Q.Rows, cfg.Heads*cfg.ValueDim, "Heads*ValueDim"); err != nil {
		return err
	}
	if c.Tree != nil {
		return check.Errorf(ErrCall, "attention: Tree without State")
	}
	if c.Select != nil || c.Weights != nil || c.Read != nil {
		return check.Errorf(ErrCall, "attention: Select, Weights or Read without State")
	}
	if err := checkOptions(c); err != nil {
		return err
	}
	r.qOffsets = append(r.qOffsets[:0], 0, c.Q.Rows)
	if c.Offsets != nil {
		if err := check.Offsets("attention", "Offsets", c.Offsets, c.Q.Rows, -1); err != nil {
			return err
		}
		r.qOffsets = append(r.qOffsets[:0], c.Offsets...)
	} else if c.KOffsets != nil {
		return check.Errorf(ErrCall, "attention: KOffsets without Offsets")
	}
	offsets := c.KOffsets
	if offsets == nil {
		offsets = c.Offsets
	}
	if err := r.source(0).set(r, &rawNames, cfg.KVHeads, c.K, c.V, offsets, c.LogWeights); err != nil {
		return err
	}
	if err := r.checkExtra(c.Extra); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		list []int64
	}{{"QueryPos", c.QueryPos}, {"KeyPos", c.KeyPos}} {
		if p.list != nil && len(p.list) != len(r.qOffsets)-1 {
			return check.Errorf(ErrCall, "attention: %s has %d elements, want one for each sequence = %d", p.name, len(p.list), len(r.qOffsets)-1)
		}
		for i, at := range p.list {
			if at < -MaxPosition || at > MaxPosition {
				return check.Errorf(ErrCall, "attention: %s[%d] is %d, want between -2^60 and 2^60", p.name, i, at)
			}
		}
	}
	if cfg.ReLU && (c.LSE.Rows > 0 || c.Partial || c.Entropy.Rows > 0 || c.Stats != nil) {
		return check.Errorf(ErrCall, "attention: LSE, Partial, Entropy or Stats together with ReLU")
	}
	r.call.QueryPos, r.call.KeyPos = c.QueryPos, c.KeyPos // for r.position
	if err := r.checkFits(c); err != nil {
		return err
	}
	if c.Stats != nil {
		if err := c.Stats.checkStats(r, c); err != nil {
			return err
		}
	}
	return r.checkOutputs(c)
}

// checkOptions reports options that no call of exact attention has.
func checkOptions(c *Call) error {
	if c.Options != nil {
		return check.Errorf(ErrCall, "attention: Options is a %T, want nil: exact attention has none", c.Options)
	}
	return check.Workers(ErrCall, "attention", c.Workers)
}

// checkFits asks biases and masks whether they are for as many heads, and those that are
// matrices whether they cover the call.
func (r *forwardRun) checkFits(c *Call) error {
	for i, x := range [...]any{c.Bias, c.Mask, r.op.cfg.Bias} {
		if i < 2 {
			if what := unfit(x, r.op.cfg.Heads); what != "" {
				return check.Errorf(ErrCall, "attention: %s %s", [...]string{"Bias", "Mask"}[i], what)
			}
		}
		if x, ok := x.(interface{ fits(*forwardRun) error }); ok {
			if err := x.fits(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// unfit says what is wrong with a bias or a mask that is a nil pointer or tells, as those of
// package rope do, for how many heads it is; "" for nothing.
func unfit(x any, heads int) string {
	if v := reflect.ValueOf(x); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Sprintf("is a nil %T", x)
	}
	if x, ok := x.(interface{ Heads() int }); ok {
		if n := x.Heads(); n != 1 && n != heads {
			return fmt.Sprintf("is for %d heads, want 1 or Heads = %d", n, heads)
		}
	}
	return ""
}

// checkExtra makes sources of extra keys.
func (r *forwardRun) checkExtra(extra []Extra) error {
	cfg := &r.op.cfg
	if len(extra) > maxExtras {
		return check.Errorf(ErrCall, "attention: Extra has %d elements, want at most %d", len(extra), maxExtras)
	}
	for i := range extra {
		e := &extra[i]
		src := r.source(len(r.src))
		states, err := src.takeStates(e, len(r.qOffsets)-1)
		if err != nil {
			return err
		}
		heads := e.Heads
		switch {
		case heads == 0 && states > 0:
			heads = src.states[0].op.cfg.KVHeads
		case heads == 0:
			heads = cfg.KVHeads
		}
		if heads < 0 || cfg.Heads%heads != 0 {
			return check.Errorf(ErrCall, "attention: Extra[%d] has %d heads, want a divisor of Heads = %d", i, heads, cfg.Heads)
		}
		if states > 0 {
			err = src.setStates(r, heads, e.LogWeights)
		} else {
			err = src.set(r, &extraNames, heads, e.K, e.V, e.Offsets, e.LogWeights)
		}
		if err != nil {
			return err
		}
		src.visible = e.Visible
	}
	return nil
}

// checkOutputs checks the shapes of the optional outputs, and that no output shares
// elements with anything else.
func (r *forwardRun) checkOutputs(c *Call) error {
	heads := r.op.cfg.Heads
	outputs := [...]struct {
		name string
		m    blas32.General
		rows int
	}{{"dst", c.Dst, c.Q.Rows}, {"LSE", c.LSE, c.Q.Rows}, {"Mass", c.Mass, r.src[0].rows}, {"Entropy", c.Entropy, c.Q.Rows}}
	for i, o := range outputs {
		if i > 0 {
			if o.m.Rows == 0 && o.m.Data == nil {
				continue
			}
			if err := check.Matrix(ErrShape, "attention", o.name, o.m, o.rows, heads, "Heads"); err != nil {
				return err
			}
		}
		shared := mat.Overlap(o.m, c.Q)
		for s := range r.src {
			shared = shared || mat.Overlap(o.m, r.src[s].weights)
			for j := range r.src[s].k {
				shared = shared || mat.Overlap(o.m, r.src[s].k[j]) || mat.Overlap(o.m, r.src[s].v[j])
			}
		}
		if shared {
			return check.Errorf(ErrShape, "attention: %s shares elements with an input", o.name)
		}
		for _, other := range outputs[:i] {
			if mat.Overlap(o.m, other.m) {
				return check.Errorf(ErrShape, "attention: %s shares elements with %s", o.name, other.name)
			}
		}
	}
	return nil
}
