package state

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
)

// Kind is what the Fixed states of an operator have in common, and tells those of
// different operators apart.
type Kind struct {
	Package string // of the operator, for errors
	File    string // 8 bytes, which a stored state begins with
	Name    string // the operator and its shape, for errors
	Size    int    // float32 of Fixed.Values
	Hash    uint64 // fingerprint of Config and weights
	Work    int64  // multiply-adds of a token, roughly
}

// Fixed is a state in memory that does not grow with the tokens, as recurrences have: a list
// of float32, and earlier versions of it. A package's State has one inside.
type Fixed struct {
	Kind   *Kind
	Values []float32 // laid out as the operator says, Kind.Size of them
	N      int       // tokens seen, at most MaxTokens

	ring    Ring[[]float32] // Values after earlier calls
	given   bool            // Values were written from outside: after 0 tokens they may not be 0
	spoiled bool            // a call failed when Values were half changed
}

const (
	// MaxTokens bounds how many tokens a state can have seen, so that sums of positions
	// and lengths do not overflow.
	MaxTokens = min(1<<60, math.MaxInt-1<<16)
	// maxSnapshots bounds the versions that a state keeps, and maxFloats the elements of a
	// state with them.
	maxSnapshots, maxFloats = 1 << 20, min(1<<33, math.MaxInt/8)
)

// New returns a state of zeros that keeps as many earlier versions. Errors match ErrConfig.
func (k *Kind) New(snapshots int) (Fixed, error) {
	if snapshots < 0 || snapshots > maxSnapshots {
		return Fixed{}, check.Errorf(subquad.ErrConfig, "%s: Snapshots is %d, want 0 to %d", k.Package, snapshots, maxSnapshots)
	}
	if check.Product(maxFloats, 1+snapshots, k.Size) < 0 {
		return Fixed{}, check.Errorf(subquad.ErrConfig, "%s: Snapshots is %d, too many for a state of %d bytes", k.Package, snapshots, 4*k.Size)
	}
	values := func() []float32 { return kernel.Large[float32](k.Size) }
	return Fixed{Kind: k, Values: values(), ring: NewRing(snapshots, values)}, nil
}

// Accept returns an error, which matches ErrState, unless st is a state of k that can be used.
func (k *Kind) Accept(name string, st *Fixed) error {
	switch {
	case st == nil:
		return check.NilState(k.Package, name)
	case st.Kind == nil:
		return check.Errorf(subquad.ErrState, "%s: %s was not made by NewState", k.Package, name)
	case st.Kind.Name != k.Name:
		return check.Errorf(subquad.ErrState, "%s: %s is of a %s, want a %s", k.Package, name, st.Kind.Name, k.Name)
	case st.Kind.Hash != k.Hash:
		return check.Errorf(subquad.ErrState, "%s: %s is of another %s, with another Config or other weights", k.Package, name, k.Name)
	case st.spoiled:
		return check.Errorf(subquad.ErrState, "%s: %s was left half changed by a call that panicked; Reset it, or Truncate it to a snapshot", k.Package, name)
	}
	return nil
}

// AcceptMatrix returns an error unless st is a state of k and m, of the argument name, a
// matrix [rows, cols] for what is read of it or written to it.
func (k *Kind) AcceptMatrix(st *Fixed, name string, m blas32.General, rows, cols int, what string) error {
	if err := k.Accept("State", st); err != nil {
		return err
	}
	return check.Matrix(subquad.ErrShape, k.Package, name, m, rows, cols, what)
}

// Made returns an error of the package, which matches ErrState, where the state is the zero
// value.
func (st *Fixed) Made(pkg string) error {
	if st.Kind == nil {
		return check.Errorf(subquad.ErrState, "%s: the state was not made by NewState", pkg)
	}
	return nil
}

// Bytes returns the memory of the state, with its earlier versions.
func (st *Fixed) Bytes() int64 { return 4 * int64(len(st.Values)) * int64(1+st.ring.Len()) }

// Reset makes the state what New made it.
func (st *Fixed) Reset() {
	clear(st.Values)
	st.N, st.given, st.spoiled = 0, false, false
	st.ring.Forget(-1)
}

// Clone returns a copy, earlier versions included.
func (st *Fixed) Clone() Fixed {
	c := *st
	c.Values = largeCopy(st.Values)
	c.ring = st.ring.Clone(slices.Clone[[]float32])
	return c
}

// largeCopy returns a copy that stands in large pages, as New's values do: a decoded token
// reads and writes them once, and finding many small pages would take a part of that.
func largeCopy(x []float32) []float32 {
	c := kernel.Large[float32](len(x))
	copy(c, x)
	return c
}

// CopyFrom makes the state what another of the same operator is, without its earlier
// versions; those of st are forgotten. It allocates nothing. Errors are of the package and
// match ErrState.
func (st *Fixed) CopyFrom(pkg string, from *Fixed) error {
	if err := st.Made(pkg); err != nil {
		return err
	}
	if err := st.Kind.Accept("from", from); err != nil || from == st {
		return err
	}
	copy(st.Values, from.Values)
	st.N, st.given, st.spoiled = from.N, from.given, false
	st.ring.Forget(-1)
	return nil
}

// Truncate goes back to the first n tokens, of which the state must have kept the version
// unless n is N, or 0 in a state that was never written to. It returns an error of the
// package that matches ErrState, and changes nothing, where it has not.
func (st *Fixed) Truncate(pkg string, n int) error {
	switch {
	case n == st.N && !st.spoiled:
		return nil
	case n == 0 && !st.given:
		st.Reset()
		return nil
	}
	snapshot := st.ring.Back(n)
	if snapshot == nil {
		return check.Errorf(subquad.ErrState, "%s: no snapshot after %d tokens in a state of %d; it keeps those after its last %d calls", pkg, n, st.N, st.ring.Len())
	}
	copy(st.Values, *snapshot)
	st.N, st.spoiled = n, false
	return nil
}

// Room returns an error, which matches ErrFull, unless the state can count n more tokens.
func (st *Fixed) Room(n int) error {
	if n > MaxTokens-st.N {
		return check.Errorf(subquad.ErrFull, "%s: %d tokens after %d are more than a state can count, %d", st.Kind.Package, n, st.N, MaxTokens)
	}
	return nil
}

// Advance notes that Values are those after n more tokens.
func (st *Fixed) Advance(n int) {
	if n == 0 {
		return
	}
	st.N += n
	if snapshot := st.ring.Next(st.N); snapshot != nil {
		copy(*snapshot, st.Values)
	}
}

// Written notes that Values were given from outside, in place of those after N tokens: the
// version to go back to is now this one.
func (st *Fixed) Written() {
	st.given = true
	snapshot := st.ring.Back(st.N)
	if snapshot == nil {
		snapshot = st.ring.Next(st.N)
	}
	if snapshot != nil {
		copy(*snapshot, st.Values)
	}
}
