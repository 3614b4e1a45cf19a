package rwkv

import (
	"cmp"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// Config fixes a model. A checkpoint's tensors tell all of it but Eps, so the zero value is
// what one usually opens with: fields that are zero are taken from config.json, then from
// the tensors. Fields that are set win over config.json, and must agree with the tensors.
type Config struct {
	// Dim is the width of a token, Layers the number of blocks, Vocab the number of rows of
	// the embedding, HeadDim the channels of a head.
	Dim, Layers, Vocab, HeadDim int
	// Eps is added to variances by the LayerNorms; 0 is 1e-5.
	Eps float64
	// GroupEps is added to variances by the group norm of the heads; 0 is 64 Eps, whatever
	// HeadDim is, as in the official code. A config.json of flash linear attention means
	// HeadDim Eps, and ParseConfig says so: the same for heads of 64, as all published models
	// have them.
	GroupEps float64

	// Format is how the weights of dense layers are stored in memory, whatever their type
	// in the file; 0 is Float32.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Vocab, c.HeadDim = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Vocab, file.Vocab), cmp.Or(c.HeadDim, file.HeadDim)
	c.Eps, c.GroupEps = cmp.Or(c.Eps, file.Eps), cmp.Or(c.GroupEps, file.GroupEps)
	return c
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{{"Dim", c.Dim}, {"Layers", c.Layers}, {"Vocab", c.Vocab}, {"HeadDim", c.HeadDim}} {
		if f.n < 0 || f.n > math.MaxInt32 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	if err := check.Workers(ErrConfig, "rwkv", c.Workers); err != nil {
		return err
	}
	if c.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "%sFormat is %d, want Float32, BFloat16, Int8 or Float16", prefix, uint8(c.Format))
	}
	for _, f := range []struct {
		name string
		eps  float64
	}{{"Eps", c.Eps}, {"GroupEps", c.GroupEps}} {
		if !(f.eps >= 0 && f.eps <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.eps)
		}
	}
	return nil
}

// ParseConfig reads a config.json of model type rwkv7, as flash linear attention and Hugging
// Face have it. Keys that do not change inference are passed over, and so are those that the
// tensors tell (intermediate_size, the ranks). What is not computed is an error that matches
// ErrConfig and names the key: another model's model_type, another activation, layers of
// attention, norms without a bias.
func ParseConfig(text []byte) (Config, error) {
	keys, err := weights.ReadKeys(text)
	if err == nil {
		err = checkKeys(keys)
	}
	var f struct {
		Dim     int     `json:"hidden_size"`
		Layers  int     `json:"num_hidden_layers"`
		Vocab   int     `json:"vocab_size"`
		HeadDim int     `json:"head_dim"`
		Heads   int     `json:"num_heads"`
		Eps     float64 `json:"norm_eps"`
	}
	if err == nil {
		err = weights.DecodeConfig(text, &f)
	}
	if err != nil {
		return Config{}, check.Errorf(ErrConfig, "rwkv: config.json: %v", err)
	}
	c := Config{Dim: f.Dim, Layers: f.Layers, Vocab: f.Vocab, HeadDim: f.HeadDim, Eps: f.Eps}
	if c.HeadDim == 0 && f.Heads > 0 {
		c.HeadDim = c.Dim / f.Heads // where head_dim is null
	}
	c.GroupEps = float64(c.HeadDim) * cmp.Or(c.Eps, 1e-5)
	return c, c.check("rwkv: config.json: ")
}

// checkKeys returns an error that names a key whose value is not computed.
func checkKeys(k weights.Keys) error {
	for _, err := range []error{
		k.Only("model_type", "rwkv7", "rwkv7_fla"), k.Only("hidden_act", "sqrelu"), k.Only("norm_first", true), k.Only("norm_bias", true),
		k.Only("attn", []any{}), k.Only("tie_word_embeddings", false),
		k.Counts("hidden_size", "num_hidden_layers", "vocab_size", "head_dim", "num_heads"),
		k.Range(math.SmallestNonzeroFloat32, math.MaxFloat32, "norm_eps"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}
