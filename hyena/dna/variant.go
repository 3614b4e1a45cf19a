package dna

import (
	"bytes"
	"context"
	"strings"

	"github.com/subquad/subquad/internal/check"
)

// Sequences gives stretches of named sequences: a Genome, or Records in memory.
type Sequences interface {
	// Len returns the bases of a sequence, or false where there is none of that name.
	Len(name string) (bases int64, ok bool)
	// ReadBases sets dst to the letters from base from (0 is the first) on.
	ReadBases(dst []byte, name string, from int64) error
}

// Records are sequences in memory, by name.
type Records map[string][]byte

// Len implements Sequences.
func (r Records) Len(name string) (bases int64, ok bool) {
	s, ok := r[name]
	return int64(len(s)), ok
}

// ReadBases implements Sequences. Errors match ErrCall.
func (r Records) ReadBases(dst []byte, name string, from int64) error {
	s, ok := r[name]
	if !ok {
		return check.Errorf(ErrCall, "dna: there is no record %.100q", name)
	}
	if from < 0 || int64(len(dst)) > int64(len(s)) || from > int64(len(s)-len(dst)) {
		return check.Errorf(ErrCall, "dna: bases %d to %d of %.100q, which has %d", from, from+int64(len(dst)), name, len(s))
	}
	copy(dst, s[from:])
	return nil
}

// Variant is a change of a sequence, as a line of a VCF file tells it.
type Variant struct {
	// Contig is the name of the sequence, and Position that of Ref's first base, 1 for the
	// first.
	Contig   string
	Position int64
	// ID is any name, or none.
	ID string
	// Ref are the bases that the sequence has there, in any case, and Alt what stands in
	// their place: as many for a substitution, more for an insertion, fewer for a deletion. A
	// VCF file repeats the base before an insertion or deletion in both.
	Ref, Alt string
}

// VariantConfig says how variants are scored.
type VariantConfig struct {
	// Window is how many bases are read with and without a variant, which is in their middle
	// (nearer an end of the sequence, where that comes first); 0 stands for 1,024, or the
	// model's longest where that is less.
	Window int
	// OneStrand reads the strand that the sequence has alone; else the mean of both is taken.
	OneStrand bool
	// Workers is how many goroutines may be used, 0 for the configuration's.
	Workers int
}

// VariantScore is how likely a window is without a variant, Ref, and with it, Alt: the natural
// logarithm of the probability of all its bases but the first, the mean of both strands.
type VariantScore struct{ Ref, Alt float64 }

// Ratio is the logarithm of how many times as likely the sequence is with the variant: below
// 0 the model takes it for a change for the worse.
func (s VariantScore) Ratio() float64 { return s.Alt - s.Ref }

// defaultVariantWindow is VariantConfig.Window where it is 0.
const defaultVariantWindow = 1024

// ScoreVariants sets scores, of as many elements, to those of variants. Windows begin at the
// same base and have the same number of bases with and without the variant: after a deletion
// the window reaches further into what follows, after an insertion less far, so that both
// sums are of as many bases. Where the sequence ends before, both are cut to the same length at
// their ends or, where that would cut off what the variant changes, at their beginnings. Letters
// that are not A, C, G or T are read and not counted.
//
// A Ref that is not what the sequence has, an allele with other letters, and a place outside
// the sequence match ErrCall and name the variant; nothing is scored then. Other errors match
// ErrConfig or ErrShape, or are those of from or ctx.Err().
//
// It costs four passes of a window each, of which those without a variant are shared by
// variants of the same window.
func (m *Model) ScoreVariants(ctx context.Context, scores []VariantScore, from Sequences, variants []Variant, cfg VariantConfig) error {
	if err := check.Call("dna", ctx, true); err != nil {
		return err
	}
	if len(scores) != len(variants) {
		return check.Errorf(ErrShape, "dna: scores has %d elements, want one for each of %d variants", len(scores), len(variants))
	}
	if from == nil {
		return check.Errorf(ErrCall, "dna: the sequences are nil")
	}
	if cfg.Window == 0 {
		cfg.Window = min(defaultVariantWindow, m.cfg.MaxLen)
	}
	window, err := m.window("VariantConfig", cfg.Window)
	if err != nil {
		return err
	}
	if err := check.Workers(ErrConfig, "dna", cfg.Workers); err != nil {
		return err
	}
	s := variantScorer{model: m, tokens: m.Tokenizer(NoSpecial), window: window, cfg: cfg, from: from, known: map[string]int{}}
	for i := range variants {
		if err := s.check(i, &variants[i]); err != nil {
			return err
		}
	}
	return s.score(ctx, scores, variants)
}

// variantScorer scores variants.
type variantScorer struct {
	model  *Model
	tokens *Tokenizer
	window int
	cfg    VariantConfig
	from   Sequences

	calls []*Call
	known map[string]int // the call of a window, by its bases
	ended []float64      // sums of calls that have run
}

