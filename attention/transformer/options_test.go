package transformer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/attention/cca"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/rope"
)

const (
	tinyDim, tinyHeads, tinyKV, tinyWide, tinyInner, tinyVocab = 24, 4, 2, 8, 32, 40
	tinyEps                                                    = 1e-5
)

// tinyLlama is a llama of random weights, which reference knows too.
func tinyLlama(t testing.TB, layers int, cfg Config) (*Model, *reference) {
	t.Helper()
	m := maker{weightstest.State{}, rand.New(rand.NewPCG(1, 2)), tinyDim}
	m.ends("model.embed_tokens", "model.norm", tinyVocab)
	for i := range layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		m.norm(p+"input_layernorm", tinyDim)
		m.norm(p+"post_attention_layernorm", tinyDim)
		m.attention(p+"self_attn.", tinyHeads, tinyKV, tinyWide)
		m.mlp(p+"mlp.", tinyInner)
	}
	text := fmt.Sprintf(`{"model_type": "llama", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d,
		"num_key_value_heads": %d, "head_dim": %d, "vocab_size": %d, "rms_norm_eps": %v, "rope_theta": 10000, "max_position_embeddings": 64, "tie_word_embeddings": false}`,
		tinyDim, tinyInner, layers, tinyHeads, tinyKV, tinyWide, tinyVocab, tinyEps)
	file := m.File()
	model, err := Read(bytes.NewReader(file), int64(len(file)), []byte(text), cfg)
	must(t, err)
	return model, newReference(t, text, m.State)
}

// tinyLogits computes the logits after the last of some tokens in float64, those at positions at,
// of which each sees what sees tells, turned by frequencies with a factor of cosines and sines.
func (r *reference) tinyLogits(layers int, ids []int32, at []int, sees func(query, key int) bool, freq []float64, factor float64) vector {
	return r.tinyPairs(layers, ids, func(i, j int) (int, bool) { return at[i] - at[j], sees(at[i], at[j]) }, freq, factor)
}

// tinyPairs is tinyLogits where meet tells at which distance a query and a key are, and whether
// it is seen.
func (r *reference) tinyPairs(layers int, ids []int32, meet func(query, key int) (distance int, sees bool), freq []float64, factor float64) vector {
	var x []vector
	embedding := r.vec("embed_tokens.weight")
	for _, id := range ids {
		x = append(x, embedding[int(id)*tinyDim:][:tinyDim])
	}
	angles := map[int][][2]float64{} // sines and cosines of a distance
	dot := func(q, k vector, distance int) (sum float64) {
		list := angles[distance]
		if list == nil {
			for _, f := range freq {
				sin, cos := math.Sincos(float64(distance) * f)
				list = append(list, [2]float64{sin, cos})
			}
			angles[distance] = list
		}
		for i, x := range list {
			a, b := q[i], q[len(freq)+i]
			sum += (a*x[1]-b*x[0])*k[i] + (b*x[1]+a*x[0])*k[len(freq)+i]
		}
		return factor * factor * sum
	}
	for l := range layers {
		p := fmt.Sprintf("layers.%d.", l)
		var keys, values, next []vector
		for t, row := range x {
			v := rms(row, r.vec(p+"input_layernorm.weight"), tinyEps)
			q, k := r.linear(p+"self_attn.q_proj", v), r.linear(p+"self_attn.k_proj", v)
			keys, values = append(keys, k), append(values, r.linear(p+"self_attn.v_proj", v))
			o := make(vector, len(q))
			for h := range tinyHeads {
				kv, sum := h/(tinyHeads/tinyKV)*tinyWide, 0.0
				w := make(vector, t+1)
				for s := range w {
					distance, sees := meet(t, s)
					if !sees {
						continue
					}
					w[s] = math.Exp(dot(q[h*tinyWide:][:tinyWide], keys[s][kv:][:tinyWide], distance) / math.Sqrt(tinyWide))
					sum += w[s]
				}
				for s := range w {
					for i := range tinyWide {
						o[h*tinyWide+i] += w[s] / sum * values[s][kv+i]
					}
				}
			}
			row = plus(row, r.linear(p+"self_attn.o_proj", o))
			v = rms(row, r.vec(p+"post_attention_layernorm.weight"), tinyEps)
			next = append(next, plus(row, r.gated(p+"mlp.", v, 1, 1)))
		}
		x = next
	}
	return r.linear("lm_head", rms(x[len(x)-1], r.vec("norm.weight"), tinyEps))
}

