package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/subquad/subquad/examples/internal/program"
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

// scorer reads genomes.
type scorer struct {
	model    *dna.Model
	window   int  // bases to a pass of the model
	mask     bool // read what is no nucleotide code as N
	progress *program.Progress
}

// read scores all records of a FASTA file.
func (s *scorer) read(ctx context.Context, r io.Reader) (*report, error) {
	defer s.progress.End()
	fasta, err := dna.NewReader(r)
	if err != nil {
		return nil, err
	}
	fasta.Mask = s.mask
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
			if errors.Is(err, dna.ErrFASTA) && !s.mask {
				err = fmt.Errorf("%w; -mask reads letters that are none, * and ? as N", err)
			}
			return nil, err
		}
		rep.composition = sum(rep.composition, fasta.Composition())
		if err := s.score(ctx, rep, recordName(h.Name, len(rep.records)+1), sequence); err != nil {
			return nil, err
		}
	}
	if rep.forward.count == 0 {
		return nil, errors.New("no sequence of two bases or more")
	}
	return rep, nil
}

// recordName returns the name of the record of that number as a bedGraph file can have it: such
// a line has a name, and is not read as a comment or as a line that is about the file.
func recordName(name string, number int) string {
	switch {
	case name == "":
		return fmt.Sprintf("record_%d", number)
	case name[0] == '#' || name == "track" || name == "browser":
		return "_" + name
	}
	return name
}

func sum(a, b dna.Composition) dna.Composition {
	return dna.Composition{
		Bases: a.Bases + b.Bases, Lower: a.Lower + b.Lower,
		N: a.N + b.N, IUPAC: a.IUPAC + b.IUPAC, Uracil: a.Uracil + b.Uracil, Gap: a.Gap + b.Gap, Masked: a.Masked + b.Masked,
	}
}

// score scores a record, its reverse complement and a shuffle of its bases; it uses sequence up.
func (s *scorer) score(ctx context.Context, rep *report, name string, sequence []byte) error {
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
			shuffle(sequence)
			return err
		}, func(_ int, bits float64) { rep.shuffled.add(bits) }},
	}
	s.progress.Begin(name, len(passes)*max(n-1, 0))
	begin := time.Now()
	for _, pass := range passes {
		if err := pass.prepare(); err != nil {
			return err
		}
		if err := s.surprise(ctx, sequence, pass.note); err != nil {
			return err
		}
	}
	rep.elapsed += time.Since(begin)
	return nil
}

// shuffle puts the bases of a sequence in another order; other letters stay where they are.
func shuffle(sequence []byte) {
	bases := make([]byte, 0, len(sequence))
	for _, c := range sequence {
		if isBase(c) {
			bases = append(bases, c)
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(bases), func(i, j int) { bases[i], bases[j] = bases[j], bases[i] })
	for i, c := range sequence {
		if isBase(c) {
			sequence[i], bases = bases[0], bases[1:]
		}
	}
}

func isBase(c byte) bool { return c == 'A' || c == 'C' || c == 'G' || c == 'T' }

func bins(n int) int { return (n + binBases - 1) / binBases }

// batchBases is how many bases go to the model at once, where windows are short.
const batchBases = 1 << 16

// surprise notes, for each base but the first, how many bits it took the model. The last
// base of a window predicts the first of the next one. Letters that are not A, C, G or T are
// no bases that a model could guess; it reads them, and what it says of them counts nowhere.
func (s *scorer) surprise(ctx context.Context, sequence []byte, note func(at int, bits float64)) error {
	tokenizer := s.model.Tokenizer(dna.NoSpecial)
	for from := 0; from < len(sequence)-1; {
		var calls []*dna.Call
		first := from
		for ; from < len(sequence)-1 && (len(calls) == 0 || from+s.window-first <= batchBases); from += s.window {
			to := min(from+s.window, len(sequence)-1) // predictions; one base more is read
			tokens := tokenizer.Encode(string(sequence[from : to+1]))
			calls = append(calls, &dna.Call{
				Tokens: tokens[:to-from], Targets: targets(tokens[1:], sequence[from+1:]),
				LogLikelihood: make([]float32, to-from),
			})
		}
		if err := s.model.RunBatch(ctx, calls); err != nil {
			return err
		}
		at := first + 1
		for _, c := range calls {
			for i, v := range c.LogLikelihood {
				if c.Targets[i] >= 0 {
					note(at, -float64(v)/math.Ln2)
				}
				at++
			}
		}
		s.progress.Add(at - 1 - first)
	}
	return nil
}

// targets returns tokens, with -1 for those whose letters are no bases.
func targets(tokens []int32, letters []byte) []int32 {
	list := slices.Clone(tokens)
	for i := range list {
		if !isBase(letters[i]) {
			list[i] = -1
		}
	}
	return list
}
