package transformer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/subquad/subquad"
)

// told is what a text came to.
type told struct {
	tokens []int32
	probs  []float32
	err    error
}

// tell generates a text until it ends, or until it has n tokens, where cancel ends ctx.
func tell(ctx context.Context, m *Model, prompt []int32, st *State, cfg GenerateConfig, n int, cancel func()) (x told) {
	cfg.LogProbs = true
	for p, err := range m.Stream(ctx, prompt, st, cfg) {
		if err != nil {
			x.err = err
			return x
		}
		if p.End == Going {
			x.tokens, x.probs = append(x.tokens, p.Token), append(x.probs, p.LogProb)
		}
		if len(x.tokens) == n {
			cancel()
		}
	}
	return x
}

// TestBatch: texts that are generated together have the tokens and the bits of probabilities that
// they have alone, whenever others begin, end, fail or are given up; models with recurrences and
// experts among them.
func TestBatch(t *testing.T) {
	for _, name := range []string{"llama", "qwen3_moe", "bamba", "gpt_oss_mxfp4"} {
		m := open(t, name, Config{})
		const texts = 12
		type text struct {
			prompt []int32
			cfg    GenerateConfig
			state  StateConfig
			until  int // tokens, where it is given up
		}
		all := make([]text, texts)
		want := make([]told, texts)
		for i := range all {
			x := text{prompt: tokens(m, 1+i*5%7), cfg: GenerateConfig{MaxTokens: 5 + i*7%23, Stop: []int32{}}, until: -1}
			x.cfg.Temperature, x.cfg.Seed = float64(i%3), uint64(i)
			switch i {
			case 3:
				x.state.MaxTokens = len(x.prompt) + 4 // there is no room for more
			case 5:
				x.cfg.MaxTokens, x.until = 1000, 9
			case 6:
				x.state = StateConfig{Window: 8, Keep: 2}
			case 7:
				if m.shape.Kinds == nil && m.ownWindow(0) == 0 {
					x.state = StateConfig{Policies: m.Endless(2, 8)}
				}
			}
			all[i] = x
			ctx, cancel := context.WithCancel(t.Context())
			want[i] = tell(ctx, m, x.prompt, newState(t, m, x.state), x.cfg, x.until, cancel)
			cancel()
		}
		for _, most := range []int{1, 3, 64} {
			b, err := m.NewBatch(most)
			must(t, err)
			got := make([]told, texts)
			var wg sync.WaitGroup
			for i, x := range all {
				st := newState(t, m, x.state)
				x.cfg.Batch = b
				wg.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					got[i] = tell(ctx, m, x.prompt, st, x.cfg, x.until, cancel)
				})
			}
			wg.Wait()
			for i := range all {
				what := fmt.Sprintf("%s, at most %d: text %d", name, most, i)
				if fmt.Sprint(got[i].err) != fmt.Sprint(want[i].err) || !slices.Equal(got[i].tokens, want[i].tokens) {
					t.Errorf("%s is %v, %v, want %v, %v", what, got[i].tokens, got[i].err, want[i].tokens, want[i].err)
					continue
				}
				same(t, what, got[i].probs, want[i].probs)
			}
			if !errors.Is(got[3].err, subquad.ErrFull) || !errors.Is(got[5].err, context.Canceled) {
				t.Errorf("%s: %v and %v", name, got[3].err, got[5].err)
			}
			if n := b.Texts(); n != 0 {
				t.Errorf("%s: %d texts are left", name, n)
			}
		}
	}
}

// TestBatchMistakes: a batch of another model, of none or of too many is an error, and so is a
// call that is none.
func TestBatchMistakes(t *testing.T) {
	m, other := open(t, "llama", Config{}), open(t, "llama", Config{})
	for _, most := range []int{0, -1, 1 << 20} {
		if _, err := m.NewBatch(most); !errors.Is(err, ErrConfig) {
			t.Errorf("%d: %v", most, err)
		}
	}
	b, err := other.NewBatch(2)
	must(t, err)
	own, err := m.NewBatch(2)
	must(t, err)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	x := tell(t.Context(), m, []int32{1}, newState(t, m, StateConfig{}), GenerateConfig{Batch: own, Draft: Lookup{}}, -1, nil)
	if !errors.Is(x.err, ErrConfig) {
		t.Errorf("drafts: %v", x.err)
	}
	for what, c := range map[string]struct {
		ctx    context.Context
		prompt []int32
		batch  *Batch
		kind   error
	}{
		"another model": {t.Context(), []int32{1}, b, ErrConfig},
		"no context":    {nil, []int32{1}, own, ErrCall},
		"done":          {done, []int32{1}, own, context.Canceled},
		"no token":      {t.Context(), []int32{-1}, own, ErrShape},
	} {
		x := tell(c.ctx, m, c.prompt, newState(t, m, StateConfig{}), GenerateConfig{Batch: c.batch}, -1, nil)
		if !errors.Is(x.err, c.kind) {
			t.Errorf("%s: %v", what, x.err)
		}
	}
}

// TestBatchCancel: a text that is alone in a call ends within it, as without a Batch, and its state
// stands before the token.
func TestBatchCancel(t *testing.T) {
	m := open(t, "llama", Config{Workers: 1})
	b, err := m.NewBatch(4)
	must(t, err)
	ctx, looks := &asked{Context: t.Context(), done: make(chan struct{})}, 0
	for ; ; looks++ {
		ctx.times.Store(0)
		ctx.end.Store(int64(looks))
		st := newState(t, m, StateConfig{})
		x := tell(ctx, m, []int32{1}, st, GenerateConfig{MaxTokens: 1, Stop: []int32{}, Batch: b}, -1, nil)
		if x.err == nil {
			break
		}
		if !errors.Is(x.err, context.Canceled) || st.Len() != 0 || b.Texts() != 0 {
			t.Fatalf("ended at look %d: %v, %d tokens", looks, x.err, st.Len())
		}
	}
	if looks < 4*m.shape.Layers {
		t.Errorf("a context is asked %d times in %d layers", looks, m.shape.Layers)
	}
}