func narrowed(x vector) (y []float32) {
	for _, v := range x {
		y = append(y, float32(v))
	}
	return y
}

func tinyTokens(n int) []int32 {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(tinyVocab))
	}
	return ids
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

func causal(query, key int) bool { return key <= query }

// TestRopeOfConfig: every scheme that Config.Rope names turns queries and keys of a prompt far
// beyond the training length as the rotation's own frequencies say, in calls with and without a
// state, whole and in steps.
func TestRopeOfConfig(t *testing.T) {
	n, layers := 300, 2
	if testing.Short() {
		n = 150 // beyond the 64 of the schemes all the same
	}
	ids := tinyTokens(n)
	for name, change := range map[string]func(*rope.Config){
		"none":        func(*rope.Config) {},
		"ABF":         func(c *rope.Config) { c.Base = 500_000 },
		"linear":      func(c *rope.Config) { c.Scheme = rope.Linear{Factor: 4} },
		"NTK":         func(c *rope.Config) { c.Scheme = rope.NTK{Factor: 4} },
		"dynamic NTK": func(c *rope.Config) { c.Scheme = rope.DynamicNTK{Factor: 2, MaxPosition: 64} },
		"YaRN":        func(c *rope.Config) { c.Scheme = rope.YaRN{Factor: 8, Original: 64} },
		"Giraffe":     func(c *rope.Config) { c.Scheme = rope.Giraffe{Scale: 2, Power: 0.5} },
		"LongRoPE": func(c *rope.Config) {
			c.Scheme = rope.LongRoPE{Short: []float64{1, 1, 1, 1}, Long: []float64{1, 2, 3, 6}, Original: 64, Factor: 8}
		},
	} {
		var own rope.Config
		m, r := tinyLlama(t, layers, Config{Rope: func(_ int, cfg rope.Config) rope.Config {
			change(&cfg)
			own = cfg
			return cfg
		}})
		own.Length = int64(n)
		rotation, err := rope.New(own)
		must(t, err)
		want := narrowed(r.tinyLogits(layers, ids, upTo(n), causal, rotation.Frequencies(), rotation.AttentionFactor()))
		got := zeros(1, tinyVocab)
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Last: got}))
		near(t, name, got.Data, want, 2e-5)
		st := newState(t, m, StateConfig{Length: n})
		for from := 0; from < n; from += 50 {
			must(t, m.Run(t.Context(), &Call{Tokens: ids[from : from+50], State: st, Last: got}))
		}
		near(t, name+", steps", got.Data, want, 2e-5)
		// Keys that are turned as the text grows: what is known at its end is what counts.
		for policy, tol := range map[rope.Policy]float64{rope.EachStep: 2e-5, rope.Rerotate: 1e-4} {
			one, oneRef := tinyLlama(t, 1, Config{Rope: func(_ int, cfg rope.Config) rope.Config { change(&cfg); return cfg }})
			st := newState(t, one, StateConfig{Policy: policy})
			for from := 0; from < n; from += 50 {
				must(t, one.Run(t.Context(), &Call{Tokens: ids[from : from+50], State: st, Last: got}))
			}
			want := narrowed(oneRef.tinyLogits(1, ids, upTo(n), causal, rotation.Frequencies(), rotation.AttentionFactor()))
			near(t, fmt.Sprintf("%s, policy %d", name, policy), got.Data, want, tol)
		}
	}
}

