package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/subquad/subquad/hyena/dna"
)

var small = scoring{Window: 256, Stretch: 512, Bin: 100, Workers: 1}

func init() { beam.RegisterDoFn(reflect.TypeFor[faultyScoreFn]()) }

// faultyScoreFn is scoreFn with faults.
type faultyScoreFn struct{ scoreFn }

func (f *faultyScoreFn) ProcessElement(ctx context.Context, s Stretch, emit func(Score)) error {
	fault()
	return f.scoreFn.ProcessElement(ctx, s, emit)
}

// genomes writes FASTA files with records of many lengths, at the borders of stretches among them.
func genomes(t *testing.T) (dir string, files []string) {
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	for i, lengths := range [][]int{{700, 1, 0, 513}, {512, 514, 1024}, {1025, 300}, {2000}} {
		var text bytes.Buffer
		for j, n := range lengths {
			fmt.Fprintf(&text, ">chr%d some description\n", j)
			for k := range n {
				text.WriteByte("ACGTacgtNR"[r.IntN(10)])
				if k%60 == 59 {
					text.WriteByte('\n')
				}
			}
			text.WriteByte('\n')
		}
		data, name := text.Bytes(), filepath.Join(dir, fmt.Sprintf("genome%d.fa", i))
		if i == 1 {
			data, name = packed(t, data), name+".gz"
		}
		write(t, name, data)
		files = append(files, name)
	}
	return dir, files
}

func packed(t *testing.T, text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(text)
	must(0, err)(t)
	must(0, w.Close())(t)
	return b.Bytes()
}

func write(t *testing.T, name string, data []byte) { must(0, os.WriteFile(name, data, 0o644))(t) }

// aloneScores scores files as one process does without Beam: records whole, base by base.
func aloneScores(t *testing.T, files []string, cfg scoring) (map[Contig]Tally, map[string]map[Contig]*Score) {
	m := must(sharedModel(context.Background(), cfg))(t)
	tallies, tracks := map[Contig]Tally{}, map[string]map[Contig]*Score{}
	for _, file := range files {
		tracks[file] = map[Contig]*Score{}
		f := must(openFile(context.Background(), file))(t)
		fasta := must(dna.NewReader(f))(t)
		for number := int64(1); ; number++ {
			h, err := fasta.Next()
			if err == io.EOF {
				break
			}
			bases := must(io.ReadAll(fasta))(t)
			must(h, err)(t)
			nats := make([]float32, len(bases))
			must(0, m.LogLikelihood(context.Background(), nats, bases, dna.ScanConfig{Window: cfg.Window}))(t)
			c := Contig{file, number, h.Name}
			tally, track := Tally{Bases: int64(len(bases))}, &Score{Bases: int64(len(bases))}
			for i, v := range nats {
				if i%cfg.Bin == 0 {
					track.Units, track.Scored = append(track.Units, 0), append(track.Scored, 0)
				}
				if v == v {
					track.Units[i/cfg.Bin] += units(v)
					track.Scored[i/cfg.Bin]++
					tally.Units, tally.Scored = tally.Units+units(v), tally.Scored+1
				}
			}
			tallies[c], tracks[file][c] = tally, track
		}
		f.Close()
	}
	return tallies, tracks
}

// checkScores compares a folder of results with those of one process, letter by letter.
func checkScores(t *testing.T, folder string, files []string, cfg scoring) {
	t.Helper()
	tallies, tracks := aloneScores(t, files, cfg)
	if list := must(filepath.Glob(filepath.Join(folder, "*.bedgraph")))(t); len(list) != len(files) {
		t.Errorf("%d bedGraph files, want %d: %q", len(list), len(files), list)
	}
	checkFile(t, folder, contigsTable, func(w io.Writer) error { return writeContigs(w, tallies) })
	checkBedGraphs(t, folder, tracks, cfg)
	if list := must(filepath.Glob(filepath.Join(folder, "*.part-*")))(t); len(list) > 0 {
		t.Errorf("parts were left: %q", list)
	}
}

