package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterDoFn(reflect.TypeFor[bedGraphFn]())
	beam.RegisterDoFn(reflect.TypeFor[tablesFn]())
}

// The names of the tables.
const (
	contigsTable = "contigs.tsv"
	deadTable    = "dead-letters.tsv"
	unfinished   = ".unfinished"
)

// bedGraphFn writes the bedGraph file of a FASTA file: the surprise of its contigs, a mean for
// each bin. It holds 16 bytes for each bin of the file. Bases that are missing, or there twice,
// are an error.
type bedGraphFn struct {
	Folder string
	Bin    int
}

func (f *bedGraphFn) ProcessElement(ctx context.Context, file string, sizes func(*int64) bool, scores func(*Score) bool) error {
	tracks := map[Contig]*Score{}
	var size, bases int64
	if !sizes(&size) || sizes(new(int64)) {
		return fmt.Errorf("%s: its size is not known, or known twice", file)
	}
	var s Score
	for scores(&s) {
		t := tracks[s.Contig]
		if t == nil {
			t = &Score{}
			tracks[s.Contig] = t
		}
		t.add(s)
		bases += s.Bases
		s = Score{}
	}
	if bases != size {
		return fmt.Errorf("%s: %d bases were scored, want %d", file, bases, size)
	}
	return writeFile(ctx, join(f.Folder, bedGraphName(file)), func(w io.Writer) error {
		return writeBedGraph(w, tracks, int64(f.Bin))
	})
}

// add adds another part of the contig to one that begins at bin 0.
func (t *Score) add(s Score) {
	t.Bases += s.Bases
	if need := int(s.FirstBin) + len(s.Units) - len(t.Units); need > 0 {
		t.Units = append(t.Units, make([]int64, need)...)
		t.Scored = append(t.Scored, make([]int64, need)...)
	}
	for i := range s.Units {
		t.Units[int(s.FirstBin)+i] += s.Units[i]
		t.Scored[int(s.FirstBin)+i] += s.Scored[i]
	}
}

func writeBedGraph(w io.Writer, tracks map[Contig]*Score, bin int64) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "track type=bedGraph name=\"surprise\" description=\"bits per base, means of %d bases\"\n", bin)
	for _, c := range sorted(tracks) {
		t := tracks[c]
		for i, n := range t.Scored {
			if n > 0 {
				from := int64(i) * bin
				fmt.Fprintf(b, "%s\t%d\t%d\t%.4f\n", c.label(), from, min(from+bin, t.Bases), bits(t.Units[i], n))
			}
		}
	}
	return b.Flush()
}

// label is a contig's name as a line of a bedGraph file may begin with.
func (c Contig) label() string {
	switch {
	case c.Name == "":
		return fmt.Sprintf("record_%d", c.Number)
	case c.Name[0] == '#' || c.Name == "track" || c.Name == "browser":
		return "_" + c.Name
	}
	return c.Name
}

// bedGraphName is the name of a FASTA file's bedGraph file: files of the same name in other
// folders have another.
func bedGraphName(file string) string {
	h := fnv.New64a()
	io.WriteString(h, file)
	return fmt.Sprintf("%s.%016x.bedgraph", path.Base(file), h.Sum64())
}

// sorted returns the contigs of a map file by file, in the order of their records.
func sorted[V any](m map[Contig]V) []Contig {
	list := make([]Contig, 0, len(m))
	for c := range m {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Contig) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Number, b.Number))
	})
	return list
}

// tablesFn writes the tables of all contigs, and of files that could not be scored.
type tablesFn struct{ Folder string }

func (f *tablesFn) ProcessElement(ctx context.Context, _ []byte, contigs func(*Contig, *Tally) bool, files func(*Dead) bool) error {
	tallies := map[Contig]Tally{}
	var c Contig
	var t Tally
	for contigs(&c, &t) {
		tallies[c] = t
	}
	var dead []Dead
	var d Dead
	for files(&d) {
		dead = append(dead, d)
	}
	slices.SortFunc(dead, func(a, b Dead) int { return strings.Compare(a.File, b.File) })
	return errors.Join(
		writeFile(ctx, join(f.Folder, contigsTable+unfinished), func(w io.Writer) error { return writeContigs(w, tallies) }),
		writeFile(ctx, join(f.Folder, deadTable+unfinished), func(w io.Writer) error { return writeDead(w, dead) }))
}

func writeContigs(w io.Writer, tallies map[Contig]Tally) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "file\trecord\tcontig\tbases\tscored\tbits_per_base")
	for _, c := range sorted(tallies) {
		t, mean := tallies[c], "-"
		if t.Scored > 0 {
			mean = fmt.Sprintf("%.6f", bits(t.Units, t.Scored))
		}
		fmt.Fprintf(b, "%s\t%d\t%s\t%d\t%d\t%s\n", field(c.File), c.Number, c.label(), t.Bases, t.Scored, mean)
	}
	return b.Flush()
}

func writeDead(w io.Writer, dead []Dead) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "file\treason")
	for _, d := range dead {
		fmt.Fprintf(b, "%s\t%s\n", field(d.File), field(d.Reason))
	}
	return b.Flush()
}

// field is text as a table's field may have it.
func field(text string) string {
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(text)
}

// scoreCommand scores the files, or phage lambda, and prints the tables.
func scoreCommand(ctx context.Context, patterns []string, stdout io.Writer) error {
	cfg := scoreFlags
	cfg.Workers = *workers
	if cfg.Config != "" && cfg.Weights == "" {
		return errors.New("-config is for a checkpoint, which -weights does not name")
	}
	// What is wrong with the checkpoint had better be told here than by a worker.
	m, err := sharedModel(ctx, cfg)
	if err != nil {
		return err
	}
	longest := m.Config().MaxLen
	if cfg.Window == 0 {
		cfg.Window = min(16384, longest)
	}
	if cfg, err = cfg.checked(longest); err != nil {
		return err
	}
	if len(patterns) == 0 {
		patterns = []string{builtIn}
	}
	if err := writable(ctx, *outDir); err != nil {
		return err
	}
	if err := score(ctx, patterns, *outDir, cfg, &scoreFn{Scoring: cfg}); err != nil {
		return err
	}
	var lines [2]int
	for i, name := range []string{contigsTable, deadTable} {
		text, err := readFile(ctx, join(*outDir, name))
		if err != nil {
			return err
		}
		if lines[i] = bytes.Count(text, []byte("\n")); name == deadTable && lines[i] == 1 {
			continue // its heading alone
		}
		fmt.Fprintf(stdout, "%s\n%s\n", join(*outDir, name), text)
	}
	if lines[0] == 1 && lines[1] > 1 {
		return errors.New("no file could be scored")
	}
	return nil
}
