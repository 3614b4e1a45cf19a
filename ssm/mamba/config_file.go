package mamba

import (
	"cmp"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
)

// ParseConfig reads a config.json, under the names of mamba_ssm or of Hugging
// Face's mamba, mamba2 and falcon_mamba. What it leaves out is what they have: one group in
// mamba_ssm, 8 in Hugging Face's mamba2. Keys that do not change inference are
// passed over, and so are those that the tensors tell (d_conv, expand, use_bias and the like).
// What is not computed is an error that matches ErrConfig and names the key: another
// model's model_type, an activation other than silu, layers of attention, both directions,
// learned initial states.
func ParseConfig(text []byte) (Config, error) {
	keys, err := weights.ReadKeys(text)
	if err == nil {
		err = checkKeys(keys)
	}
	var f configFile
	if err == nil {
		err = weights.DecodeConfig(text, &f)
	}
	if err != nil {
		return Config{}, check.Errorf(ErrConfig, "mamba: config.json: %v", err)
	}
	c := Config{
		Dim: cmp.Or(f.DModel, f.HiddenSize), Layers: cmp.Or(f.NLayer, f.NumHiddenLayers), Words: f.VocabSize,
		HeadDim: cmp.Or(f.SSM.HeadDim, f.HeadDim), Groups: cmp.Or(f.SSM.Groups, f.NGroups),
		NormBeforeGate: f.SSM.NormBeforeGate, NormDtBC: f.ModelType == "falcon_mamba", MixerEps: f.MixerEps,
		Eps: cmp.Or(f.NormEpsilon, f.Epsilon),
	}
	for _, tied := range []*bool{f.Tied, f.TieWords} {
		c.Untied = c.Untied || tied != nil && !*tied
	}
	if f.ModelType == "mamba2" && !keys.Given("ssm_cfg") {
		c.Groups = cmp.Or(c.Groups, 8) // of Hugging Face's class; mamba_ssm's default is 1
	}
	c.States = cmp.Or(f.SSM.DState, f.StateSize)
	if f.ModelType == "" || f.ModelType == "mamba_ssm" { // mamba2's rms_norm is another norm
		c.LayerNorm = f.RMSNorm != nil && !*f.RMSNorm
	}
	name, limit := "ssm_cfg.dt_limit", f.SSM.DtLimit
	if limit == nil {
		name, limit = "time_step_limit", f.TimeStepLimit
	}
	if limit != nil {
		// dt is a softplus, so that a negative lower limit is none.
		const tiny = math.SmallestNonzeroFloat32
		if len(limit) != 2 || !(limit[0] <= limit[1] && limit[0] <= math.MaxFloat32 && limit[1] >= tiny) {
			return Config{}, check.Errorf(ErrConfig, "mamba: config.json: %s is %v, want two numbers, the smaller first and the other above 0", name, limit)
		}
		c.DtMin = float32(max(limit[0], 0))
		if limit[1] < math.MaxFloat32 {
			c.DtMax = float32(limit[1])
		}
	}
	if c.Words > 0 {
		padded, ok := lm.PaddedVocab(c.Words, f.PadMultiple)
		if !ok {
			return Config{}, check.Errorf(ErrConfig, "mamba: config.json: vocab_size is %d and pad_vocab_size_multiple %d", f.VocabSize, f.PadMultiple)
		}
		if f.PadMultiple > 0 {
			c.Vocab = padded
		}
		c.Vocab = cmp.Or(f.PaddedVocab, c.Vocab)
	}
	return c, c.check("mamba: config.json: ")
}

// checkKeys returns an error that names a key whose value is not computed.
func checkKeys(k weights.Keys) error {
	const tiny, huge = math.SmallestNonzeroFloat32, math.MaxFloat32
	silu := []any{"silu", "swish"}
	for _, err := range []error{
		k.Only("model_type", "mamba", "mamba2", "falcon_mamba", "mamba_ssm"),
		k.Only("hidden_act", silu...), k.Only("ssm_cfg.activation", silu...), k.Only("activation", silu...),
		k.Only("ssm_cfg.layer", "Mamba1", "Mamba2"), k.Only("attn_layer_idx", []any{}),
		k.Only("ssm_cfg.learnable_init_states", false), k.Only("ssm_cfg.dt_softplus", true),
		k.Only("bidirectional", false), k.Only("rcps", false), k.Only("ssm_cfg.bidirectional", false),
		k.Counts("vocab_size", "pad_vocab_size_multiple", "padded_vocab", "d_model", "n_layer", "hidden_size", "num_hidden_layers", "state_size",
			"head_dim", "n_groups", "ssm_cfg.d_state", "ssm_cfg.headdim", "ssm_cfg.ngroups"),
		k.Range(tiny, huge, "norm_epsilon", "layer_norm_epsilon", "mixer_rms_eps"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// configFile has the names of both forms.
type configFile struct {
	VocabSize   int    `json:"vocab_size"`
	PadMultiple int    `json:"pad_vocab_size_multiple"`
	Tied        *bool  `json:"tie_embeddings"`
	ModelType   string `json:"model_type"`
	// the original
	DModel      int     `json:"d_model"`
	NLayer      int     `json:"n_layer"`
	PaddedVocab int     `json:"padded_vocab"`
	RMSNorm     *bool   `json:"rms_norm"`
	NormEpsilon float64 `json:"norm_epsilon"`
	SSM         struct {
		DState         int              `json:"d_state"`
		HeadDim        int              `json:"headdim"`
		Groups         int              `json:"ngroups"`
		NormBeforeGate bool             `json:"norm_before_gate"`
		DtLimit        []weights.Number `json:"dt_limit"`
	} `json:"ssm_cfg"`
	// Hugging Face
	HiddenSize      int              `json:"hidden_size"`
	NumHiddenLayers int              `json:"num_hidden_layers"`
	StateSize       int              `json:"state_size"`
	HeadDim         int              `json:"head_dim"`
	NGroups         int              `json:"n_groups"`
	Epsilon         float64          `json:"layer_norm_epsilon"`
	MixerEps        float64          `json:"mixer_rms_eps"`
	TimeStepLimit   []weights.Number `json:"time_step_limit"`
	TieWords        *bool            `json:"tie_word_embeddings"`
}
