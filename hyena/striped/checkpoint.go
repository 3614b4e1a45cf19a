package striped

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/rope"
)

// Open returns the model of a checkpoint, and reads config.json beside it where there is one.
// path is a safetensors file, a file of PyTorch, the index of several such files
// (.index.json), or a folder with any of these. Errors match ErrCheckpoint and name the tensor
// that is missing or has another shape, match ErrConfig, or come from the file system.
//
// Options are subquad.WithMmap, which maps the file instead of reading it.
//
// Tensors stand under the names of stripedhyena ("blocks.0.filter.poles"), with or without
// "backbone." before them, as in the Hugging Face port. Evo's configurations are YAML files:
// their keys are those of its config.json, or of Config.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	return lm.Open("striped", path, func(text []byte) error {
		file, err := ParseConfig(text)
		cfg = cfg.over(file)
		return err
	}, func(f *weights.File) (*Model, error) { return newModel(f, cfg) }, options...)
}

// Read returns the model of a safetensors or PyTorch file of size bytes, which is no longer
// needed afterwards. No config.json is read; give what ParseConfig returns. Errors match
// ErrConfig or ErrCheckpoint.
func Read(r io.ReaderAt, size int64, cfg Config) (*Model, error) {
	return lm.Read("striped", r, size, func(f *weights.File) (*Model, error) { return newModel(f, cfg) })
}

const wordEmbeddings = "embedding_layer.weight"

var naming = lm.Naming{Prefixes: []string{"model.", "backbone."}, Root: wordEmbeddings}

// checkpoint makes layers of the tensors of a file.
type checkpoint struct {
	*lm.Checkpoint
	cfg    Config
	op     *attention.Attention // of all layers with attention
	rotate rope.Config
	memory *scratch.List[attendRun]
	gated  *scratch.List[gatedRun]
	hyena  *hyena.Scratch
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("striped: "); err != nil {
		return nil, err
	}
	c := &checkpoint{
		Checkpoint: lm.NewCheckpoint("striped", f, naming, cfg.Format), cfg: cfg,
		memory: new(scratch.List[attendRun]), gated: new(scratch.List[gatedRun]), hyena: new(hyena.Scratch),
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	words := c.Matrix(wordEmbeddings, c.cfg.Vocab, c.cfg.Dim)
	stack := lm.Config{Package: "striped", Name: "StripedHyena", Workers: cfg.Workers}
	if !c.cfg.NoFinalNorm {
		stack.Norm = c.norm("norm.")
	}
	for i := range c.cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		stack.Layers = append(stack.Layers, c.layer(i))
	}
	const head = "unembed.weight"
	if c.cfg.Untied && !c.Has(head) {
		c.Fail("no tensor %s%s, and the configuration does not say (tie_embeddings) that the embedding stands for it", c.Prefix, head)
	}
	logits := words
	if c.cfg.Untied {
		logits = c.Head(head, words)
	}
	if c.Err != nil {
		return nil, c.Err
	}
	stack.Head.Weights = dense.NewLinear(cfg.Format, logits, nil)
	if c.cfg.Untied {
		stack.Embedding.Table = words
	} else {
		stack.Embedding.Tied = stack.Head.Weights
	}
	m := &Model{cfg: c.cfg}
	var err error
	m.stack, err = lm.New(stack)
	return m, err
}

// complete fills the fields of the configuration that are still zero from the tensors.
func (c *checkpoint) complete() error {
	cfg := &c.cfg
	cfg.Layers = c.Blocks("blocks.%d.pre_norm.scale", cfg.Layers)
	if cfg.Vocab == 0 {
		cfg.Vocab = c.Dim(wordEmbeddings, 0)
	}
	if cfg.Dim == 0 {
		cfg.Dim = c.Dim(wordEmbeddings, -1)
	}
	if cfg.Inner == 0 {
		cfg.Inner = c.Dim("blocks.0.mlp.l1.weight", 0)
	}
	if c.Err != nil {
		return c.Err
	}
	var attended []int
	for i := range cfg.Layers {
		if c.Has(fmt.Sprintf("blocks.%d.inner_mha_cls.Wqkv.weight", i)) {
			attended = append(attended, i)
		}
	}
	if cfg.Attention == nil {
		cfg.Attention = attended
	}
	cfg.Eps, cfg.RotaryBase, cfg.RotaryScale = cmp.Or(cfg.Eps, 1e-6), cmp.Or(cfg.RotaryBase, 10000), cmp.Or(cfg.RotaryScale, 1)
	needHeads := len(cfg.Attention) > 0 || !cfg.WholeColumns
	switch {
	case cfg.Heads == 0 && needHeads:
		return check.Errorf(ErrConfig, "striped: Heads is in neither the configuration nor config.json")
	case cfg.Heads > 0 && cfg.Dim%cfg.Heads != 0:
		return check.Errorf(ErrConfig, "striped: Heads is %d, want a divisor of Dim = %d", cfg.Heads, cfg.Dim)
	}
	cfg.KVHeads = cmp.Or(cfg.KVHeads, cfg.Heads)
	if len(cfg.Attention) == 0 {
		return cfg.check("striped: ")
	}
	headDim := cfg.Dim / cfg.Heads
	c.rotate = rope.Config{HeadDim: headDim, Base: cfg.RotaryBase}
	if cfg.RotaryScale != 1 {
		c.rotate.Scheme = rope.Linear{Factor: cfg.RotaryScale}
	}
	if _, err := rope.New(c.rotate); err != nil {
		return check.Errorf(ErrConfig, "striped: heads of %d columns: %v", headDim, err)
	}
	var err error
	if c.op, err = attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: headDim, Causal: true, Workers: cfg.Workers}); err != nil {
		return check.Errorf(ErrConfig, "striped: %v", err)
	}
	return cfg.check("striped: ")
}

