package rwkv

import (
	"cmp"
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm/delta"
)

// Open returns the model of a checkpoint, and reads config.json beside it where there is
// one. path is a file of PyTorch (.pth) or safetensors, the index of several such files
// (.index.json), a folder with any of these, or a file of rwkv.cpp (.bin) that is not quantized. Errors match ErrCheckpoint and name the
// tensor that is missing or has another shape, match ErrConfig, or come from the file system.
//
// Options are subquad.WithMmap, which maps the file instead of reading it.
//
// Tensors may stand under the official names ("blocks.0.att.receptance.weight") or those of
// flash linear attention ("model.layers.0.attn.r_proj.weight"), and may be F32, F16, BF16,
// F64, F8_E4M3 or F8_E5M2. Others are passed over. Nothing in a file of PyTorch is run.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	return lm.Open("rwkv", path, func(text []byte) error {
		file, err := ParseConfig(text)
		cfg = cfg.over(file)
		return err
	}, func(f *weights.File) (*Model, error) { return newModel(f, cfg) }, options...)
}

// Read returns the model of a file of safetensors, PyTorch or rwkv.cpp of size bytes, which is no longer
// needed afterwards. No config.json is read; give what ParseConfig returns. Errors match
// ErrConfig or ErrCheckpoint.
func Read(r io.ReaderAt, size int64, cfg Config) (*Model, error) {
	return lm.Read("rwkv", r, size, func(f *weights.File) (*Model, error) { return newModel(f, cfg) })
}

// checkpoint finds tensors by their official names.
type checkpoint struct {
	*lm.Checkpoint
	cfg     Config
	scratch *delta.Scratch // of all blocks
	other   bool           // the file is rwkv.cpp's, whose matrices of low rank are transposed
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("rwkv: "); err != nil {
		return nil, err
	}
	c := &checkpoint{lm.NewCheckpoint("rwkv", f, naming, cfg.Format), cfg, new(delta.Scratch), f.Metadata["format"] == "rwkv.cpp"}
	c.complete()
	if c.Err != nil {
		return nil, c.Err
	}
	m := &Model{cfg: c.cfg}
	stack := lm.Config{Package: "rwkv", Name: "rwkv7", Norm: c.norm("ln_out."), Workers: cfg.Workers}
	for i := range c.cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		stack.Layers = append(stack.Layers, c.layer(i, fmt.Sprintf("blocks.%d.", i)))
	}
	stack.Embedding.Tied, stack.Head.Weights = c.embedding(), c.pack(c.Matrix("head.weight", c.cfg.Vocab, c.cfg.Dim))
	if c.Err != nil {
		return nil, c.Err
	}
	var err error
	m.stack, err = lm.New(stack)
	return m, err
}

// complete fills the fields of the configuration that are still zero from the tensors.
func (c *checkpoint) complete() {
	cfg := &c.cfg
	cfg.Layers = c.Blocks("blocks.%d.ln1.weight", cfg.Layers)
	for name, t := range c.Tensors {
		var layer int
		if n, _ := fmt.Sscanf(name, "blocks.%d.", &layer); n == 1 && layer >= cfg.Layers {
			c.Fail("%d blocks, but there is a tensor %s", cfg.Layers, t.Name)
		}
	}
	if cfg.Vocab == 0 {
		cfg.Vocab = c.Dim("emb.weight", 0)
	}
	if cfg.Dim == 0 {
		cfg.Dim = c.Dim("emb.weight", -1)
	}
	if cfg.HeadDim == 0 {
		cfg.HeadDim = c.Dim("blocks.0.att.r_k", -1)
	}
	cfg.Eps = cmp.Or(cfg.Eps, 1e-5)
	cfg.GroupEps = cmp.Or(cfg.GroupEps, 64*cfg.Eps)
}

func (c *checkpoint) norm(prefix string) dense.Norm {
	return c.Norm(prefix, c.cfg.Dim, dense.Norm{Eps: float32(c.cfg.Eps)}, true)
}

// pack returns a layer of weights, or nil after an error.
func (c *checkpoint) pack(w blas32.General) *dense.Linear {
	if c.Err != nil {
		return nil
	}
	return dense.NewLinear(c.Format, w, nil)
}

// embedding returns the embedding, normed.
func (c *checkpoint) embedding() *dense.Linear {
	words, norm := c.Matrix("emb.weight", c.cfg.Vocab, c.cfg.Dim), c.norm("blocks.0.ln0.")
	if c.Err != nil {
		return nil
	}
	norm.Forward(words, words)
	return c.pack(words)
}

