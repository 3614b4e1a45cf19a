package transformer

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/transformer", map[string]func(*testing.T, *golden.File){
		"transformer.model":    goldenModel,
		"transformer.text":     goldenText,
		"transformer.moe_zero": goldenZeroExperts,

		"transformer.qwen3_next_model": goldenQwen35,
		"transformer.byte_text":        goldenByteText,
	})
}

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(f *golden.File, name string) (list []int32) {
	for _, id := range f.Int64(name) {
		list = append(list, int32(id))
	}
	return list
}

// goldenModel compares whole sequences, random splits of them, a batch of all, and greedy
// continuations, also of stored states.
func goldenModel(t *testing.T, f *golden.File) {
	m, err := Open(f.Beside("checkpoint"), Config{})
	must(t, err)
	if want := f.Meta("model_type"); want != "" && m.shape.ModelType != want {
		t.Errorf("model_type is %q, want %q", m.shape.ModelType, want)
	}
	goldenTypes(t, f)
	f.Margin("route_margin")
	margin := f.Margin("greedy_margin")
	vocab, dim, layers := m.shape.Vocab, m.shape.Dim, m.shape.Layers
	var batch Call
	var names []string
	batch.Offsets = []int{0}
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range f.Names() {
		c, ok := strings.CutPrefix(name, "ids.")
		if !ok {
			continue
		}
		tokens := ids(f, name)
		n := len(tokens)
		call := &Call{Tokens: tokens, Logits: zeros(n, vocab), Hidden: zeros(n, dim), LogLikelihood: make([]float32, max(n-1, 0))}
		residuals := zeros((layers+1)*n, dim)
		for l := range layers + 1 {
			call.Residuals = append(call.Residuals, mat.Rows(residuals, l*n, (l+1)*n))
		}
		must(t, m.Run(t.Context(), call))
		for what, got := range map[string][]float32{"logits": call.Logits.Data, "hidden": residuals.Data, "final": call.Hidden.Data, "loglik": call.LogLikelihood} {
			if f.Has(what + "." + c) {
				f.Compare(what+"."+c, got)
			}
		}
		batch.Tokens, batch.Offsets, names = append(batch.Tokens, tokens...), append(batch.Offsets, len(batch.Tokens)+n), append(names, c)
		for _, cfg := range []StateConfig{{Length: n}, {Length: n, WindowsOnly: true}} {
			st, err := m.NewState(cfg)
			must(t, err)
			for from := 0; from < n; {
				to := from + 1 + r.IntN(n-from)
				must(t, m.Step(mat.Rows(call.Logits, from, to), tokens[from:to], st))
				from = to
			}
			f.Compare("logits."+c, call.Logits.Data)
		}
		if f.Has("greedy." + c) {
			goldenGreedy(t, f, m, c, tokens, margin)
		}
	}
	batch.Logits = zeros(len(batch.Tokens), vocab)
	must(t, m.Run(t.Context(), &batch))
	for i, c := range names {
		f.Compare("logits."+c, batch.Logits.Data[batch.Offsets[i]*vocab:batch.Offsets[i+1]*vocab])
	}
}

// goldenTypes fails the test where the checkpoint holds no weights of a type that the file
// names: what they are widened from would not be tested.
func goldenTypes(t *testing.T, f *golden.File) {
	text := f.Meta("dtype")
	if text == "" {
		return
	}
	file, err := weights.OpenCheckpoint(f.Beside("checkpoint"))
	must(t, err)
	defer file.Close()
	types := map[string]bool{}
	for _, name := range file.Names() {
		types[string(file.Tensor(name).Type)] = true
	}
	for _, want := range strings.Split(text, " and ") {
		if want == "mxfp4" {
			want = "U8" // two to a byte
		}
		if !types[want] {
			t.Errorf("dtype is %q, the checkpoint has %v", text, types)
		}
	}
}

// decided fails the test where a greedy choice of tokens was nearer than margin, a part of
// the largest logit, to another: logits of the token before each.
func decided(t *testing.T, logits blas32.General, tokens []int32, margin float64) {
	t.Helper()
	for i, id := range tokens {
		var largest float64
		row := mat.Row(logits, i)
		gap := math.Inf(1)
		for j, v := range row {
			if largest = max(largest, math.Abs(float64(v))); j != int(id) {
				gap = min(gap, float64(row[id])-float64(v))
			}
		}
		if gap < 0.9*margin*largest {
			t.Fatalf("token %d was chosen by %v of the largest logit, the metadata says %v", i, gap/largest, margin)
		}
	}
}

// goldenGreedy continues a prompt, goes back and continues it again, and from a stored state.
func goldenGreedy(t *testing.T, f *golden.File, m *Model, c string, prompt []int32, margin float64) {
	want := f.Int64("greedy." + c)
	n := len(want)
	length := len(prompt) + n
	st, err := m.NewState(StateConfig{Length: length})
	must(t, err)
	generate := func(st *State, prompt []int32, n int) (got []int64) {
		for token, err := range m.Generate(t.Context(), prompt, st, GenerateConfig{MaxTokens: n, Stop: []int32{}}) {
			must(t, err)
			got = append(got, int64(token))
		}
		return got
	}
	got := generate(st, prompt, n)
	f.CompareInts("greedy."+c, got)
	must(t, st.Truncate(len(prompt)-1))
	var file bytes.Buffer
	_, err = st.WriteTo(&file)
	must(t, err)
	again, err := m.ReadState(&file)
	must(t, err)
	for name, st := range map[string]*State{"gone back": st, "stored": again} {
		if list := generate(st, prompt[len(prompt)-1:], n); fmt.Sprint(list) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, list, want)
		}
	}
	all := append([]int32(nil), prompt...)
	for _, id := range want {
		all = append(all, int32(id))
	}
	// All but the last, which nothing is predicted from. Their length is the continuation's.
	st, err = m.NewState(StateConfig{Length: length})
	must(t, err)
	logp, logits := make([]float32, length-1), zeros(length-1, m.shape.Vocab)
	must(t, m.Run(t.Context(), &Call{Tokens: all[:length-1], State: st, Targets: all[1:], LogLikelihood: logp, Logits: logits}))
	decided(t, mat.Rows(logits, len(prompt)-1, length-1), all[len(prompt):], margin)
	f.Compare("greedy_logprob."+c, logp[len(prompt)-1:])
	for _, v := range logp {
		if !(v <= 0) || math.IsInf(float64(v), 0) {
			t.Fatalf("a log-likelihood is %v", v)
		}
	}
}
