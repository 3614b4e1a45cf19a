package lm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// NewPages implements Pager.
func (m *attentionMixer) NewPages(cfg StateConfig, tokens int) (Pages, error) {
	p, err := m.op.NewPages(attention.PagesConfig{PageTokens: tokens, Format: cfg.Format, Collected: true})
	return &attentionPages{p, cfg}, err
}

type attentionPages struct {
	*attention.Pages
	cfg StateConfig
}

func (p *attentionPages) Take(st LayerState, from, n int) (Page, error) {
	return p.Pages.Take(st.(*attentionState).State, from, n)
}

func (p *attentionPages) Join(list []Page, tokens int) (LayerState, error) {
	var own []*attention.Page
	for _, g := range list {
		own = append(own, g.(*attention.Page))
	}
	st, err := p.Pages.Join(stateConfig(p.cfg), own, tokens)
	return &attentionState{st, p.cfg.MaxTokens}, err
}

func (p *attentionPages) ReadPage(r io.Reader) (Page, error) {
	return p.Pages.ReadPage(r, stateConfig(p.cfg))
}

// pagesOnly is a model that goes on from any token, wholeOnly one that has no pages.
func pagesOnly(t testing.TB) *Model {
	r := random{rand.New(rand.NewPCG(3, 1))}
	memory := new(scratch.List[attentionScratch])
	cfg := hybridConfig(2)
	cfg.Layers = []Layer{{{Norm: r.norm(true), Mixer: r.attention(memory)}}, {{Norm: r.norm(true), Mixer: r.attention(memory)}}}
	m, err := New(cfg)
	must(t, err)
	return m
}

func wholeOnly(t testing.TB) *Model {
	cfg := hybridConfig(2)
	cfg.Layers = slices.Delete(cfg.Layers, 1, 2)
	cfg.Layers = slices.Delete(cfg.Layers, 2, 3)
	m, err := New(cfg)
	must(t, err)
	return m
}

func prefixModels(t testing.TB) map[string]*Model {
	return map[string]*Model{"hybrid": hybrid(t), "attention": pagesOnly(t), "recurrent": wholeOnly(t)}
}

const lots = 1 << 40

func newPrefixes(t testing.TB, m *Model, cfg PrefixConfig) *Prefixes {
	t.Helper()
	p, err := m.NewPrefixes(cfg)
	must(t, err)
	return p
}

// fromScratch returns the logits after the last of some tokens, of a state that is split as the
// cache splits them: at borders, if it copies whole states, and where known tokens end.
func fromScratch(t testing.TB, m *Model, ids []int32, splits ...int) []float32 {
	t.Helper()
	st, last := newState(t, m, StateConfig{}), zeros(1, vocab)
	for _, to := range append(splits, len(ids)) {
		must(t, m.Run(t.Context(), &Call{Tokens: ids[st.Len():to], State: st, Last: last}))
	}
	return last.Data
}

