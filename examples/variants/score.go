package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/hyena/dna"
)

// scorer scores changes of a genome.
type scorer struct {
	model    *dna.Model
	genome   dna.Sequences
	cfg      dna.VariantConfig
	progress *program.Progress
}

// batch is how many changes are scored between two looks at the progress.
const batch = 24

// score scores changes.
func (s *scorer) score(ctx context.Context, variants []dna.Variant) ([]dna.VariantScore, error) {
	scores := make([]dna.VariantScore, len(variants))
	for from := 0; from < len(variants); from += batch {
		to := min(from+batch, len(variants))
		if err := s.model.ScoreVariants(ctx, scores[from:to], s.genome, variants[from:to], s.cfg); err != nil {
			return nil, err
		}
		s.progress.Add(to - from)
	}
	return scores, nil
}

// bases are the rows of the heat map.
const bases = "ACGT"

// stretch is every change of a single base in a stretch of a genome.
type stretch struct {
	contig   string
	from     int // 1 for the first base
	text     string
	variants []dna.Variant
	scores   []dna.VariantScore
	elapsed  time.Duration
}

func (s *scorer) stretch(ctx context.Context, contig string, from, length int) (*stretch, error) {
	have, ok := s.genome.Len(contig)
	switch {
	case !ok:
		return nil, fmt.Errorf("-contig is %q, of which the genome has no record", contig)
	case length < 1 || length > 100_000:
		return nil, fmt.Errorf("-length is %d, want 1 to 100000", length)
	case from < 1 || int64(from)+int64(length)-1 > have:
		return nil, fmt.Errorf("-from is %d and -length %d, want a stretch of %s, which has %d bases", from, length, contig, have)
	}
	text := make([]byte, length)
	if err := s.genome.ReadBases(text, contig, int64(from-1)); err != nil {
		return nil, err
	}
	st := &stretch{contig: contig, from: from, text: strings.ToUpper(string(text))}
	for i := range length {
		ref := st.text[i : i+1]
		if !strings.Contains(bases, ref) {
			continue
		}
		for j := range bases {
			if alt := bases[j : j+1]; alt != ref {
				st.variants = append(st.variants, dna.Variant{Contig: contig, Position: int64(from + i), Ref: ref, Alt: alt})
			}
		}
	}
	s.progress.Begin(contig, len(st.variants))
	defer s.progress.End()
	begin := time.Now()
	var err error
	st.scores, err = s.score(ctx, st.variants)
	st.elapsed = time.Since(begin)
	return st, err
}

// file scores the changes of a VCF file, some at a time, and writes them to a table.
func (s *scorer) file(ctx context.Context, path, table string, stdout io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := dna.NewVariantReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.progress.Begin(path, -1)
	defer s.progress.End()
	count := 0
	err = program.WriteFile(table, func(w io.Writer) error {
		header := true
		for {
			var variants []dna.Variant
			var end error
			for len(variants) < batch && end == nil {
				var v dna.Variant
				if v, end = r.Next(); end == nil {
					variants = append(variants, v)
				}
			}
			if end != nil && end != io.EOF {
				return fmt.Errorf("%s: %w", path, end)
			}
			scores, err := s.score(ctx, variants)
			if err != nil {
				return fmt.Errorf("%s: after %d changes: %w", path, count, err)
			}
			count += len(variants)
			if err := writeRows(w, variants, scores, header); err != nil {
				return err
			}
			if header = false; end == io.EOF {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %d changes, %d alleles that are no bases passed over\nwrote %s\n", path, count, r.Skipped(), table)
	return err
}

func writeTable(w io.Writer, variants []dna.Variant, scores []dna.VariantScore) error {
	return writeRows(w, variants, scores, true)
}

// writeRows writes changes as a table with tabs.
func writeRows(w io.Writer, variants []dna.Variant, scores []dna.VariantScore, header bool) error {
	b := bufio.NewWriter(w)
	if header {
		fmt.Fprintln(b, "contig\tposition\tid\tref\talt\tln_ratio\tln_p_ref\tln_p_alt")
	}
	for i, v := range variants {
		id := v.ID
		if id == "" {
			id = "."
		}
		fmt.Fprintf(b, "%s\t%d\t%s\t%s\t%s\t%.4f\t%.4f\t%.4f\n", v.Contig, v.Position, id, v.Ref, v.Alt, scores[i].Ratio(), scores[i].Ref, scores[i].Alt)
	}
	return b.Flush()
}
