package hyena

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// shrinkNear makes near blocks small, so that short sequences have all levels.
func shrinkNear(t testing.TB, n int) {
	was := nearMost
	nearMost = n
	t.Cleanup(func() { nearMost = was })
}

// streamer is an operator over rows, with states.
type streamer interface {
	NewState(StateConfig) (*State, error)
	ReadState(io.Reader) (*State, error)
	Step(dst, x blas32.General, st *State) error
}

// split steps through x in random pieces and returns the outputs and the cuts.
func split(t testing.TB, r *rand.Rand, op streamer, x blas32.General, cols int, st *State) (blas32.General, []int) {
	t.Helper()
	dst := mat.New(x.Rows, cols)
	cuts := []int{0}
	for from := 0; from < x.Rows; {
		n := 1
		switch r.IntN(4) {
		case 0:
			n = 1 + r.IntN(3)
		case 1:
			n = 1 + r.IntN(50)
		case 2:
			n = 1 + r.IntN(400)
		}
		if from == 0 {
			n = min(n, 60) // a long first part is a transform, of other bits
		}
		n = min(n, x.Rows-from)
		if err := op.Step(mat.Rows(dst, from, from+n), mat.Rows(x, from, from+n), st); err != nil {
			t.Fatal(err)
		}
		from += n
		cuts = append(cuts, from)
	}
	return dst, cuts
}

// near compares with what is wanted, relative to its largest element.
func near(t testing.TB, name string, got, want blas32.General, tol float64) {
	t.Helper()
	most := 0.0
	for i := range want.Rows {
		for _, v := range mat.Row(want, i) {
			most = max(most, math.Abs(float64(v)))
		}
	}
	for i := range want.Rows {
		g, w := mat.Row(got, i), mat.Row(want, i)
		for c := range w {
			if d := math.Abs(float64(g[c]) - float64(w[c])); !(d <= tol*(1+most)) {
				t.Fatalf("%s: token %d, column %d is %v, want %v", name, i, c, g[c], w[c])
			}
		}
	}
}

