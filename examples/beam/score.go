package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"reflect"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/filter"

	"github.com/subquad/subquad/hyena/dna"
)

// scoring says how genomes are scored. It travels to the workers within the DoFns.
type scoring struct {
	Weights, Config string // files; none is the model that is built in
	Window          int    // bases to a pass of the model
	Stretch         int    // bases to an element of the pipeline, a multiple of Window
	Bin             int    // bases to a line of a bedGraph file
	Mask            bool   // read what is no nucleotide code as N
	Workers         int    // goroutines of the model, 0 for all processors
}

var scoreFlags scoring

func init() {
	f := &scoreFlags
	flags.StringVar(&f.Weights, "weights", "", "score: HyenaDNA checkpoint, a `file`, or a folder of this machine (default: a small model of E. coli, built in)")
	flags.StringVar(&f.Config, "config", "", "score: the checkpoint's config.json `file` (default: the one beside it, on this machine)")
	flags.IntVar(&f.Window, "window", 0, "score: bases to a pass of the model (default: 16384, or as many as the model takes)")
	flags.IntVar(&f.Stretch, "stretch", 0, "score: bases to an element, a multiple of -window (default: about 65536)")
	flags.IntVar(&f.Bin, "bin", 100, "score: bases to a line of a bedGraph file")
	flags.BoolVar(&f.Mask, "mask", false, "score: read letters that are no nucleotide code, * and ? as N")
}

// checked returns the scoring with its defaults, for a model of so many bases at the longest.
func (c scoring) checked(longest int) (scoring, error) {
	if c.Window < 2 || c.Window > longest {
		return c, fmt.Errorf("-window is %d, want 2 to the model's longest, %d", c.Window, longest)
	}
	if c.Stretch == 0 {
		c.Stretch = max(65536/c.Window, 1) * c.Window
	}
	switch {
	case c.Stretch < c.Window || c.Stretch%c.Window != 0:
		return c, fmt.Errorf("-stretch is %d, want a multiple of -window, %d", c.Stretch, c.Window)
	case c.Stretch > max(maxStretch, c.Window):
		return c, fmt.Errorf("-stretch is %d, want at most %d", c.Stretch, max(maxStretch, c.Window))
	case c.Bin < 1:
		return c, fmt.Errorf("-bin is %d, want 1 or more", c.Bin)
	}
	return c, nil
}

// maxStretch bounds what a worker holds of an element.
const maxStretch = 1 << 24

// Contig is one record of a FASTA file.
type Contig struct {
	File   string
	Number int64 // of the record in its file, from 1: names may come twice
	Name   string
}

// Stretch is what a worker scores at once: the bases of a contig from From on. But for the
// contig's first, its first base is the last of the stretch before, where it is counted.
type Stretch struct {
	Contig Contig
	From   int64
	Bases  []byte
}

// Score is what came of a stretch. Bits are counted in units of 2^-24, in integers: sums
// are then exact, and the same in whatever order and however grouped they are made.
type Score struct {
	Contig        Contig
	Bases         int64 // all letters
	FirstBin      int64
	Units, Scored []int64 // of each bin: bits, and bases that were predicted
}

// Tally is what is known of a contig, or of a part of it.
type Tally struct{ Bases, Scored, Units int64 }

// Dead is a file that could not be scored, and why.
type Dead struct{ File, Reason string }

const unitsPerBit = 1 << 24

func init() {
	for _, element := range []reflect.Type{
		reflect.TypeFor[Contig](), reflect.TypeFor[Stretch](), reflect.TypeFor[Score](), reflect.TypeFor[Tally](), reflect.TypeFor[Dead](),
	} {
		beam.RegisterType(element) // workers of other processes know types by name
	}
	beam.RegisterDoFn(reflect.TypeFor[matchFn]())
	beam.RegisterDoFn(reflect.TypeFor[cutFn]())
	beam.RegisterDoFn(reflect.TypeFor[scoreFn]())
	beam.RegisterFunction(tallyOf)
	beam.RegisterFunction(byFile)
	beam.RegisterFunction(addTallies)
}

// score scores the files of the patterns: a bedGraph file of each goes to the folder, and tables
// of all contigs and of the files that failed. scoreStep is a &scoreFn{}, or stands in for one.
// The tables have their names when the job is done, for a runner that gives a job up, as Prism
// does, may have gone on for a while without what was lost. Where there are contigs in
// them already, the folder has the results of another job, which are kept: that is an error.
func score(ctx context.Context, patterns []string, folder string, cfg scoring, scoreStep any) error {
	table := join(folder, contigsTable)
	if text, err := readFile(ctx, table); err == nil && bytes.Count(text, []byte("\n")) > 1 {
		return fmt.Errorf("%s has results already: remove it, or name another folder by -out", table)
	}
	err := run(ctx, func(s beam.Scope) { scorePipeline(s, patterns, folder, cfg, scoreStep) })
	for _, name := range []string{contigsTable, deadTable} {
		if err == nil {
			err = renameFile(ctx, join(folder, name+unfinished), join(folder, name))
		}
	}
	return err
}

func scorePipeline(s beam.Scope, patterns []string, folder string, cfg scoring, scoreStep any) {
	// Distinct: a file that two patterns name counts once.
	files := filter.Distinct(s, beam.ParDo(s, &matchFn{}, beam.CreateList(s, patterns)))
	stretches, sizes, dead := beam.ParDo3(s, &cutFn{cfg}, beam.Reshuffle(s, files))
	scores := beam.ParDo(s, scoreStep, beam.Reshuffle(s, stretches))
	tallies := beam.CombinePerKey(s, addTallies, beam.ParDo(s, tallyOf, scores))
	beam.ParDo0(s, &bedGraphFn{folder, cfg.Bin}, beam.CoGroupByKey(s, sizes, beam.ParDo(s, byFile, scores)))
	beam.ParDo0(s, &tablesFn{folder}, beam.Impulse(s), beam.SideInput{Input: tallies}, beam.SideInput{Input: dead})
}