// TestPrefixes: what goes on from a known prefix has the bits of what was split there.
func TestPrefixes(t *testing.T) {
	for name, m := range prefixModels(t) {
		t.Run(name, func(t *testing.T) {
			p := newPrefixes(t, m, PrefixConfig{MaxBytes: lots, Every: 64})
			ids := tokens(1, 300)
			last := zeros(1, vocab)
			st, known, err := p.Prefill(t.Context(), ids, last)
			must(t, err)
			if known != 0 || st.Len() != 300 || p.Len() != 300 {
				t.Fatalf("%d tokens are known of an empty cache, a state of %d, %d kept", known, st.Len(), p.Len())
			}
			borders := []int{64, 128, 192, 256}
			if !p.whole {
				borders = nil
			}
			same(t, "all of it", last.Data, fromScratch(t, m, ids, borders...))
			// The same text again, and others that part from it within a page and at its end.
			for _, parts := range []int{300, 299, 257, 256, 200, 130, 64, 63, 1, 0} {
				other := slices.Concat(ids[:parts], tokens(uint64(parts+5), 40))
				if parts < 300 {
					other[parts] = (ids[parts] + 1) % vocab
				}
				want := parts
				if p.whole && parts < 300 {
					want = parts / 64 * 64
				}
				st, n, err := p.Lookup(other)
				must(t, err)
				if n != want || st.Len() != want {
					t.Fatalf("%d tokens are known of %d that are the same, want %d", n, parts, want)
				}
				must(t, m.Run(t.Context(), &Call{Tokens: other[n:], State: st, Last: last}))
				// What is known was computed with the first text: as one piece, or in pieces that
				// end at borders.
				before, want300 := newState(t, m, StateConfig{}), zeros(1, vocab)
				for _, to := range append(slices.Clone(borders), 300) {
					if !p.whole || to <= n {
						must(t, m.Run(t.Context(), &Call{Tokens: ids[before.Len():to], State: before}))
					}
				}
				if !p.whole {
					must(t, before.Truncate(n))
				}
				must(t, m.Run(t.Context(), &Call{Tokens: other[n:], State: before, Last: want300}))
				same(t, fmt.Sprintf("%d tokens known", n), last.Data, want300.Data)
				bytes := p.Bytes()
				must(t, p.Insert(other, st))
				if p.Bytes() <= bytes {
					t.Errorf("%d bytes, and %d more tokens", p.Bytes(), len(other)-n)
				}
				if again, n, err := p.Lookup(append(other, 0)); err != nil || n != len(other) || again.Len() != n {
					t.Errorf("%d of %d tokens that were inserted: %v", n, len(other), err)
				}
			}
			// The first text is untouched by what went on from its pages.
			first, n, err := p.Lookup(append(slices.Clone(ids), 1))
			must(t, err)
			if n != 300 {
				t.Fatalf("%d tokens of the first text", n)
			}
			want := zeros(1, vocab)
			must(t, m.Run(t.Context(), &Call{Tokens: []int32{1}, State: first, Last: last}))
			must(t, m.Run(t.Context(), &Call{Tokens: []int32{1}, State: st, Last: want}))
			same(t, "the first text", last.Data, want.Data)
			if p.Reset(); p.Bytes() != 0 || p.Len() != 0 {
				t.Errorf("%d bytes and %d tokens after Reset", p.Bytes(), p.Len())
			}
		})
	}
}

// TestPrefixesBudget: memory stays below the bound, what is used stays, and the count is that of
// what is there.
func TestPrefixesBudget(t *testing.T) {
	for name, m := range prefixModels(t) {
		t.Run(name, func(t *testing.T) {
			p := newPrefixes(t, m, PrefixConfig{MaxBytes: 1 << 18, Every: 64})
			r := rand.New(rand.NewPCG(1, 2))
			often := tokens(1, 130)
			_, _, err := p.Prefill(t.Context(), often, blas32.General{})
			must(t, err)
			for i := range 60 {
				ids := slices.Concat(often[:r.IntN(130)], tokens(uint64(i+9), r.IntN(150)+1))
				_, _, err := p.Prefill(t.Context(), ids, blas32.General{})
				must(t, err)
				if _, n, _ := p.Lookup(append(slices.Clone(often), 1)); n < 64 {
					t.Fatalf("%d tokens of a text that is used often", n)
				}
				var bytes int64
				count, held := 0, 0
				var walk func(x *prefix)
				walk = func(x *prefix) {
					for first, list := range x.children {
						for _, y := range list {
							if y.parent != x || y.tokens[0] != first || y.end != x.end+len(y.tokens) {
								t.Fatal("a child that is none")
							}
							bytes, count, held = bytes+y.bytes, count+1, held+len(y.tokens)
							walk(y)
						}
					}
				}
				walk(&p.root)
				age := map[*prefix]int{}
				for x := p.root.older; x != &p.root; x = x.older {
					if age[x] = len(age) + 1; x.parent != &p.root && age[x.parent] == 0 {
						t.Fatal("a child is newer than its parent")
					}
				}
				if bytes != p.Bytes() || held != p.Len() || len(age) != count || bytes > 1<<18 {
					t.Fatalf("%d bytes and %d tokens of %d prefixes are counted as %d, %d, %d", bytes, held, count, p.Bytes(), p.Len(), len(age))
				}
			}
			if p.Bytes() < 1<<17 {
				t.Errorf("%d bytes are kept of %d", p.Bytes(), 1<<18)
			}
			small := newPrefixes(t, m, PrefixConfig{MaxBytes: 100})
			if _, _, err := small.Prefill(t.Context(), often, blas32.General{}); err != nil || small.Bytes() != 0 {
				t.Errorf("%d bytes of 100: %v", small.Bytes(), err)
			}
		})
	}
}

