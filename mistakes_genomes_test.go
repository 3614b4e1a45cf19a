package subquad_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/hyena/dna"
)

// genomes are the rows of what dna does with files and sequences of any length.
func (b *builder) genomes(m *dna.Model, dim int) {
	const fasta = ">a\nACGTAC\nGT\n"
	self := func() any { return m }
	records := func() dna.Records { return dna.Records{"a": []byte("ACGTACGT")} }
	b.on(self, "LogLikelihood", func() []any {
		return []any{nowhere, vector(tokens), []byte("ACGTACG"), dna.ScanConfig{Window: 4, Overlap: 1}}
	})
	b.on(self, "ScoreVariants", func() []any {
		return []any{nowhere, make([]dna.VariantScore, 1), records(), []dna.Variant{{Contig: "a", Position: 3, Ref: "G", Alt: "T"}}, dna.VariantConfig{Window: 6}}
	})
	b.on(self, "EmbedRegions", func() []any {
		return []any{nowhere, matrix(1, dim), records(), []dna.Region{{Contig: "a", From: 1, To: 5}}, dna.EmbedConfig{Window: 3, Overlap: 1, Flank: 1}}
	})
	path := filepath.Join(b.t.TempDir(), "a.fa")
	must(0, os.WriteFile(path, []byte(fasta), 0o600))
	b.add("dna.OpenGenome", dna.OpenGenome, func() []any { return []any{path} })
	genome := func() any { return must(dna.NewGenome(bytes.NewReader([]byte(fasta)), int64(len(fasta)), nil, nil)) }
	b.on(genome, "ReadBases", func() []any { return []any{make([]byte, 3), "a", int64(2)} })
	b.on(genome, "WriteIndex", func() []any { return []any{io.Discard} })
	b.on(genome, "Close", func() []any { return nil })
	b.on(func() any { return records() }, "ReadBases", func() []any { return []any{make([]byte, 3), "a", int64(2)} })
	const vcf, bed = "#CHROM\n1\t5\t.\tA\tC\n", "a\t1\t2\n"
	b.add("dna.NewVariantReader", dna.NewVariantReader, func() []any { return []any{strings.NewReader(vcf)} })
	b.on(func() any { return must(dna.NewVariantReader(strings.NewReader(vcf))) }, "Next", func() []any { return nil })
	b.add("dna.NewRegionReader", dna.NewRegionReader, func() []any { return []any{strings.NewReader(bed)} })
	b.on(func() any { return must(dna.NewRegionReader(strings.NewReader(bed))) }, "Next", func() []any { return nil })
}
