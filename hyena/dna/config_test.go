package dna

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestConfigKeysThatChangeResults: a key whose value is not computed is an error that
// names it; with the value that is computed it is none.
func TestConfigKeysThatChangeResults(t *testing.T) {
	for key, c := range map[string]struct{ wrong, right []string }{
		"model_type":              {[]string{`"llama"`, `"mamba"`, `"stripedhyena"`, `3`}, []string{`"hyenadna"`, `null`}},
		"layer._name_":            {[]string{`"s4d"`, `"long-conv"`}, []string{`"hyena"`}},
		"layer.filter_cls":        {[]string{`"long-conv"`}, []string{`"hyena-filter"`}},
		"layer.bidirectional":     {[]string{`true`, `1`, `"yes"`, `[]`}, []string{`false`, `0`, `null`}},
		"layer.bias":              {[]string{`false`, `0`}, []string{`true`}},
		"use_bias":                {[]string{`false`}, []string{`true`}},
		"layer.num_heads":         {[]string{`2`, `0`}, []string{`1`, `1.0`}},
		"layer.num_blocks":        {[]string{`4`}, []string{`1`}},
		"layer.inner_factor":      {[]string{`2`}, []string{`1`}},
		"layer.outer_mixing":      {[]string{`true`}, []string{`false`}},
		"layer.post_order_ffn":    {[]string{`true`}, []string{`false`}},
		"layer.activation":        {[]string{`"glu"`, `"elu"`, `"laplace"`, `7`}, []string{`"id"`, `null`, `"tanh"`, `"gelu"`}},
		"layer.normalized":        {[]string{`2`, `"yes"`}, []string{`true`, `false`, `1`}},
		"layer.linear_mixer":      {[]string{`"yes"`}, []string{`false`, `0`}},
		"layer.shift":             {[]string{`1e39`, `NaN`, `"no"`}, []string{`0`, `-0.5`}},
		"layer.w":                 {[]string{`0`, `-1`, `1e39`, `{"__float__": "Infinity"}`}, []string{`10`}},
		"layer.fast_decay_pct":    {[]string{`0`, `-1`}, []string{`0.2`}},
		"layer.slow_decay_pct":    {[]string{`0`, `Infinity`}, []string{`2`}},
		"layer.target":            {[]string{`0`, `1.5`}, []string{`0.05`}},
		"layer.order":             {[]string{`-2`, `2.5`, `1e12`}, []string{`3`}},
		"layer.l_max":             {[]string{`-1`}, []string{`700`}},
		"attn_layer_idx":          {[]string{`[0]`, `3`}, []string{`[]`, `null`}},
		"identity_mlp":            {[]string{`true`}, []string{`false`}},
		"use_flashfftconv":        {[]string{`true`}, []string{`false`}},
		"hidden_act":              {[]string{`"relu"`, `"gelu"`}, []string{`"gelu_new"`}},
		"layer_norm_epsilon":      {[]string{`1e39`, `-1`, `0`, `NaN`}, []string{`1e-6`}},
		"layer_norm_eps":          {[]string{`1e39`}, []string{`1e-12`}},
		"pad_vocab_size_multiple": {[]string{`-8`, `1e10`}, []string{`8`, `1`}},
		"vocab_size":              {[]string{`-12`}, []string{`12`}},
		"tie_word_embeddings":     {[]string{`"no"`}, []string{`false`, `true`}},
	} {
		text := func(value string) []byte {
			if in, ok := strings.CutPrefix(key, "layer."); ok {
				return fmt.Appendf(nil, `{"layer": {%q: %s}}`, in, value)
			}
			return fmt.Appendf(nil, `{%q: %s}`, key, value)
		}
		for _, value := range c.wrong {
			if got, err := ParseConfig(text(value)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %s: %+v, error %v", key, value, got, err)
			}
		}
		for _, value := range c.right {
			if _, err := ParseConfig(text(value)); err != nil {
				t.Errorf("%s: %s: error %v", key, value, err)
			}
		}
	}
	if _, err := ParseConfig([]byte(`{"max_position_embeddings": 512, "layer": {"l_max": 512}}`)); !errors.Is(err, ErrConfig) {
		t.Errorf("learned positions: error %v", err)
	}
}

