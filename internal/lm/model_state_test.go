package lm

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
)

// TestSnapshots goes back over calls and on again, forks, and copies.
func TestSnapshots(t *testing.T) {
	m := hybrid(t)
	ids := tokens(1, 40)
	st, want, got := newState(t, m, StateConfig{Snapshots: 2}), zeros(1, vocab), zeros(1, vocab)
	must(t, m.Step(zeros(30, vocab), ids[:30], st))
	fork := st.Clone()
	must(t, m.Step(want, ids[30:31], fork))
	for i := 30; i < 33; i++ {
		must(t, m.Step(got, ids[i:i+1], st))
	}
	for _, n := range []int{30, 5, -1, 34} {
		if err := st.Truncate(n); !errors.Is(err, subquad.ErrState) || st.Len() != 33 {
			t.Errorf("to %d: error %v, %d tokens", n, err, st.Len())
		}
	}
	must(t, st.Truncate(32))
	must(t, m.Step(got, ids[32:33], st))
	must(t, m.Step(zeros(2, vocab), ids[31:33], fork))
	fork2 := newState(t, m, StateConfig{})
	must(t, fork2.CopyFrom(fork))
	must(t, m.Step(want, ids[33:34], fork2))
	must(t, m.Step(got, ids[33:34], st))
	near(t, "rolled back", got.Data, want.Data, 1e-4)
	must(t, st.Truncate(0))
	must(t, m.Step(got, ids[:1], st))
	must(t, m.Forward(want, ids[:1]))
	same(t, "from the beginning", got.Data, want.Data)
	if a, b := st.Bytes(), fork2.Bytes(); a <= b {
		t.Errorf("with snapshots %d bytes, without %d", a, b)
	}
	other, err := New(hybridConfig(2))
	must(t, err)
	if err := other.Step(got, ids[:1], st); !errors.Is(err, subquad.ErrState) {
		t.Errorf("the state of another model: error %v", err)
	}
	if err := newState(t, other, StateConfig{}).CopyFrom(st); !errors.Is(err, subquad.ErrState) {
		t.Errorf("the state of another model: error %v", err)
	}
}

// TestStored: a file that was changed or cut anywhere is an error.
func TestStored(t *testing.T) {
	m := hybrid(t)
	st := newState(t, m, StateConfig{})
	must(t, m.Step(zeros(5, vocab), tokens(1, 5), st))
	var b bytes.Buffer
	n, err := st.WriteTo(&b)
	if must(t, err); n != int64(b.Len()) {
		t.Errorf("wrote %d bytes, says %d", b.Len(), n)
	}
	for at := 0; at < b.Len(); at += 1 + b.Len()/400 {
		if _, err := m.ReadState(bytes.NewReader(b.Bytes()[:at])); !errors.Is(err, subquad.ErrState) {
			t.Errorf("%d bytes of it: error %v", at, err)
		}
		broken := slices.Clone(b.Bytes())
		broken[at] ^= 0x40
		if _, err := m.ReadState(bytes.NewReader(broken)); !errors.Is(err, subquad.ErrState) {
			t.Errorf("byte %d changed: error %v", at, err)
		}
	}
}

// ending is a context that ends after some looks at it.
type ending struct {
	context.Context
	left int
	done chan struct{}
}

func (e *ending) Done() <-chan struct{} { return e.done }
func (e *ending) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestInterrupted: a call that ends early leaves all layers after the same tokens, and can
// be gone on from.
func TestInterrupted(t *testing.T) {
	m := hybrid(t)
	ids, want := tokens(1, 1100), zeros(1, vocab)
	must(t, m.Run(t.Context(), &Call{Tokens: append(slices.Clone(ids), 1), Last: want}))
	stops := map[int]bool{}
	for left := 0; left < 1500; left += 67 {
		st := newState(t, m, StateConfig{})
		err := m.Run(&ending{t.Context(), left, make(chan struct{})}, &Call{Tokens: ids, State: st, Workers: 1})
		if err != nil && err != context.Canceled {
			t.Fatalf("error %v", err)
		}
		n := st.Len()
		if stops[n] = true; n%512 != 0 && n != 1100 {
			t.Fatalf("stands after %d tokens", n)
		}
		for i, l := range st.layers {
			if l.Len() != n {
				t.Fatalf("mixer %d stands after %d tokens, the model after %d", i, l.Len(), n)
			}
		}
		got := zeros(1, vocab)
		must(t, m.Run(t.Context(), &Call{Tokens: append(slices.Clone(ids[n:]), 1), State: st, Last: got}))
		near(t, "gone on", got.Data, want.Data, 1e-4)
	}
	if len(stops) < 3 {
		t.Errorf("it only stopped at %v", stops)
	}
}

