package dna

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// Open returns the model of a checkpoint, and reads config.json beside it where
// there is one. path is a safetensors file, a file of PyTorch (weights.ckpt,
// pytorch_model.bin), the index of several such files (.index.json), or a folder
// with any of these. Errors match ErrCheckpoint and name the tensor that is missing
// or has another shape, match ErrConfig, or come from the file system.
//
// Tensors may stand under the names of the standalone file ("backbone."), of
// training ("model.backbone.", with ".layer" within where activations were
// checkpointed), of the Hugging Face port ("hyena.backbone.") or of MultiMolecule
// ("model.layers."), and may be F32, F16, BF16 or F64. Others are passed over.
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
		return nil, fmt.Errorf("dna: %w", err)
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
		return check.Errorf(ErrCheckpoint, "dna: %v", err)
	}
	return fmt.Errorf("dna: %w", err)
}

// checkpoint finds tensors by the names they have in this package: those of the
// standalone file without "backbone.".
type checkpoint struct {
	weights.Finder
	vocabulary Vocabulary
}

const wordEmbeddings = "embeddings.word_embeddings.weight"

// renamed lists what is called otherwise in some layouts.
var renamed = strings.NewReplacer(
	".mixer.layer.", ".mixer.", ".mlp.layer.", ".mlp.",
	"final_layer_norm.", "ln_f.",
	"decoder.0.output_transform.", "head.output_transform.",
)

func newCheckpoint(f *weights.File) *checkpoint {
	c := &checkpoint{Finder: weights.NewFinder("dna", ErrCheckpoint)}
	c.Prefix = "backbone."
	for _, name := range f.Names() {
		short := name
		for _, prefix := range []string{"model.", "hyena.", "backbone."} {
			short = strings.TrimPrefix(short, prefix)
		}
		short = renamed.Replace(short)
		c.Add(short, f.Tensor(name))
		if short == wordEmbeddings {
			c.Prefix = strings.TrimSuffix(name, short)
		}
		if strings.Contains(name, "final_layer_norm.") {
			c.vocabulary = MultiMolecule
		}
	}
	return c
}

// filter returns the implicit filter of a block.
func (c *checkpoint) filter(prefix string, cfg Config) *hyena.Filter {
	var w hyena.FilterWeights
	in, last := -1, 0
	for c.Has(fmt.Sprintf("%simplicit_filter.%d.bias", prefix, last)) {
		last += 2
	}
	for i := 0; i < last; i += 2 {
		name := fmt.Sprintf("%simplicit_filter.%d.", prefix, i)
		l := hyena.FilterLayer{Weight: c.Matrix(name+"weight", -1, in)}
		in = l.Weight.Rows
		l.Bias = c.Vector(name+"bias", in)
		l.Freq = c.freq(prefix, i+1, in, cfg.Freq)
		w.Layers = append(w.Layers, l)
	}
	channels := (cfg.Order - 1) * cfg.Dim
	w.Output = c.Matrix(fmt.Sprintf("%simplicit_filter.%d.weight", prefix, last), channels, in)
	fc := hyena.FilterConfig{
		Channels: channels, MaxLen: cfg.MaxLen, EmbDim: cfg.EmbDim,
		NoModulation: cfg.NoModulation, Shift: cfg.Shift,
	}
	// Stored grids win over computed ones: training may have changed them.
	if c.Has(prefix + "pos_emb.z") {
		w.Z = c.Vector(prefix+"pos_emb.z", cfg.MaxLen*cfg.EmbDim)
	}
	if c.Has(prefix + "pos_emb.t") {
		w.T = c.Vector(prefix+"pos_emb.t", cfg.MaxLen)
	}
	if c.Has(prefix + "modulation.deltas") {
		w.Deltas = c.Vector(prefix+"modulation.deltas", channels)
	}
	if c.Err != nil {
		return nil
	}
	f, err := hyena.NewFilter(fc, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
	}
	return f
}

// freq returns the frequencies of a sine. One module serves all layers of the
// official filter, and may be stored once, at index 1.
func (c *checkpoint) freq(prefix string, i, n int, constant float64) []float32 {
	for _, at := range []int{i, 1} {
		if name := fmt.Sprintf("%simplicit_filter.%d.freq", prefix, at); c.Has(name) {
			return c.Vector(name, n)
		}
	}
	freq := make([]float32, max(n, 0))
	for j := range freq {
		freq[j] = float32(constant)
	}
	return freq
}
