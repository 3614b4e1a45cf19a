package transformer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm/delta"
)

// goldenQwen35 compares hybrids of gated attention and Gated DeltaNet: a whole sequence, a
// prompt and single tokens after it, random splits, a batch, a stored state, and what the
// states of recurrent layers hold.
func goldenQwen35(t *testing.T, f *golden.File) {
	var config map[string]json.RawMessage
	f.Config("config", &config)
	config["model_type"] = json.RawMessage(strconv.Quote(f.Meta("model_type")))
	text, err := json.Marshal(config)
	must(t, err)
	shape, err := ParseConfig(text)
	must(t, err)
	const prefix = "param."
	file := f.Weights(func(name string) bool { return strings.HasPrefix(name, prefix) }).Under(prefix)
	m, err := newModel(file, shape, Config{})
	must(t, err)
	tokens := ids(f, "ids")
	n, v, dim := len(tokens), m.shape.Vocab, m.shape.Dim

	st := newState(t, m, StateConfig{})
	call := &Call{Tokens: tokens, State: st, Logits: zeros(n, v), Residuals: zerosList(m.shape.Layers+1, n, dim)}
	must(t, m.Run(t.Context(), call))
	compare := func() { f.Compare("logits", call.Logits.Data) }
	states := func(st *State) {
		for i, kind := range m.shape.Kinds {
			if kind != Recurrence {
				continue
			}
			d := m.shape.Delta
			b := m.stack.Mixer(i).(lm.Delta).Block.(*delta.GatedDelta)
			window, s := zeros(d.Taps-1, 2*d.KeyHeads*d.KeyDim+d.Heads*d.ValueDim), zeros(d.Heads*d.KeyDim, d.ValueDim)
			must(t, b.ReadWindow(window, lm.DeltaState(st.Layer(i))))
			must(t, b.ReadStates(s, lm.DeltaState(st.Layer(i))))
			f.Compare(fmt.Sprintf("conv_state.%d", i), golden.Transposed(window).Data)
			f.Compare(fmt.Sprintf("state.%d", i), s.Data)
		}
	}
	compare()
	states(st)
	for i := range m.shape.Layers {
		f.Compare(fmt.Sprintf("hidden.%d", i), call.Residuals[i+1].Data)
	}
	prompt := min(int(f.Number("n_prefill", float64(n))), n)
	st = newState(t, m, StateConfig{})
	must(t, m.Step(mat.Rows(call.Logits, 0, prompt), tokens[:prompt], st))
	for i := prompt; i < n; i++ {
		must(t, m.StepBatch(mat.Rows(call.Logits, i, i+1), tokens[i:i+1], []*State{st}))
	}
	compare()
	states(st)
	r := rand.New(rand.NewPCG(5, 6))
	for range 3 {
		st = newState(t, m, StateConfig{})
		for from := 0; from < n; {
			to := from + 1 + r.IntN(n-from)
			must(t, m.Step(mat.Rows(call.Logits, from, to), tokens[from:to], st))
			from = to
			var file bytes.Buffer
			_, err := st.WriteTo(&file)
			must(t, err)
			st, err = m.ReadState(&file)
			must(t, err)
		}
		compare()
		states(st)
	}
	both := zeros(2*n, v)
	must(t, m.Run(t.Context(), &Call{Tokens: slices.Concat(tokens, tokens), Offsets: []int{0, n, 2 * n}, Logits: both}))
	for _, from := range []int{0, n} {
		copy(call.Logits.Data, both.Data[from*v:])
		compare()
	}
	greedyAgain(t, m, tokens)
}

// greedyAgain continues a prompt: each token is the likeliest by a run of all before it, and
// a fork of the state after the prompt gives the same ones.
func greedyAgain(t *testing.T, m *Model, prompt []int32) {
	t.Helper()
	st := newState(t, m, StateConfig{})
	must(t, m.Step(zeros(len(prompt)-1, m.shape.Vocab), prompt[:len(prompt)-1], st))
	fork := st.Clone()
	var lists [2][]int32
	for i, st := range []*State{st, fork} {
		for token, err := range m.Generate(t.Context(), prompt[len(prompt)-1:], st, GenerateConfig{MaxTokens: 12, Stop: []int32{}}) {
			must(t, err)
			lists[i] = append(lists[i], token)
		}
	}
	if !slices.Equal(lists[0], lists[1]) {
		t.Errorf("a fork goes on with %v, want %v", lists[1], lists[0])
	}
	all := slices.Concat(prompt, lists[0])
	logits := zeros(len(all), m.shape.Vocab)
	must(t, m.Forward(logits, all))
	for i, token := range lists[0] {
		row := mat.Row(logits, len(prompt)+i-1)
		best := slices.Max(row)
		if row[token] < best-1e-4*(1+max(best, -best)) {
			t.Errorf("token %d is %d, of logit %v, want one of %v", i, token, row[token], best)
		}
	}
}
