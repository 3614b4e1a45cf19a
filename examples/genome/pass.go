package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/hyena/dna"
)

// pass is one pass of a model of random weights over the beginning of a genome: what a length
// costs.
type pass struct {
	bases   int
	memory  float64 // GiB for all: weights, filters, working memory
	layers  int
	workers int
}

// spare is the part of the memory that is left to the runtime and to the program.
const spare = 0.1

// model returns a model that keeps as much of its filters as there is memory for beside the
// rest.
func (p *pass) model() (*dna.Model, error) {
	cfg := dna.Config{SpectraBytes: 1, Workers: p.workers}
	file := large.random(p.layers)
	m, err := dna.Read(strings.NewReader(file), int64(len(file)), cfg)
	if err != nil {
		return nil, err
	}
	most := int64(p.memory * (1 << 30))
	if m.Bytes()+m.ScratchBytes(p.bases) > most {
		return nil, fmt.Errorf("-memory is %v GiB, and %d bases need %.2f", p.memory, p.bases, gib(m.Bytes()+m.ScratchBytes(p.bases)))
	}
	left := int64(float64(most)*(1-spare)) - m.Bytes() - m.ScratchBytes(p.bases)
	if left > 1 {
		cfg.SpectraBytes = left
		m, err = dna.Read(strings.NewReader(file), int64(len(file)), cfg)
	}
	return m, err
}

// run reads a genome and tells what that took.
func (p *pass) run(ctx context.Context, w io.Writer, name string, genome io.Reader) error {
	sequence, err := p.beginning(genome)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	m, err := p.model()
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // of the checkpoint, before what counts begins
	tokens := m.Tokenizer(dna.NoSpecial).Encode(string(sequence))
	fmt.Fprintf(w, "%s: %d bases in one pass, random weights in the shape of hyenadna-large-1m with %d of its 8 layers, kernels for %s\n",
		name, len(tokens), p.layers, asm.Active())
	begin := time.Now()
	if err := m.Prepare(ctx, len(tokens)); err != nil {
		return err
	}
	fmt.Fprintf(w, "%.1f s for filters that are kept; those that there is no memory for are part of the pass\n", time.Since(begin).Seconds())
	likelihood := make([]float32, len(tokens)-1)
	call := &dna.Call{Tokens: tokens, Targets: tokens[1:], LogLikelihood: likelihood}
	best := time.Duration(math.MaxInt64)
	for total := time.Duration(0); total < 2*time.Second; { // short ones several times: the first takes the memory
		begin := time.Now()
		if err := m.Run(ctx, call); err != nil {
			return err
		}
		took := time.Since(begin)
		total, best = total+took, min(best, took)
	}
	sum := 0.0
	for _, v := range likelihood {
		sum -= float64(v)
	}
	fmt.Fprintf(w, "%.1f s, %.0f bases per second, %.2f µs for a base in a layer (%d goroutines, %d processors)\n", best.Seconds(),
		float64(len(tokens))/best.Seconds(), 1e6*best.Seconds()/float64(len(tokens)*p.layers), cmp.Or(m.Config().Workers, runtime.GOMAXPROCS(0)), runtime.NumCPU())
	fmt.Fprintf(w, "%.2f GiB: weights and filters %.2f, working memory %.2f%s\n", gib(m.Bytes()+m.ScratchBytes(len(tokens))),
		gib(m.Bytes()), gib(m.ScratchBytes(len(tokens))), peak())
	_, err = fmt.Fprintf(w, "%.5f bits per base, which say nothing: the weights are random\n", sum/float64(len(likelihood))/math.Ln2)
	return err
}

// beginning returns the first bases of a genome's records, one after the other.
func (p *pass) beginning(genome io.Reader) ([]byte, error) {
	fasta, err := dna.NewReader(genome)
	if err != nil {
		return nil, err
	}
	var sequence []byte
	for len(sequence) < p.bases {
		if _, err := fasta.Next(); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		part, err := io.ReadAll(io.LimitReader(fasta, int64(p.bases-len(sequence))))
		if err != nil {
			return nil, err
		}
		sequence = append(sequence, part...)
	}
	if len(sequence) == 0 {
		return nil, errors.New("no bases")
	}
	for n := len(sequence); len(sequence) < p.bases; { // a genome that ends begins again
		sequence = append(sequence, sequence[:min(n, p.bases-len(sequence))]...)
	}
	return sequence, nil
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// peak tells the most memory that the process has had, where the system says so.
func peak() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return fmt.Sprintf("; the process took %.2f at the most", gib(1024*kib))
		}
	}
	return ""
}
