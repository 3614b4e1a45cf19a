package lm

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/scratch"
)

// attentive returns a model whose layers all take trees.
func attentive(t testing.TB) *Model {
	t.Helper()
	r := random{rand.New(rand.NewPCG(8, 9))}
	memory := new(scratch.List[attentionScratch])
	cfg := hybridConfig(1)
	cfg.Name, cfg.Layers = "attentive", nil
	for range 2 {
		cfg.Layers = append(cfg.Layers, Layer{{Norm: r.norm(true), Mixer: r.attention(memory)}, {Norm: r.norm(true), MLP: &dense.Gated{Up: r.linear(2*20, dim), Down: r.linear(dim, 20)}}})
	}
	m, err := New(cfg)
	must(t, err)
	return m
}

// guess drafts a tree of what it is told, some of it wrong.
type guess struct {
	text  []int32
	r     *rand.Rand
	right float64 // share
}

func (g guess) Draft(_ context.Context, d *Drafts) error {
	nodes := []int{0}
	depth := map[int]int{0: 0}
	for d.Room() > 0 {
		at := nodes[len(nodes)-1]
		if g.r.IntN(3) == 0 {
			at = nodes[g.r.IntN(len(nodes))]
		}
		token := int32(g.r.IntN(d.Words()))
		if i := len(d.Text()) + depth[at]; g.r.Float64() < g.right && i < len(g.text) {
			token = g.text[i]
		}
		node := d.Add(at, token)
		if node < 0 {
			return nil
		}
		nodes, depth[node] = append(nodes, node), depth[at]+1
	}
	return nil
}

// TestDrafts: with drafts, right or wrong, of chains or trees, a text is what it is without,
// greedy or sampled, wherever it ends, and the state stands where it would.
func TestDrafts(t *testing.T) {
	warm := SampleConfig{Temperature: 1.5, TopK: 9, TopP: 0.9, MinP: 0.02, RepetitionPenalty: 1.2, Seed: 4}
	words := letters()
	for name, m := range map[string]*Model{"hybrid": hybrid(t), "attentive": attentive(t)} {
		for _, sample := range []SampleConfig{{}, warm} {
			prompt := tokens(3, 9)
			cfg := GenerateConfig{SampleConfig: sample, MaxTokens: 30, Words: words, LogProbs: true}
			ids, text, logp, _, plain := collect(t, m, prompt, cfg)
			after := zeros(1, vocab)
			must(t, m.Step(after, ids[29:], plain.Clone()))
			all := slices.Concat(prompt, ids)
			source := func() Source {
				s, err := m.NewSource()
				must(t, err)
				return s
			}
			r := rand.New(rand.NewPCG(1, 2))
			for what, draft := range map[string]Drafter{
				"itself": &ModelDraft{Source: source()}, "itself, a tree": &ModelDraft{Source: source(), Width: 3}, "lookup": Lookup{}, "near": Near{Recent: 4}, "all near": Near{Recent: 1000},
				"right": guess{all, r, 1}, "half right": guess{all, r, 0.6}, "wrong": guess{nil, r, 0},
			} {
				cfg := cfg
				cfg.Draft, cfg.Drafts = draft, 7
				got, said, told, end, st := collect(t, m, prompt, cfg)
				if !slices.Equal(got, ids) || said != text || end != AtLimit || st.Len() != plain.Len() {
					t.Fatalf("%s, %s: %v %q ended at %v, the state has %d; want %v %q, and %d", name, what, got, said, end, st.Len(), ids, text, plain.Len())
				}
				near(t, "log-probabilities", told, logp, 1e-4)
				row := zeros(1, vocab)
				must(t, m.Step(row, ids[29:], st))
				near(t, "logits after the text", row.Data, after.Data, 1e-4)
				// Another end.
				cfg.Stop = ids[12:13]
				first := slices.Index(ids, ids[12])
				if got, _, _, end, st := collect(t, m, prompt, cfg); !slices.Equal(got, ids[:first]) || end != AtToken || st.Len() != len(prompt)+first {
					t.Errorf("%s, %s: ended at %v after %d tokens, the state has %d", name, what, end, len(got), st.Len())
				}
				// A loop that is left.
				cfg.Stop, st = nil, newState(t, m, StateConfig{Snapshots: 3})
				n := 0
				for _, err := range m.Stream(t.Context(), prompt, st, cfg) {
					if must(t, err); n == 10 {
						break
					}
					n++
				}
				if st.Len() != len(prompt)+10 {
					t.Errorf("%s, %s: the state has %d tokens after a loop that was left, want %d", name, what, st.Len(), len(prompt)+10)
				}
				// No more room than the text needs.
				st, n = newState(t, m, StateConfig{MaxTokens: len(prompt) + 29}), 0
				for _, err := range m.Generate(t.Context(), prompt, st, cfg) {
					must(t, err)
					n++
				}
				if n != 30 {
					t.Errorf("%s, %s: %d tokens in a state that is full then, want 30", name, what, n)
				}
			}
		}
	}
}

