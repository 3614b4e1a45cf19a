// Command variants asks a HyenaDNA model which changes of a genome it finds unlikely.
//
//	go run ./examples/variants
//	go run ./examples/variants -from 37900 -length 200 -window 4096
//	go run ./examples/variants -fasta genome.fa -vcf changes.vcf -out changes
//
// Without a VCF file it scores every change of a single base in a stretch of the genome and
// draws them as a heat map: how many times as likely, or unlikely, the genome is with the
// change, as a logarithm. With one it scores what the file has, substitutions, insertions and
// deletions. Either way it writes a table. Both strands are read, and their mean is taken; a
// window of bases around each change is all that the model sees.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/subquad/subquad/examples/internal/ecoli"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/hyena/dna"
)

const (
	about = `variants asks a HyenaDNA model which changes of a genome it finds unlikely: all changes of a
single base in a stretch, drawn as a heat map, or those of a VCF file. It writes a table of the
logarithms of how many times as likely the genome is with each change.`
	usage = `	go run ./examples/variants
	go run ./examples/variants -fasta genome.fa -vcf changes.vcf -out changes`
)

// options are the command's flags.
type options struct {
	fasta, vcf, contig, weights, config, out string
	from, length, window, workers            int
	oneStrand                                bool
}

// beforeCI is the stretch of phage lambda that is shown, where the promoters before gene cI begin.
const beforeCI = 37921

func main() { program.Main("variants", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("variants", about, usage)
	f.StringVar(&o.fasta, "fasta", "", "genome, a FASTA `file`, plain or compressed by bgzip (default: phage lambda, built in)")
	f.StringVar(&o.vcf, "vcf", "", "changes to score, a VCF `file`, plain or gzip (default: all of single bases in a stretch)")
	f.StringVar(&o.contig, "contig", "", "`name` of the record of the stretch (default: the first)")
	f.IntVar(&o.from, "from", 0, "first base of the stretch, 1 for the record's first (default: 37921, before gene cI, of lambda, and 1 of -fasta)")
	f.IntVar(&o.length, "length", 0, "bases of the stretch (default: 60, or as many as there are)")
	f.IntVar(&o.window, "window", 0, "bases that the model reads around a change (default: 1024, or as many as it takes)")
	f.BoolVar(&o.oneStrand, "one-strand", false, "read the strand that the file has alone")
	f.StringVar(&o.weights, "weights", "", "HyenaDNA checkpoint, a safetensors or PyTorch `file` or a folder (default: a small model of E. coli, built in)")
	f.StringVar(&o.config, "config", "", "the checkpoint's config.json `file` (default: the one beside it)")
	f.StringVar(&o.out, "out", "variants", "write `name`.tsv and, of a stretch, name.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	table, picture := o.out+".tsv", o.out+".png"
	files := []string{table, picture}
	if o.vcf != "" {
		files = files[:1]
	}
	if err := program.Writable(files...); err != nil {
		return err
	}
	m, err := ecoli.Open(o.weights, o.config, o.workers)
	if err != nil {
		return err
	}
	genome, first, err := openGenome(o.fasta)
	if err != nil {
		return err
	}
	if c, ok := genome.(io.Closer); ok {
		defer c.Close()
	}
	if o.contig == "" {
		o.contig = first
	}
	s := scorer{model: m, genome: genome, cfg: dna.VariantConfig{Window: o.window, OneStrand: o.oneStrand}, progress: program.NewProgress(stderr, "changes")}
	if o.vcf != "" {
		return s.file(ctx, o.vcf, table, stdout)
	}
	if o.from == 0 {
		if o.from = 1; o.fasta == "" {
			o.from = beforeCI
		}
	}
	if o.length == 0 {
		bases, _ := genome.Len(o.contig)
		o.length = int(min(60, max(1, bases-int64(o.from)+1)))
	}
	stretch, err := s.stretch(ctx, o.contig, o.from, o.length)
	if err != nil {
		return err
	}
	if err := program.WriteFile(table, func(w io.Writer) error { return writeTable(w, stretch.variants, stretch.scores) }); err != nil {
		return err
	}
	if err := program.WriteFile(picture, stretch.draw); err != nil {
		return err
	}
	return stretch.print(stdout, table, picture)
}

// openGenome returns a genome and the name of its first record.
func openGenome(path string) (dna.Sequences, string, error) {
	if path != "" {
		g, err := dna.OpenGenome(path)
		if err != nil {
			return nil, "", err
		}
		contigs := g.Contigs()
		if len(contigs) == 0 {
			g.Close()
			return nil, "", fmt.Errorf("%s: no sequence", path)
		}
		return g, contigs[0].Name, nil
	}
	r, err := dna.NewReader(bytes.NewReader(ecoli.Lambda))
	if err != nil {
		return nil, "", err
	}
	h, err := r.Next()
	if err != nil {
		return nil, "", err
	}
	text, err := io.ReadAll(r)
	return dna.Records{h.Name: text}, h.Name, err
}
