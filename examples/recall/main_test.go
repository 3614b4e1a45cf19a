package main

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program/programtest"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// published is what the official code's formulas recall in float64, of 800 questions.
var published = map[string]map[int]float64{
	vanilla:    {128: 0.999, 256: 0.996, 512: 0.998, 1024: 0.985, 2048: 0.777, 4096: 0.307, 8192: 0.116},
	longMamba:  {128: 0.999, 256: 0.998, 512: 0.999, 1024: 0.999, 2048: 0.999, 4096: 0.996, 8192: 0.999},
	deltaRatio: {128: 0.999, 256: 0.996, 512: 0.966, 1024: 0.618, 2048: 0.229, 4096: 0.079, 8192: 0.059},
}

// TestRecall wants the published recall, within sampling errors of both.
func TestRecall(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{128, 2048, 4096}
		if testing.Short() || asm.Active() == "generic" {
			lengths = []int{128, 512}
		}
		o := options{sequences: 16, calibration: 20, clamp: 0.12, threshold: 0.05, scale: 1, seed: 3}
		model, err := openModel()
		if err != nil {
			t.Fatal(err)
		}
		table, err := calibrate(t.Context(), o, model, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		methods, err := newMethods(o, table)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range lengths {
			r, err := measure(t.Context(), o, model, methods, n, false)
			if err != nil {
				t.Fatal(err)
			}
			for k, name := range names {
				want, ok := published[name][n]
				if !ok {
					want = 1 // DeciMamba's, here
				}
				// Four standard errors; answers to one sequence go together.
				tol := 4 * math.Hypot(math.Sqrt(2)*deviation(want, o.sequences), deviation(want, 200))
				if got := r.recall[k]; math.Abs(got-want) > tol {
					t.Errorf("%s recalls %.3f of %d tokens, want %.3f within %.3f", name, got, n, want, tol)
				}
			}
		}
	})
}

// TestSequence: pairs in their places, all asked for once, and the rest noise.
func TestSequence(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	starts := map[int]int{}
	for i := range 3000 {
		hard := i%2 == 1
		n := 24 + i%5*30
		s := newSequence(r, n, hard)
		context := n - queryTokens
		if len(s.tokens) != n || len(s.pairs) != pairs || len(s.answers) != pairs || !slices.IsSorted(s.pairs) {
			t.Fatalf("%+v", s)
		}
		if n == 24 {
			starts[s.pairs[0]]++
		}
		value, noise := map[int32]int32{}, 0
		for j, at := range s.pairs {
			if at+3 > context || j > 0 && at < s.pairs[j-1]+3 || s.tokens[at] != pairMarker {
				t.Fatalf("pairs at %v of %d tokens", s.pairs, context)
			}
			value[s.tokens[at+1]] = s.tokens[at+2]
		}
		for _, at := range s.answers {
			if v, ok := value[s.tokens[at]]; !ok || v != s.tokens[at+1] || s.tokens[at-1] != queryMarker {
				t.Fatalf("asked for %v in %v", s.tokens[at-1:at+2], value)
			}
			delete(value, s.tokens[at])
		}
		for _, k := range kindOf(s) {
			if k == 5 {
				noise++
			}
		}
		if rest := context - 3*pairs; !hard && noise != rest || hard && rest > 90 && (noise > rest*95/100 || noise < rest*60/100) {
			t.Errorf("hard %v: %d of %d tokens are noise", hard, noise, rest)
		}
	}
	// Four triples have no room but one in 12 tokens.
	if len(starts) != 1 || starts[0] != 600 {
		t.Errorf("first pairs of the shortest sequences: %v", starts)
	}
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var stdout bytes.Buffer
	if err := command(t.Context(), []string{"-to", "256", "-sequences", "3", "-calibration", "2", "-out", out, "-workers", "2"}, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(),
		"a Mamba-2 trained at 128 tokens, kernels for ", "on 2 sequences: a table of 24 lengths, ", "layer 1: receptive fields of the heads, in tokens: ",
		"recall of 4 pairs among noise, 3 sequences of each length\n   tokens      vanilla  delta ratio    DeciMamba    LongMamba\n      128        1.000 ",
		"harder: of the noise a fifth are unmarked keys and values", "value of a pair ", "untrained: keys written 4 times each", "wrote "+out+".png and "+out+"-delta.png\n",
	)
	programtest.Pictures(t, out+".png", out+"-delta.png")
	for want, args := range map[string][]string{
		`unexpected argument "x"`:                                      {"x"},
		"-to is 127, want 128 to 1048576":                              {"-to", "127"},
		"-sequences and -calibration must be 1 or more":                {"-sequences", "0"},
		"-workers is -1, want 0 or more":                               {"-workers", "-1"},
		"mamba: longmamba: Clamp is 1, want 0 or more and less than 1": {"-clamp", "1"},
		"longmamba: Scale is -1, want a finite number, 0 or more":      {"-scale", "-1"},
		"threshold is 2, want more than 0 and less than 1":             {"-threshold", "2"},
		"open " + out + "/no.png: no such file or directory":           {"-to", "128", "-sequences", "1", "-out", out + "/no"},
	} {
		err := command(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "recall", command) }