func (c *checkpoint) norm(prefix string) dense.Norm {
	return dense.Norm{Weight: c.Vector(prefix+"scale", c.cfg.Dim), Eps: float32(c.cfg.Eps), RMS: true, EpsOutside: !c.cfg.EpsUnderRoot}
}

// layer returns block i: r += mixer(pre_norm(r)); r += mlp(post_norm(r)).
func (c *checkpoint) layer(i int) lm.Layer {
	p := fmt.Sprintf("blocks.%d.", i)
	l := lm.Layer{{Norm: c.norm(p + "pre_norm.")}, {Norm: c.norm(p + "post_norm.")}}
	if slices.Contains(c.cfg.Attention, i) {
		l[0].Mixer = c.attention(p + "inner_mha_cls.")
	} else {
		l[0].Mixer = c.gatedConv(p)
	}
	gate, up := c.Matrix(p+"mlp.l1.weight", c.cfg.Inner, c.cfg.Dim), c.Matrix(p+"mlp.l2.weight", c.cfg.Inner, c.cfg.Dim)
	down, _ := c.Linear(p+"mlp.l3.", c.cfg.Dim, c.cfg.Inner, false)
	if c.Err != nil {
		return nil
	}
	both := mat.New(2*c.cfg.Inner, c.cfg.Dim)
	mat.Copy(both, up)
	mat.Copy(mat.Rows(both, c.cfg.Inner, both.Rows), gate)
	mlp := &dense.Gated{Up: dense.NewLinear(c.Format, both, nil), Down: down}
	if c.cfg.GELU {
		mlp.Activation = dense.GELU
	}
	l[1].MLP = mlp
	return l
}

func (c *checkpoint) attention(p string) lm.Mixer {
	cfg := &c.cfg
	headDim := cfg.Dim / cfg.Heads
	qkv, _ := c.Linear(p+"Wqkv.", (cfg.Heads+2*cfg.KVHeads)*headDim, cfg.Dim, false)
	out, _ := c.Linear(p+"out_proj.", cfg.Dim, cfg.Dim, false)
	return &attend{op: c.op, qkv: qkv, out: out, rotation: c.rotate, heads: cfg.Heads, kvHeads: cfg.KVHeads, headDim: headDim, scratch: c.memory}
}

func (c *checkpoint) gatedConv(p string) lm.Mixer {
	cfg := &c.cfg
	in, _ := c.Linear(p+"projections.", 3*cfg.Dim, cfg.Dim, false)
	out, _ := c.Linear(p+"out_filter_dense.", cfg.Dim, cfg.Dim, false)
	w := hyena.GatedWeights{Skip: c.Vector(p+"filter.D", cfg.Dim), ShortBias: c.Optional(p+"filter.short_filter_bias", 3*cfg.Dim)}
	w.Short = c.Matrix(p+"filter.short_filter_weight", 3*cfg.Dim, -1)
	modes := hyena.ModesWeights{Poles: c.modes(p + "filter.poles"), Residues: c.modes(p + "filter.residues")}
	if c.Err != nil {
		return nil
	}
	var err error
	if w.Modes, err = hyena.NewModes(modes); err != nil {
		c.Fail("%s%sfilter: %v", c.Prefix, p, err)
		return nil
	}
	gc := hyena.GatedConfig{Dim: cfg.Dim, Workers: cfg.Workers, Scratch: c.hyena}
	if !cfg.WholeColumns {
		gc.Heads = cfg.Heads
	}
	op, err := hyena.NewGated(gc, w)
	if err != nil {
		c.Fail("%s%sfilter: %v", c.Prefix, p, err)
		return nil
	}
	return &gated{op: op, in: in, out: out, scratch: c.gated}
}

// modes returns poles or residues, [D, N, 1, 2], as [D, 2 N].
func (c *checkpoint) modes(name string) blas32.General {
	all := c.Vector(name, -1)
	if c.Err == nil && (len(all) == 0 || len(all)%(2*c.cfg.Dim) != 0) {
		c.Fail("tensor %s%s has %d elements, want a multiple of 2*Dim = %d: a filter for each channel", c.Prefix, name, len(all), 2*c.cfg.Dim)
	}
	if c.Err != nil {
		return blas32.General{}
	}
	return mat.Of(all, c.cfg.Dim, len(all)/c.cfg.Dim)
}