// TestFormats: keys that are stored in half the memory give nearly the same logits.
func TestFormats(t *testing.T) {
	m, ids := hybrid(t), tokens(1, 60)
	want, got := zeros(60, vocab), zeros(60, vocab)
	exact, half := newState(t, m, StateConfig{}), newState(t, m, StateConfig{Format: asm.BFloat16})
	must(t, m.Step(want, ids, exact))
	must(t, m.Step(got, ids, half))
	near(t, "bfloat16", got.Data, want.Data, 0.03)
	if half.Bytes() >= exact.Bytes() {
		t.Errorf("bfloat16 takes %d bytes, float32 %d", half.Bytes(), exact.Bytes())
	}
	for _, cfg := range []StateConfig{{Snapshots: -1}, {MaxTokens: -1}, {Length: -1}, {Format: 9}} {
		if _, err := m.NewState(cfg); !errors.Is(err, subquad.ErrConfig) {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
}

// TestShared: a state may be in one call of a batch only.
func TestShared(t *testing.T) {
	m := hybrid(t)
	st := newState(t, m, StateConfig{})
	calls := []*Call{{Tokens: []int32{1}, State: st}, {Tokens: []int32{1}, States: []*State{st}}}
	if err := m.RunBatch(t.Context(), calls); !errors.Is(err, subquad.ErrState) || st.Len() != 0 {
		t.Errorf("error %v, %d tokens", err, st.Len())
	}
	must(t, m.RunBatch(t.Context(), calls[:1]))
	if _, err := m.ReadState(nil); !errors.Is(err, subquad.ErrState) {
		t.Errorf("error %v", err)
	}
}

// TestFull: a state without room takes no token in any layer.
func TestFull(t *testing.T) {
	m := hybrid(t)
	st := newState(t, m, StateConfig{MaxTokens: 10})
	must(t, m.Step(zeros(8, vocab), tokens(1, 8), st))
	if err := m.Step(zeros(3, vocab), tokens(2, 3), st); !errors.Is(err, subquad.ErrFull) {
		t.Errorf("error %v", err)
	}
	for _, l := range st.layers {
		if l.Len() != 8 {
			t.Errorf("a layer has %d tokens", l.Len())
		}
	}
	must(t, m.Step(zeros(2, vocab), tokens(2, 2), st))
}

// counting counts how often a state is saved.
type counting struct {
	LayerState
	saved *int
}

func (c counting) Save(mark Mark) { *c.saved++; c.LayerState.Save(mark) }

type countingMixer struct {
	Streamer
	saved *int
}

func (c countingMixer) NewState(cfg StateConfig) (LayerState, error) {
	st, err := c.Streamer.NewState(cfg)
	return counting{st, c.saved}, err
}

func (c countingMixer) Mix(ctx context.Context, mix *Mix) error {
	for i, st := range mix.States {
		mix.States[i] = st.(counting).LayerState
	}
	return c.Streamer.Mix(ctx, mix)
}

// TestSingleTokens: no state is copied for a single token, be it of one sequence or one of
// each of many, though ctx may end.
func TestSingleTokens(t *testing.T) {
	cfg, saved := hybridConfig(1), 0
	cfg.Layers[0][0].Mixer = countingMixer{cfg.Layers[0][0].Mixer.(Streamer), &saved}
	m, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, b := newState(t, m, StateConfig{}), newState(t, m, StateConfig{})
	must(t, m.Run(ctx, &Call{Tokens: []int32{1}, State: a}))
	must(t, m.Run(ctx, &Call{Tokens: []int32{1, 2}, States: []*State{a, b}}))
	if saved != 0 {
		t.Errorf("saved %d times", saved)
	}
	must(t, m.Run(ctx, &Call{Tokens: []int32{1, 2}, State: a}))
	if saved != 1 {
		t.Errorf("two tokens: saved %d times", saved)
	}
	cancel()
	if err := m.Run(ctx, &Call{Tokens: []int32{1}, State: a}); err != context.Canceled || a.Len() != 4 {
		t.Errorf("error %v, %d tokens", err, a.Len())
	}
}
