package transformer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestPositionPolicies: with Endless and SelfExtend a model of two layers gives what a loop over
// float64 does that turns each pair of query and key by its distance, in steps of any length and
// side by side with a plain state; and no more is held than Endless says.
func TestPositionPolicies(t *testing.T) {
	const n, layers, keep, window, group = 300, 2, 3, 20, 5
	m, r := tinyLlama(t, layers, Config{})
	ids := tinyTokens(n)
	rotation, err := rope.New(rope.Config{HeadDim: tinyWide})
	must(t, err)
	for _, way := range []struct {
		name     string
		policies func(int) *kvcache.Config
		meet     func(i, j int) (int, bool)
	}{
		{"endless", m.Endless(keep, window), func(i, j int) (int, bool) {
			if i-j < window {
				return i - j, true
			}
			return min(i, keep+window-1) - j, j < keep
		}},
		{"self-extension", m.SelfExtend(group, window), func(i, j int) (int, bool) {
			if i-j < window {
				return i - j, true
			}
			return i/group + window - window/group - j/group, true
		}},
	} {
		want := narrowed(r.tinyPairs(layers, ids, way.meet, rotation.Frequencies(), 1))
		plain := zeros(1, tinyVocab)
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Last: plain}))
		random := rand.New(rand.NewPCG(8, 8))
		for split := range 4 {
			st, beside := newState(t, m, StateConfig{Policies: way.policies}), newState(t, m, StateConfig{})
			got := zeros(2, tinyVocab)
			for at := 0; at < n; {
				to := n
				if split > 0 {
					to = min(n, at+1+random.IntN(60))
				}
				two := append(append([]int32(nil), ids[at:to]...), ids[at:to]...)
				must(t, m.Run(t.Context(), &Call{Tokens: two, Offsets: []int{0, to - at, 2 * (to - at)}, States: []*State{st, beside}, Last: got}))
				at = to
			}
			near(t, way.name, mat.Row(got, 0), want, 2e-5)
			near(t, way.name+", a plain state beside it", mat.Row(got, 1), plain.Data, 2e-5)
			one := zeros(1, tinyVocab)
			must(t, m.Step(one, ids[:1], st))
			if held := Past(st, 1).Held(0); way.name == "endless" && held != keep+window {
				t.Errorf("%d tokens are held, want %d", held, keep+window)
			}
		}
	}
}

// TestRoomyPolicies: where all of a text is near, every model type gives its own logits, with
// windows of its own, norms of heads, sinks, caps or layers without a rotation; those that
// cannot have such positions say so.
func TestRoomyPolicies(t *testing.T) {
	entries, err := os.ReadDir(goldenFolder[:strings.LastIndex(goldenFolder, "/")+1])
	must(t, err)
	count := 0
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "transformer_")
		if !ok || !e.IsDir() {
			continue
		}
		m := open(t, name, Config{})
		ids := tokens(m, 40)
		want, got := zeros(len(ids), m.shape.Vocab), zeros(len(ids), m.shape.Vocab)
		st := newState(t, m, StateConfig{})
		must(t, m.Step(want, ids, st))
		for what, policies := range map[string]func(int) *kvcache.Config{"Endless": m.Endless(2, 64), "SelfExtend": m.SelfExtend(4, 64)} {
			st, err := m.NewState(StateConfig{Policies: policies})
			if m.shape.Latent != nil || m.shape.ModelType == "hunyuan_v1_dense" {
				if !errors.Is(err, ErrConfig) {
					t.Errorf("%s, %s: %v", name, what, err)
				}
				continue
			}
			must(t, err)
			must(t, m.Step(mat.Rows(got, 0, 25), ids[:25], st))
			must(t, m.Step(mat.Rows(got, 25, 40), ids[25:], st))
			near(t, name+", "+what, got.Data, want.Data, 3e-5)
			count++
		}
	}
	if count < 20 {
		t.Errorf("%d models, want 20 or more", count)
	}
}

// TestNumberedQueries: where queries grow with their position (ministral3) it is the one in the
// cache that counts.
func TestNumberedQueries(t *testing.T) {
	m, _ := tinyLlama(t, 1, Config{})
	st := newState(t, m, StateConfig{Policies: m.Endless(2, 6)})
	at, _ := st.LayerAt(0)
	for position, want := range []int64{0, 1, 2, 3, 4, 5, 6, 7, 7, 7} {
		if got := at.(*policyState).numbered(int64(position)); got != want {
			t.Errorf("position %d is %d, want %d", position, got, want)
		}
	}
	st = newState(t, m, StateConfig{Policies: m.SelfExtend(2, 6)})
	at, _ = st.LayerAt(0)
	if got := at.(*policyState).numbered(99); got != 99 {
		t.Errorf("position 99 is %d", got)
	}
	for what, policies := range map[string]func(int) *kvcache.Config{"no window": m.Endless(4, 0), "no group": m.SelfExtend(0, 8), "no near": m.SelfExtend(2, 0)} {
		if _, err := m.NewState(StateConfig{Policies: policies}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPrefixesOfPolicies: a conversation without end goes on from what is known of it, and has the
// logits that it has from its beginning.
func TestPrefixesOfPolicies(t *testing.T) {
	m, _ := tinyLlama(t, 2, Config{})
	ids := tinyTokens(300)
	for what, policies := range map[string]func(int) *kvcache.Config{"endless": m.Endless(3, 20), "self-extension": m.SelfExtend(4, 20)} {
		cfg := StateConfig{Policies: policies}
		p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 24, State: cfg})
		must(t, err)
		before := 0
		for n := 60; n <= len(ids); n += 80 {
			got, want := zeros(1, tinyVocab), zeros(1, tinyVocab)
			_, known, err := p.Prefill(t.Context(), ids[:n], got)
			must(t, err)
			if known != before {
				t.Errorf("%s: %d tokens of %d are known, want %d", what, known, n, before)
			}
			must(t, m.Run(t.Context(), &Call{Tokens: ids[:n], State: newState(t, m, cfg), Last: want}))
			near(t, what, got.Data, want.Data, 2e-5)
			before = n
		}
		var file bytes.Buffer
		_, err = p.WriteTo(&file)
		must(t, err)
		again, err := m.ReadPrefixes(bytes.NewReader(file.Bytes()), PrefixConfig{MaxBytes: 1 << 24, State: cfg})
		must(t, err)
		got, want := zeros(1, tinyVocab), zeros(1, tinyVocab)
		st, known, err := again.Lookup(ids)
		must(t, err)
		if known != 220 {
			t.Errorf("%s: %d tokens are known of a file, want 220", what, known)
		}
		must(t, m.Run(t.Context(), &Call{Tokens: ids[known:], State: st, Last: got}))
		st, _, err = p.Lookup(ids[:known+1])
		must(t, err)
		must(t, m.Run(t.Context(), &Call{Tokens: ids[known:], State: st, Last: want}))
		same(t, what+", read", got.Data, want.Data)
		for _, other := range []StateConfig{{}, {Policies: m.Endless(3, 21)}, {Window: 20, Keep: 3}} {
			if _, err := m.ReadPrefixes(bytes.NewReader(file.Bytes()), PrefixConfig{MaxBytes: 1 << 24, State: other}); !errors.Is(err, ErrState) {
				t.Errorf("%s, read with others: %v", what, err)
			}
		}
	}
}