// TestConfigIsComputed: what config.json says of filters and operators gives what the same
// fields of a Config give, and something else than without.
func TestConfigIsComputed(t *testing.T) {
	dir := t.TempDir()
	shift, s := 0.25, small.random(1)
	must(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), s.File(), 0o600))
	hidden := func(m *Model) []float32 {
		c := everything(m, bases(1, 90))
		must(t, m.Run(t.Context(), c))
		return c.Hidden.Data
	}
	plain := hidden(s.model(t, Config{MaxLen: 100}))
	for key, cfg := range map[string]Config{
		`"normalized": true`:                    {Normalized: true},
		`"activation": "silu"`:                  {Activation: hyena.SiLU},
		`"fast_decay_pct": 0.1`:                 {FastDecay: 0.1},
		`"slow_decay_pct": 3`:                   {SlowDecay: 3},
		`"target": 0.2`:                         {Target: 0.2},
		`"shift": 0.25`:                         {Shift: &shift},
		`"modulate": false`:                     {NoModulation: true},
		`"normalized": 1, "activation": "relu"`: {Normalized: true, Activation: hyena.ReLU},
	} {
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"layer": {"l_max": 100, %s}}`, key), 0o600))
		m, err := Open(dir, Config{})
		must(t, err)
		cfg.MaxLen = 100
		got, want := hidden(m), hidden(s.model(t, cfg))
		if !slices.Equal(got, want) || slices.Equal(got, plain) {
			t.Errorf("%s: %v, want %v and not %v", key, got[900:904], want[900:904], plain[900:904])
		}
	}
}

// TestLinearFilter: a checkpoint whose filters are one linear layer is read, and one with
// an MLP is not where the configuration says so.
func TestLinearFilter(t *testing.T) {
	if _, err := small.random(1).read(Config{MaxLen: 100, LinearFilter: true}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "linear_mixer") {
		t.Errorf("error %v", err)
	}
	s := small.random(1)
	for i := range small.layers {
		filter := fmt.Sprintf("backbone.layers.%d.mixer.filter_fn.implicit_filter.", i)
		for name := range s.State {
			if strings.HasPrefix(name, filter) {
				delete(s.State, name)
			}
		}
		s.State[filter+"0.weight"] = weightstest.Tensor{Shape: []int{small.dim, 5}, Data: make([]float32, small.dim*5)}
	}
	for _, linear := range []bool{false, true} {
		if m := s.model(t, Config{MaxLen: 100, LinearFilter: linear}); m.Config().EmbDim != 5 {
			t.Errorf("configuration %+v", m.Config())
		}
	}
}

// TestUntied: without a head of its own, a model whose embedding does not stand for one has
// no logits.
func TestUntied(t *testing.T) {
	s := small.random(1)
	m := s.model(t, Config{MaxLen: 100, Untied: true})
	c := everything(m, bases(1, 20))
	if err := m.Run(t.Context(), c); !errors.Is(err, subquad.ErrCall) {
		t.Errorf("error %v", err)
	}
	must(t, m.Forward(c.Hidden, c.Tokens))
	s.State["lm_head.weight"] = s.State["backbone."+wordEmbeddings]
	m = s.model(t, Config{MaxLen: 100, Untied: true})
	must(t, m.Run(t.Context(), everything(m, c.Tokens)))
}

// TestLearnedPositions: a model that adds positions to its embeddings is not computed.
func TestLearnedPositions(t *testing.T) {
	s := small.random(1)
	s.State["backbone.embeddings.position_embeddings.weight"] = weightstest.Tensor{Shape: []int{4, 12}, Data: make([]float32, 48)}
	if _, err := s.read(small.config()); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "position_embeddings") {
		t.Errorf("error %v", err)
	}
}