// TestEndlessDecoding decodes 100,000 tokens in a window with first tokens that are kept: memory
// stays what it was, and the last token sees what it should.
func TestEndlessDecoding(t *testing.T) {
	tokens := 100_000
	if testing.Short() {
		tokens = 6_000
		t.Logf("%d tokens, not 100,000, which take some seconds", tokens)
	}
	const window, keep = 20, 4
	m, r := tinyLlama(t, 1, Config{Workers: 1})
	two, _ := tinyLlama(t, 2, Config{Workers: 1})
	ids := tinyTokens(tokens)
	cfg := StateConfig{Window: window, Keep: keep}
	st, deep := newState(t, m, cfg), newState(t, two, cfg)
	last := zeros(1, tinyVocab)
	call, other := &Call{State: st, Last: last}, &Call{State: deep, Last: zeros(1, tinyVocab)}
	var bytes, deepBytes int64
	for i := range ids {
		call.Tokens, other.Tokens = ids[i:i+1], ids[i:i+1]
		must(t, m.Run(t.Context(), call))
		must(t, two.Run(t.Context(), other))
		switch {
		case i == 200:
			bytes, deepBytes = st.Bytes(), deep.Bytes()
		case i > 200 && i%1000 == 0 && (st.Bytes() != bytes || deep.Bytes() != deepBytes):
			t.Fatalf("%d and %d bytes after %d tokens, %d and %d after 200", st.Bytes(), deep.Bytes(), i, bytes, deepBytes)
		}
	}
	if st.Len() != tokens {
		t.Errorf("%d tokens seen, want %d", st.Len(), tokens)
	}
	at := append(upTo(keep), upTo(tokens)[tokens-window:]...)
	var seen []int32
	for _, p := range at {
		seen = append(seen, ids[p])
	}
	rotation, err := rope.New(rope.Config{HeadDim: tinyWide})
	must(t, err)
	sees := func(q, k int) bool { return k <= q && (k < keep || k > q-window) }
	near(t, "the last of them", last.Data, narrowed(r.tinyLogits(1, seen, at, sees, rotation.Frequencies(), 1)), 1e-4)
	if a := testing.AllocsPerRun(200, func() { must(t, m.Run(t.Context(), call)) }); a > 0 {
		t.Errorf("%v allocations a token", a)
	}
}

