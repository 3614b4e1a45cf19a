package main

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"github.com/subquad/subquad/hyena/dna"
)

// binBases is the resolution of the bedGraph file.
const binBases = 100

// report is what was found out about a genome.
type report struct {
	records     []*record
	composition dna.Composition
	forward     mean // over all records
	reverse     mean
	shuffled    mean
	elapsed     time.Duration // of the model, for all three
}

// record is one sequence of the genome and its surprise, in bins.
type record struct {
	name             string
	bases            int
	forward, reverse []mean // reverse: of the other strand, at the same places
}

// mean is a mean of surprises in bits.
type mean struct {
	sum   float64
	count int
}

func (m *mean) add(bits float64) { m.sum, m.count = m.sum+bits, m.count+1 }

func (m mean) value() float64 { return m.sum / float64(m.count) }

// read scores all records of a FASTA file.
func read(ctx context.Context, m *dna.Model, r io.Reader, window int, p *progress) (*report, error) {
	defer p.finish()
	fasta, err := dna.NewReader(r)
	if err != nil {
		return nil, err
	}
	rep := &report{}
	for {
		h, err := fasta.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		sequence, err := io.ReadAll(fasta)
		if err != nil {
			return nil, err
		}
		rep.composition = sum(rep.composition, fasta.Composition())
		if err := rep.score(ctx, m, h.Name, sequence, window, p); err != nil {
			return nil, err
		}
	}
	if rep.forward.count == 0 {
		return nil, errors.New("no sequence of two bases or more")
	}
	return rep, nil
}

func sum(a, b dna.Composition) dna.Composition {
	return dna.Composition{
		Bases: a.Bases + b.Bases, Lower: a.Lower + b.Lower,
		N: a.N + b.N, IUPAC: a.IUPAC + b.IUPAC, Uracil: a.Uracil + b.Uracil, Gap: a.Gap + b.Gap,
	}
}

// score scores a record, its reverse complement and a shuffle; it uses sequence up.
func (rep *report) score(ctx context.Context, m *dna.Model, name string, sequence []byte, window int, p *progress) error {
	n := len(sequence)
	rec := &record{name: name, bases: n, forward: make([]mean, bins(n)), reverse: make([]mean, bins(n))}
	rep.records = append(rep.records, rec)
	flip := func() error { return dna.ReverseComplement(sequence, sequence) }
	passes := []struct {
		prepare func() error
		note    func(at int, bits float64)
	}{
		{func() error { return nil }, func(at int, bits float64) {
			rep.forward.add(bits)
			rec.forward[at/binBases].add(bits)
		}},
		{flip, func(at int, bits float64) {
			rep.reverse.add(bits)
			rec.reverse[(n-1-at)/binBases].add(bits)
		}},
		{func() error {
			err := flip() // back
			rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { sequence[i], sequence[j] = sequence[j], sequence[i] })
			return err
		}, func(_ int, bits float64) { rep.shuffled.add(bits) }},
	}
	p.begin(name, len(passes)*max(n-1, 0))
	begin := time.Now()
	for _, pass := range passes {
		if err := pass.prepare(); err != nil {
			return err
		}
		if err := surprise(ctx, m, sequence, window, p, pass.note); err != nil {
			return err
		}
	}
	rep.elapsed += time.Since(begin)
	return nil
}

func bins(n int) int { return (n + binBases - 1) / binBases }

// batchBases is how many bases go to the model at once, where windows are short.
const batchBases = 1 << 16

// surprise notes, for each base but the first, how many bits it took the model.
// The last base of a window predicts the first of the next one.
func surprise(ctx context.Context, m *dna.Model, sequence []byte, window int, p *progress, note func(at int, bits float64)) error {
	tokenizer := m.Tokenizer(dna.NoSpecial)
	for from := 0; from < len(sequence)-1; {
		var calls []*dna.Call
		first := from
		for ; from < len(sequence)-1 && (len(calls) == 0 || from+window-first <= batchBases); from += window {
			to := min(from+window, len(sequence)-1) // predictions; one base more is read
			tokens := tokenizer.Encode(string(sequence[from : to+1]))
			calls = append(calls, &dna.Call{
				Tokens: tokens[:to-from], Targets: tokens[1:],
				LogLikelihood: make([]float32, to-from),
			})
		}
		if err := m.RunBatch(ctx, calls); err != nil {
			return err
		}
		at := first + 1
		for _, c := range calls {
			for _, v := range c.LogLikelihood {
				note(at, -float64(v)/math.Ln2)
				at++
			}
		}
		p.add(at - 1 - first)
	}
	return nil
}
