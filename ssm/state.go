package ssm

import (
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps: those
	// behind each of the last Snapshots calls, to which Truncate can go back. Each
	// takes as much memory as the state.
	Snapshots int
	// Filter, where it is given, filters the steps dt of the tokens that the state sees:
	// LongMamba. A longmamba.Filter must be of a calibration of the operator, or of one
	// with the same fingerprint: of one table for a Scan, SSD or block, of one for each
	// layer for a model.
	Filter FilterSource
	// Prompt is how many tokens the whole prompt has, in however many calls they
	// come: a filter chooses by it. An estimate does, rather high than low: tokens
	// behind it are decoding's, which are filtered only where FilterConfig.Decode is
	// set.
	Prompt int
}

// State is what an operator remembers of the tokens it has seen: a window of a
// convolution, the states of a scan, or both, in memory that does not grow. It is
// made by an operator's NewState, for that operator or one with the same weights,
// and must not be used by two calls at once.
type State struct {
	kind   *kind
	values []float32
	n      int

	ring []snapshot
	next int // the element of ring that is overwritten next

	filter DeltaFilter // nil for none
}

type snapshot struct {
	values []float32
	n      int // -1 for none
}

// kind tells states of different operators apart.
type kind struct {
	name string // of the operator and its shape, for errors
	size int    // of values
	hash uint64 // of name and weights

	channels int // that have steps dt a filter can change; 0 for none
}

// maxTokens bounds how many tokens a state can have seen.
const maxTokens = min(1<<60, math.MaxInt-1<<16)

// maxSize bounds every number of a Config, so that products of two cannot overflow
// and those of three are checked by sizeOf.
const maxSize = 1 << 24

// sizeOf returns the product of dims, or -1 where it is too large for memory.
func sizeOf(dims ...int) int {
	n := int64(1)
	for _, d := range dims {
		if n *= int64(d); n > math.MaxInt32/4 {
			return -1
		}
	}
	return int(n)
}

// fingerprint is FNV-1a over what makes an operator what it is: its name, with its
// shape, and its weights. Of large matrices a sample is enough.
type fingerprint uint64

func newFingerprint(name string) fingerprint {
	f := fingerprint(14695981039346656037)
	for i := range len(name) {
		f.add(uint32(name[i]))
	}
	return f
}

func (f *fingerprint) add(v uint32) {
	for range 4 {
		*f = (*f ^ fingerprint(v&0xff)) * 1099511628211
		v >>= 8
	}
}

func (f *fingerprint) floats(lists ...[]float32) {
	const sample = 4096
	for _, x := range lists {
		f.add(uint32(len(x)))
		for i := 0; i < len(x); i += len(x)/sample + 1 {
			f.add(math.Float32bits(x[i]))
		}
	}
}

func (k *kind) newState(cfg StateConfig) (*State, error) {
	if cfg.Snapshots < 0 || cfg.Snapshots > maxSize {
		return nil, check.Errorf(ErrConfig, "ssm: Snapshots is %d, want 0 to %d", cfg.Snapshots, maxSize)
	}
	st := &State{kind: k, values: make([]float32, k.size), ring: make([]snapshot, cfg.Snapshots)}
	for i := range st.ring {
		st.ring[i] = snapshot{make([]float32, k.size), -1}
	}
	if err := st.SetFilter(cfg.Filter, cfg.Prompt); err != nil {
		return nil, err
	}
	return st, nil
}

// check returns an error unless st is a state of k.
func (k *kind) check(name string, st *State) error {
	switch {
	case st == nil:
		return check.Errorf(ErrShape, "ssm: %s is nil", name)
	case st.kind == nil:
		return check.Errorf(ErrShape, "ssm: %s was not made by NewState", name)
	case st.kind.name != k.name:
		return check.Errorf(ErrShape, "ssm: %s is of a %s, want a %s", name, st.kind.name, k.name)
	case st.kind.hash != k.hash:
		return check.Errorf(ErrShape, "ssm: %s is of another %s, with other weights", name, k.name)
	}
	return nil
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.n }

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() int { return 4 * len(st.values) * (1 + len(st.ring)) }

// Reset makes the state what NewState made it; a filter stays.
func (st *State) Reset() {
	clear(st.values)
	st.n, st.next = 0, 0
	for i := range st.ring {
		st.ring[i].n = -1
	}
}

// Clone returns a copy, snapshots included: a prefix that several continuations
// share.
func (st *State) Clone() *State {
	c := &State{kind: st.kind, values: append([]float32{}, st.values...), n: st.n, next: st.next, filter: st.filter}
	for _, s := range st.ring {
		c.ring = append(c.ring, snapshot{append([]float32{}, s.values...), s.n})
	}
	return c
}

// CopyFrom makes the state what another of the same operator is, filter included and
// without its snapshots; those of st are forgotten. It allocates nothing.
func (st *State) CopyFrom(from *State) error {
	if st.kind == nil {
		return check.Errorf(ErrShape, "ssm: the state was not made by NewState")
	}
	if err := st.kind.check("from", from); err != nil || from == st {
		return err
	}
	copy(st.values, from.values)
	st.n, st.next, st.filter = from.n, 0, from.filter
	for i := range st.ring {
		st.ring[i].n = -1
	}
	return nil
}

// Truncate goes back to the first n tokens, of which the state must have a
// snapshot (StateConfig.Snapshots) unless n is 0 or Len. It returns an error that
// matches ErrState, and changes nothing, where there is none.
func (st *State) Truncate(n int) error {
	switch {
	case n == st.n:
		return nil
	case n == 0:
		st.Reset()
		return nil
	}
	found := slices.IndexFunc(st.ring, func(s snapshot) bool { return s.n == n })
	if found < 0 {
		return check.Errorf(ErrState, "ssm: no snapshot behind %d tokens in a state of %d; it keeps those behind its last %d calls", n, st.n, len(st.ring))
	}
	copy(st.values, st.ring[found].values)
	st.n = n
	for i := range st.ring {
		if st.ring[i].n > n {
			st.ring[i].n = -1
		}
	}
	st.next = (found + 1) % len(st.ring)
	return nil
}

// Skip counts n more tokens as seen that the operator is not shown: it passes over
// them, as later layers do over those that a Decimation drops. n is 0 or more.
func (st *State) Skip(n int) error {
	if n < 0 || st.n+n < 0 {
		return check.Errorf(ErrShape, "ssm: n is %d behind %d tokens, want 0 or more", n, st.n)
	}
	st.advance(n)
	return nil
}

// advance notes that values are those behind n more tokens.
func (st *State) advance(n int) {
	if n == 0 {
		return
	}
	st.n += n
	if len(st.ring) > 0 {
		s := &st.ring[st.next]
		copy(s.values, st.values)
		s.n = st.n
		st.next = (st.next + 1) % len(st.ring)
	}
}

// Chunk is the grid of absolute positions at which tiny values of a state are
// flushed, and at which an SSD cuts sequences: calls that are split there give the
// bits of the whole.
const Chunk = 64

// untilBorder returns how many tokens, at most n, there are to the next border.
func untilBorder(pos, n int) int { return min(n, Chunk-pos%Chunk) }

// flush drops what is tiny from a state that has come to a border.
func flush(values []float32, pos int) {
	if pos%Chunk == 0 {
		kernel.Flush(values)
	}
}
