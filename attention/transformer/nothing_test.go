package transformer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShapeIsCopy: a caller may change a Shape without changing the model.
func TestShapeIsCopy(t *testing.T) {
	for _, name := range []string{"qwen3_moe", "deepseek_v3", "bamba", "kimi_linear"} {
		m := open(t, name, Config{})
		ids := tokens(m, 3)
		want, got := zeros(len(ids), m.shape.Vocab), zeros(len(ids), m.shape.Vocab)
		must(t, m.Forward(want, ids))
		s := m.Shape()
		if s.Experts != nil {
			s.Experts.Count, s.Experts.TopK, s.Experts.Sparse[len(s.Experts.Sparse)-1] = 1, 1, false
		}
		if s.Latent != nil {
			s.Latent.KVRank = 1
		}
		if s.Mamba != nil {
			s.Mamba.Heads = 1
		}
		if s.Delta != nil {
			s.Delta.Heads = 1
		}
		must(t, m.Forward(got, ids))
		same(t, name, got.Data, want.Data)
		if a, b := m.Shape(), m.Shape(); fmt.Sprint(a) == fmt.Sprint(s) || a.Bytes(0) != b.Bytes(0) {
			t.Errorf("%s: the next Shape is the one that was changed", name)
		}
	}
}

// TestNothing: drafts, words and templates that are nil, as they are after an error that nobody
// looked at, are errors.
func TestNothing(t *testing.T) {
	m := open(t, "llama", Config{})
	source, err := m.NewSource()
	must(t, err)
	for says, cfg := range map[string]GenerateConfig{
		"a ModelDraft is nil, or its Source":                                      {Draft: (*ModelDraft)(nil)},
		"a ModelDraft is nil, or its Sourc":                                       {Draft: &ModelDraft{}},
		"token 0 of the text is -5, and the Source of a ModelDraft has 97 tokens": {Draft: &ModelDraft{Source: source}, Seen: []int32{-5}},
		"Words has no tokens":                                                     {Words: (*Tokenizer)(nil), StopText: []string{"x"}},
	} {
		kind := ErrCall
		if cfg.Words != nil {
			kind = ErrConfig
		}
		cfg.MaxTokens, cfg.Stop = 20, []int32{}
		x := tell(t.Context(), m, []int32{1}, newState(t, m, StateConfig{}), cfg, -1, nil)
		if !errors.Is(x.err, kind) || !strings.Contains(fmt.Sprint(x.err), says) {
			t.Errorf("%v, want %s", x.err, says)
		}
	}
	var chat *Template
	if _, err := chat.Apply([]Message{{Role: "user"}}, true); !errors.Is(err, ErrCall) {
		t.Errorf("a template that is nil: %v", err)
	}
}

// TestTooSmallForFloat32: a number that float32 makes 0 of is none above 0; a quantization must
// say its method.
func TestTooSmallForFloat32(t *testing.T) {
	for _, c := range [][3]string{
		{"llama", `"rms_norm_eps": 1e-300`, "rms_norm_eps is 1e-300, want a finite number above 0"},
		{"gemma3", `"query_pre_attn_scalar": 1e-300`, "query_pre_attn_scalar is 1e-300"},
		{"granite", `"logits_scaling": 1e-300`, "logits_scaling is 1e-300"},
		{"llama", `"quantization_config": {}`, "quantization_config: no quant_method"},
		{"llama", `"quantization_config": {"quant_method": "mxfp4"}`, "weights quantized by \"mxfp4\" are not read"},
	} {
		text, err := os.ReadFile(filepath.Join(folderOf(t, c[0]), "config.json"))
		must(t, err)
		config := strings.TrimRight(strings.TrimSpace(string(text)), "}") + "," + c[1] + "}"
		if _, err := ParseConfig([]byte(config)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %s", c[1], err, c[2])
		}
	}
}