// check returns an error unless a variant is one of the sequences.
func (s *variantScorer) check(i int, v *Variant) error {
	fail := func(format string, args ...any) error {
		args = append([]any{i, v.Contig, v.Position, short(v.Ref), short(v.Alt)}, args...)
		return check.Errorf(ErrCall, "dna: variant %d, %.100s:%d %s>%s: "+format, args...)
	}
	bases, ok := s.from.Len(v.Contig)
	switch {
	case !ok:
		return fail("there is no such sequence")
	case v.Ref == "" || v.Alt == "":
		return fail("an allele is empty; VCF has the base before, in both")
	case v.Position < 1 || v.Position > bases || int64(len(v.Ref)) > bases-v.Position+1:
		return fail("the sequence has %d bases", bases)
	case len(v.Ref) > s.window/2 || len(v.Alt) > s.window/2:
		return fail("alleles of %d and %d bases, want at most half the window of %d", len(v.Ref), len(v.Alt), s.window)
	}
	for _, allele := range []string{v.Ref, v.Alt} {
		for j := range len(allele) {
			if k := letters[allele[j]]; k == invalid || k == blank || k == gap {
				return fail("%q is no base", allele[j])
			}
		}
	}
	have := make([]byte, len(v.Ref))
	if err := s.from.ReadBases(have, v.Contig, v.Position-1); err != nil {
		return err
	}
	if !strings.EqualFold(strings.ReplaceAll(strings.ToUpper(v.Ref), "U", "T"), strings.ReplaceAll(strings.ToUpper(string(have)), "U", "T")) {
		return fail("the sequence has %s there", short(string(have)))
	}
	return nil
}

// short is an allele for an error.
func short(allele string) string {
	const most = 20
	if len(allele) > most {
		return allele[:most] + "…"
	}
	return allele
}

// score sets scores, some variants at a time.
func (s *variantScorer) score(ctx context.Context, scores []VariantScore, variants []Variant) error {
	most := max(1, batchBases/s.window)
	for begin := 0; begin < len(variants); {
		clear(s.known)
		s.calls = s.calls[:0]
		var sums [][4]int // calls of the window and of the one with the variant, of both strands
		end := begin
		for ; end < len(variants) && (end == begin || len(s.calls) < most); end++ {
			ref, alt, err := s.windows(&variants[end])
			if err != nil {
				return err
			}
			var at [4]int
			for j, window := range [][]byte{ref, alt} {
				if at[j], err = s.pass(window); err != nil {
					return err
				}
				if s.cfg.OneStrand {
					at[2+j] = at[j]
					continue
				}
				if err := ReverseComplement(window, window); err != nil {
					return err
				}
				if at[2+j], err = s.pass(window); err != nil {
					return err
				}
			}
			sums = append(sums, at)
		}
		if err := s.model.runBatch(ctx, s.calls, s.cfg.Workers); err != nil {
			return err
		}
		s.ended = s.ended[:0]
		for _, c := range s.calls {
			sum := 0.0
			for _, v := range c.LogLikelihood {
				sum += float64(v) // 0 of what does not count
			}
			s.ended = append(s.ended, sum)
		}
		for i, at := range sums {
			scores[begin+i] = VariantScore{(s.ended[at[0]] + s.ended[at[2]]) / 2, (s.ended[at[1]] + s.ended[at[3]]) / 2}
		}
		begin = end
	}
	return nil
}

// windows returns the bases around a variant, without and with it.
func (s *variantScorer) windows(v *Variant) (ref, alt []byte, err error) {
	bases, _ := s.from.Len(v.Contig)
	at, longest := v.Position-1, max(len(v.Ref), len(v.Alt))
	begin := max(0, min(at-int64(s.window-longest)/2, bases-int64(s.window)))
	text := make([]byte, min(int64(s.window+len(v.Ref)), bases-begin)) // with what a deletion lets in
	if err := s.from.ReadBases(text, v.Contig, begin); err != nil {
		return nil, nil, err
	}
	before, after := text[:at-begin], text[at-begin+int64(len(v.Ref)):]
	alt = append(append(append(make([]byte, 0, len(text)+len(v.Alt)), before...), v.Alt...), after...)
	n := min(s.window, len(text), len(alt))
	if len(before)+longest > n { // the sequence ends with what the variant changes
		text, alt = text[len(text)-n:], alt[len(alt)-n:]
	}
	ref, alt = bytes.ToUpper(text[:n]), bytes.ToUpper(alt[:n])
	readAsDNA(ref)
	readAsDNA(alt)
	return ref, alt, nil
}

// pass returns the number of the call of a window.
func (s *variantScorer) pass(window []byte) (int, error) {
	if i, ok := s.known[string(window)]; ok {
		return i, nil
	}
	ids, err := s.tokens.AppendDNA(nil, string(window))
	if err != nil {
		return 0, err
	}
	targets := append([]int32(nil), ids[1:]...)
	for i, c := range window[1:] {
		if !strings.ContainsRune("ACGTU", rune(c)) {
			targets[i] = -1
		}
	}
	s.calls = append(s.calls, &Call{Tokens: ids, Targets: targets, LogLikelihood: make([]float32, len(targets)), Workers: s.cfg.Workers})
	s.known[string(window)] = len(s.calls) - 1
	return len(s.calls) - 1, nil
}