// states tests what states of all operators do: x goes through in random pieces, a fork, a
// stored copy, a state that was used before; all give the same bits.
func statesAgree(t *testing.T, op streamer, x blas32.General, cols int) blas32.General {
	t.Helper()
	r := rand.New(rand.NewPCG(7, uint64(x.Rows)))
	st := mustState(t, op, StateConfig{})
	want, _ := split(t, r, op, x, cols, st)
	half := x.Rows / 3
	same := func(name string, st *State, from int) {
		t.Helper()
		if st.Len() != from {
			t.Fatalf("%s: Len %d, want %d", name, st.Len(), from)
		}
		got, _ := split(t, r, op, mat.Rows(x, from, x.Rows), cols, st)
		for i := range got.Rows {
			if !slices.Equal(mat.Row(got, i), mat.Row(want, from+i)) {
				t.Fatalf("%s: other bits at token %d", name, from+i)
			}
		}
	}
	st.Reset()
	same("reset", st, 0)
	other := mustState(t, op, StateConfig{MaxTokens: x.Rows + 2, Snapshots: 3})
	split(t, r, op, mat.Rows(x, 0, half), cols, other)
	fork := other.Clone()
	var file bytes.Buffer
	if n, err := other.WriteTo(&file); err != nil || n != int64(file.Len()) {
		t.Fatal(n, err)
	}
	read, err := op.ReadState(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	copied := mustState(t, op, StateConfig{})
	if err := copied.CopyFrom(other); err != nil {
		t.Fatal(err)
	}
	split(t, r, op, mat.Rows(x, half, half+half/2), cols, other)
	same("fork", fork, half)
	same("stored", read, half)
	same("copy", copied, half)
	// Back to a snapshot: the states after the last calls.
	for range 2 {
		if err := op.Step(mat.New(1, cols), mat.Rows(x, 0, 1), other); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Truncate(half + half/2); err != nil {
		t.Fatal(err)
	}
	same("truncated", other, half+half/2)
	if err := other.Truncate(0); err != nil || other.Len() != 0 {
		t.Fatal(err)
	}
	same("truncated to nothing", other, 0)
	return want
}

// TestStopsAtOnce: a step that is stopped does not compute on to undo what it did; the next step
// does, and can be stopped too. So it is with states that have been truncated or read.
func TestStopsAtOnce(t *testing.T) {
	shrinkNear(t, 64)
	const tokens, channels, half = 900, 3, 400
	conv, x := mustConv(t, ConvConfig{Kernel: quiet(1, tokens, channels), Workers: 1}), matrix(2, tokens, channels, 0)
	want, _ := split(t, rand.New(rand.NewPCG(1, 2)), conv, x, channels, mustState(t, conv, StateConfig{}))
	stopped := func(st *State, left, rows int) bool {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		err := conv.Run(&statetest.Ending{Context: ctx, Left: left}, &ConvCall{Dst: mat.New(rows, channels), X: mat.Rows(x, half, half+rows), State: st})
		if err != nil && (err != context.Canceled || st.Len() != half) {
			t.Fatalf("error %v, Len %d", err, st.Len())
		}
		return err != nil
	}
	for left := 1; left < 40; left++ {
		st := mustState(t, conv, StateConfig{})
		split(t, rand.New(rand.NewPCG(1, 3)), conv, mat.Rows(x, 0, half), channels, st)
		var file bytes.Buffer
		if _, err := st.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := conv.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		back := st.Clone()
		split(t, rand.New(rand.NewPCG(1, 4)), conv, mat.Rows(x, half, half+33), channels, back)
		if err := back.Truncate(half); err != nil {
			t.Fatal(err)
		}
		if !read.streams[0].stale || !back.streams[0].stale {
			t.Fatal("sums are computed before a step asks for them")
		}
		for name, st := range map[string]*State{"stopped": st, "read": read, "truncated": back} {
			if stopped(st, left, 300) && left > 10 && !st.streams[0].stale {
				t.Fatalf("%s, after %d looks: what was begun is computed again at once", name, left)
			}
			if !stopped(st, 2, 1) && st.streams[0].stale {
				t.Fatalf("%s, after %d looks: a step leaves sums that are to be computed again", name, left)
			}
			from := st.Len()
			got, _ := split(t, rand.New(rand.NewPCG(1, 5)), conv, mat.Rows(x, from, tokens), channels, st.Clone())
			for i := range got.Rows {
				if !slices.Equal(mat.Row(got, i), mat.Row(want, from+i)) {
					t.Fatalf("%s, after %d looks: other bits at token %d", name, left, from+i)
				}
			}
		}
	}
}

func TestConvStates(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		for _, s := range []struct{ tokens, taps, channels int }{
			{1, 1, 1}, {100, 20, 3}, {100, 33, 17}, {700, 700, 5}, {1500, 1500, 20}, {2000, 90, 3}, {3000, 257, 2}, {1500, 5000, 33},
		} {
			name := fmt.Sprintf("%d tokens, %d taps, %d channels", s.tokens, s.taps, s.channels)
			cfg := ConvConfig{Kernel: matrix(1, s.taps, s.channels, 1), Skip: random(2, s.channels), Workers: 2}
			for i := range cfg.Kernel.Data {
				cfg.Kernel.Data[i] *= float32(1 / math.Sqrt(float64(s.taps)))
			}
			conv, x := mustConv(t, cfg), matrix(3, s.tokens, s.channels, 2)
			got := statesAgree(t, conv, x, s.channels)
			agree(t, name, cfg, x, got, 0, s.channels-1)
			whole := mat.New(s.tokens, s.channels)
			if err := conv.Forward(whole, x); err != nil {
				t.Fatal(err)
			}
			near(t, name, got, whole, 1e-5)
			// Neither the number of goroutines nor the memory for spectra changes a bit.
			cfg.Workers, cfg.SpectraBytes = 1, 1
			lean := mustConv(t, cfg)
			again, _ := split(t, rand.New(rand.NewPCG(3, 4)), lean, x, s.channels, mustState(t, lean, StateConfig{}))
			if !slices.Equal(again.Data, got.Data) {
				t.Errorf("%s: other bits with one worker and no memory for spectra", name)
			}
		}
	})
}

// TestConvPrompt: a long first part is one transform, and goes on as if it had not been.
func TestConvPrompt(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		for _, taps := range []int{50, 400, 4000} {
			cfg := ConvConfig{Kernel: matrix(1, taps, 5, 1), Workers: 3}
			conv, x := mustConv(t, cfg), matrix(3, 1400, 5, 2)
			a, b := mustState(t, conv, StateConfig{}), mustState(t, conv, StateConfig{})
			got := mat.New(1400, 5)
			for i, n := range []int{1000, 1, 399} {
				from := []int{0, 1000, 1001}[i]
				if err := conv.Step(mat.Rows(got, from, from+n), mat.Rows(x, from, from+n), a); err != nil {
					t.Fatal(err)
				}
			}
			want, _ := split(t, rand.New(rand.NewPCG(1, 2)), conv, x, 5, b)
			for i := 1000; i < 1400; i++ {
				if !slices.Equal(mat.Row(got, i), mat.Row(want, i)) {
					t.Fatalf("%d taps: other bits at token %d", taps, i)
				}
			}
			near(t, fmt.Sprint(taps, " taps"), got, want, 1e-5)
			// Of a state in use, any place that it still has inputs for.
			for _, n := range []int{1399, 1100, 1001} {
				if err := a.Truncate(n); err != nil {
					t.Fatal(err)
				}
				again := mat.New(1400-n, 5)
				if err := conv.Step(again, mat.Rows(x, n, 1400), a); err != nil {
					t.Fatal(err)
				}
				for i := range again.Rows {
					if !slices.Equal(mat.Row(again, i), mat.Row(want, n+i)) {
						t.Fatalf("%d taps, back to %d: other bits at token %d", taps, n, n+i)
					}
				}
			}
		}
	})
}