// checkBedGraphs compares those bedGraph files that there are.
func checkBedGraphs(t *testing.T, folder string, tracks map[string]map[Contig]*Score, cfg scoring) {
	t.Helper()
	for file, tracks := range tracks {
		if _, err := os.Stat(filepath.Join(folder, bedGraphName(file))); err == nil {
			checkFile(t, folder, bedGraphName(file), func(w io.Writer) error { return writeBedGraph(w, tracks, int64(cfg.Bin)) })
		}
	}
}

func checkFile(t *testing.T, folder, name string, write func(io.Writer) error) {
	t.Helper()
	var want bytes.Buffer
	must(0, write(&want))(t)
	if got := must(os.ReadFile(filepath.Join(folder, name)))(t); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want.Bytes())
	}
}

func runScore(folder string, patterns []string, scoreStep any) error {
	return score(context.Background(), patterns, folder, small, scoreStep)
}

// TestScore: the results are those of one process to the bit; files that cannot be read are named
// with their reason, and keep no other from being scored; a file that is named twice counts once;
// the model is loaded once.
func TestScore(t *testing.T) {
	dir, files := genomes(t)
	good := must(os.ReadFile(files[0]))(t)
	bad := map[string]string{"fastq.fa": "FASTQ", "letters.fa": "no nucleotide code", "cut.fa.gz": "unexpected EOF", "empty.fa": "no record", "missing.fa": "no such file", "folder.fa": "want a file"}
	write(t, filepath.Join(dir, "fastq.fa"), []byte("@read\nACGT\n+\nIIII\n"))
	write(t, filepath.Join(dir, "letters.fa"), append(good, "\n>late\nACGT!\n"...))
	zipped := packed(t, good)
	write(t, filepath.Join(dir, "cut.fa.gz"), zipped[:len(zipped)/2])
	write(t, filepath.Join(dir, "empty.fa"), nil)
	must(0, os.Mkdir(filepath.Join(dir, "folder.fa"), 0o755))(t)
	out := t.TempDir()
	before := models.loads
	patterns := []string{filepath.Join(dir, "*.fa"), filepath.Join(dir, "*.fa.gz"), files[2], filepath.Join(dir, "missing.fa")}
	must(0, runScore(out, patterns, &scoreFn{Scoring: small}))(t)
	if loads := models.loads - before; loads > 1 {
		t.Errorf("the model was loaded %d times", loads)
	}
	checkScores(t, out, files, small)
	table := string(must(os.ReadFile(filepath.Join(out, deadTable)))(t))
	if n := strings.Count(table, "\n"); n != 1+len(bad) {
		t.Errorf("%d dead letters, want %d", n-1, len(bad))
	}
	for name, reason := range bad {
		_, line, _ := strings.Cut(table, filepath.Join(dir, name)+"\t")
		line, _, _ = strings.Cut(line, "\n")
		if !strings.Contains(line, reason) {
			t.Errorf("%s: the reason is %q, want it to say %q", name, line, reason)
		}
	}
	t.Log(table)
}

// TestScoreSplits has a file's opening, and a stretch's scoring, wait until the runner divides the
// bundle that it is in.
func TestScoreSplits(t *testing.T) {
	_, files := genomes(t)
	patterns := make([]string, len(files))
	for i, file := range files {
		patterns[i] = "faulty://" + file
	}
	for name, step := range map[string]any{"files": &scoreFn{Scoring: small}, "stretches": &faultyScoreFn{scoreFn{Scoring: small}}} {
		t.Run(name, func(t *testing.T) {
			list := patterns
			if name == "stretches" {
				list = files
			}
			withFault(t, inTwo())
			out := t.TempDir()
			must(0, runScore(out, list, step))(t)
			noFault()
			checkScores(t, out, list, small)
		})
	}
}

