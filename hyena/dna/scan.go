package dna

import (
	"context"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
)

// ScanConfig says how a sequence of any length is read: in windows, of which each is one pass
// of the model and knows nothing of the others.
type ScanConfig struct {
	// Window is how many bases a pass reads; 0 stands for 16,384, or the model's longest
	// where that is less.
	Window int
	// Overlap is how many bases a window repeats of the one before, to know what comes before
	// those that count; 0 to Window-1.
	Overlap int
	// BothStrands reads the reverse complement too, whose prediction of a base comes from the
	// other side, and takes the mean of both.
	BothStrands bool
	// SkipLower leaves lower-case letters, the soft-masked repeats of most genomes, out: the
	// model reads them, and what it makes of them does not count.
	SkipLower bool
	// Workers is how many goroutines may be used, 0 for the configuration's.
	Workers int
}

// defaultWindow is ScanConfig.Window where it is 0.
const defaultWindow = 16384

// window returns a checked configuration's window.
func (m *Model) window(name string, n int) (int, error) {
	switch {
	case n == 0:
		return min(defaultWindow, m.cfg.MaxLen), nil
	case n < 2 || n > m.cfg.MaxLen:
		return 0, check.Errorf(ErrConfig, "dna: %s.Window is %d, want 2 to the model's longest, %d", name, n, m.cfg.MaxLen)
	}
	return n, nil
}

// LogLikelihood sets dst, of as many elements as sequence, to the natural logarithm of the
// probability of each base after those before it in its window. NaN stands for what is not
// predicted: the first base of a sequence, unless the other strand is read too, and letters
// that are not A, C, G or T, in upper or lower case, or are not to count. The sequence is DNA
// or RNA; other characters match ErrCall. Other errors match ErrConfig or ErrShape, or are
// ctx.Err().
func (m *Model) LogLikelihood(ctx context.Context, dst []float32, sequence []byte, cfg ScanConfig) error {
	if err := check.Call("dna", ctx, true); err != nil {
		return err
	}
	if err := check.Vector(ErrShape, "dna", "dst", dst, len(sequence), "the bases"); err != nil {
		return err
	}
	window, err := m.window("ScanConfig", cfg.Window)
	if err != nil {
		return err
	}
	if cfg.Overlap < 0 || cfg.Overlap >= window {
		return check.Errorf(ErrConfig, "dna: ScanConfig.Overlap is %d, want 0 to Window-1 = %d", cfg.Overlap, window-1)
	}
	if err := check.Workers(ErrConfig, "dna", cfg.Workers); err != nil {
		return err
	}
	s := scanner{model: m, tokens: m.Tokenizer(NoSpecial), window: window, cfg: cfg}
	forward := make([]float32, len(sequence))
	if err := s.strand(ctx, forward, sequence); err != nil {
		return err
	}
	if cfg.BothStrands {
		other, reverse := make([]byte, len(sequence)), make([]float32, len(sequence))
		copy(other, sequence)
		readAsDNA(other)
		if err := ReverseComplement(other, other); err != nil {
			return err
		}
		if err := s.strand(ctx, reverse, other); err != nil {
			return err
		}
		slices.Reverse(reverse)
		for i, v := range reverse {
			forward[i] = meanOfKnown(forward[i], v)
		}
	}
	copy(dst, forward)
	return nil
}

// meanOfKnown is the mean of two numbers of which NaN is none.
func meanOfKnown(a, b float32) float32 {
	switch {
	case a != a:
		return b
	case b != b:
		return a
	}
	return (a + b) / 2
}

// scanner reads a strand in windows.
type scanner struct {
	model  *Model
	tokens *Tokenizer
	window int
	cfg    ScanConfig
}

// batchBases is about how many bases go to the model at once, where windows are short.
const batchBases = 1 << 16

// strand sets dst to the log-likelihoods of one strand.
func (s *scanner) strand(ctx context.Context, dst []float32, sequence []byte) error {
	nan := float32(math.NaN())
	for i := range dst {
		dst[i] = nan
	}
	ids, err := s.tokens.AppendDNA(make([]int32, 0, len(sequence)), string(sequence))
	if err != nil {
		return err
	}
	// A window's last base predicts the next one, which the next window begins with.
	step := s.window - s.cfg.Overlap
	var calls []*Call
	var firsts []int // the first base that a call counts
	run := func() error {
		if err := s.model.runBatch(ctx, calls, s.cfg.Workers); err != nil {
			return err
		}
		for i, c := range calls {
			for j, v := range c.LogLikelihood {
				if c.Targets[j] >= 0 {
					dst[firsts[i]+j] = v
				}
			}
		}
		calls, firsts = calls[:0], firsts[:0]
		return nil
	}
	for from := 0; from < len(ids)-1; {
		to := min(from+s.window, len(ids)-1) // predicts bases from+1 to to
		targets := make([]int32, to-from)
		for j := range targets {
			targets[j] = -1
			if at := from + 1 + j; (from == 0 || j >= s.cfg.Overlap) && s.counts(sequence[at]) {
				targets[j] = ids[at]
			}
		}
		calls = append(calls, &Call{Tokens: ids[from:to], Targets: targets, LogLikelihood: make([]float32, to-from), Workers: s.cfg.Workers})
		firsts = append(firsts, from+1)
		if len(calls)*s.window >= batchBases || to == len(ids)-1 {
			if err := run(); err != nil {
				return err
			}
		}
		if to == len(ids)-1 {
			break
		}
		from += step
	}
	return ctx.Err()
}

// counts tells whether what is predicted of a letter counts.
func (s *scanner) counts(c byte) bool {
	switch c {
	case 'A', 'C', 'G', 'T', 'U':
		return true
	case 'a', 'c', 'g', 't', 'u':
		return !s.cfg.SkipLower
	}
	return false
}
