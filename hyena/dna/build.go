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
	if c.err != nil {
		return c.err
	}
	shape := func(name string, at int) int {
		t := c.tensors[name]
		if t == nil || len(t.Shape) < 2 {
			c.fail("no tensor %s%s of two dimensions or more", c.prefix, name)
			return 0
		}
		return t.Shape[(at+len(t.Shape))%len(t.Shape)]
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
			*f.field = shape(f.name, f.at)
		}
	}
	if cfg.Order == 0 && cfg.Dim > 0 {
		cfg.Order = shape("layers.0.mixer.in_proj.weight", 0)/cfg.Dim - 1
	}
	if cfg.MaxLen == 0 && c.has(filter+"pos_emb.t") {
		cfg.MaxLen = c.tensors[filter+"pos_emb.t"].Len()
	}
	n := 0
	for c.has(fmt.Sprintf("layers.%d.norm1.weight", n)) {
		n++
	}
	if cfg.Layers == 0 {
		cfg.Layers = n
	}
	switch {
	case cfg.Layers != n:
		c.fail("%d blocks, want Layers = %d", n, cfg.Layers)
	case cfg.Order < 2 || cfg.Order > maxOrder:
		c.fail("Order is %d, want 2 to %d", cfg.Order, maxOrder)
	}
	if c.err != nil {
		return c.err
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
	return norm{c.vector(prefix+"weight", cfg.Dim), c.vector(prefix+"bias", cfg.Dim), float32(cfg.Eps)}
}

func (c *checkpoint) linear(prefix string, out, in int, cfg Config) *dense.Linear {
	weight, bias := c.matrix(prefix+"weight", out, in), c.vector(prefix+"bias", out)
	if c.err != nil {
		return nil
	}
	return dense.NewLinear(cfg.Format, weight, bias)
}

func (c *checkpoint) block(prefix string, cfg Config, memory *hyena.Memory) (b block) {
	b.norm1, b.norm2 = c.norm(prefix+"norm1.", cfg), c.norm(prefix+"norm2.", cfg)
	b.mlp = dense.MLP{Up: c.linear(prefix+"mlp.fc1.", cfg.Inner, cfg.Dim, cfg), Down: c.linear(prefix+"mlp.fc2.", cfg.Dim, cfg.Inner, cfg)}
	mixer, wide := prefix+"mixer.", (cfg.Order+1)*cfg.Dim
	w := hyena.OperatorWeights{
		In: c.matrix(mixer+"in_proj.weight", wide, cfg.Dim), InBias: c.vector(mixer+"in_proj.bias", wide),
		Short: c.matrix(mixer+"short_filter.weight", wide, -1), ShortBias: c.vector(mixer+"short_filter.bias", wide),
		Filter: c.filter(mixer+"filter_fn.", cfg), Skip: c.vector(mixer+"filter_fn.bias", (cfg.Order-1)*cfg.Dim),
		Out: c.matrix(mixer+"out_proj.weight", cfg.Dim, cfg.Dim), OutBias: c.vector(mixer+"out_proj.bias", cfg.Dim),
	}
	if c.err != nil {
		return b
	}
	op, err := hyena.NewOperator(hyena.OperatorConfig{
		Dim: cfg.Dim, Order: cfg.Order, ChannelMajor: cfg.ChannelMajor, Format: cfg.Format,
		SpectraBytes: cfg.SpectraBytes, Workers: cfg.Workers, Memory: memory,
	}, w)
	if err != nil {
		c.fail("%s%s: %v", c.prefix, mixer, err)
	}
	b.mixer = op
	return b
}
