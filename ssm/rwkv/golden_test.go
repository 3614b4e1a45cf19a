package rwkv

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/ssm/delta"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "ssm/rwkv", map[string]func(*testing.T, *golden.File){"ssm.rwkv7_model": goldenModel})
}

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest

var same = mattest.SameBits

func newState(t testing.TB, m *Model, cfg StateConfig) *State {
	t.Helper()
	st, err := m.NewState(cfg)
	must(t, err)
	return st
}

// goldenModel compares a whole sequence, a prompt and single tokens after it, random splits
// with states stored between them, a batch, and what states hold.
func goldenModel(t *testing.T, f *golden.File) {
	var config struct {
		Dim     int `json:"n_embd"`
		HeadDim int `json:"head_size"`
		Layers  int `json:"n_layer"`
		Vocab   int `json:"vocab_size"`
		Wide    int `json:"dim_ffn"`
	}
	f.Config("config", &config)
	const prefix = "param."
	file := f.Weights(func(name string) bool { return strings.HasPrefix(name, prefix) }).Under(prefix)
	m, err := newModel(file, Config{})
	must(t, err)
	if c := m.Config(); c.Dim != config.Dim || c.HeadDim != config.HeadDim || c.Layers != config.Layers || c.Vocab != config.Vocab {
		t.Fatalf("the tensors tell of %+v, the file of %+v", c, config)
	}
	var tokens []int32
	for _, id := range f.Int64("ids") {
		tokens = append(tokens, int32(id))
	}
	n, v, dim := len(tokens), m.cfg.Vocab, m.cfg.Dim
	heads := dim / m.cfg.HeadDim
	states := func(st *State) {
		for i := range m.cfg.Layers {
			att, ffn := m.stack.Mixer(2*i).(lm.Delta).Block.(*delta.RWKV7), m.stack.Mixer(2*i+1).(lm.Delta).Block.(*delta.RWKV7FFN)
			s, shift := zeros(heads*m.cfg.HeadDim, m.cfg.HeadDim), zeros(1, dim)
			must(t, att.ReadStates(s, lm.DeltaState(st.Layer(2*i))))
			f.Compare(fmt.Sprintf("state.%d", i), s.Data)
			must(t, att.ReadShift(shift, lm.DeltaState(st.Layer(2*i))))
			f.Compare(fmt.Sprintf("att_shift.%d", i), shift.Data)
			must(t, ffn.ReadShift(shift, lm.DeltaState(st.Layer(2*i+1))))
			f.Compare(fmt.Sprintf("ffn_shift.%d", i), shift.Data)
		}
	}
	st := newState(t, m, StateConfig{})
	call := &Call{Tokens: tokens, State: st, Logits: zeros(n, v), Residuals: make([]blas32.General, m.cfg.Layers+1)}
	for i := range call.Residuals {
		call.Residuals[i] = zeros(n, dim)
	}
	compare := func() {
		f.Compare("logits", call.Logits.Data)
		last := mat.Row(call.Logits, n-1)
		f.Compare("published_logits", last)
		for i, want := range f.Optional("published_logits") { // closer than the file asks for
			if d := math.Abs(float64(last[i]) - float64(want)); !(d <= 2e-6) {
				t.Fatalf("logit %d is %v, published as %v", i, last[i], want)
			}
		}
	}
	must(t, m.Run(t.Context(), call))
	compare()
	states(st)
	for i := range m.cfg.Layers {
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
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		st := newState(t, m, StateConfig{})
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
}
