package lm

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/weights"
)

// Open returns the model of a checkpoint: a safetensors file, a file of PyTorch, the index
// of several such files, or a folder with any of these. config gets the text of the
// config.json beside it, where there is one, and build makes the model of the tensors.
func Open[M any](pkg, path string, config func(text []byte) error, build func(*weights.File) (M, error), options ...subquad.OpenOption) (m M, err error) {
	text, err := weights.ReadConfig(path)
	if err != nil {
		return m, fmt.Errorf("%s: %w", pkg, err)
	}
	if text != nil {
		if err := config(text); err != nil {
			return m, err
		}
	}
	f, err := weights.OpenCheckpoint(path, options...)
	if err != nil {
		return m, fileError(pkg, err)
	}
	defer f.Close()
	return build(f)
}

// Read returns the model of a safetensors or PyTorch file of size bytes.
func Read[M any](pkg string, r io.ReaderAt, size int64, build func(*weights.File) (M, error)) (m M, err error) {
	if err := check.Stream(subquad.ErrCheckpoint, pkg, "reader", r); err != nil {
		return m, err
	}
	f, err := weights.Read(r, size)
	if err != nil {
		return m, fileError(pkg, err)
	}
	return build(f)
}

// OpenState returns the state that a file has, by read, which is given its contents.
func OpenState[S any](pkg, path string, read func(io.Reader) (S, error), options ...subquad.OpenOption) (st S, err error) {
	f, err := weights.OpenFile(path, options...)
	if err != nil {
		return st, fileError(pkg, err)
	}
	defer f.Close()
	return read(f.Reader())
}

func fileError(pkg string, err error) error {
	if errors.Is(err, weights.ErrFormat) {
		return check.Errorf(subquad.ErrCheckpoint, "%s: %v", pkg, err)
	}
	return fmt.Errorf("%s: %w", pkg, err)
}

// Naming says how the names of tensors in published files become those of a package.
type Naming struct {
	// Prefixes are cut off, each once and in this order, where a name begins so. Those of
	// wrappers that training puts around a model (module., _orig_mod.) are gone already.
	Prefixes []string
	// Rename, if not nil, changes the rest of the name.
	Rename func(name string) string
	// Root is a tensor that every checkpoint has, by its name in the package; what stands
	// before it in the file is put before names in errors. Without it that is Prefix.
	Root, Prefix string
}

// Checkpoint is the tensors of a file under a package's names, and makes layers of them.
// Its first error stays in Err.
type Checkpoint struct {
	weights.Finder
	Format asm.Format // of matrices in memory
}

// NewCheckpoint finds the tensors of f.
func NewCheckpoint(pkg string, f *weights.File, naming Naming, format asm.Format) *Checkpoint {
	c := &Checkpoint{weights.NewFinder(pkg, subquad.ErrCheckpoint), format}
	c.Prefix = naming.Prefix
	for _, name := range f.Names() {
		rest := name
		for _, prefix := range naming.Prefixes {
			rest = strings.TrimPrefix(rest, prefix)
		}
		short := rest
		if naming.Rename != nil {
			short = naming.Rename(rest)
		}
		c.Add(short, f.Tensor(name))
		if short == naming.Root {
			c.Prefix = strings.TrimSuffix(name, rest)
		}
	}
	return c
}

// Count returns how many layers there are, of each of which there is a tensor: format has
// a %d for its number.
func (c *Checkpoint) Count(format string) (n int) {
	for c.Has(fmt.Sprintf(format, n)) {
		n++
	}
	return n
}

// Blocks is Count for the blocks of a model, of which there must be some, and want of them
// unless that is 0.
func (c *Checkpoint) Blocks(format string, want int) int {
	n := c.Count(format)
	switch {
	case n == 0:
		c.Fail("no block, as there is no tensor %s: it is of another kind of model%s", c.Prefix+fmt.Sprintf(format, 0), c.Others())
	case want != 0 && n != want:
		c.Fail("%d blocks, want Layers = %d", n, want)
	}
	return n
}

// Optional returns a vector of n elements, or nil where there is none.
func (c *Checkpoint) Optional(name string, n int) []float32 {
	if !c.Has(name) {
		return nil
	}
	return c.Vector(name, n)
}

// Norm returns the norm of prefix, like which is but with the weights; a LayerNorm's bias
// must be there where needsBias.
func (c *Checkpoint) Norm(prefix string, dim int, like dense.Norm, needsBias bool) dense.Norm {
	like.Weight = c.Vector(prefix+"weight", dim)
	switch {
	case like.RMS:
	case needsBias:
		like.Bias = c.Vector(prefix+"bias", dim)
	default:
		like.Bias = c.Optional(prefix+"bias", dim)
	}
	return like
}

// Linear returns the layer of prefix, of rows x cols, of which negative ones may be
// anything, and what they are. Its bias must be there where needsBias. It is nil after an
// error.
func (c *Checkpoint) Linear(prefix string, rows, cols int, needsBias bool) (l *dense.Linear, out int) {
	weight := c.Matrix(prefix+"weight", rows, cols)
	var bias []float32
	if needsBias || c.Has(prefix+"bias") {
		bias = c.Vector(prefix+"bias", weight.Rows)
	}
	if c.Err != nil {
		return nil, 0
	}
	return dense.NewLinear(c.Format, weight, bias), weight.Rows
}

// Head returns the weights [vocab, dim] of a name or, where there are none, tied.
func (c *Checkpoint) Head(name string, tied blas32.General) blas32.General {
	if !c.Has(name) {
		return tied
	}
	return c.Matrix(name, tied.Rows, tied.Cols)
}

// PaddedVocab returns words filled up to a multiple, where that is not 0, or false where
// either is no number of rows.
func PaddedVocab(words, multiple int) (rows int, ok bool) {
	const most = 1<<31 - 1
	if words < 0 || words > most || multiple < 0 || multiple > most {
		return 0, false
	}
	multiple = max(multiple, 1)
	rows64 := (int64(words) + int64(multiple) - 1) / int64(multiple) * int64(multiple)
	return int(rows64), rows64 <= most
}
