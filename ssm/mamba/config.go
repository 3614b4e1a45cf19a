package mamba

import (
	"cmp"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
)

// Config fixes a model. A checkpoint's tensors tell most of it, so the zero value
// is what one usually opens with: fields that are zero are taken from config.json,
// then from the tensors. Fields that are set win over config.json, and must agree
// with the tensors.
type Config struct {
	// Dim is the width of a token, Layers the number of blocks, Vocab the number of
	// rows of the embedding, of which the first Words are tokens and the others
	// only fill it up; Words 0 is Vocab.
	Dim, Layers, Vocab, Words int
	// States is N of Mamba-2 blocks and HeadDim their P; 0 is 128 and 64. Mamba-1
	// blocks tell N by their tensors.
	States, HeadDim int
	// Groups is how many groups of heads share B and C in Mamba-2 blocks; 0 is 1.
	Groups int
	// NormBeforeGate is that of Mamba-2 blocks (ssm.Mamba2Config).
	NormBeforeGate bool
	// DtMin and DtMax limit dt in Mamba-2 blocks; a DtMax of 0 is no limit.
	DtMin, DtMax float32
	// NormDtBC normalises dt, B and C of Mamba-1 blocks, with MixerEps, 0 being
	// 1e-6: Falcon-Mamba.
	NormDtBC bool
	MixerEps float64
	// LayerNorm says that the norms before blocks subtract the mean and have a bias
	// (rms_norm false).
	LayerNorm bool
	// Eps is added to mean squares by the norms; 0 is 1e-5.
	Eps float64
	// Untied says that the checkpoint must have an lm_head (tie_embeddings false);
	// otherwise the embedding stands for one that it lacks.
	Untied bool

	// Format is how the weights of dense layers are stored in memory, whatever
	// their type in the file.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
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
	AttnLayers  []int   `json:"attn_layer_idx"`
	SSM         struct {
		Layer          string           `json:"layer"`
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

// ParseConfig reads a config.json, under the names of mamba_ssm or of Hugging
// Face's mamba, mamba2 and falcon_mamba. Keys that do not change inference are
// passed over. Errors match ErrConfig.
func ParseConfig(text []byte) (Config, error) {
	var f configFile
	if err := weights.DecodeConfig(text, &f); err != nil {
		return Config{}, check.Errorf(ErrConfig, "mamba: config.json: %v", err)
	}
	if len(f.AttnLayers) > 0 {
		return Config{}, check.Errorf(ErrConfig, "mamba: config.json: attn_layer_idx is %v, and layers of attention are not supported", f.AttnLayers)
	}
	switch f.SSM.Layer {
	case "", "Mamba1", "Mamba2":
	default:
		return Config{}, check.Errorf(ErrConfig, "mamba: config.json: layer is %q, want Mamba1 or Mamba2", f.SSM.Layer)
	}
	switch f.ModelType {
	case "", "mamba", "mamba2", "falcon_mamba", "mamba_ssm":
	default:
		return Config{}, check.Errorf(ErrConfig, "mamba: config.json: model_type is %q, want mamba, mamba2 or falcon_mamba", f.ModelType)
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
	c.States = cmp.Or(f.SSM.DState, f.StateSize)
	if f.ModelType == "" || f.ModelType == "mamba_ssm" { // mamba2's rms_norm is another norm
		c.LayerNorm = f.RMSNorm != nil && !*f.RMSNorm
	}
	limit := f.SSM.DtLimit
	if limit == nil {
		limit = f.TimeStepLimit
	}
	if limit != nil {
		if len(limit) != 2 {
			return Config{}, check.Errorf(ErrConfig, "mamba: config.json: the limits of dt are %v, want two", limit)
		}
		if !(limit[0] <= limit[1] && limit[1] > 0) {
			return Config{}, check.Errorf(ErrConfig, "mamba: config.json: the limits of dt are %v, want the smaller first and the other above 0", limit)
		}
		c.DtMin = float32(limit[0])
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

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Vocab, c.Words = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Vocab, file.Vocab), cmp.Or(c.Words, file.Words)
	c.States, c.HeadDim, c.Groups = cmp.Or(c.States, file.States), cmp.Or(c.HeadDim, file.HeadDim), cmp.Or(c.Groups, file.Groups)
	c.NormBeforeGate = c.NormBeforeGate || file.NormBeforeGate
	c.DtMin, c.DtMax = cmp.Or(c.DtMin, file.DtMin), cmp.Or(c.DtMax, file.DtMax)
	c.NormDtBC, c.MixerEps = c.NormDtBC || file.NormDtBC, cmp.Or(c.MixerEps, file.MixerEps)
	c.LayerNorm, c.Eps = c.LayerNorm || file.LayerNorm, cmp.Or(c.Eps, file.Eps)
	c.Untied = c.Untied || file.Untied
	return c
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"Dim", c.Dim}, {"Layers", c.Layers}, {"Vocab", c.Vocab}, {"Words", c.Words},
		{"States", c.States}, {"HeadDim", c.HeadDim}, {"Groups", c.Groups},
	} {
		if f.n < 0 || f.n > math.MaxInt32 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	if err := check.Workers(ErrConfig, "mamba", c.Workers); err != nil {
		return err
	}
	if c.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "%sFormat is %d", prefix, c.Format)
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"Eps", c.Eps}, {"MixerEps", c.MixerEps}, {"DtMin", float64(c.DtMin)}, {"DtMax", float64(c.DtMax)}} {
		if !(f.v >= 0 && f.v <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.v)
		}
	}
	if c.DtMax > 0 && c.DtMin > c.DtMax {
		return check.Errorf(ErrConfig, "%sDtMin is %v, more than DtMax = %v", prefix, c.DtMin, c.DtMax)
	}
	return nil
}
