// Command genome reads a genome with a HyenaDNA model, base by base, and draws
// where the model is surprised.
//
//	go run ./examples/genome
//	go run ./examples/genome -fasta ecoli.fna.gz -window 4096 -out ecoli
//	go run ./examples/genome -fasta ecoli.fna.gz -pass 1000000
//
// The last tells what the first million bases cost in one pass, with random weights in the shape
// of the largest published model, hyenadna-large-1m, in 4 GiB of memory; it writes no files.
//
// Letters other than A, C, G and T are read, as what the tokenizer has for them, and not
// predicted. It prints the mean surprise of the genome, of its reverse complement and of a
// shuffled copy, in bits per base (a uniform guess is 2), and writes a picture and
// a bedGraph file of the surprise along the genome. A genome is cut into windows;
// each is one pass of the model, without memory of earlier ones. Memory is two bytes
// for each base of the largest record and what one window takes.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/examples/internal/ecoli"
	"github.com/subquad/subquad/examples/internal/program"
)

const (
	about = `genome reads a genome with a HyenaDNA model, base by base, and draws where the model is
surprised. It prints the mean surprise of the genome, of its reverse complement and of a shuffled
copy, in bits per base (a uniform guess is 2), and writes a picture and a bedGraph file.`
	usage = `	go run ./examples/genome
	go run ./examples/genome -fasta ecoli.fna.gz -window 4096 -out ecoli
	go run ./examples/genome -fasta ecoli.fna.gz -pass 1000000`
)

// options are the command's flags.
type options struct {
	fasta, weights, config, out string
	window, workers             int
	mask                        bool
	pass                        pass
}

func main() { program.Main("genome", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("genome", about, usage)
	f.StringVar(&o.fasta, "fasta", "", "genome, a FASTA `file`, plain or gzip (default: phage lambda, built in)")
	f.BoolVar(&o.mask, "mask", false, "read letters that are no nucleotide code, * and ? as N")
	f.StringVar(&o.weights, "weights", "", "HyenaDNA checkpoint, a safetensors or PyTorch `file` or a folder (default: a small model of E. coli, built in)")
	f.StringVar(&o.config, "config", "", "the checkpoint's config.json `file` (default: the one beside it)")
	f.StringVar(&o.out, "out", "genome", "write `name`.png and name.bedgraph")
	f.IntVar(&o.window, "window", 0, "bases to a pass of the model (default: 16384, or as many as the model takes)")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	f.IntVar(&o.pass.bases, "pass", 0, "tell what one pass over the first `n` bases costs, with random weights in the shape of hyenadna-large-1m")
	f.Float64Var(&o.pass.memory, "memory", 4, "`GiB` that -pass may take")
	f.IntVar(&o.pass.layers, "layers", largeLayers, "layers that -pass has")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	if o.pass.bases != 0 {
		return onePass(ctx, &o, stdout)
	}
	bed, picture := o.out+".bedgraph", o.out+".png"
	if err := program.Writable(bed, picture); err != nil {
		return err
	}
	m, err := ecoli.Open(o.weights, o.config, o.workers)
	if err != nil {
		return err
	}
	if o.window, err = window(o.window, m.Config().MaxLen); err != nil {
		return err
	}
	name, genome, err := openGenome(o.fasta)
	if err != nil {
		return err
	}
	defer genome.Close()
	s := scorer{model: m, window: o.window, mask: o.mask, progress: program.NewProgress(stderr, "bases")}
	report, err := s.read(ctx, genome)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := report.print(stdout, name, o.window); err != nil {
		return err
	}
	if err := program.WriteFile(bed, report.bedGraph); err != nil {
		return err
	}
	if err := program.WriteFile(picture, func(w io.Writer) error { return report.draw(w, name) }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "wrote %s and %s\n", picture, bed)
	return err
}

// onePass is the command with -pass.
func onePass(ctx context.Context, o *options, stdout io.Writer) error {
	p := &o.pass
	switch {
	case p.bases < 2 || p.bases > large.maxLen:
		return fmt.Errorf("-pass is %d, want 2 to %d", p.bases, large.maxLen)
	case p.layers < 1 || p.layers > largeLayers:
		return fmt.Errorf("-layers is %d, want 1 to %d", p.layers, largeLayers)
	case !(p.memory > 0 && p.memory < 1<<20):
		return fmt.Errorf("-memory is %v, want a number of GiB", p.memory)
	}
	p.workers = o.workers
	name, genome, err := openGenome(o.fasta)
	if err != nil {
		return err
	}
	defer genome.Close()
	return p.run(ctx, stdout, name, genome)
}

func window(asked, longest int) (int, error) {
	switch {
	case asked == 0:
		return min(16384, longest), nil
	case asked < 1 || asked > longest:
		return 0, fmt.Errorf("-window is %d, want 1 to the model's longest, %d", asked, longest)
	}
	return asked, nil
}

// openGenome returns a genome's name and its text.
func openGenome(path string) (string, io.ReadCloser, error) {
	if path == "" {
		return "phage lambda", io.NopCloser(bytes.NewReader(ecoli.Lambda)), nil
	}
	f, err := os.Open(path)
	return filepath.Base(path), f, err
}
