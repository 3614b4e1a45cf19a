package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/ecoli"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/examples/internal/program/programtest"
	"github.com/subquad/subquad/hyena/dna"
	"github.com/subquad/subquad/internal/isa/isatest"
	safetensors "github.com/subquad/subquad/internal/weights"
)

func builtIn(t *testing.T) *dna.Model {
	t.Helper()
	m, err := ecoli.Open("", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func scored(t *testing.T, r io.Reader, window int, mask bool) (*report, error) {
	t.Helper()
	s := scorer{model: builtIn(t), window: window, mask: mask, progress: new(program.Progress)}
	return s.read(t.Context(), r)
}

// TestNoBases scores only letters that are bases: runs of N, single ones, and RNA.
func TestNoBases(t *testing.T) {
	if asm.Active() == "generic" {
		t.Skip("takes minutes")
	}
	text, err := os.ReadFile("testdata/n10k_lambda20k.fa")
	if err != nil {
		t.Fatal(err)
	}
	bases := strings.ReplaceAll(strings.TrimPrefix(string(text), ">l\n"), "\n", "")[10000 : 20000+10000]
	holes := []byte(bases)
	for i := range len(holes) / 100 {
		holes[rand.New(rand.NewPCG(1, uint64(i))).IntN(len(holes))] = 'N'
	}
	for _, c := range []struct {
		name, text       string
		mask             bool
		forward, reverse float64 // of the reverse strand 0 for what is not known
		tol              float64
	}{
		{"10,000 N before", string(text), false, 1.90668, 0, 1e-4},
		{"lambda", ">l\n" + bases, false, 1.90596, 1.907, 1e-4},
		{"RNA", ">l\n" + strings.ReplaceAll(bases, "T", "U"), false, 1.90596, 1.907, 1e-4},
		{"1 % N", ">l\n" + string(holes), false, 1.918, 0, 3e-3},
		{"1 % X", ">l\n" + strings.ReplaceAll(string(holes), "N", "X"), true, 1.918, 0, 3e-3},
	} {
		rep, err := scored(t, strings.NewReader(c.text), 1024, c.mask)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.5f, %.5f, %.5f", c.name, rep.forward.value(), rep.reverse.value(), rep.shuffled.value())
		if got := rep.forward.value(); !(math.Abs(got-c.forward) < c.tol) {
			t.Errorf("%s: %.5f bits per base, want %.5f", c.name, got, c.forward)
		}
		if got := rep.reverse.value(); c.reverse > 0 && !(math.Abs(got-c.reverse) < 5e-4) {
			t.Errorf("%s: %.5f bits per base of the other strand, want %.5f", c.name, got, c.reverse)
		}
	}
}

// TestBits compares with the bits per base that the official code finds in float64.
func TestBits(t *testing.T) {
	text, err := os.ReadFile("testdata/expected_bits.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected map[string]float64
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	genomes := map[string]string{"lambda": "", "phix174": "testdata/phix174_NC_001422.fna.gz", "human_mt": "testdata/human_mt_NC_012920.fa.gz"}
	isatest.Run(t, func(t *testing.T) {
		for name, path := range genomes {
			if asm.Active() == "generic" && name != "phix174" {
				t.Log("left out, for it takes minutes:", name)
				continue
			}
			for _, window := range []int{1024, 16384} {
				_, r, err := openGenome(path)
				if err != nil {
					t.Fatal(err)
				}
				rep, err := scored(t, r, window, false)
				r.Close()
				if err != nil {
					t.Fatal(err)
				}
				for key, got := range map[string]float64{
					"%s@%d": rep.forward.value(), "%s_reverse_complement@%d": rep.reverse.value(),
				} {
					key = fmt.Sprintf(key, name, window)
					if want, ok := expected[key]; ok && !(math.Abs(got-want) < 1e-4) {
						t.Errorf("%s: %.5f bits per base, want %.5f", key, got, want)
					}
				}
				if got, want := rep.shuffled.value(), expected[fmt.Sprintf("lambda_shuffled_example@%d", window)]; name == "lambda" && math.Abs(got-want) > 5e-3 {
					t.Errorf("window %d: %.5f bits per base of a shuffle, the example had %.5f", window, got, want)
				}
			}
		}
	})
}

// TestModel compares hidden states, logits and likelihoods with the official
// code's, in float64.
func TestModel(t *testing.T) {
	f, err := safetensors.Open("testdata/expected.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := func(name string) []float64 {
		v, err := f.Tensor(name).Float64()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	ids, err := f.Tensor("input_ids").Int64()
	if err != nil {
		t.Fatal(err)
	}
	isatest.Run(t, func(t *testing.T) {
		m := builtIn(t)
		n, cfg := len(ids), m.Config()
		call := &dna.Call{
			Hidden: blas32.General{Rows: n, Cols: cfg.Dim, Stride: cfg.Dim, Data: make([]float32, n*cfg.Dim)},
			Logits: blas32.General{Rows: n, Cols: cfg.Vocab, Stride: cfg.Vocab, Data: make([]float32, n*cfg.Vocab)},
		}
		for _, id := range ids {
			call.Tokens = append(call.Tokens, int32(id))
		}
		if err := m.Run(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		near(t, "hidden states", call.Hidden.Data, want("last_hidden_state"), 5e-4)
		near(t, "logits", call.Logits.Data, want("lm_logits"), 1e-3)
		if asm.Active() == "generic" {
			t.Log("left out, for it takes minutes: a window of 16384")
			return
		}
		// The first 4096 predictions of a window of 16384.
		fasta, err := dna.NewReader(bytes.NewReader(ecoli.Lambda))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fasta.Next(); err != nil {
			t.Fatal(err)
		}
		sequence := make([]byte, 16384)
		if _, err := io.ReadFull(fasta, sequence); err != nil {
			t.Fatal(err)
		}
		ll := make([]float32, len(sequence)-1)
		if err := m.Run(t.Context(), &dna.Call{Tokens: m.Tokenizer(dna.NoSpecial).Encode(string(sequence)), LogLikelihood: ll}); err != nil {
			t.Fatal(err)
		}
		for i := range ll {
			ll[i] = -ll[i]
		}
		near(t, "likelihoods", ll, want("nll_lambda_first_4096_window_16384"), 1e-3)
	})
}

func near(t *testing.T, name string, got []float32, want []float64, tol float64) {
	t.Helper()
	if len(want) == 0 {
		t.Fatalf("%s: nothing to compare with", name)
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tol*(1+math.Abs(w))) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	out := filepath.Join(dir, "out")
	two := path("two.fa", ">one\n"+strings.Repeat("ACGTN", 130)+"\n>empty\n>two x\nacgtRU\n")
	var stdout, stderr bytes.Buffer
	if err := command(t.Context(), []string{"-fasta", two, "-window", "300", "-out", out, "-workers", "1"}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(),
		"two.fa: 656 bases, windows of 300, ", "130 N, 1 other codes, 1 U (read as T), 0 gaps, 0 that are no code (read as N); 4 in lower case", "  its reverse complement\n",
		"wrote "+out+".png and "+out+".bedgraph\n",
	)
	if stderr.Len() > 0 {
		t.Errorf("on standard error: %q", stderr.String())
	}
	bed, err := os.ReadFile(out + ".bedgraph")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(bed)), "\n"); len(lines) != 1+7+1 || !strings.HasPrefix(lines[7], "one\t600\t650\t") || !strings.HasPrefix(lines[8], "two\t0\t6\t") {
		t.Errorf("bedGraph %q", bed)
	}
	programtest.Pictures(t, out+".png")
	odd := filepath.Join(dir, "odd")
	names := ">\nACGT\n> \nGGA\n>track x\nACC\n>#1\nACX\n>l o\nAC\n"
	if err := command(t.Context(), []string{"-fasta", path("names.fa", names), "-mask", "-out", odd}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if bed, err = os.ReadFile(odd + ".bedgraph"); err != nil {
		t.Fatal(err)
	}
	begins := []string{"track type", "record_1\t0\t4\t", "record_2\t0\t3\t", "_track\t0\t3\t", "_#1\t0\t3\t", "l\t0\t2\t"}
	for i, line := range strings.Split(strings.TrimSpace(string(bed)), "\n") {
		if i >= len(begins) || !strings.HasPrefix(line, begins[i]) {
			t.Errorf("line %d of the bedGraph file: %q", i, line)
		}
	}
	// Nothing is computed for files that cannot be written.
	if err := command(t.Context(), []string{"-fasta", path("bad.fa", "hello"), "-out", "/nosuch/dir/x"}, io.Discard, io.Discard); err == nil || err.Error() != "open /nosuch/dir/x.bedgraph: no such file or directory" {
		t.Errorf("error %v", err)
	}
	for want, args := range map[string][]string{
		"n.fa: no sequence of two bases or more": {"-fasta", path("n.fa", ">n\nNNNNN\n")},
		"x.fa: dna: FASTA, line 2: 'X' is no nucleotide code; -mask reads letters that are none, * and ? as N": {"-fasta", path("x.fa", ">a\nACXT\n")},
		`fastq.fa: dna: FASTA, line 1: '@' before the first ">": this is a FASTQ file`:                         {"-fasta", path("fastq.fa", "@a\nAC\n+\nII\n")},
		"-window is 16387, want 1 to the model's longest, 16386":                                               {"-window", "16387"},
		"-window is -1, want 1 to the model's longest, 16386":                                                  {"-window", "-1"},
		`unexpected argument "lambda.fa"`:                                                                      {"lambda.fa"},
		"empty.fa: no sequence of two bases or more":                                                           {"-fasta", path("empty.fa", "")},
		"one.fa: no sequence of two bases or more":                                                             {"-fasta", path("one.fa", ">one\nA\n")},
		`text.fa: dna: FASTA, line 1: 'h' before the first ">"`:                                                {"-fasta", path("text.fa", "hello")},
		"open " + dir + "/none.fa: no such file or directory":                                                  {"-fasta", dir + "/none.fa"},
		"dna: Workers is -3, want 0 to 65536":                                                                  {"-workers", "-3"},
		"dna: config.json: unexpected end of JSON input":                                                       {"-config", path("bad.json", "")},
		"dna: open " + dir + "/none: no such file or directory":                                                {"-weights", dir + "/none", "-config", path("empty.json", "{}")},
	} {
		err := command(t.Context(), append(args, "-out", out), io.Discard, io.Discard)
		if err == nil || err.Error() != want {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
	wrong := path("model.safetensors", "no checkpoint")
	if err := command(t.Context(), []string{"-weights", wrong, "-config", path("c.json", "{}")}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "genome", command) }
