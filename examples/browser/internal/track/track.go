// Package track reads a genome piece by piece and tells how surprised a model was by each base.
package track

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/subquad/subquad/hyena/dna"
)

// Reader reads genomes with a model.
type Reader struct {
	Model  *dna.Model
	Window int  // bases to a pass of the model
	Mask   bool // read letters that are no nucleotide code as N

	// Record is told of each record of the file as it begins, Piece of the bases that follow,
	// the surprise of each in bits: NaN for the first of a record and for letters that are no
	// bases. What Piece is given it may not keep.
	Record func(name string, bases int)
	Piece  func(letters []byte, bits []float32)
}

// mostBases bounds a record: a browser's memory holds it and its track.
const mostBases = 1 << 25

// Read reads a FASTA file, plain or gzip.
func (r *Reader) Read(ctx context.Context, file io.Reader) error {
	if longest := r.Model.Config().MaxLen; r.Window < 2 || r.Window > longest {
		return fmt.Errorf("a window of %d bases, want 2 to %d", r.Window, longest)
	}
	fasta, err := dna.NewReader(file)
	if err != nil {
		return err
	}
	fasta.Mask = r.Mask
	for records := 0; ; records++ {
		h, err := fasta.Next()
		if err == io.EOF {
			if records == 0 {
				return errors.New("no sequence")
			}
			return nil
		}
		if err != nil {
			return err
		}
		sequence, err := io.ReadAll(io.LimitReader(fasta, mostBases+1))
		if err != nil {
			return err
		}
		if len(sequence) > mostBases {
			return fmt.Errorf("record %.100q has more than %d bases, which take hours and more memory than a page has: cut it", h.Name, mostBases)
		}
		r.Record(h.Name, len(sequence))
		if err := r.read(ctx, sequence); err != nil {
			return err
		}
	}
}

// read reads a record. The last base of a pass is what the next one begins with, so that every
// base but the first is predicted once.
func (r *Reader) read(ctx context.Context, sequence []byte) error {
	if len(sequence) == 0 {
		return nil
	}
	r.Piece(sequence[:1], []float32{float32(math.NaN())})
	bits := make([]float32, r.Window+1)
	for from := 0; from < len(sequence)-1; from += r.Window {
		piece := sequence[from:min(from+r.Window+1, len(sequence))]
		bits := bits[:len(piece)]
		if err := r.Model.LogLikelihood(ctx, bits, piece, dna.ScanConfig{Window: r.Window}); err != nil {
			return err
		}
		for i, v := range bits {
			bits[i] = -v / math.Ln2
		}
		r.Piece(piece[1:], bits[1:])
	}
	return nil
}
