package hyena

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// h364 is the definition, in float64.
func h364(w H3Weights, k0 blas32.General, heads, p int, q, k, v blas32.General) blas32.General {
	n, dim := q.Rows, heads*p
	at := func(m blas32.General, t, c int) float64 { return float64(mat.Row(m, t)[c]) }
	shifted := make([][]float64, n)
	for t := range n {
		for c := range dim {
			x := 0.0
			if w.Shift.Rows == 0 {
				x = at(k, t, c)
			}
			for m := 0; m < w.Shift.Rows && m <= t; m++ {
				x += at(w.Shift, m, c) * at(k, t-m, c)
			}
			if w.ShiftSkip != nil {
				x += float64(w.ShiftSkip[c]) * at(k, t, c)
			}
			shifted[t] = append(shifted[t], x)
		}
	}
	y := mat.New(n, dim)
	for t := range n {
		for h := range heads {
			for d := range p {
				sum := 0.0
				for e := range p {
					kv := func(s int) float64 { return shifted[s][h*p+e] * at(v, s, h*p+d) }
					part := 0.0
					if w.Skip != nil {
						part = float64(w.Skip[h]) * kv(t)
					}
					for m := 0; m <= t && m < k0.Rows; m++ {
						part += at(k0, m, h) * kv(t-m)
					}
					sum += at(q, t, h*p+e) * part
				}
				mat.Row(y, t)[h*p+d] = float32(sum)
			}
		}
	}
	return y
}

// TestH3 compares with the definition, whole and in pieces, with kernels and with modes, with
// shifts of no, one and several taps.
func TestH3(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		for i, s := range []struct{ n, heads, p, shift, taps, modes int }{{150, 3, 1, 4, 150, 0}, {100, 2, 3, 0, 60, 0}, {90, 2, 2, 1, 0, 3}, {300, 17, 1, 64, 0, 2}, {40, 1, 2, 3, 33, 0}} {
			dim := s.heads * s.p
			w, k0 := H3Weights{Skip: random(3, s.heads)}, blas32.General{}
			if s.shift > 0 {
				w.Shift = quiet(1, s.shift, dim)
			}
			if s.shift != 1 {
				w.ShiftSkip = random(2, dim)
			}
			if s.shift == 0 {
				w.ShiftSkip = nil
			}
			if s.modes > 0 {
				w.Modes = randomModes(t, 4, s.heads, s.modes)
				k0 = mat.New(s.n, s.heads)
				if err := w.Modes.Kernel(k0, 0); err != nil {
					t.Fatal(err)
				}
			} else {
				w.Kernel = quiet(5, s.taps, s.heads)
				k0 = w.Kernel
			}
			op, err := NewH3(H3Config{Heads: s.heads, HeadDim: s.p, Workers: 2}, w)
			if err != nil {
				t.Fatal(err)
			}
			q, k, v := matrix(6, s.n, dim, 1), matrix(7, s.n, dim, 0), matrix(8, s.n, dim, 2)
			want := h364(w, k0, s.heads, s.p, q, k, v)
			whole := mat.New(s.n, dim)
			if err := op.Forward(whole, q, k, v); err != nil {
				t.Fatal(err)
			}
			near(t, "H3", whole, want, 1e-5)
			got, st := mat.New(s.n, dim), mustState(t, op, StateConfig{Snapshots: 1})
			for from := 0; from < s.n; {
				n := min(1+r.IntN(30), s.n-from)
				cut := func(m blas32.General) blas32.General { return mat.Rows(m, from, from+n) }
				if err := op.Step(cut(got), cut(q), cut(k), cut(v), st); err != nil {
					t.Fatal(err)
				}
				if from += n; r.IntN(3) == 0 {
					var file bytes.Buffer
					if _, err := st.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					if st, err = op.ReadState(&file); err != nil {
						t.Fatal(err)
					}
				}
			}
			near(t, "H3 in pieces", got, want, 1e-5)
			if i == 0 { // in place
				if err := op.Forward(q, q, k, v); err != nil || !slices.Equal(mat.Row(q, s.n-1), mat.Row(whole, s.n-1)) {
					t.Errorf("in place: %v", err)
				}
			}
		}
	})
}

