package dna

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/golden"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "hyena/dna", map[string]func(*testing.T, *golden.File){
		"hyena.model":     goldenModel,
		"hyena.hfmodel":   goldenModel,
		"hyena.ckpt":      goldenCheckpoint,
		"hyena.tokenizer": goldenTokenizer,
	})
}

// goldenModel runs a checkpoint under official or Hugging Face names.
func goldenModel(t *testing.T, f *golden.File) {
	cfg, err := ParseConfig([]byte(f.Meta("config")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := newModel(f.Weights(func(name string) bool {
		return name != "input_ids" && !strings.HasPrefix(name, "expected.")
	}), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if head := f.Meta("use_head"); head != "" && head != map[bool]string{true: "True", false: "False"}[m.Classes() > 0] {
		t.Errorf("use_head is %s, the model has %d classes", head, m.Classes())
	}
	classes := int(f.Number("n_classes", 0)) // without a head what it would have
	if m.Classes() > 0 && classes > 0 && m.Classes() != classes {
		t.Errorf("n_classes is %d, the model has %d", classes, m.Classes())
	}
	goldenOutputs(t, f, m, golden.Tolerance{Abs: 2e-4, Rel: 1e-3}) // metadata "tolerance"
}

// goldenCheckpoint runs a checkpoint of training, in a file of its own.
func goldenCheckpoint(t *testing.T, f *golden.File) {
	cfg, err := ParseConfig([]byte(f.Meta("config")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(f.Beside("ckpt"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	goldenOutputs(t, f, m, f.Tolerance())
}

// goldenOutputs compares what m makes of the input, its hidden states within
// hidden.
func goldenOutputs(t *testing.T, f *golden.File, m *Model, hidden golden.Tolerance) {
	shape, ids := f.Shape("input_ids"), f.Int64("input_ids")
	batch, n := 1, shape[len(shape)-1]
	if len(shape) == 2 {
		batch = shape[0]
	}
	outputs := make([]Call, batch)
	var calls []*Call
	for b := range batch {
		o := &outputs[b]
		o.Tokens = make([]int32, n)
		for i := range n {
			o.Tokens[i] = int32(ids[b*n+i])
		}
		o.Hidden, o.Logits = zeros(n, m.cfg.Dim), zeros(n, m.cfg.Vocab)
		for range m.cfg.Layers + 1 {
			o.Residuals = append(o.Residuals, zeros(n, m.cfg.Dim))
		}
		if m.Classes() > 0 {
			o.Classes = make([]float32, m.Classes())
		}
		calls = append(calls, o)
	}
	if err := m.RunBatch(t.Context(), calls); err != nil {
		t.Fatal(err)
	}
	all := func(get func(o *Call) []float32) (list []float32) {
		for b := range outputs {
			list = append(list, get(&outputs[b])...)
		}
		return list
	}
	for _, name := range f.Names() {
		rest, ok := strings.CutPrefix(name, "expected.")
		if !ok {
			continue
		}
		var i int
		switch {
		case rest == "last_hidden_state":
			f.Compare(name, all(func(o *Call) []float32 { return o.Hidden.Data }), hidden)
		case rest == "lm_logits" || rest == "logits" && f.Meta("op") == "hyena.hfmodel":
			f.Compare(name, all(func(o *Call) []float32 { return o.Logits.Data }))
		case rest == "class_logits":
			f.Compare(name, all(func(o *Call) []float32 { return o.Classes }))
		case scan(rest, "residual_after_layer%d", &i) && i < m.cfg.Layers:
			f.Compare(name, outputs[0].Residuals[i+1].Data, hidden) // of the first sequence only
		case scan(rest, "hidden_states.%d", &i) && i <= m.cfg.Layers:
			f.Compare(name, all(func(o *Call) []float32 { return o.Residuals[i].Data }), hidden)
		case scan(rest, "hidden_states.%d", &i) && i == m.cfg.Layers+1:
			f.Compare(name, all(func(o *Call) []float32 { return o.Hidden.Data }), hidden)
		default:
			t.Errorf("unknown expected tensor %s", name)
		}
	}
}

func scan(text, format string, i *int) bool {
	n, err := fmt.Sscanf(text, format, i)
	return n == 1 && err == nil
}

func goldenTokenizer(t *testing.T, f *golden.File) {
	var cases []struct {
		Texts        []string  `json:"texts"`
		Variant      string    `json:"variant"`
		PaddingSide  string    `json:"padding_side"`
		ModelMax     int       `json:"model_max_length"`
		Padding      any       `json:"padding"`    // a bool or "max_length"
		Truncation   any       `json:"truncation"` // a bool or "longest_first"
		MaxLength    int       `json:"max_length"`
		AddSpecial   *bool     `json:"add_special_tokens"`
		ExpectedFull [][]int64 `json:"ids"`
	}
	if err := json.Unmarshal([]byte(f.Meta("cases")), &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		special := map[string]Special{"standalone": ClsSep, "repo": AppendSep}[c.Variant]
		if c.AddSpecial != nil && !*c.AddSpecial {
			special = NoSpecial
		} else if special == NoSpecial {
			t.Fatalf("case %d: unknown variant %q", i, c.Variant)
		}
		cfg := TokenizerConfig{Special: special, PadRight: c.PaddingSide == "right"}
		limit := cmp.Or(c.MaxLength, c.ModelMax)
		switch c.Truncation {
		case nil, false, "do_not_truncate":
		case true, "longest_first", "only_first":
			cfg.MaxLen = limit
		default:
			t.Fatalf("case %d: unknown truncation %v", i, c.Truncation)
		}
		tok, err := NewTokenizer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var batch [][]int32
		switch c.Padding {
		case nil, false, "do_not_pad":
			for _, text := range c.Texts {
				batch = append(batch, tok.Encode(text))
			}
		case true, "longest":
			batch = tok.EncodeBatch(c.Texts, 0)
		case "max_length":
			batch = tok.EncodeBatch(c.Texts, limit)
		default:
			t.Fatalf("case %d: unknown padding %v", i, c.Padding)
		}
		var flat, lens []int64
		for j, ids := range batch {
			var row []int64
			for _, id := range ids {
				row = append(row, int64(id))
			}
			if c.ExpectedFull != nil && !slices.Equal(row, c.ExpectedFull[j]) {
				t.Errorf("case %d, text %d: %v, want %v", i, j, row, c.ExpectedFull[j])
			}
			flat, lens = append(flat, row...), append(lens, int64(len(ids)))
		}
		f.CompareInts(fmt.Sprintf("case%d.ids_flat", i), flat)
		f.CompareInts(fmt.Sprintf("case%d.lens", i), lens)
	}
}
