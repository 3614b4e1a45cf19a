package mamba

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestConfigKeysThatChangeResults: a key whose value is not computed is an error that
// names it; with the value that is computed it is none.
func TestConfigKeysThatChangeResults(t *testing.T) {
	for key, c := range map[string]struct{ wrong, right []string }{
		"model_type":                    {[]string{`"jamba"`, `"hyenadna"`, `7`}, []string{`"mamba"`, `"mamba2"`, `"falcon_mamba"`, `null`}},
		"hidden_act":                    {[]string{`"gelu"`, `"relu"`, `1`}, []string{`"silu"`, `"swish"`, `null`}},
		"ssm_cfg.activation":            {[]string{`"gelu"`}, []string{`"swish"`}},
		"ssm_cfg.layer":                 {[]string{`"Mamba3"`}, []string{`"Mamba1"`, `"Mamba2"`}},
		"ssm_cfg.learnable_init_states": {[]string{`true`}, []string{`false`}},
		"attn_layer_idx":                {[]string{`[3]`}, []string{`[]`}},
		"bidirectional":                 {[]string{`true`}, []string{`false`}},
		"norm_epsilon":                  {[]string{`1e39`, `0`, `-1`, `NaN`}, []string{`1e-6`}},
		"layer_norm_epsilon":            {[]string{`1e39`, `{"__float__": "Infinity"}`}, []string{`1e-6`}},
		"mixer_rms_eps":                 {[]string{`1e39`}, []string{`1e-6`}},
		"ssm_cfg.dt_limit":              {[]string{`[1, 0]`, `[0]`, `[2, 1]`, `[NaN, 1]`, `[0, 1e-60]`, `[1e39, Infinity]`}, []string{`[0, Infinity]`, `[-1, 5]`}},
		"time_step_limit":               {[]string{`[1, 0]`, `[0, -1]`, `[0, 1, 2]`, `[0, 0]`}, []string{`[0.0, {"__float__": "Infinity"}]`, `[0.5, 1e39]`}},
		"pad_vocab_size_multiple":       {[]string{`-8`, `0.5`}, []string{`8`}},
		"vocab_size":                    {[]string{`-1`, `1e12`}, []string{`50277`}},
		"ssm_cfg.d_state":               {[]string{`-64`}, []string{`64`}},
		"head_dim":                      {[]string{`-1`}, []string{`64`}},
	} {
		text := func(value string) []byte {
			if in, ok := strings.CutPrefix(key, "ssm_cfg."); ok {
				return fmt.Appendf(nil, `{"ssm_cfg": {%q: %s}}`, in, value)
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
	if c, err := ParseConfig([]byte(`{"ssm_cfg": {"dt_limit": [-1, 5]}}`)); err != nil || c.DtMin != 0 || c.DtMax != 5 {
		t.Errorf("%+v, error %v", c, err)
	}
}
