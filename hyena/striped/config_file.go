package striped

import (
	"errors"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// ParseConfig reads a config.json under the names of stripedhyena, which its Hugging Face port
// and Evo have too. What is not computed is an error that matches ErrConfig and names the key:
// another model_type, filters shared by groups of channels, smeared keys and values. What it
// leaves out is as the code of stripedhyena takes it, an unembed of its own included; the class
// of its port has other defaults (a base of 500000, 4 groups, an eps of 1e-5), which its files
// name. Keys that do not change inference, and those that the tensors tell (state_size, short_filter_length),
// are passed over.
func ParseConfig(text []byte) (Config, error) {
	keys, err := weights.ReadKeys(text)
	if err == nil {
		err = checkKeys(keys)
	}
	if err == nil && keys.Given("long_fir_threshold") {
		err = errors.New("long_fir_threshold is set, and filters are computed whole")
	}
	var f configFile
	if err == nil {
		err = weights.DecodeConfig(text, &f)
	}
	if err != nil {
		return Config{}, check.Errorf(ErrConfig, "striped: config.json: %v", err)
	}
	c := Config{
		Dim: f.HiddenSize, Layers: f.NumLayers, Heads: f.NumHeads, Inner: f.Inner, Vocab: f.VocabSize, Eps: float64(f.Eps),
		RotaryBase: float64(f.RotaryBase), GELU: f.Activation == "gelu", EpsUnderRoot: f.FlashNorm,
		WholeColumns: f.ColumnSplit != nil && !*f.ColumnSplit, Untied: f.Tied == nil || !*f.Tied, NoFinalNorm: f.FinalNorm != nil && !*f.FinalNorm,
	}
	if f.Interpolated {
		c.RotaryScale = float64(f.RotaryScale)
	}
	if f.ProjGroups > 1 {
		if f.NumHeads%f.ProjGroups != 0 {
			return Config{}, check.Errorf(ErrConfig, "striped: config.json: proj_groups is %d, want a divisor of num_attention_heads = %d", f.ProjGroups, f.NumHeads)
		}
		c.KVHeads = f.NumHeads / f.ProjGroups
	}
	if f.Attention != nil {
		c.Attention = slices.Sorted(slices.Values(f.Attention))
		if c.Attention == nil {
			c.Attention = []int{}
		}
	}
	if f.NumFilters != 0 && f.NumFilters != f.HiddenSize {
		return Config{}, check.Errorf(ErrConfig, "striped: config.json: num_filters is %d, and only hidden_size = %d is computed", f.NumFilters, f.HiddenSize)
	}
	return c, c.check("striped: config.json: ")
}

// checkKeys returns an error that names a key whose value is not computed.
func checkKeys(k weights.Keys) error {
	const tiny = math.SmallestNonzeroFloat32
	for _, err := range []error{
		k.Only("model_type", "stripedhyena"), k.Only("mlp_activation", "gelu", "silu"), k.Only("smeared_gqa", false),
		k.Only("hyena_filter_groups", 1.0), k.Only("model_parallel_size", 1.0),
		k.Counts("vocab_size", "hidden_size", "num_filters", "num_layers", "num_attention_heads", "inner_mlp_size", "proj_groups", "hyena_filter_groups"),
		k.Range(tiny, 1, "eps"), k.Range(tiny, math.MaxFloat32, "rotary_emb_base", "rotary_emb_scaling_factor"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

type configFile struct {
	VocabSize    int            `json:"vocab_size"`
	HiddenSize   int            `json:"hidden_size"`
	NumFilters   int            `json:"num_filters"`
	NumLayers    int            `json:"num_layers"`
	NumHeads     int            `json:"num_attention_heads"`
	Inner        int            `json:"inner_mlp_size"`
	Attention    []int          `json:"attn_layer_idxs"`
	ProjGroups   int            `json:"proj_groups"`
	Eps          weights.Number `json:"eps"`
	RotaryBase   weights.Number `json:"rotary_emb_base"`
	RotaryScale  weights.Number `json:"rotary_emb_scaling_factor"`
	Interpolated bool           `json:"use_interpolated_rotary_pos_emb"`
	Activation   string         `json:"mlp_activation"`
	FlashNorm    bool           `json:"use_flash_rmsnorm"`
	ColumnSplit  *bool          `json:"column_split_hyena"`
	Tied         *bool          `json:"tie_embeddings"`
	FinalNorm    *bool          `json:"final_norm"`
}