// TestStateFiles: a file that is cut or changed anywhere is an error.
func TestStateFiles(t *testing.T) {
	shrinkNear(t, 64)
	conv := mustConv(t, ConvConfig{Kernel: quiet(1, 200, 2)})
	st, x := mustState(t, conv, StateConfig{}), matrix(2, 130, 2, 0)
	if err := conv.Step(mat.New(130, 2), x, st); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	statetest.Damage(t, file.Bytes(), func(r io.Reader) error { _, err := conv.ReadState(r); return err })
	if _, err := st.WriteTo(&statetest.Failing{Err: io.ErrClosedPipe}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v of the writer", err)
	}
	if _, err := mustConv(t, ConvConfig{Kernel: quiet(3, 200, 2)}).ReadState(&file); !errors.Is(err, ErrState) {
		t.Errorf("another kernel: error %v", err)
	}
}

// TestMark: a state comes back to a mark, and a clone to that of the first.
func TestMark(t *testing.T) {
	shrinkNear(t, 64)
	op, x := mustOperator(t, OperatorConfig{Dim: 5, Order: 3}, testWeights(t, 5, 3, 3, 600)), matrix(3, 600, 5, 0)
	st, m := mustState(t, op, StateConfig{}), new(Mark)
	r := rand.New(rand.NewPCG(1, 2))
	want, _ := split(t, r, op, x, 5, mustState(t, op, StateConfig{}))
	split(t, r, op, mat.Rows(x, 0, 250), 5, st)
	st.Save(m)
	split(t, r, op, mat.Rows(x, 250, 600), 5, st)
	for _, s := range []*State{st.Clone(), st} {
		if err := s.Restore(m.Clone()); err != nil || s.Len() != 250 {
			t.Fatal(err, s.Len())
		}
		got, _ := split(t, r, op, mat.Rows(x, 250, 600), 5, s)
		for i := range got.Rows {
			if !slices.Equal(mat.Row(got, i), mat.Row(want, 250+i)) {
				t.Fatalf("other bits at token %d", 250+i)
			}
		}
	}
	if err := mustState(t, op, StateConfig{}).Restore(m); !errors.Is(err, ErrState) {
		t.Errorf("a mark beyond the state: error %v", err)
	}
	// The beginning, of which a short kernel's inputs are not kept.
	conv, u := mustConv(t, ConvConfig{Kernel: quiet(1, 100, 2)}), matrix(2, 3000, 2, 0)
	st, whole := mustState(t, conv, StateConfig{}), mat.New(3000, 2)
	st.Save(m)
	for range 2 {
		again := mat.New(3000, 2)
		if err := conv.Step(again, u, st); err != nil {
			t.Fatal(err)
		}
		if whole.Data[0] != 0 && !slices.Equal(again.Data, whole.Data) {
			t.Error("other bits after the beginning")
		}
		mat.Copy(whole, again)
		if err := st.Restore(m); err != nil || st.Len() != 0 {
			t.Errorf("the beginning: error %v, Len %d", err, st.Len())
		}
	}
}

// TestStateErrors: what cannot go on says so.
func TestStateErrors(t *testing.T) {
	both := mustConv(t, ConvConfig{Kernel: quiet(1, 5, 2), Reverse: quiet(2, 3, 2)})
	if _, err := both.NewState(StateConfig{}); !errors.Is(err, ErrCall) {
		t.Errorf("a Reverse kernel: error %v", err)
	}
	op := mustOperator(t, OperatorConfig{Dim: 5}, testWeights(t, 5, 2, 3, 20))
	st := mustState(t, op, StateConfig{})
	if err := op.Step(mat.New(21, 5), matrix(1, 21, 5, 0), st); !errors.Is(err, ErrFull) || st.Len() != 0 {
		t.Errorf("more than MaxLen: error %v", err)
	}
}