// TestPrefixesFile stores a cache and reads it back, whole, into less memory, in another
// model and from files that are not.
func TestPrefixesFile(t *testing.T) {
	for name, m := range prefixModels(t) {
		t.Run(name, func(t *testing.T) {
			cfg := PrefixConfig{MaxBytes: lots, Every: 64}
			p := newPrefixes(t, m, cfg)
			a, b := tokens(1, 150), slices.Concat(tokens(1, 150)[:100], tokens(2, 60))
			for _, ids := range [][]int32{a, b, a[:20]} {
				_, _, err := p.Prefill(t.Context(), ids, blas32.General{})
				must(t, err)
			}
			var file bytes.Buffer
			n, err := p.WriteTo(&file)
			must(t, err)
			if n != int64(file.Len()) {
				t.Errorf("%d bytes written, %d told", file.Len(), n)
			}
			r := bytes.NewReader(append(slices.Clone(file.Bytes()), "more"...))
			q, err := m.ReadPrefixes(r, cfg)
			must(t, err)
			if q.Bytes() != p.Bytes() || q.Len() != p.Len() || r.Len() != 4 {
				t.Errorf("%d bytes, %d tokens, %d left in the file; want %d, %d, 4", q.Bytes(), q.Len(), r.Len(), p.Bytes(), p.Len())
			}
			for _, ids := range [][]int32{append(a, 1), append(b, 1)} {
				last := zeros(2, vocab)
				for i, c := range []*Prefixes{p, q} {
					st, n, err := c.Lookup(ids)
					must(t, err)
					if n != len(ids)-1 {
						t.Fatalf("%d of %d tokens are known", n, len(ids))
					}
					must(t, m.Run(t.Context(), &Call{Tokens: ids[n:], State: st, Last: mat.Rows(last, i, i+1)}))
				}
				same(t, "read back", mat.Row(last, 1), mat.Row(last, 0))
			}
			less := cfg
			less.MaxBytes = p.Bytes() / 2
			if q, err := m.ReadPrefixes(bytes.NewReader(file.Bytes()), less); err != nil || q.Bytes() > less.MaxBytes || q.Bytes() == 0 {
				t.Errorf("%d bytes in %d: %v", q.Bytes(), less.MaxBytes, err)
			}
			cuts := 300
			if testing.Short() {
				cuts = 60
			}
			for n := 0; n < file.Len(); n += 1 + file.Len()/cuts {
				if _, err := m.ReadPrefixes(bytes.NewReader(file.Bytes()[:n]), cfg); !errors.Is(err, subquad.ErrState) {
					t.Fatalf("%d bytes of a file: %v", n, err)
				}
				broken := slices.Clone(file.Bytes())
				broken[n] ^= 1 << (n % 8)
				if _, err := m.ReadPrefixes(bytes.NewReader(broken), cfg); err != nil && !errors.Is(err, subquad.ErrState) {
					t.Fatalf("byte %d broken: %v", n, err)
				}
			}
			other, err := New(hybridConfig(9))
			must(t, err)
			if _, err := other.ReadPrefixes(bytes.NewReader(file.Bytes()), cfg); !errors.Is(err, subquad.ErrState) {
				t.Errorf("another model's: %v", err)
			}
			halved := cfg
			halved.State.Format = 1
			if _, err := m.ReadPrefixes(bytes.NewReader(file.Bytes()), halved); !errors.Is(err, subquad.ErrState) {
				t.Errorf("another Format's: %v", err)
			}
		})
	}
}

