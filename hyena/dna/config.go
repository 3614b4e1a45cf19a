package dna

import (
	"cmp"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
)

// Config fixes a model. A checkpoint's tensors tell most of it, so the zero value
// is what one usually opens with: fields that are zero are taken from config.json,
// then from the tensors. Fields that are set win over config.json, and must agree
// with the tensors.
type Config struct {
	// Dim is the width of a token, Layers the number of blocks, Inner the width of
	// the MLPs' hidden layer, Vocab the number of rows of the embedding.
	Dim, Layers, Inner, Vocab int
	// MaxLen is l_max, the longest sequence. Positions are fractions of it, so it
	// is part of what the weights mean; checkpoints without a stored grid of
	// positions (MultiMolecule's) need it.
	MaxLen int
	// Order is the number of gates of the Hyena operators.
	Order int
	// ChannelMajor is the layout of filter channels of orders above 2
	// (hyena.OperatorConfig).
	ChannelMajor bool
	// EmbDim is the width of the filters' positional embedding.
	EmbDim int
	// NoModulation leaves out the filters' exponential window.
	NoModulation bool
	// Shift is what the window decays to. nil is 0.05, the default of the standalone file of
	// HyenaDNA and of the Hugging Face port, which published checkpoints are for; their
	// config.json does not tell it. A model trained with the default of the repository's src/
	// needs 0.0 here, or "shift": 0.0 in "layer" of its config.json.
	Shift *float64
	// FastDecay, SlowDecay and Target are fast_decay_pct, slow_decay_pct and target of the
	// published code (hyena.FilterConfig), for checkpoints that do not store the window's
	// decays; 0 stands for 0.3, 1.5 and 0.01.
	FastDecay, SlowDecay, Target float64
	// Normalized divides each row of a filter by the sum of its absolute values
	// ("normalized" of src/).
	Normalized bool
	// LinearFilter says that filters are one linear layer of the positional embedding
	// ("linear_mixer" of src/). The tensors tell it too, and must agree where it is set.
	LinearFilter bool
	// Activation is applied before the output projection of the Hyena operators
	// ("activation" of src/); 0 is hyena.Identity.
	Activation hyena.Activation
	// Freq is the frequency of the filters' sines where it is not stored; 0 is 10, as published
	// models have it. A config.json that does not say it (w, activation_freq) means 1, but for
	// MultiMolecule's.
	Freq float64
	// Eps is added to variances by the norms; 0 is 1e-5.
	Eps float64
	// Untied says that the embedding does not stand for a missing lm_head
	// (tie_word_embeddings false): without one the model then has no logits, and a call that
	// asks for them, or for likelihoods, matches ErrCall.
	Untied bool

	// AnyText lets EmbedInto take any text, as the published tokenizers do: characters that
	// are no nucleotide code as unknown ones, and the names of special tokens, as "[MASK]",
	// as these. Without it such text is an error.
	AnyText bool

	// Format is how the weights of dense layers are stored in memory; 0 is Float32.
	Format asm.Format
	// SpectraBytes is how much memory the model may keep, beside its weights, for the spectra
	// and the rows of its filters, of all layers together; 0 is 2 GiB. For all that calls
	// of n tokens need it takes about 12 (Order-1) n Dim Layers bytes: 4 for rows, 8 for
	// spectra. Rows are kept first; what has no room is computed again by each call, which
	// takes much longer for rows than for spectra, and needs 4 n min(Dim, 128) bytes more of
	// working memory (ScratchBytes tells). Bytes counts what is kept. Results do not depend on it.
	SpectraBytes int64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// over returns c with its zero fields filled from file.
func (c Config) over(file Config) Config {
	c.Dim, c.Layers, c.Inner, c.Vocab = cmp.Or(c.Dim, file.Dim), cmp.Or(c.Layers, file.Layers), cmp.Or(c.Inner, file.Inner), cmp.Or(c.Vocab, file.Vocab)
	c.MaxLen, c.Order, c.EmbDim = cmp.Or(c.MaxLen, file.MaxLen), cmp.Or(c.Order, file.Order), cmp.Or(c.EmbDim, file.EmbDim)
	c.NoModulation = c.NoModulation || file.NoModulation
	c.Shift, c.Freq, c.Eps = cmp.Or(c.Shift, file.Shift), cmp.Or(c.Freq, file.Freq), cmp.Or(c.Eps, file.Eps)
	c.FastDecay, c.SlowDecay, c.Target = cmp.Or(c.FastDecay, file.FastDecay), cmp.Or(c.SlowDecay, file.SlowDecay), cmp.Or(c.Target, file.Target)
	c.Normalized, c.LinearFilter = c.Normalized || file.Normalized, c.LinearFilter || file.LinearFilter
	c.Activation, c.Untied = cmp.Or(c.Activation, file.Activation), c.Untied || file.Untied
	return c
}

// check returns an error where a field is no number it could be.
func (c Config) check(prefix string) error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"Dim", c.Dim}, {"Layers", c.Layers}, {"Inner", c.Inner}, {"Vocab", c.Vocab}, {"MaxLen", c.MaxLen},
		{"Order", c.Order}, {"EmbDim", c.EmbDim},
	} {
		if f.n < 0 {
			return check.Errorf(ErrConfig, "%s%s is %d, want 0 or more", prefix, f.name, f.n)
		}
	}
	if err := check.Workers(ErrConfig, "dna", c.Workers); err != nil {
		return err
	}
	if c.SpectraBytes < 0 {
		return check.Errorf(ErrConfig, "%sSpectraBytes is %d, want 0 or more", prefix, c.SpectraBytes)
	}
	if c.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "%sFormat is %d", prefix, c.Format)
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"Eps", c.Eps}, {"Freq", c.Freq}, {"FastDecay", c.FastDecay}, {"SlowDecay", c.SlowDecay}, {"Target", c.Target}} {
		if !(f.v >= 0 && f.v <= math.MaxFloat32) {
			return check.Errorf(ErrConfig, "%s%s is %v, want a finite number, 0 or more", prefix, f.name, f.v)
		}
	}
	if c.Shift != nil && (math.IsNaN(*c.Shift) || math.IsInf(*c.Shift, 0)) {
		return check.Errorf(ErrConfig, "%sShift is %v, want a finite number", prefix, *c.Shift)
	}
	return nil
}