// TestDrafted: drafts that are right save calls.
func TestDrafted(t *testing.T) {
	m, prompt := attentive(t), tokens(3, 9)
	for _, draft := range []Drafter{Near{Recent: 1000}, nil} {
		if draft == nil {
			s, err := m.NewSource()
			must(t, err)
			draft = &ModelDraft{Source: s, Width: 1}
		}
		calls := 0
		for p, err := range m.Stream(t.Context(), prompt, newState(t, m, StateConfig{}), GenerateConfig{MaxTokens: 41, Draft: draft, Drafts: 4}) {
			if must(t, err); p.End == Going && !p.Drafted {
				calls++
			}
		}
		if calls != 1+8 {
			t.Errorf("%T: %d calls for 41 tokens, want one for the prompt and one for each 5", draft, calls)
		}
	}
}

// listed are random numbers from a list.
type listed struct{ list []uint64 }

func (l *listed) Uint64() uint64 {
	x := l.list[0]
	l.list = l.list[1:]
	return x
}

// TestDraftsEnumerated: over all of a grid of random numbers, the tokens that come out with
// drafts are spread as the model's own probabilities say.
func TestDraftsEnumerated(t *testing.T) {
	m, prompt := attentive(t), tokens(5, 4)
	const grid, choices = 24, 3
	sample := SampleConfig{Temperature: 2, TopK: choices}
	r := rand.New(rand.NewPCG(3, 4))
	for _, draft := range []Drafter{Lookup{}, Near{Recent: 3}, guess{nil, r, 0}} {
		counts := map[[2]int32]float64{}
		for i := range grid * grid {
			cfg := GenerateConfig{SampleConfig: sample, MaxTokens: 2, Draft: draft, Drafts: 4}
			g, err := m.begin(&cfg, prompt)
			must(t, err)
			var list []uint64
			for _, j := range []int{i / grid, i % grid} { // Float64 takes the lower 53 bits
				list = append(list, uint64((float64(j)+0.5)/grid*(1<<53)))
			}
			g.sampler.random = rand.New(&listed{list})
			var pair []int32
			must(t, m.speculate(t.Context(), prompt, newState(t, m, StateConfig{}), g, func(p Piece) bool {
				if p.End == Going {
					pair = append(pair, p.Token)
				}
				return true
			}))
			counts[[2]int32(pair)] += 1. / (grid * grid)
		}
		total := 0.0
		for pair, share := range counts {
			want := 1.0
			for i, token := range pair {
				logits, n := zeros(len(prompt)+i, vocab), len(prompt)+i
				must(t, m.Forward(logits, append(slices.Clone(prompt), pair[:i]...)))
				want *= probability3(logits.Data[(n-1)*vocab:], token, choices, sample.Temperature)
			}
			if total += share; math.Abs(share-want) > 2./grid {
				t.Errorf("%T: %v comes with %.3f, want %.3f", draft, pair, share, want)
			}
		}
		if math.Abs(total-1) > 1e-9 || len(counts) < choices*choices-2 {
			t.Errorf("%T: %d pairs that add up to %v", draft, len(counts), total)
		}
	}
}

