package dna

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
	// Dim is the width of a token, Layers the number of blocks, Inner the width of
	// the MLPs' hidden layer, Vocab the number of rows of the embedding.
	Dim, Layers, Inner, Vocab int
	// MaxLen is l_max, the longest sequence. Positions are fractions of it, so it
	// is part of what the weights mean; checkpoints without a stored grid of
	// positions (MultiMolecule's) need it.
	MaxLen int
	// Order is the number of gates of the Hyena operators.
	Order int
	// ChannelMajor is the layout of filter channels of orders above 2
	// (hyena.OperatorConfig).
	ChannelMajor bool
	// EmbDim is the width of the filters' positional embedding.
	EmbDim int
	// NoModulation leaves out the filters' exponential window.
	NoModulation bool
	// Shift is what the window decays to; nil is 0.05, as in all published models.
	Shift *float64
	// Freq is the frequency of the filters' sines where it is not stored; 0 is 10.
	Freq float64
	// Eps is added to variances by the norms; 0 is 1e-5.
	Eps float64

	// AnyText lets EmbedInto take any text, as the published tokenizers do: characters that
	// are no nucleotide code as unknown ones, and the names of special tokens, as "[MASK]",
	// as these. Without it such text is an error.
	AnyText bool

	// Format is how the weights of dense layers are stored in memory.
	Format asm.Format
	// SpectraBytes is how much memory the model may use for transformed kernels, its long
	// convolutions a like share each; 0 is 256 MiB for each of them.
	SpectraBytes int64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// ParseConfig reads a config.json, under the names of hyena-dna, of the Hugging
// Face port or of MultiMolecule. Keys that do not change inference are passed
// over. Errors match ErrConfig.
func ParseConfig(text []byte) (Config, error) {
	var f configFile
	if err := weights.DecodeConfig(text, &f); err != nil {
		return Config{}, check.Errorf(ErrConfig, "dna: config.json: %v", err)
	}
	c := Config{
		Dim: cmp.Or(f.DModel, f.HiddenSize), Layers: cmp.Or(f.NLayer, f.NumHiddenLayers), Inner: cmp.Or(f.DInner, f.IntermediateSize),
		MaxLen: cmp.Or(f.Layer.LMax, f.MaxSeqLen, f.MaxPositions), Order: cmp.Or(f.Layer.Order, f.HyenaOrder),
		EmbDim: cmp.Or(f.Layer.EmbDim, f.EmbDim, f.FilterEmbDim),
		Shift:  f.Layer.Shift, Freq: cmp.Or(f.Layer.W, f.ActivationFreq), Eps: cmp.Or(f.Epsilon, f.NormEps),
	}
	c.NoModulation = f.Layer.Modulate != nil && !*f.Layer.Modulate
	if c.Vocab = f.VocabSize; c.Vocab > 0 {
		padded, ok := lm.PaddedVocab(f.VocabSize, f.PadMultiple)
		if !ok {
			return Config{}, check.Errorf(ErrConfig, "dna: config.json: vocab_size is %d and pad_vocab_size_multiple %d", f.VocabSize, f.PadMultiple)
		}
		c.Vocab = padded
	}
	return c, c.check("dna: config.json: ")
}

// configFile has the names of all three forms.
type configFile struct {
	VocabSize   int `json:"vocab_size"`
	PadMultiple int `json:"pad_vocab_size_multiple"`
	// hyena-dna and the Hugging Face port
	DModel int `json:"d_model"`
	NLayer int `json:"n_layer"`
	DInner int `json:"d_inner"`
	// hyena-dna
	Layer struct {
		LMax     int      `json:"l_max"`
		EmbDim   int      `json:"emb_dim"`
		Order    int      `json:"order"`
		W        float64  `json:"w"`
		Modulate *bool    `json:"modulate"`
		Shift    *float64 `json:"shift"`
	} `json:"layer"`
	// the Hugging Face port
	MaxSeqLen  int     `json:"max_seq_len"`
	EmbDim     int     `json:"emb_dim"`
	HyenaOrder int     `json:"hyena_order"`
	Epsilon    float64 `json:"layer_norm_epsilon"`
	// and MultiMolecule
	ActivationFreq   float64 `json:"activation_freq"`
	HiddenSize       int     `json:"hidden_size"`
	NumHiddenLayers  int     `json:"num_hidden_layers"`
	IntermediateSize int     `json:"intermediate_size"`
	MaxPositions     int     `json:"max_position_embeddings"`
	FilterEmbDim     int     `json:"filter_emb_dim"`
	NormEps          float64 `json:"layer_norm_eps"`
}

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Inner, c.Vocab = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Inner, file.Inner), cmp.Or(c.Vocab, file.Vocab)
	c.MaxLen, c.Order, c.EmbDim = cmp.Or(c.MaxLen, file.MaxLen), cmp.Or(c.Order, file.Order), cmp.Or(c.EmbDim, file.EmbDim)
	c.NoModulation = c.NoModulation || file.NoModulation
	c.Shift, c.Freq, c.Eps = cmp.Or(c.Shift, file.Shift), cmp.Or(c.Freq, file.Freq), cmp.Or(c.Eps, file.Eps)
	return c
}

// spectraBytes returns the share of each of the long convolutions.
func (c *Config) spectraBytes() int64 {
	if c.SpectraBytes == 0 {
		return 0
	}
	convolutions := int64(max(c.Layers, 1)) * int64(max(c.Order-1, 1))
	return max(c.SpectraBytes/convolutions, 1)
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"Dim", c.Dim}, {"Layers", c.Layers}, {"Inner", c.Inner}, {"Vocab", c.Vocab}, {"MaxLen", c.MaxLen},
		{"Order", c.Order}, {"EmbDim", c.EmbDim},
	} {
		if f.n < 0 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	if err := check.Workers(ErrConfig, "dna", c.Workers); err != nil {
		return err
	}
	if c.SpectraBytes < 0 {
		return check.Errorf(ErrConfig, "%sSpectraBytes is %d, want 0 or more", prefix, c.SpectraBytes)
	}
	if c.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "%sFormat is %d", prefix, c.Format)
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"Eps", c.Eps}, {"Freq", c.Freq}} {
		if !(f.v >= 0 && f.v <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.v)
		}
	}
	if c.Shift != nil && (math.IsNaN(*c.Shift) || math.IsInf(*c.Shift, 0)) {
		return check.Errorf(ErrConfig, "%sShift is %v, want a finite number", prefix, *c.Shift)
	}
	return nil
}
