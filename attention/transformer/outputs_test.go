package transformer

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// TestEmbeddings: pooled vectors are the means, or the last ones, of each sequence's hidden
// states, and likelihoods those of the logits.
func TestEmbeddings(t *testing.T) {
	m := open(t, "qwen3", Config{})
	ids, offsets := tokens(m, 40), []int{0, 7, 8, 40}
	d, v := m.shape.Dim, m.shape.Vocab
	hidden, logits := zeros(40, d), zeros(40, v)
	mean, last := make([]float32, 3*d), make([]float32, 3*d)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, Hidden: hidden, Logits: logits, Pooled: mean}))
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, Pooled: last, Pooling: Last}))
	for i, from := range offsets[:3] {
		to := offsets[i+1]
		same(t, "last", last[i*d:(i+1)*d], mat.Row(hidden, to-1))
		want := make([]float32, d)
		for c := range want {
			sum := 0.0
			for row := from; row < to; row++ {
				sum += float64(mat.Row(hidden, row)[c])
			}
			want[c] = float32(sum / float64(to-from))
		}
		near(t, "mean", mean[i*d:(i+1)*d], want, 1e-6)
	}
	targets := make([]int32, 40)
	for i := range targets {
		targets[i] = ids[(i+1)%40]
	}
	likely := make([]float32, 40)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, Targets: targets, LogLikelihood: likely}))
	for i, got := range likely {
		z := mat.Row(logits, i)
		sum := 0.0
		for _, x := range z {
			sum += math.Exp(float64(x - slices.Max(z)))
		}
		if want := float64(z[targets[i]]-slices.Max(z)) - math.Log(sum); math.Abs(float64(got)-want) > 1e-4 {
			t.Errorf("token %d: log-likelihood %v, want %v", i, got, want)
		}
	}
}

// TestPackedPrompts: prompts of many states in one call, and then a token of each, go on as
// Generate does with each alone.
func TestPackedPrompts(t *testing.T) {
	m := open(t, "llama", Config{})
	ids, offsets, v := tokens(m, 30), []int{0, 4, 5, 30}, m.shape.Vocab
	var states []*State
	for range 3 {
		states = append(states, newState(t, m, StateConfig{}))
	}
	last := zeros(3, v)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, States: states, Last: last}))
	var got [3][]int32
	for range 10 {
		next := make([]int32, 3)
		for i := range next {
			next[i] = int32(blas32.Iamax(blas32.Vector{N: v, Inc: 1, Data: shifted(mat.Row(last, i))}))
			got[i] = append(got[i], next[i])
		}
		must(t, m.StepBatch(last, next, states))
	}
	for i, from := range offsets[:3] {
		var want []int32
		for id, err := range m.Generate(t.Context(), ids[from:offsets[i+1]], newState(t, m, StateConfig{}), GenerateConfig{MaxTokens: 10, Stop: []int32{}}) {
			must(t, err)
			want = append(want, id)
		}
		if !slices.Equal(got[i], want) {
			t.Errorf("prompt %d: %v, alone %v", i, got[i], want)
		}
	}
}

// shifted makes numbers positive in their order: Iamax takes the largest absolute value.
func shifted(z []float32) []float32 {
	out, least := make([]float32, len(z)), slices.Min(z)
	for i, x := range z {
		out[i] = x - least
	}
	return out
}

// TestStreamAllocations: a token more allocates nothing, with every filter and with text.
func TestStreamAllocations(t *testing.T) {
	m, err := Open(goldenFolder+"stories260K", Config{Workers: 1})
	must(t, err)
	words, err := OpenTokenizer(goldenFolder + "stories260K")
	must(t, err)
	prompt, err := words.Encode("Once upon a time", true)
	must(t, err)
	st := newState(t, m, StateConfig{MaxTokens: 300})
	cfg := GenerateConfig{Words: words, LogProbs: true, Stop: []int32{}, StopText: []string{"no such text"},
		SampleConfig: SampleConfig{Temperature: 1, TopK: 40, TopP: 0.9, MinP: 0.01, RepetitionPenalty: 1.1}}
	run := func(n int) float64 {
		cfg.MaxTokens = n
		return testing.AllocsPerRun(3, func() {
			st.Reset()
			for _, err := range m.Stream(t.Context(), prompt, st, cfg) {
				must(t, err)
			}
		})
	}
	run(250)
	if few, many := run(20), run(250); many > few+4 { // buffers may grow once more
		t.Errorf("%v allocations for 20 tokens, %v for 250", few, many)
	}
}
