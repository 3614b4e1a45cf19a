package state

import (
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// WriteTo stores the state without its earlier versions: after Kind.File and the fingerprint,
// how many tokens it has seen, N, or -1-N where it was written to, and Values. Errors are of
// the package and match ErrState, or are those of w.
func (st *Fixed) WriteTo(pkg string, w io.Writer) (int64, error) {
	if err := st.Made(pkg); err != nil {
		return 0, err
	}
	if err := st.Kind.Accept("the state", st); err != nil {
		return 0, err
	}
	if err := check.Stream(subquad.ErrState, pkg, "writer", w); err != nil {
		return 0, err
	}
	f := NewWriter(w, st.Kind.File, []int64{int64(st.Kind.Hash)})
	seen := int64(st.N)
	if st.given {
		seen = -1 - seen
	}
	f.Ints(seen)
	f.Floats(st.Values)
	n, err := f.End()
	if err != nil {
		return n, fmt.Errorf("%s: %w", pkg, err)
	}
	return n, nil
}

// Read reads a state that WriteTo wrote of an operator with the same fingerprint. Errors match
// ErrState or are those of r.
func (k *Kind) Read(r io.Reader) (Fixed, error) {
	f := NewReader(r, k.Package, subquad.ErrState, k.File, []int64{int64(k.Hash)})
	n := f.Int()
	given := n < 0
	if given {
		n = -1 - n
	}
	if n > MaxTokens {
		f.Fail("it has seen %d tokens, want 0 to %d", n, int64(MaxTokens))
	}
	values := f.Floats(int64(k.Size))
	if err := f.End(); err != nil {
		return Fixed{}, err
	}
	return Fixed{Kind: k, Values: largeCopy(values), N: int(n), given: given}, nil
}
