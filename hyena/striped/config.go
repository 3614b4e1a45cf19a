package striped

import (
	"cmp"
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// Config fixes a model. Fields that are zero are taken from config.json, then from the tensors.
type Config struct {
	// Dim is D, Layers the number of blocks, Heads that of the attention layers (and of the
	// columns of the others' projections), Inner I, Vocab V.
	Dim, Layers, Heads, Inner, Vocab int
	// Attention are the numbers of the layers with attention, ascending. nil is those that have
	// its tensors.
	Attention []int
	// KVHeads is how many heads of keys and values there are; 0 is Heads (proj_groups 1).
	KVHeads int
	// RotaryBase is the base of the rotary frequencies, 0 for 10000, and RotaryScale what
	// positions are divided by, 0 for 1 (rotary_emb_scaling_factor).
	RotaryBase, RotaryScale float64
	// WholeColumns says that the projections of a gated convolution stand whole, x2, x1 and v
	// of D columns, and not head by head (column_split_hyena false).
	WholeColumns bool
	// GELU makes the MLPs' gate a GELU, and not a SiLU (mlp_activation).
	GELU bool
	// EpsUnderRoot adds Eps under the root of the norms, as use_flash_rmsnorm does.
	EpsUnderRoot bool
	// Eps is added by the norms; 0 is 1e-6.
	Eps float64
	// Untied says that the checkpoint must have an unembed (tie_embeddings false).
	Untied bool
	// NoFinalNorm says that there is no norm before the logits (final_norm false).
	NoFinalNorm bool

	// Format is how the weights of dense layers are stored in memory, whatever their type in
	// the file; 0 is Float32.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Heads, c.Inner, c.Vocab = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Heads, file.Heads), cmp.Or(c.Inner, file.Inner), cmp.Or(c.Vocab, file.Vocab)
	if c.Attention == nil {
		c.Attention = file.Attention
	}
	c.KVHeads = cmp.Or(c.KVHeads, file.KVHeads)
	c.RotaryBase, c.RotaryScale, c.Eps = cmp.Or(c.RotaryBase, file.RotaryBase), cmp.Or(c.RotaryScale, file.RotaryScale), cmp.Or(c.Eps, file.Eps)
	c.WholeColumns, c.GELU, c.EpsUnderRoot = c.WholeColumns || file.WholeColumns, c.GELU || file.GELU, c.EpsUnderRoot || file.EpsUnderRoot
	c.Untied, c.NoFinalNorm = c.Untied || file.Untied, c.NoFinalNorm || file.NoFinalNorm
	return c
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{{"Dim", c.Dim}, {"Layers", c.Layers}, {"Heads", c.Heads}, {"Inner", c.Inner}, {"Vocab", c.Vocab}, {"KVHeads", c.KVHeads}} {
		if f.n < 0 || f.n > math.MaxInt32 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"RotaryBase", c.RotaryBase}, {"RotaryScale", c.RotaryScale}, {"Eps", c.Eps}} {
		if !(f.v >= 0 && f.v <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.v)
		}
	}
	for i, l := range c.Attention {
		if l < 0 || i > 0 && l <= c.Attention[i-1] {
			return check.Errorf(ErrConfig, "%sAttention[%d] is %d, want layers from 0 on, ascending", prefix, i, l)
		}
	}
	switch {
	case c.Layers > 0 && len(c.Attention) > 0 && slices.Max(c.Attention) >= c.Layers:
		return check.Errorf(ErrConfig, "%sAttention has layer %d, want less than Layers = %d", prefix, slices.Max(c.Attention), c.Layers)
	case c.Heads > 0 && c.KVHeads > 0 && c.Heads%c.KVHeads != 0:
		return check.Errorf(ErrConfig, "%sKVHeads is %d, want a divisor of Heads = %d", prefix, c.KVHeads, c.Heads)
	case c.Format > asm.Float16:
		return check.Errorf(ErrConfig, "%sFormat is %d", prefix, c.Format)
	}
	return check.Workers(ErrConfig, "striped", c.Workers)
}
