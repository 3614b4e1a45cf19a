package mamba

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm"
)

// Open returns the model of a checkpoint, and reads config.json beside it where
// there is one. path is a safetensors file, a file of PyTorch (pytorch_model.bin),
// the index of several such files (.index.json), or a folder with any of these, or with
// consolidated.safetensors and params.json, model.pt, last.ckpt or a single file
// *.safetensors of another name.
// Errors match ErrCheckpoint and name the tensor that is missing or has another
// shape, match ErrConfig, or come from the file system.
//
// Options are subquad.WithMmap, which maps the file instead of reading it.
//
// Tensors may stand under the names of mamba_ssm ("backbone.embedding") or of
// Hugging Face ("backbone.embeddings"), with or without "model." before them, and
// may be F32, F16, BF16, F64, F8_E4M3 or F8_E5M2. Others are passed over. What wrappers
// of modules put before the names (module., _orig_mod., base_model.model., model_state.,
// ema.) does not count.
//
// PyTorch files are those of torch.save since PyTorch 1.6, with a state dict or,
// under "state_dict" or "model_state_dict", one among other things. Their pickle is
// read as data: nothing in it is run, and objects of other classes, as training
// adds, are passed over, unless they stand where a tensor is looked for.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	return lm.Open("mamba", path, func(text []byte) error {
		file, err := ParseConfig(text)
		cfg = cfg.over(file)
		return err
	}, func(f *weights.File) (*Model, error) { return newModel(f, cfg) }, options...)
}

// Read returns the model of a safetensors or PyTorch file of size bytes, which is
// no longer needed afterwards. No config.json is read; give what ParseConfig returns. Errors
// match ErrConfig or ErrCheckpoint.
func Read(r io.ReaderAt, size int64, cfg Config) (*Model, error) {
	return lm.Read("mamba", r, size, func(f *weights.File) (*Model, error) { return newModel(f, cfg) })
}

// checkpoint finds tensors by the names they have in this package: those of
// mamba_ssm without "backbone.".
type checkpoint struct {
	*lm.Checkpoint
	cfg     Config
	scratch *ssm.Scratch // of all blocks
}

const wordEmbedding = "embedding.weight"

var naming = lm.Naming{
	Prefixes: []string{"model.", "backbone."},
	Rename: func(name string) string {
		if name == "embeddings.weight" {
			return wordEmbedding
		}
		return name
	},
	Prefix: "backbone.",
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("mamba: "); err != nil {
		return nil, err
	}
	c := &checkpoint{lm.NewCheckpoint("mamba", f, naming, cfg.Format), cfg, new(ssm.Scratch)}
	if err := c.complete(); err != nil {
		return nil, err
	}
	m := &Model{cfg: c.cfg}
	stack := lm.Config{
		Package: "mamba", Name: "mamba", Norm: c.norm("norm_f."), Words: c.cfg.Words, Workers: cfg.Workers,
	}
	for i := range c.cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		layer, block := c.layer(fmt.Sprintf("layers.%d.", i))
		stack.Layers, m.blocks = append(stack.Layers, layer), append(m.blocks, block)
	}
	stack.Embedding.Tied, stack.Head.Weights = c.ends()
	if c.Err != nil {
		return nil, c.Err
	}
	var err error
	m.stack, err = lm.New(stack)
	return m, err
}

// complete fills the fields of the configuration that are still zero from the tensors.
func (c *checkpoint) complete() error {
	cfg := &c.cfg
	cfg.Layers = c.Blocks("layers.%d.norm.weight", cfg.Layers)
	if cfg.Vocab == 0 {
		cfg.Vocab = c.Dim(wordEmbedding, 0)
	}
	if cfg.Dim == 0 {
		cfg.Dim = c.Dim(wordEmbedding, -1)
	}
	if cfg.Words > cfg.Vocab && c.Err == nil {
		return check.Errorf(ErrConfig, "mamba: Words is %d, more than Vocab = %d", cfg.Words, cfg.Vocab)
	}
	cfg.Words = cmp.Or(cfg.Words, cfg.Vocab)
	cfg.Eps = cmp.Or(cfg.Eps, 1e-5)
	return c.Err
}

func (c *checkpoint) norm(prefix string) dense.Norm {
	return c.Norm(prefix, c.cfg.Dim, dense.Norm{Eps: float32(c.cfg.Eps), RMS: !c.cfg.LayerNorm}, false)
}

