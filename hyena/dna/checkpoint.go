package dna

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/weights"
)

// Open returns the model of a safetensors file, and reads config.json beside it
// where there is one. Errors match ErrCheckpoint and name the tensor that is
// missing or has another shape, match ErrConfig, or come from the file system.
//
// Tensors may stand under the names of the standalone file ("backbone."), of
// training ("model.backbone.", with ".layer" within where activations were
// checkpointed), of the Hugging Face port ("hyena.backbone.") or of MultiMolecule
// ("model.layers."), and may be F32, F16, BF16 or F64. Others are passed over.
func Open(path string, cfg Config) (*Model, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "config.json"))
	if err == nil {
		var file Config
		if file, err = ParseConfig(text); err != nil {
			return nil, err
		}
		cfg = cfg.over(file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dna: %w", err)
	}
	f, err := weights.Open(path)
	if err != nil {
		return nil, checkpointError(err)
	}
	defer f.Close()
	return newModel(f, cfg)
}

// Read returns the model of a safetensors file of size bytes, which is no longer
// needed afterwards. No config.json is read; give what ParseConfig returns.
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
// standalone file without "backbone.". The first error stays.
type checkpoint struct {
	tensors    map[string]*weights.Tensor
	prefix     string // what stands before a layer's names in the file
	vocabulary Vocabulary
	err        error
}

const wordEmbeddings = "embeddings.word_embeddings.weight"

// renamed lists what is called otherwise in some layouts.
var renamed = strings.NewReplacer(
	".mixer.layer.", ".mixer.", ".mlp.layer.", ".mlp.",
	"final_layer_norm.", "ln_f.",
	"decoder.0.output_transform.", "head.output_transform.",
)

func newCheckpoint(f *weights.File) *checkpoint {
	c := &checkpoint{tensors: map[string]*weights.Tensor{}, prefix: "backbone."}
	for _, name := range f.Names() {
		short := name
		for _, prefix := range []string{"model.", "hyena.", "backbone."} {
			short = strings.TrimPrefix(short, prefix)
		}
		short = renamed.Replace(short)
		if old := c.tensors[short]; old != nil {
			c.fail("%s and %s are the same tensor", old.Name, name)
		}
		c.tensors[short] = f.Tensor(name)
		if short == wordEmbeddings {
			c.prefix = strings.TrimSuffix(name, short)
		}
		if strings.Contains(name, "final_layer_norm.") {
			c.vocabulary = MultiMolecule
		}
	}
	return c
}

func (c *checkpoint) fail(format string, args ...any) {
	if c.err == nil {
		c.err = check.Errorf(ErrCheckpoint, "dna: checkpoint: %s", fmt.Sprintf(format, args...))
	}
}

func (c *checkpoint) has(name string) bool { return c.tensors[name] != nil }

// matrix returns a tensor of rows x cols, taking their product from any shape of
// which those are the first and last dimensions; negative ones may be anything.
func (c *checkpoint) matrix(name string, rows, cols int) blas32.General {
	t := c.tensors[name]
	if t == nil {
		c.fail("no tensor %s%s", c.prefix, name)
		return blas32.General{}
	}
	rank := len(t.Shape)
	ok := rank >= 2 && t.Shape[0]*t.Shape[rank-1] == t.Len() && t.Len() > 0
	if ok && rows < 0 {
		rows = t.Shape[0]
	}
	if ok && cols < 0 {
		cols = t.Shape[rank-1]
	}
	if !ok || t.Shape[0] != rows || t.Shape[rank-1] != cols {
		c.fail("tensor %s has the shape %v, want %s", t.Name, t.Shape, shapeText(rows, cols))
		return blas32.General{}
	}
	return dense.Matrix(c.read(t), rows, cols)
}

// vector returns a tensor of n elements, whatever its dimensions; a negative n
// may be anything.
func (c *checkpoint) vector(name string, n int) []float32 {
	t := c.tensors[name]
	switch {
	case t == nil:
		c.fail("no tensor %s%s", c.prefix, name)
		return nil
	case n >= 0 && t.Len() != n:
		c.fail("tensor %s has the shape %v, want %s", t.Name, t.Shape, shapeText(n))
		return nil
	}
	return c.read(t)
}

func (c *checkpoint) read(t *weights.Tensor) []float32 {
	data, err := t.Float32()
	if err != nil {
		c.fail("%v", err)
		return make([]float32, t.Len())
	}
	return data
}

// shapeText writes a shape, "any" for what is negative.
func shapeText(dims ...int) string {
	var b strings.Builder
	for _, d := range dims {
		if d < 0 {
			b.WriteString(" any")
		} else {
			fmt.Fprintf(&b, " %d", d)
		}
	}
	return "[" + b.String()[1:] + "]"
}

// filter returns the implicit filter of a block.
func (c *checkpoint) filter(prefix string, cfg Config) *hyena.Filter {
	var w hyena.FilterWeights
	in, last := -1, 0
	for c.has(fmt.Sprintf("%simplicit_filter.%d.bias", prefix, last)) {
		last += 2
	}
	for i := 0; i < last; i += 2 {
		name := fmt.Sprintf("%simplicit_filter.%d.", prefix, i)
		l := hyena.FilterLayer{Weight: c.matrix(name+"weight", -1, in)}
		in = l.Weight.Rows
		l.Bias = c.vector(name+"bias", in)
		l.Freq = c.freq(prefix, i+1, in, cfg.Freq)
		w.Layers = append(w.Layers, l)
	}
	channels := (cfg.Order - 1) * cfg.Dim
	w.Output = c.matrix(fmt.Sprintf("%simplicit_filter.%d.weight", prefix, last), channels, in)
	fc := hyena.FilterConfig{
		Channels: channels, MaxLen: cfg.MaxLen, EmbDim: cfg.EmbDim,
		NoModulation: cfg.NoModulation, Shift: cfg.Shift,
	}
	// Stored grids win over computed ones: training may have changed them.
	if c.has(prefix + "pos_emb.z") {
		w.Z = c.vector(prefix+"pos_emb.z", cfg.MaxLen*cfg.EmbDim)
	}
	if c.has(prefix + "pos_emb.t") {
		w.T = c.vector(prefix+"pos_emb.t", cfg.MaxLen)
	}
	if c.has(prefix + "modulation.deltas") {
		w.Deltas = c.vector(prefix+"modulation.deltas", channels)
	}
	if c.err != nil {
		return nil
	}
	f, err := hyena.NewFilter(fc, w)
	if err != nil {
		c.fail("%s%s: %v", c.prefix, prefix, err)
	}
	return f
}

// freq returns the frequencies of a sine. One module serves all layers of the
// official filter, and may be stored once, at index 1.
func (c *checkpoint) freq(prefix string, i, n int, constant float64) []float32 {
	for _, at := range []int{i, 1} {
		if name := fmt.Sprintf("%simplicit_filter.%d.freq", prefix, at); c.has(name) {
			return c.vector(name, n)
		}
	}
	freq := make([]float32, max(n, 0))
	for j := range freq {
		freq[j] = float32(constant)
	}
	return freq
}
