package mamba

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm"
)

// Open returns the model of a checkpoint, and reads config.json beside it where
// there is one. path is a safetensors file, a file of PyTorch (pytorch_model.bin),
// the index of several such files (.index.json), or a folder with any of these.
// Errors match ErrCheckpoint and name the tensor that is missing or has another
// shape, match ErrConfig, or come from the file system.
//
// Tensors may stand under the names of mamba_ssm ("backbone.embedding") or of
// Hugging Face ("backbone.embeddings"), with or without "model." before them, and
// may be F32, F16, BF16 or F64. Others are passed over.
//
// PyTorch files are those of torch.save since PyTorch 1.6, with a state dict or,
// under "state_dict" or "model_state_dict", one among other things. Their pickle is
// read as data: nothing in it is run, and objects of other classes, as training
// adds, are passed over.
func Open(path string, cfg Config) (*Model, error) {
	text, err := os.ReadFile(filepath.Join(weights.Folder(path), "config.json"))
	if err == nil {
		var file Config
		if file, err = ParseConfig(text); err != nil {
			return nil, err
		}
		cfg = cfg.over(file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("mamba: %w", err)
	}
	f, err := weights.OpenCheckpoint(path)
	if err != nil {
		return nil, checkpointError(err)
	}
	defer f.Close()
	return newModel(f, cfg)
}

// Read returns the model of a safetensors or PyTorch file of size bytes, which is
// no longer needed afterwards. No config.json is read; give what ParseConfig returns.
func Read(r io.ReaderAt, size int64, cfg Config) (*Model, error) {
	f, err := weights.Read(r, size)
	if err != nil {
		return nil, checkpointError(err)
	}
	return newModel(f, cfg)
}

func checkpointError(err error) error {
	if errors.Is(err, weights.ErrFormat) {
		return check.Errorf(ErrCheckpoint, "mamba: %v", err)
	}
	return fmt.Errorf("mamba: %w", err)
}

// checkpoint finds tensors by the names they have in this package: those of
// mamba_ssm without "backbone.".
type checkpoint struct {
	weights.Finder
	scratch *ssm.Scratch // of all blocks
}

const wordEmbedding = "embedding.weight"

func newCheckpoint(f *weights.File) *checkpoint {
	c := &checkpoint{weights.NewFinder("mamba", ErrCheckpoint), new(ssm.Scratch)}
	c.Prefix = "backbone."
	for _, name := range f.Names() {
		short := strings.TrimPrefix(strings.TrimPrefix(name, "model."), "backbone.")
		if short == "embeddings.weight" {
			short = wordEmbedding
		}
		c.Add(short, f.Tensor(name))
	}
	return c
}

// complete fills the fields of cfg that are still zero from the tensors.
func (c *checkpoint) complete(cfg *Config) error {
	if cfg.Vocab == 0 {
		cfg.Vocab = c.Dim(wordEmbedding, 0)
	}
	if cfg.Dim == 0 {
		cfg.Dim = c.Dim(wordEmbedding, -1)
	}
	n := 0
	for c.Has(fmt.Sprintf("layers.%d.norm.weight", n)) {
		n++
	}
	if cfg.Layers == 0 {
		cfg.Layers = n
	}
	if cfg.Layers != n {
		c.Fail("%d blocks, want Layers = %d", n, cfg.Layers)
	}
	if cfg.Words > cfg.Vocab && c.Err == nil {
		return check.Errorf(ErrConfig, "mamba: Words is %d, more than Vocab = %d", cfg.Words, cfg.Vocab)
	}
	cfg.Words = first(cfg.Words, cfg.Vocab)
	cfg.Eps = first(cfg.Eps, 1e-5)
	return c.Err
}

// optional returns a vector, or nil where there is none.
func (c *checkpoint) optional(name string, n int) []float32 {
	if !c.Has(name) {
		return nil
	}
	return c.Vector(name, n)
}

func (c *checkpoint) norm(prefix string, cfg Config) norm {
	n := norm{weight: c.Vector(prefix+"weight", cfg.Dim), eps: float32(cfg.Eps), layer: cfg.LayerNorm}
	if cfg.LayerNorm {
		n.bias = c.optional(prefix+"bias", cfg.Dim)
	}
	return n
}

func (c *checkpoint) linear(prefix string, out, in int, cfg Config) (l *dense.Linear, rows int) {
	weight := c.Matrix(prefix+"weight", out, in)
	bias := c.optional(prefix+"bias", weight.Rows)
	if c.Err != nil {
		return nil, 0
	}
	return dense.NewLinear(cfg.Format, weight, bias), weight.Rows
}

func (c *checkpoint) layer(prefix string, cfg Config) (l layer) {
	l.norm = c.norm(prefix+"norm.", cfg)
	if l.mixer = c.mixer(prefix+"mixer.", cfg); c.Err != nil || !c.Has(prefix+"mlp.fc1.weight") {
		return l
	}
	l.norm2 = c.norm(prefix+"norm2.", cfg)
	var rows int
	if l.up, rows = c.linear(prefix+"mlp.fc1.", -1, cfg.Dim, cfg); rows%2 != 0 {
		c.Fail("tensor %s%smlp.fc1.weight has %d rows, want an even number", c.Prefix, prefix, rows)
	}
	l.inner = rows / 2
	l.down, _ = c.linear(prefix+"mlp.fc2.", cfg.Dim, l.inner, cfg)
	return l
}

// mixer returns a block of Mamba-2 where there is a dt_bias, else of Mamba-1.
func (c *checkpoint) mixer(p string, cfg Config) ssm.Block {
	conv := c.Matrix(p+"conv1d.weight", -1, -1)
	convBias := c.optional(p+"conv1d.bias", conv.Rows)
	in, out := c.Matrix(p+"in_proj.weight", -1, cfg.Dim), c.Matrix(p+"out_proj.weight", cfg.Dim, -1)
	inBias, outBias := c.optional(p+"in_proj.bias", in.Rows), c.optional(p+"out_proj.bias", cfg.Dim)
	d := c.Vector(p+"D", -1)
	var err error
	var b ssm.Block
	if c.Has(p + "dt_bias") {
		w := ssm.Mamba2Weights{
			In: in, InBias: inBias, Conv: conv, ConvBias: convBias, DtBias: c.Vector(p+"dt_bias", -1), ALog: c.Vector(p+"A_log", -1),
			D: d, Norm: c.optional(p+"norm.weight", -1), Out: out, OutBias: outBias,
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
			Dt: c.Matrix(p+"dt_proj.weight", -1, -1), DtBias: c.optional(p+"dt_proj.bias", -1), ALog: c.Matrix(p+"A_log", -1, -1),
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
func (c *checkpoint) ends(cfg Config) (embedding, lm *dense.Linear) {
	words := c.Matrix(wordEmbedding, cfg.Vocab, cfg.Dim)
	head := words
	switch {
	case c.Has("lm_head.weight"):
		head = c.Matrix("lm_head.weight", cfg.Vocab, cfg.Dim)
	case cfg.Untied:
		c.Fail("no tensor lm_head.weight, and the configuration says that the embedding does not stand for it")
	}
	if c.Err != nil {
		return nil, nil
	}
	lm = dense.NewLinear(cfg.Format, head, nil)
	if slices.Equal(words.Data, head.Data) {
		return lm, lm
	}
	return dense.NewLinear(cfg.Format, words, nil), lm
}
