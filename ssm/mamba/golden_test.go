package mamba

import (
	"encoding/json"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/ssm"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "ssm/mamba", map[string]func(*testing.T, *golden.File){
		"ssm.lm_mamba1": goldenModel,
		"ssm.lm_mamba2": goldenModel,
	})
}

func zeros(rows, cols int) blas32.General {
	return mat.Of(make([]float32, rows*cols), rows, cols)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest

// goldenModel compares the logits of a whole sequence, and of a prompt followed by
// single tokens.
func goldenModel(t *testing.T, f *golden.File) {
	var config map[string]any
	f.Python("config", &config)
	text, err := json.Marshal(config)
	must(t, err)
	cfg, err := ParseConfig(text)
	must(t, err)
	const prefix = "param."
	file := f.Weights(func(name string) bool { return strings.HasPrefix(name, prefix) })
	c := file.Under(prefix)
	m, err := newModel(c, cfg)
	must(t, err)
	shape, ids := f.Shape("ids"), f.Int64("ids")
	batch, n := shape[0], shape[1]
	prefill := n
	if f.Meta("n_prefill") != "" {
		must(t, json.Unmarshal([]byte(f.Meta("n_prefill")), &prefill))
		prefill = min(prefill, n)
	}
	var whole, stepped []float32
	for b := range batch {
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = int32(ids[b*n+i])
		}
		logits := zeros(n, m.cfg.Vocab)
		must(t, m.Forward(logits, tokens))
		whole = append(whole, logits.Data...)
		st, err := m.NewState(ssm.StateConfig{})
		must(t, err)
		steps := zeros(n, m.cfg.Vocab)
		must(t, m.Step(mat.Rows(steps, 0, prefill), tokens[:prefill], st))
		for i := prefill; i < n; i++ {
			must(t, m.StepBatch(mat.Rows(steps, i, i+1), tokens[i:i+1], []*State{st}))
		}
		stepped = append(stepped, steps.Data...)
	}
	if f.Has("logits") {
		f.Compare("logits", whole)
		f.Compare("logits", stepped)
	}
	if _, other := config["d_intermediate"]; other && config["d_intermediate"] != 0. || cfg.LayerNorm || cfg.NormBeforeGate || m.cfg.Layers == 0 {
		return // Hugging Face's layout has no such models
	}
	theirs := huggingFace(t, c, m)
	for b := range batch {
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = int32(ids[b*n+i])
		}
		logits := zeros(n, m.cfg.Vocab)
		must(t, theirs.Forward(logits, tokens))
		same(t, "Hugging Face's layout", logits.Data, whole[b*n*m.cfg.Vocab:][:n*m.cfg.Vocab])
	}
}