// probability3 is that of a token among the likeliest few.
func probability3(logits []float32, token int32, few int, temperature float64) float64 {
	sorted := slices.Clone(logits[:vocab])
	slices.Sort(sorted)
	sum := 0.0
	for _, x := range sorted[vocab-few:] {
		sum += math.Exp(float64(x) / temperature)
	}
	return math.Exp(float64(logits[token])/temperature) / sum
}

// TestWalk: a walk goes where kvcache.Verify does.
func TestWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	for range 300 {
		d := &Drafts{}
		d.begin([]int32{1}, 1+r.IntN(12), 3)
		for d.Room() > 0 {
			at, token := r.IntN(len(d.tokens)+1), int32(r.IntN(3))
			if d.child(at, token) < 0 { // Verify takes the longest of equal children, walk the first
				d.Add(at, token)
			} else if r.IntN(8) == 0 {
				break
			}
		}
		next, draft := make([]int, len(d.parent)), []int{1}
		for i := range next {
			next[i] = r.IntN(3)
		}
		for _, token := range d.tokens {
			draft = append(draft, int(token))
		}
		want, tokens, err := kvcache.Verify(d.parent, draft, next)
		must(t, err)
		var got []int
		must(t, d.walk(func(node int) (int32, bool, error) {
			got = append(got, next[node])
			return int32(next[node]), true, nil
		}))
		if !slices.Equal(d.path, want) || !slices.Equal(got, tokens) {
			t.Fatalf("tree %v of %v: path %v, tokens %v, want %v and %v", d.parent, draft, d.path, got, want, tokens)
		}
	}
}

// TestDraftErrors: mistakes are errors, and a done context is its own, in a draft too.
func TestDraftErrors(t *testing.T) {
	m, prompt := hybrid(t), tokens(3, 9)
	first := func(ctx context.Context, m *Model, cfg GenerateConfig) (n int, st *State, err error) {
		if m.streams {
			st = newState(t, m, StateConfig{})
		}
		for _, err = range m.Stream(ctx, prompt, st, cfg) {
			if err != nil {
				return n, st, err
			}
			n++
		}
		return n, st, nil
	}
	for what, c := range map[string]struct {
		m    *Model
		cfg  GenerateConfig
		want error
	}{
		"Drafts alone":    {m, GenerateConfig{Drafts: 3}, subquad.ErrConfig},
		"too many":        {m, GenerateConfig{Draft: Lookup{}, Drafts: maxDrafts + 1}, subquad.ErrConfig},
		"negative":        {m, GenerateConfig{Draft: Lookup{}, Drafts: -1}, subquad.ErrConfig},
		"no source":       {m, GenerateConfig{Draft: &ModelDraft{}}, subquad.ErrCall},
		"lookup":          {m, GenerateConfig{Draft: Lookup{Longest: 1, Shortest: 2}}, subquad.ErrConfig},
		"near":            {m, GenerateConfig{Draft: Near{}}, subquad.ErrConfig},
		"without a state": {whole(t, 40), GenerateConfig{Draft: Lookup{}}, subquad.ErrCall},
	} {
		c.cfg.MaxTokens = 3
		if _, _, err := first(t.Context(), c.m, c.cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", what, err, c.want)
		}
	}
	for _, stop := range []int{1, 2, 3, 5, 9} {
		ctx, cancel := context.WithCancel(t.Context())
		n, st, err := first(ctx, m, GenerateConfig{MaxTokens: 40, Draft: &cancels{Near{Recent: 5}, cancel, stop}})
		if cancel(); err != context.Canceled || n != st.Len()-len(prompt)+1 {
			t.Errorf("error %v after %d pieces, the state has %d", err, n, st.Len())
		}
	}
}

// cancels ends a context in a draft.
type cancels struct {
	Near
	cancel func()
	left   int
}

func (c *cancels) Draft(ctx context.Context, d *Drafts) error {
	if c.left--; c.left == 0 {
		c.cancel()
	}
	return c.Near.Draft(ctx, d)
}
