package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program/programtest"
	"github.com/subquad/subquad/internal/isa/isatest"
	safetensors "github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/maelre"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expected is what a reference in float64 gives, and marks what has been read.
type expected struct {
	t    *testing.T
	file *safetensors.File
	read map[string]bool
}

func openExpected(t *testing.T) *expected {
	t.Helper()
	f, err := safetensors.Open("testdata/expected.safetensors")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return &expected{t, f, map[string]bool{}}
}

func (e *expected) tensor(name string) *safetensors.Tensor {
	e.t.Helper()
	e.read[name] = true
	tensor := e.file.Tensor(name)
	if tensor == nil {
		e.t.Fatalf("no tensor %s", name)
	}
	return tensor
}

func (e *expected) floats(name string) []float64 {
	e.t.Helper()
	v, err := e.tensor(name).Float64()
	must(e.t, err)
	return v
}

func (e *expected) ints(name string) []int {
	e.t.Helper()
	v, err := e.tensor(name).Int64()
	must(e.t, err)
	list := make([]int, len(v))
	for i := range v {
		list[i] = int(v[i])
	}
	return list
}

// compare returns the largest difference.
func (e *expected) compare(name string, got []float32, tol float64) (largest float64) {
	e.t.Helper()
	want := e.floats(name)
	if len(got) == 0 || len(got) > len(want) {
		e.t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	for i, w := range want[:len(got)] { // of the first passages
		d := math.Abs(float64(got[i]) - w)
		if !(d <= tol) {
			e.t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
		largest = max(largest, d)
	}
	return largest
}

// given merges by the token maps that it is given, so that ties that rounding
// decides do not matter.
type given struct {
	maps [][]int32
	next int
}

func (g *given) Run(_ context.Context, call *merge.Call) error {
	index := g.maps[g.next]
	g.next++
	return call.Plan.SetMap(index, int(slices.Max(index))+1)
}

// TestExpected compares with the reference: logits and pooled tokens of forty
// passages (of fewer where that takes long), tokens of each layer, and, given its
// token maps, what is left of two.
func TestExpected(t *testing.T) {
	m, err := openModel()
	must(t, err)
	d, err := readData()
	must(t, err)
	isatest.Run(t, func(t *testing.T) {
		e := openExpected(t)
		classes := len(d.Classes)
		for _, c := range []struct {
			name   string
			ratios []float64
			tol    float64 // README: near-ties fall one way or the other
		}{{"trained", []float64{.5}, .15}, {"no_merge", nil, 1e-4}, {"bsm_0.25", []float64{.25}, 1e-3}} {
			enc, err := m.encoder(method{ratios: c.ratios}, 0)
			must(t, err)
			var logits, pooled []float32
			var entry, out []int
			passages := len(e.floats("expected."+c.name+".logits")) / classes
			if testing.Short() || asm.Active() == "generic" {
				passages = 3
			}
			for i := range passages {
				call := maelre.Call{X: m.embed(d.Passages[i].Text), Logits: vector(classes), Pooled: vector(enc.Dim())}
				call.Observe = func(s maelre.Stage) {
					if s.Plan != nil && i == 0 {
						entry, out = append(entry, s.Plan.Tokens()), append(out, s.Plan.Len())
					}
				}
				must(t, enc.Run(t.Context(), &call))
				logits, pooled = append(logits, call.Logits.Data...), append(pooled, call.Pooled.Data...)
			}
			t.Logf("%s: logits differ by at most %.2g", c.name, e.compare("expected."+c.name+".logits", logits, c.tol))
			e.compare("expected."+c.name+".pooled", pooled, c.tol)
			for name, got := range map[string][]int{"tokens_entry": entry, "tokens_out": out} {
				if want := e.ints("expected." + c.name + "." + name); !slices.Equal(got, want) {
					t.Errorf("%s %s is %v, want %v", c.name, name, got, want)
				}
			}
		}
		for p := range 2 {
			name := func(what string) string { return fmt.Sprintf("expected.p%d.%s", p, what) }
			x := m.embed(d.Passages[p].Text)
			rows := e.tensor(name("embed_rows")).Shape[0]
			e.compare(name("embed_rows"), x.Data[:rows*x.Cols], 1e-6)
			maps := &given{}
			for layer := 0; e.file.Tensor(name(fmt.Sprintf("token_map%d", layer))) != nil; layer++ {
				var index []int32
				for _, j := range e.ints(name(fmt.Sprintf("token_map%d", layer))) {
					index = append(index, int32(j))
				}
				maps.maps = append(maps.maps, index)
			}
			own, err := m.encoder(method{ratios: []float64{.5}}, 0)
			must(t, err)
			must(t, own.Run(t.Context(), &maelre.Call{X: x, Observe: func(s maelre.Stage) {
				if s.Layer > 0 {
					return // ties that fell otherwise have changed the tokens
				}
				differ := 0
				for i, j := range s.Plan.Map() {
					if j != maps.maps[0][i] {
						differ++
					}
				}
				t.Logf("passage %d: %d of %d tokens merge otherwise in the first layer", p, differ, x.Rows)
				if differ > 8 {
					t.Errorf("passage %d: %d tokens merge otherwise in the first layer, want at most 8", p, differ)
				}
			}}))
			enc, err := maelre.Read(bytes.NewReader(checkpoint), int64(len(checkpoint)), maelre.Config{Heads: heads, Matching: maps, Ratios: []float64{.5}})
			must(t, err)
			call := maelre.Call{X: x, Logits: vector(classes), Observe: func(s maelre.Stage) {
				if s.Plan != nil && s.Layer == enc.Layers()-1 {
					e.compare(name("size_last"), s.Sizes, 0)
					e.compare(name("out_last"), s.X.Data[:s.X.Rows*s.X.Cols], 1e-4)
				}
			}}
			must(t, enc.Run(t.Context(), &call))
			want := e.floats("expected.trained.logits")[p*classes:][:classes]
			for i, w := range want {
				if d := math.Abs(float64(call.Logits.Data[i]) - w); !(d < 1e-4) {
					t.Errorf("passage %d with its token maps: logit %d is %v, want %v", p, i, call.Logits.Data[i], w)
				}
			}
		}
		for _, name := range e.file.Names() {
			if !e.read[name] && name != "labels" && !strings.HasPrefix(name, "predictions.") { // TestAccuracy has them
				t.Errorf("%s was not read", name)
			}
		}
	})
}

// TestAccuracy counts the passages that are classified rightly, and compares with
// the predictions of the reference.
func TestAccuracy(t *testing.T) {
	m, err := openModel()
	must(t, err)
	d, err := readData()
	must(t, err)
	e := openExpected(t)
	labels := e.ints("labels")
	for i, p := range d.Passages {
		if p.Label != labels[i] {
			t.Fatalf("passage %d is of %d, want %d", i, p.Label, labels[i])
		}
	}
	predictions := map[string]string{
		"no merging": "no_merge", "ToMe .25": "bsm_0.25", trained: "trained", "local .50": "local16_0.50", "average of 2": "avg_on_main",
	}
	tokens := map[string]int{"no merging": 7 * passageBytes, "ToMe .10": 10692, "ToMe .25": 7099, trained: 4064, "local .50": 4064, "average of 2": 4064}
	for _, how := range methods {
		passages := d.Passages
		if how.name != trained && how.name != "average of 2" { // which take longer, and tell less
			passages = passages[:40]
		}
		if testing.Short() || asm.Active() == "generic" {
			passages = passages[:5]
		}
		results, err := compare(t.Context(), m, []method{how}, passages, 0)
		must(t, err)
		r := results[0]
		if want := tokens[how.name]; r.layers != 7 || want > 0 && r.tokens != want {
			t.Errorf("%s: %d tokens entered %d layers, want %d of 7", r.name, r.tokens, r.layers, want)
		}
		if predictions[how.name] == "" {
			t.Logf("%s: %d of %d; the reference has no predictions", r.name, r.right, r.of)
			continue
		}
		want := e.ints("predictions." + predictions[how.name])
		right, differ := 0, 0
		for p := range passages {
			if want[p] == labels[p] {
				right++
			}
			if r.predicted[p] != want[p] {
				differ++
			}
		}
		t.Logf("%s: %d of %d, the reference %d; %d predictions differ", r.name, r.right, r.of, right, differ)
		if differ > 2 || r.right < right-2 {
			t.Errorf("%s: %d of %d, the reference %d; %d predictions differ, want at most 2", r.name, r.right, r.of, right, differ)
		}
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	letter := filepath.Join(dir, "letter.txt")
	must(t, os.WriteFile(letter, []byte("Paul, an apostle of Jesus Christ, unto the church: grace and peace.\n"), 0o600))
	empty := filepath.Join(dir, "empty.txt")
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-n", "2", "-out", out}, []string{"2 passages of 2048 bytes, 5 sections", "\nno merging ", "\naverage of 2 ", "it is from pentateuch", "2048 1024 512 256 128 64 32 16. Bytes", "wrote " + out + ".png\n"}},
		{[]string{"-n", "0", "-text", letter, "-out", out}, []string{"A passage of 68 bytes", "is taken for new_testament", "68 34 17 9 5 3 2 1. Bytes"}},
	} {
		var stdout bytes.Buffer
		must(t, command(t.Context(), c.args, &stdout, io.Discard))
		programtest.Prints(t, stdout.String(), c.want...)
		programtest.Pictures(t, out+".png")
	}
	programtest.Errors(t, command, map[string][]string{
		`unexpected argument "x"`:                            {"x"},
		"-n is 201, want 0 to 200":                           {"-n", "201"},
		"-passage is -1, want 0 to 199":                      {"-passage", "-1"},
		empty + " is empty":                                  {"-text", empty},
		"open no.txt: no such file or directory":             {"-text", "no.txt"},
		"merge: Workers is -1, want 0 to 65536":              {"-n", "0", "-workers", "-1"},
		"open " + out + "/no.png: no such file or directory": {"-n", "0", "-out", out + "/no"},
	})
}

// BenchmarkEncode is one passage of 2048 bytes.
func BenchmarkEncode(b *testing.B) {
	m, err := openModel()
	must(b, err)
	d, err := readData()
	must(b, err)
	x := m.embed(d.Passages[0].Text)
	for _, how := range methods {
		b.Run(how.name, func(b *testing.B) {
			enc, err := m.encoder(how, 1)
			must(b, err)
			out := blas32.General{Rows: 1, Cols: enc.Classes(), Stride: enc.Classes(), Data: make([]float32, enc.Classes())}
			must(b, enc.Forward(out, x))
			b.ReportAllocs()
			for b.Loop() {
				must(b, enc.Forward(out, x))
			}
			b.ReportMetric(float64(x.Rows)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "classify", command) }
