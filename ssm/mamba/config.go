package mamba

import (
	"cmp"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// Config fixes a model. A checkpoint's tensors tell most of it, so the zero value
// is what one usually opens with: fields that are zero are taken from config.json,
// then from the tensors. Fields that are set win over config.json, and must agree
// with the tensors.
type Config struct {
	// Dim is the width of a token, Layers the number of blocks, Vocab the number of
	// rows of the embedding, of which the first Words are tokens and the others
	// only fill it up; Words 0 is Vocab.
	Dim, Layers, Vocab, Words int
	// States is N of Mamba-2 blocks and HeadDim their P; 0 is 128 and 64. Mamba-1
	// blocks tell N by their tensors.
	States, HeadDim int
	// Groups is how many groups of heads share B and C in Mamba-2 blocks; 0 is 1.
	Groups int
	// NormBeforeGate is that of Mamba-2 blocks (ssm.Mamba2Config).
	NormBeforeGate bool
	// DtMin and DtMax limit dt in Mamba-2 blocks; a DtMax of 0 is no limit.
	DtMin, DtMax float32
	// NormDtBC normalises dt, B and C of Mamba-1 blocks, with MixerEps, 0 being
	// 1e-6: Falcon-Mamba.
	NormDtBC bool
	MixerEps float64
	// LayerNorm says that the norms before blocks subtract the mean and have a bias
	// (rms_norm false).
	LayerNorm bool
	// Eps is added to mean squares by the norms; 0 is 1e-5.
	Eps float64
	// Untied says that the checkpoint must have an lm_head (tie_embeddings false);
	// otherwise the embedding stands for one that it lacks.
	Untied bool

	// Format is how the weights of dense layers are stored in memory, whatever
	// their type in the file; 0 is Float32.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Vocab, c.Words = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Vocab, file.Vocab), cmp.Or(c.Words, file.Words)
	c.States, c.HeadDim, c.Groups = cmp.Or(c.States, file.States), cmp.Or(c.HeadDim, file.HeadDim), cmp.Or(c.Groups, file.Groups)
	c.NormBeforeGate = c.NormBeforeGate || file.NormBeforeGate
	c.DtMin, c.DtMax = cmp.Or(c.DtMin, file.DtMin), cmp.Or(c.DtMax, file.DtMax)
	c.NormDtBC, c.MixerEps = c.NormDtBC || file.NormDtBC, cmp.Or(c.MixerEps, file.MixerEps)
	c.LayerNorm, c.Eps = c.LayerNorm || file.LayerNorm, cmp.Or(c.Eps, file.Eps)
	c.Untied = c.Untied || file.Untied
	return c
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"Dim", c.Dim}, {"Layers", c.Layers}, {"Vocab", c.Vocab}, {"Words", c.Words},
		{"States", c.States}, {"HeadDim", c.HeadDim}, {"Groups", c.Groups},
	} {
		if f.n < 0 || f.n > math.MaxInt32 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	if err := check.Workers(ErrConfig, "mamba", c.Workers); err != nil {
		return err
	}
	if c.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "%sFormat is %d", prefix, c.Format)
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"Eps", c.Eps}, {"MixerEps", c.MixerEps}, {"DtMin", float64(c.DtMin)}, {"DtMax", float64(c.DtMax)}} {
		if !(f.v >= 0 && f.v <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.v)
		}
	}
	if c.DtMax > 0 && c.DtMin > c.DtMax {
		return check.Errorf(ErrConfig, "%sDtMin is %v, more than DtMax = %v", prefix, c.DtMin, c.DtMax)
	}
	return nil
}