// TestPrefixesErrors makes mistakes.
func TestPrefixesErrors(t *testing.T) {
	m := hybrid(t)
	for what, cfg := range map[string]PrefixConfig{
		"no bound": {}, "Every": {MaxBytes: 1, Every: 100}, "a negative Every": {MaxBytes: 1, Every: -64}, "a StateConfig": {MaxBytes: 1, State: StateConfig{Snapshots: -1}},
	} {
		if _, err := m.NewPrefixes(cfg); !errors.Is(err, subquad.ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p := newPrefixes(t, m, PrefixConfig{MaxBytes: lots})
	ids := tokens(1, 70)
	st := newState(t, m, StateConfig{})
	must(t, m.Run(t.Context(), &Call{Tokens: ids, State: st}))
	alien, err := New(hybridConfig(9))
	must(t, err)
	for what, err := range map[string]error{
		"a nil state":     p.Insert(ids, nil),
		"another model's": p.Insert(ids, newState(t, alien, StateConfig{})),
		"too few tokens":  p.Insert(append(ids, 1), st),
		"too many tokens": p.Insert(ids[:60], st),
		"a nil writer":    func() error { _, err := p.WriteTo(nil); return err }(),
		"a nil reader":    func() error { _, err := m.ReadPrefixes(nil, PrefixConfig{MaxBytes: 1}); return err }(),
		"a state's Format": p.Insert(ids, func() *State {
			st := newState(t, m, StateConfig{Format: 1})
			must(t, m.Run(t.Context(), &Call{Tokens: ids, State: st}))
			return st
		}()),
	} {
		if !errors.Is(err, subquad.ErrState) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.Insert([]int32{vocab}, st); !errors.Is(err, subquad.ErrShape) {
		t.Errorf("a token out of range: %v", err)
	}
	if _, _, err := p.Prefill(t.Context(), []int32{vocab}, blas32.General{}); !errors.Is(err, subquad.ErrShape) {
		t.Errorf("a token out of range: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Prefill(ended, ids, blas32.General{}); err != context.Canceled {
		t.Errorf("error %v after the end of the context", err)
	}
	if p.Len() != 0 || p.Bytes() != 0 {
		t.Errorf("%d tokens and %d bytes after nothing but errors", p.Len(), p.Bytes())
	}
}

// TestPrefixesTogether uses a cache from several goroutines, with room for some of it.
func TestPrefixesTogether(t *testing.T) {
	for name, m := range prefixModels(t) {
		t.Run(name, func(t *testing.T) {
			p := newPrefixes(t, m, PrefixConfig{MaxBytes: 1 << 18, Every: 64})
			begin := tokens(1, 140)
			want := map[int][]float32{}
			texts := map[int][]int32{}
			for i := range 6 {
				texts[i] = slices.Concat(begin[:20*i+20], tokens(uint64(i+3), 50))
				want[i] = fromScratch(t, m, texts[i])
			}
			var all sync.WaitGroup
			for g := range 4 {
				all.Go(func() {
					last := zeros(1, vocab)
					for i := range 12 {
						k := (i*5 + g) % 6
						st, _, err := p.Prefill(context.Background(), texts[k], last)
						if err != nil || st.Len() != len(texts[k]) {
							t.Errorf("text %d: %v", k, err)
							return
						}
						for j, v := range want[k] {
							if d := v - last.Data[j]; d > 1e-3 || d < -1e-3 {
								t.Errorf("text %d: logit %d is %v, want %v", k, j, last.Data[j], v)
								return
							}
						}
						if i%4 == 0 {
							if _, err := p.WriteTo(io.Discard); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			all.Wait()
		})
	}
}