// TestReplace puts CCA into one layer and linear attention into another: states are split, stored,
// forked and cut back, prefixes kept, and a CCA whose window is all is exact.
func TestReplace(t *testing.T) {
	const n, layers = 150, 3
	ids := tinyTokens(n)
	config := func(window int) Config {
		return Config{Attention: func(layer int, cfg attention.Config) (*Replacement, error) {
			switch layer {
			case 0:
				op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.Scale, GroupSize: 8, Window: window})
				if err != nil {
					return nil, err
				}
				return Replace(op, func(StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{}) }, op.ReadState), nil
			case 2:
				op, err := approx.NewLinear(approx.LinearConfig{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Causal: true})
				if err != nil || window > n {
					return nil, err
				}
				return Replace(op, func(StateConfig) (*approx.LinearState, error) { return op.NewState(approx.StateConfig{}) }, op.ReadState), nil
			}
			return nil, nil
		}}
	}
	m, _ := tinyLlama(t, layers, config(32))
	exact, _ := tinyLlama(t, layers, Config{})
	all, _ := tinyLlama(t, layers, config(1000))
	want, got := zeros(n, tinyVocab), zeros(n, tinyVocab)
	must(t, exact.Forward(want, ids))
	must(t, all.Forward(got, ids))
	near(t, "a window of all", got.Data, want.Data, 2e-5)
	must(t, m.Forward(want, ids))
	differs := false
	for i, v := range want.Data {
		differs = differs || math.Abs(float64(v-got.Data[i])) > 1e-3
	}
	if !differs {
		t.Error("CCA and linear attention give what exact attention does")
	}
	st := newState(t, m, StateConfig{Snapshots: 2})
	must(t, m.Step(mat.Rows(got, 0, 60), ids[:60], st))
	must(t, m.Step(mat.Rows(got, 60, 61), ids[60:61], st))
	fork := st.Clone()
	var file bytes.Buffer
	_, err := st.WriteTo(&file)
	must(t, err)
	must(t, m.Step(mat.Rows(got, 61, n), ids[61:], st))
	near(t, "steps", got.Data, want.Data, 2e-5)
	read, err := m.ReadState(&file)
	must(t, err)
	must(t, st.Truncate(61))
	for what, s := range map[string]*State{"fork": fork, "read": read, "cut back": st} {
		again := zeros(n-61, tinyVocab)
		must(t, m.Step(again, ids[61:], s))
		same(t, what, again.Data, mat.Rows(got, 61, n).Data)
	}
	p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 24, Every: 64})
	must(t, err)
	last := zeros(1, tinyVocab)
	_, _, err = p.Prefill(t.Context(), ids, last)
	must(t, err)
	near(t, "prefixes", last.Data, mat.Row(want, n-1), 2e-5)
	if _, k, err := p.Lookup(ids); k != 128 || err != nil {
		t.Errorf("%d tokens are known: %v", k, err)
	}
	if alien := newState(t, exact, StateConfig{}); m.Step(zeros(1, tinyVocab), ids[:1], alien) == nil {
		t.Error("a state of another operator is taken")
	}
	wrong := Config{Attention: func(int, attention.Config) (*Replacement, error) { return &Replacement{}, nil }}
	gone := errors.New("gone")
	failing := Config{Attention: func(int, attention.Config) (*Replacement, error) { return nil, gone }}
	if _, err := Open(goldenFolder+"llama", wrong); !errors.Is(err, ErrConfig) {
		t.Errorf("an empty replacement: %v", err)
	}
	if _, err := Open(goldenFolder+"llama", failing); !errors.Is(err, gone) {
		t.Errorf("an error of the callback: %v", err)
	}
}

// TestLatentLength: latent attention has the frequencies of the length that a state is for, in
// one call with states of other lengths too, and from a file.
func TestLatentLength(t *testing.T) {
	dynamic := Config{Rope: func(_ int, cfg rope.Config) rope.Config {
		cfg.Scheme = rope.DynamicNTK{Factor: 4, MaxPosition: 32}
		return cfg
	}}
	m := open(t, "deepseek_v3", dynamic)
	const n = 120
	ids, v := tokens(m, n), m.shape.Vocab
	want, short := zeros(n, v), zeros(n, v)
	must(t, m.Forward(want, ids)) // knows its length
	must(t, m.Step(short, ids, newState(t, m, StateConfig{})))
	differs := false
	for i, x := range want.Data {
		differs = differs || x != short.Data[i]
	}
	if !differs {
		t.Fatal("Length makes no difference")
	}
	long, other := newState(t, m, StateConfig{Length: n}), newState(t, m, StateConfig{})
	got := zeros(50, v)
	must(t, m.Run(t.Context(), &Call{Tokens: append(append([]int32(nil), ids[:30]...), ids[:20]...), Offsets: []int{0, 30, 50}, States: []*State{long, other}, Logits: got}))
	near(t, "a batch, long", mat.Rows(got, 0, 30).Data[:30*v], want.Data[:30*v], 1e-4)
	near(t, "a batch, short", got.Data[30*v:], short.Data[:20*v], 1e-4)
	var file bytes.Buffer
	_, err := long.WriteTo(&file)
	must(t, err)
	read, err := m.ReadState(&file)
	must(t, err)
	got = zeros(n-30, v)
	must(t, m.Step(got, ids[30:], read))
	near(t, "read", got.Data, want.Data[30*v:], 1e-4)
	if _, err := m.NewState(StateConfig{Policy: rope.EachStep}); !errors.Is(err, ErrConfig) {
		t.Errorf("a policy that latent attention has not: %v", err)
	}
}