// layer returns a layer: time mixing and channel mixing.
func (c *checkpoint) layer(i int, prefix string) lm.Layer {
	att, ffn := c.timeMixing(prefix+"att.", i == 0), c.channelMixing(prefix+"ffn.")
	l := lm.Layer{{Norm: c.norm(prefix + "ln1."), Mixer: att}, {Norm: c.norm(prefix + "ln2."), Mixer: ffn}}
	if c.Err != nil {
		return nil
	}
	return l
}

func (c *checkpoint) timeMixing(p string, first bool) lm.Mixer {
	cfg := &c.cfg
	vector := func(name string) []float32 { return c.Vector(p+name, cfg.Dim) }
	square := func(name string) blas32.General { return c.Matrix(p+name+".weight", cfg.Dim, cfg.Dim) }
	x := c.mixes(p)
	w := delta.RWKV7Weights{
		XR: x[0], XW: x[1], XK: x[2], XV: x[3], XA: x[4], XG: x[5],
		W0: vector("w0"), A0: vector("a0"), KK: vector("k_k"), KA: vector("k_a"), RK: vector("r_k"),
		Receptance: square("receptance"), Key: square("key"), Value: square("value"), Out: square("output"),
		Norm: vector("ln_x.weight"), NormBias: vector("ln_x.bias"),
	}
	w.W1, w.W2 = c.lowRank(p + "w")
	w.A1, w.A2 = c.lowRank(p + "a")
	w.G1, w.G2 = c.lowRank(p + "g")
	if !first { // the first layer's, where a file has them, mean nothing
		w.V0 = vector("v0")
		w.V1, w.V2 = c.lowRank(p + "v")
	}
	if c.Err != nil {
		return nil
	}
	b, err := delta.NewRWKV7(delta.RWKV7Config{
		HeadDim: cfg.HeadDim, First: first, NormEps: cfg.GroupEps, Format: cfg.Format, Scratch: c.scratch, Workers: cfg.Workers,
	}, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, p, err)
		return nil
	}
	return lm.Delta{Block: b}
}

// mixes returns how much of the last token r, w, k, v, a and g see, which rwkv.cpp has in one
// tensor.
func (c *checkpoint) mixes(p string) (list [6][]float32) {
	dim := c.cfg.Dim
	if c.other {
		if all := c.Matrix(p+"x_rwkvag", 6, dim); c.Err == nil {
			for i := range list {
				list[i] = mat.Row(all, i)
			}
		}
		return list
	}
	for i, letter := range "rwkvag" {
		list[i] = c.Vector(p+"x_"+string(letter), dim)
	}
	return list
}

// lowRank returns the matrices [Dim, r] and [r, Dim] of a prefix, which other names and files
// have transposed.
func (c *checkpoint) lowRank(prefix string) (down, up blas32.General) {
	end := ""
	if c.Has(prefix + "1" + turned) {
		end = turned
	}
	if end != "" || c.other {
		down, up = c.Matrix(prefix+"1"+end, -1, c.cfg.Dim), c.Matrix(prefix+"2"+end, c.cfg.Dim, -1)
		if c.Err != nil {
			return down, up
		}
		return transposed(down), transposed(up)
	}
	return c.Matrix(prefix+"1", c.cfg.Dim, -1), c.Matrix(prefix+"2", -1, c.cfg.Dim)
}

func transposed(m blas32.General) blas32.General {
	t := mat.New(m.Cols, m.Rows)
	for i := range m.Rows {
		for j, v := range mat.Row(m, i) {
			mat.Row(t, j)[i] = v
		}
	}
	return t
}

func (c *checkpoint) channelMixing(p string) lm.Mixer {
	w := delta.RWKV7FFNWeights{XK: c.Vector(p+"x_k", c.cfg.Dim), Key: c.Matrix(p+"key.weight", -1, c.cfg.Dim), Value: c.Matrix(p+"value.weight", c.cfg.Dim, -1)}
	if c.Err != nil {
		return nil
	}
	b, err := delta.NewRWKV7FFN(delta.RWKV7FFNConfig{Format: c.Format, Scratch: c.scratch, Workers: c.cfg.Workers}, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, p, err)
		return nil
	}
	return lm.Delta{Block: b}
}