// TestScoreFails: where a DoFn panics Prism gives the job up. There are no tables then, a bedGraph
// file is whole or not there, and the same process runs the job again as if nothing had been.
func TestScoreFails(t *testing.T) {
	_, files := genomes(t)
	for name, patterns := range map[string][]string{"cut": {"faulty://" + files[0], "faulty://" + files[3]}, "score": files} {
		t.Run(name, func(t *testing.T) {
			withFault(t, onceAfter(3))
			out := t.TempDir()
			err := runScore(out, patterns, &faultyScoreFn{scoreFn{Scoring: small}})
			if err == nil {
				t.Fatal("no error")
			}
			noFault()
			if _, err := os.Stat(filepath.Join(out, contigsTable)); !os.IsNotExist(err) {
				t.Errorf("a job that failed left a table: error %v", err)
			}
			_, tracks := aloneScores(t, patterns, small)
			checkBedGraphs(t, out, tracks, small)
			must(0, runScore(out, patterns, &faultyScoreFn{scoreFn{Scoring: small}}))(t)
			checkScores(t, out, patterns, small)
		})
	}
}

// TestScoreRetries runs the DoFns in bundles that fail half-way and are run again: what comes of
// each, and the tally of each contig, is what one process counts.
func TestScoreRetries(t *testing.T) {
	_, files := genomes(t)
	tallies, tracks := aloneScores(t, files, small)
	cut, score := &cutFn{small}, &scoreFn{Scoring: small}
	must(0, score.Setup(context.Background()))(t)
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		stretches := bundles(t, r, files, func(file string, emit func(Stretch)) error {
			return cut.ProcessElement(context.Background(), file, emit, func(string, int64) {}, func(d Dead) { t.Error(d) })
		})
		scores := bundles(t, r, stretches, func(s Stretch, emit func(Score)) error {
			return score.ProcessElement(context.Background(), s, emit)
		})
		parts, got := map[Contig][]Tally{}, map[Contig]*Score{}
		for _, s := range scores {
			c, tally := tallyOf(s)
			parts[c] = append(parts[c], tally)
			if got[c] == nil {
				got[c] = &Score{}
			}
			got[c].add(s)
		}
		add := func(a, b Tally) (Tally, error) { return addTallies(a, b), nil }
		for c, want := range tallies {
			if sum := combined(t, r, parts[c], add, add); sum != want {
				t.Errorf("%v: %v, want %v", c, sum, want)
			}
			if track := tracks[c.File][c]; !slices.Equal(got[c].Units, track.Units) || !slices.Equal(got[c].Scored, track.Scored) {
				t.Errorf("%v: bins differ", c)
			}
		}
	}
}

// TestBedGraphRefuses: a file of which bases are missing, or there twice, is not written.
func TestBedGraphRefuses(t *testing.T) {
	f := &bedGraphFn{t.TempDir(), 100}
	for _, sizes := range [][]int64{{}, {99}, {101}, {100, 100}, {100}} {
		scores := []Score{{Contig: Contig{"x", 1, "a"}, Bases: 100, Units: []int64{1}, Scored: []int64{1}}}
		err := f.ProcessElement(context.Background(), "x", each(sizes), each(scores))
		if want := len(sizes) != 1 || sizes[0] != 100; (err != nil) != want {
			t.Errorf("sizes %v: error %v", sizes, err)
		}
	}
}

func TestScoreMistakes(t *testing.T) {
	for _, c := range []scoring{{Window: 1}, {Window: 1001, Bin: 1}, {Window: 100, Stretch: 150, Bin: 1}, {Window: 100, Stretch: 50, Bin: 1}, {Window: 100}} {
		if _, err := c.checked(1000); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

// TestWriteFile: a file that cannot be written whole is not there, nor a part of it.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	err := writeFile(context.Background(), filepath.Join(dir, "x"), func(w io.Writer) error {
		w.Write([]byte("half"))
		return io.ErrShortWrite
	})
	if list, _ := os.ReadDir(dir); err == nil || len(list) > 0 {
		t.Errorf("error %v, left %v", err, list)
	}
}