// TestConvCancel: a step that is cancelled leaves the state as it was.
func TestConvCancel(t *testing.T) {
	shrinkNear(t, 64)
	conv, x := mustConv(t, ConvConfig{Kernel: matrix(1, 900, 20, 0), Workers: 1}), matrix(3, 900, 20, 0)
	want, _ := split(t, rand.New(rand.NewPCG(1, 2)), conv, x, 20, mustState(t, conv, StateConfig{}))
	stopped := 0
	for left := 1; left < 60; left += 3 {
		st := mustState(t, conv, StateConfig{})
		split(t, rand.New(rand.NewPCG(1, 2)), conv, mat.Rows(x, 0, 300), 20, st)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ending := &statetest.Ending{Context: ctx, Left: left}
		if err := conv.Run(ending, &ConvCall{Dst: mat.New(500, 20), X: mat.Rows(x, 300, 800), State: st}); err != nil {
			stopped++
			if err != context.Canceled || st.Len() != 300 {
				t.Fatalf("error %v, Len %d", err, st.Len())
			}
		} else if st.Len() != 800 {
			t.Fatal(st.Len())
		}
		from := st.Len()
		got, _ := split(t, rand.New(rand.NewPCG(1, 3)), conv, mat.Rows(x, from, 900), 20, st)
		for i := range got.Rows {
			if !slices.Equal(mat.Row(got, i), mat.Row(want, from+i)) {
				t.Fatalf("after %d looks: other bits at token %d", left, from+i)
			}
		}
	}
	if stopped == 0 {
		t.Error("no call was stopped")
	}
}

func TestModalStates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range []struct{ tokens, channels, modes int }{{1, 1, 1}, {300, 5, 2}, {1300, 70, 4}, {3000, 3, 8}} {
			modes := randomModes(t, 5, s.channels, s.modes)
			op, err := NewModal(ModalConfig{Modes: modes, Skip: random(2, s.channels), Workers: 3})
			if err != nil {
				t.Fatal(err)
			}
			x := matrix(3, s.tokens, s.channels, 2)
			got := statesAgree(t, op, x, s.channels)
			whole := mat.New(s.tokens, s.channels) // by transforms
			if err := op.Forward(whole, x); err != nil {
				t.Fatal(err)
			}
			near(t, fmt.Sprint(s), got, whole, 3e-6)
			near(t, fmt.Sprint(s, " recurrence"), got, recurrence(modes, op.cfg.Skip, x), 3e-6)
			gated, err := NewGated(GatedConfig{Dim: s.channels, Heads: 1, Workers: 3}, GatedWeights{Short: matrix(6, 3*s.channels, 4, 1), ShortBias: random(7, 3*s.channels), Modes: modes})
			if err != nil {
				t.Fatal(err)
			}
			z := matrix(8, s.tokens, 3*s.channels, 1)
			got = statesAgree(t, gated, z, s.channels)
			if err := gated.Forward(whole, z); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Data, whole.Data) {
				t.Errorf("%v: Step and Forward of Gated have other bits", s)
			}
		}
	})
}

// randomModes are decaying oscillations.
func randomModes(t testing.TB, seed uint64, channels, n int) *Modes {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 9))
	p, res := mat.New(channels, 2*n), matrix(seed, channels, 2*n, 0)
	for i := 0; i < len(p.Data); i += 2 {
		sin, cos := math.Sincos(r.Float64() * math.Pi)
		radius := 1 - 0.3*r.Float64()*r.Float64()
		p.Data[i], p.Data[i+1] = float32(radius*cos), float32(radius*sin)
	}
	m, err := NewModes(ModesWeights{p, res})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// recurrence is the recurrence itself, in float64.
func recurrence(m *Modes, skip []float32, u blas32.General) blas32.General {
	y := mat.New(u.Rows, u.Cols)
	for c := range u.Cols {
		s := make([]complex128, m.Modes())
		for t := range u.Rows {
			x := float64(mat.Row(u, t)[c])
			sum := float64(skip[c]) * x
			for j := range s {
				p, r := m.Mode(c, j)
				s[j] = p*s[j] + complex(x, 0)
				sum += real(r * s[j])
			}
			y.Data[t*y.Stride+c] = float32(sum)
		}
	}
	return y
}
