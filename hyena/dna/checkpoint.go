package dna

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
)

// Open returns the model of a checkpoint, and reads config.json beside it where
// there is one. path is a safetensors file, a file of PyTorch (weights.ckpt,
// pytorch_model.bin), the index of several such files (.index.json), or a folder
// with any of these, or with consolidated.safetensors, model.pt, last.ckpt or a single
// file *.safetensors of another name. Errors match ErrCheckpoint and name the tensor that is missing
// or has another shape, match ErrConfig, or come from the file system.
//
// Options are subquad.WithMmap, which maps the file instead of reading it.
//
// No config.json tells the shift of the filters' window: it is taken as 0.05, the default of
// the standalone file and of the Hugging Face port, while the training code in src/ of
// hyena-dna has 0.0 (see Config.Shift).
//
// Tensors may stand under the names of the standalone file ("backbone."), of
// training ("model.backbone.", with ".layer" within where activations were
// checkpointed), of the Hugging Face port ("hyena.backbone.") or of MultiMolecule
// ("model.layers."), and may be F32, F16, BF16, F64, F8_E4M3 or F8_E5M2. Others are
// passed over. What wrappers of modules put before the names (module., _orig_mod.,
// base_model.model., model_state., ema.) does not count.
//
// PyTorch files are those of torch.save since PyTorch 1.6, with a state dict or,
// under "state_dict" or "model_state_dict", one among other things. Their pickle is
// read as data: nothing in it is run, and objects of other classes, as training
// adds, are passed over, unless they stand where a tensor is looked for.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	return lm.Open("dna", path, func(text []byte) error {
		file, err := ParseConfig(text)
		cfg = cfg.over(file)
		return err
	}, func(f *weights.File) (*Model, error) { return newModel(f, cfg) }, options...)
}

// Read returns the model of a safetensors or PyTorch file of size bytes, which is
// no longer needed afterwards. No config.json is read; give what ParseConfig returns. Errors
// match ErrConfig or ErrCheckpoint.
func Read(r io.ReaderAt, size int64, cfg Config) (*Model, error) {
	return lm.Read("dna", r, size, func(f *weights.File) (*Model, error) { return newModel(f, cfg) })
}

// checkpoint finds tensors by the names they have in this package: those of the
// standalone file without "backbone.".
type checkpoint struct {
	*lm.Checkpoint
	cfg     Config
	scratch *hyena.Scratch // of all operators
	cache   *hyena.Cache   // likewise
	filters *hyena.Filter  // the first layer's
}

const wordEmbeddings = "embeddings.word_embeddings.weight"

// finalNorm is how MultiMolecule's checkpoints, and no others, name the last norm.
const finalNorm = "final_layer_norm."

var naming = lm.Naming{
	Prefixes: []string{"model.", "hyena.", "backbone."},
	Rename: strings.NewReplacer(
		".mixer.layer.", ".mixer.", ".mlp.layer.", ".mlp.",
		finalNorm, "ln_f.",
		"decoder.0.output_transform.", "head.output_transform.",
	).Replace,
	Root: wordEmbeddings, Prefix: "backbone.",
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("dna: "); err != nil {
		return nil, err
	}
	cache, err := hyena.NewCache(cfg.SpectraBytes)
	if err != nil {
		return nil, err
	}
	c := &checkpoint{Checkpoint: lm.NewCheckpoint("dna", f, naming, cfg.Format), cfg: cfg, scratch: new(hyena.Scratch), cache: cache}
	if err := c.complete(); err != nil {
		return nil, err
	}
	m := &Model{cfg: c.cfg}
	for _, name := range f.Names() {
		if strings.Contains(name, finalNorm) {
			m.vocabulary = MultiMolecule
		}
	}
	stack := lm.Config{
		Package: "dna", Name: "HyenaDNA", MaxLen: c.cfg.MaxLen, TooLong: ErrTooLong, Workers: cfg.Workers,
		Embedding: dense.Embedding{Table: c.Matrix(wordEmbeddings, c.cfg.Vocab, c.cfg.Dim)}, Norm: c.norm("ln_f."),
	}
	for i := range c.cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		stack.Layers = append(stack.Layers, c.layer(fmt.Sprintf("layers.%d.", i)))
	}
	const head, positions = "lm_head.weight", "embeddings.position_embeddings.weight"
	if c.Has(positions) && c.Err == nil {
		return nil, check.Errorf(ErrConfig, "dna: the checkpoint has learned positions, tensor %s%s, which are not supported", c.Prefix, positions)
	}
	logits := c.Head(head, stack.Embedding.Table)
	stack.Classifier = c.classifier(m.vocabulary.Pad())
	if c.Err != nil {
		return nil, c.Err
	}
	if c.Has(head) || !cfg.Untied {
		stack.Head.Weights = dense.NewLinear(cfg.Format, logits, nil)
	}
	m.letters = m.Tokenizer(NoSpecial)
	m.stack, err = lm.New(stack)
	return m, err
}

// maxOrder bounds a number that sizes are multiplied by.
const maxOrder = 1000

// complete fills the fields of the configuration that are still zero from the tensors.
func (c *checkpoint) complete() error {
	cfg := &c.cfg
	if c.Err != nil {
		return c.Err
	}
	cfg.Layers = c.Blocks("layers.%d.norm1.weight", cfg.Layers)
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
	if cfg.Order < 2 || cfg.Order > maxOrder {
		c.Fail("Order is %d, want 2 to %d", cfg.Order, maxOrder)
	}
	if c.Err != nil {
		return c.Err
	}
	if cfg.MaxLen == 0 {
		return check.Errorf(ErrConfig, "dna: MaxLen is in neither the configuration nor the checkpoint")
	}
	cfg.Eps, cfg.Freq = cmp.Or(cfg.Eps, 1e-5), cmp.Or(cfg.Freq, 10)
	return nil
}