// layer returns a layer and its block, the mixer.
func (c *checkpoint) layer(prefix string) (lm.Layer, ssm.Block) {
	norm, block := c.norm(prefix+"norm."), c.block(prefix+"mixer.")
	if c.Err != nil {
		return nil, nil
	}
	l := lm.Layer{{Norm: norm, Mixer: lm.Recurrent{Block: block}}}
	if !c.Has(prefix + "mlp.fc1.weight") {
		return l, block
	}
	norm = c.norm(prefix + "norm2.")
	up, rows := c.Linear(prefix+"mlp.fc1.", -1, c.cfg.Dim, false)
	if rows%2 != 0 {
		c.Fail("tensor %s%smlp.fc1.weight has %d rows, want an even number", c.Prefix, prefix, rows)
	}
	down, _ := c.Linear(prefix+"mlp.fc2.", c.cfg.Dim, rows/2, false)
	return append(l, lm.Branch{Norm: norm, MLP: &dense.Gated{Up: up, Down: down}}), block
}

// block returns a block of Mamba-2 where there is a dt_bias, else of Mamba-1.
func (c *checkpoint) block(p string) ssm.Block {
	cfg := &c.cfg
	conv := c.Matrix(p+"conv1d.weight", -1, -1)
	convBias := c.Optional(p+"conv1d.bias", conv.Rows)
	in, out := c.Matrix(p+"in_proj.weight", -1, cfg.Dim), c.Matrix(p+"out_proj.weight", cfg.Dim, -1)
	inBias, outBias := c.Optional(p+"in_proj.bias", in.Rows), c.Optional(p+"out_proj.bias", cfg.Dim)
	d := c.Vector(p+"D", -1)
	var err error
	var b ssm.Block
	if c.Has(p + "dt_bias") {
		w := ssm.Mamba2Weights{
			In: in, InBias: inBias, Conv: conv, ConvBias: convBias, DtBias: c.Vector(p+"dt_bias", -1), ALog: c.Vector(p+"A_log", -1),
			D: d, Norm: c.Optional(p+"norm.weight", -1), Out: out, OutBias: outBias,
		}
		if c.Err != nil {
			return nil
		}
		b, err = ssm.NewMamba2(ssm.Mamba2Config{
			States: cfg.States, HeadDim: cfg.HeadDim, Groups: cfg.Groups, NoNorm: w.Norm == nil, NormBeforeGate: cfg.NormBeforeGate,
			DtMin: cfg.DtMin, DtMax: cfg.DtMax, Eps: cfg.Eps, Format: cfg.Format, Scratch: c.scratch, Workers: cfg.Workers,
		}, w)
	} else {
		w := ssm.MambaWeights{
			In: in, InBias: inBias, Conv: conv, ConvBias: convBias, X: c.Matrix(p+"x_proj.weight", -1, -1),
			Dt: c.Matrix(p+"dt_proj.weight", -1, -1), DtBias: c.Optional(p+"dt_proj.bias", -1), ALog: c.Matrix(p+"A_log", -1, -1),
			D: d, Out: out, OutBias: outBias,
		}
		if c.Err != nil {
			return nil
		}
		b, err = ssm.NewMamba(ssm.MambaConfig{NormDtBC: cfg.NormDtBC, Eps: cfg.MixerEps, Format: cfg.Format, Scratch: c.scratch, Workers: cfg.Workers}, w)
	}
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, p, err)
		return nil
	}
	return b
}

// ends returns the embedding and the weights of the logits: lm_head, or the
// embedding again where there is none or it is the same, as in most checkpoints.
func (c *checkpoint) ends() (embedding, head *dense.Linear) {
	const name = "lm_head.weight"
	words := c.Matrix(wordEmbedding, c.cfg.Vocab, c.cfg.Dim)
	if !c.Has(name) && c.cfg.Untied {
		c.Fail("no tensor %s, and the configuration says that the embedding does not stand for it", name)
	}
	logits := c.Head(name, words)
	if c.Err != nil {
		return nil, nil
	}
	head = dense.NewLinear(c.Format, logits, nil)
	if slices.Equal(words.Data, logits.Data) {
		return head, head
	}
	return dense.NewLinear(c.Format, words, nil), head
}