// matchFn expands a pattern. One that matches nothing is passed on, for what reads it to say why.
type matchFn struct{}

func (*matchFn) ProcessElement(ctx context.Context, pattern string, emit func(string)) error {
	list, err := listFiles(ctx, pattern)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || len(list) == 0 {
		list = []string{pattern}
	}
	for _, file := range list {
		// A file has one name, of ./a.fa and a.fa. Where .. is behind a link, they are two.
		if isLocal(file) && !strings.Contains(file, "..") {
			file = path.Clean(file)
		}
		emit(file)
	}
	return nil
}

// cutFn cuts a FASTA file into stretches. A file counts whole or not at all: it is read once to
// see whether it can be, which costs little beside the model, and a second time to be cut. It
// also tells how many bases a file has, so that none can be lost on the way.
type cutFn struct{ Scoring scoring }

func (f *cutFn) ProcessElement(ctx context.Context, path string, emit func(Stretch), size func(string, int64), dead func(Dead)) error {
	records, bases := 0, int64(0)
	err := f.read(ctx, path, func(_ Contig, r io.Reader) error {
		n, err := io.Copy(io.Discard, r)
		records, bases = records+1, bases+n
		return err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && records == 0:
		err = errors.New("no record")
	}
	if err != nil {
		dead(Dead{path, err.Error()})
		return nil
	}
	size(path, bases)
	// What fails from here on fails the bundle, which the runner drops and runs again.
	return f.read(ctx, path, func(c Contig, r io.Reader) error { return f.cut(c, r, emit) })
}

// read calls each with the records of a file.
func (f *cutFn) read(ctx context.Context, path string, each func(Contig, io.Reader) error) error {
	file, err := openFile(ctx, path)
	if err != nil {
		return err
	}
	defer file.Close()
	fasta, err := dna.NewReader(file)
	if err != nil {
		return err
	}
	fasta.Mask = f.Scoring.Mask
	for number := int64(1); ; number++ {
		h, err := fasta.Next()
		if err == io.EOF {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := each(Contig{path, number, h.Name}, fasta); err != nil {
			return err
		}
	}
}

// cut emits the stretches of a record. Each reaches one base beyond the next multiple of Stretch,
// for a window's last base predicts the one behind it.
func (f *cutFn) cut(c Contig, r io.Reader, emit func(Stretch)) error {
	bases, from := make([]byte, 0, f.Scoring.Stretch+1), int64(0)
	for {
		n, err := r.Read(bases[len(bases):cap(bases)])
		bases = bases[:len(bases)+n]
		if err != nil && err != io.EOF {
			return err
		}
		if end := err == io.EOF; end || len(bases) == cap(bases) {
			if from == 0 || len(bases) > 1 {
				emit(Stretch{c, from, append([]byte(nil), bases...)})
			}
			if end {
				return nil
			}
			from += int64(len(bases) - 1)
			bases[0] = bases[len(bases)-1]
			bases = bases[:1]
		}
	}
}

// scoreFn scores stretches, with a model that all of a process share.
type scoreFn struct {
	Scoring scoring
	model   *dna.Model
}

func (f *scoreFn) Setup(ctx context.Context) (err error) {
	f.model, err = sharedModel(ctx, f.Scoring)
	return err
}

func (f *scoreFn) ProcessElement(ctx context.Context, s Stretch, emit func(Score)) error {
	nats := make([]float32, len(s.Bases))
	err := f.model.LogLikelihood(ctx, nats, s.Bases, dna.ScanConfig{Window: f.Scoring.Window})
	if err != nil {
		return err
	}
	emit(s.count(nats, int64(f.Scoring.Bin)))
	return nil
}

// count counts the bits of the bases that were predicted, of which a stretch's first never is.
func (s Stretch) count(nats []float32, bin int64) Score {
	first, bases := s.From, int64(len(nats))
	if s.From > 0 {
		first, bases = first+1, bases-1
	}
	score := Score{Contig: s.Contig, Bases: bases, FirstBin: first / bin}
	bins := int64(0)
	if bases > 0 {
		bins = (first+bases-1)/bin - score.FirstBin + 1
	}
	score.Units, score.Scored = make([]int64, bins), make([]int64, bins)
	for i, v := range nats {
		if v == v {
			b := (s.From+int64(i))/bin - score.FirstBin
			score.Units[b] += units(v)
			score.Scored[b]++
		}
	}
	return score
}

// units rounds the surprise of a log-likelihood, at most 1024 bits, to units.
func units(nats float32) int64 {
	return int64(math.RoundToEven(min(-float64(nats)/math.Ln2, 1024) * unitsPerBit))
}

// bits is the mean of scored bases in bits.
func bits(units, scored int64) float64 { return float64(units) / unitsPerBit / float64(scored) }

func tallyOf(s Score) (Contig, Tally) {
	t := Tally{Bases: s.Bases}
	for i := range s.Units {
		t = addTallies(t, Tally{Scored: s.Scored[i], Units: s.Units[i]})
	}
	return s.Contig, t
}

func addTallies(a, b Tally) Tally {
	return Tally{a.Bases + b.Bases, a.Scored + b.Scored, a.Units + b.Units}
}

func byFile(s Score) (string, Score) { return s.Contig.File, s }
