package dna

import (
	"fmt"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
)

// maxOrder bounds a number that sizes are multiplied by.
const maxOrder = 1000

// complete fills the fields of cfg that are still zero from the tensors.
func (c *checkpoint) complete(cfg *Config) error {
	if c.Err != nil {
		return c.Err
	}
	const filter = "layers.0.mixer.filter_fn."
	for _, f := range []struct {
		field *int
		name  string
		at    int
	}{
		{&cfg.Vocab, wordEmbeddings, 0},
		{&cfg.Dim, wordEmbeddings, -1},
		{&cfg.Inner, "layers.0.mlp.fc1.weight", 0},
		{&cfg.EmbDim, filter + "implicit_filter.0.weight", -1},
	} {
		if *f.field == 0 {
			*f.field = c.Dim(f.name, f.at)
		}
	}
	if cfg.Order == 0 && cfg.Dim > 0 {
		cfg.Order = c.Dim("layers.0.mixer.in_proj.weight", 0)/cfg.Dim - 1
	}
	if cfg.MaxLen == 0 && c.Has(filter+"pos_emb.t") {
		cfg.MaxLen = c.Tensors[filter+"pos_emb.t"].Len()
	}
	n := 0
	for c.Has(fmt.Sprintf("layers.%d.norm1.weight", n)) {
		n++
	}
	if cfg.Layers == 0 {
		cfg.Layers = n
	}
	switch {
	case cfg.Layers != n:
		c.Fail("%d blocks, want Layers = %d", n, cfg.Layers)
	case cfg.Order < 2 || cfg.Order > maxOrder:
		c.Fail("Order is %d, want 2 to %d", cfg.Order, maxOrder)
	}
	if c.Err != nil {
		return c.Err
	}
	if cfg.MaxLen == 0 {
		return check.Errorf(ErrConfig, "dna: MaxLen is in neither the configuration nor the checkpoint")
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-5
	}
	if cfg.Freq == 0 {
		cfg.Freq = 10
	}
	return nil
}

func (c *checkpoint) norm(prefix string, cfg Config) norm {
	return norm{c.Vector(prefix+"weight", cfg.Dim), c.Vector(prefix+"bias", cfg.Dim), float32(cfg.Eps)}
}

func (c *checkpoint) linear(prefix string, out, in int, cfg Config) *dense.Linear {
	weight, bias := c.Matrix(prefix+"weight", out, in), c.Vector(prefix+"bias", out)
	if c.Err != nil {
		return nil
	}
	return dense.NewLinear(cfg.Format, weight, bias)
}

func (c *checkpoint) block(prefix string, cfg Config, scratch *hyena.Scratch) (b block) {
	b.norm1, b.norm2 = c.norm(prefix+"norm1.", cfg), c.norm(prefix+"norm2.", cfg)
	b.mlp = dense.MLP{Up: c.linear(prefix+"mlp.fc1.", cfg.Inner, cfg.Dim, cfg), Down: c.linear(prefix+"mlp.fc2.", cfg.Dim, cfg.Inner, cfg)}
	mixer, wide := prefix+"mixer.", (cfg.Order+1)*cfg.Dim
	w := hyena.OperatorWeights{
		In: c.Matrix(mixer+"in_proj.weight", wide, cfg.Dim), InBias: c.Vector(mixer+"in_proj.bias", wide),
		Short: c.Matrix(mixer+"short_filter.weight", wide, -1), ShortBias: c.Vector(mixer+"short_filter.bias", wide),
		Filter: c.filter(mixer+"filter_fn.", cfg), Skip: c.Vector(mixer+"filter_fn.bias", (cfg.Order-1)*cfg.Dim),
		Out: c.Matrix(mixer+"out_proj.weight", cfg.Dim, cfg.Dim), OutBias: c.Vector(mixer+"out_proj.bias", cfg.Dim),
	}
	if c.Err != nil {
		return b
	}
	op, err := hyena.NewOperator(hyena.OperatorConfig{
		Dim: cfg.Dim, Order: cfg.Order, ChannelMajor: cfg.ChannelMajor, Format: cfg.Format,
		SpectraBytes: cfg.SpectraBytes, Workers: cfg.Workers, Scratch: scratch,
	}, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, mixer, err)
	}
	b.mixer = op
	return b
}
