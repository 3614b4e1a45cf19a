package main

import (
	"bytes"
	"math"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/subquad/subquad/examples/internal/program/programtest"
)

// TestCompare wants weights that sum to 1, the share beyond training that the
// slope promises, and outputs that skipping hardly changes.
func TestCompare(t *testing.T) {
	o := options{trained: 4, times: 8, side: 3, heads: 2, eps: 0.01, skip: 1e-4}
	results, err := compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		sum := 0.0
		for _, w := range r.weights {
			sum += w
		}
		if math.Abs(sum-1) > 1e-5 || len(r.weights) != 32 {
			t.Errorf("%s: %d weights that sum to %v", r.name, len(r.weights), sum)
		}
	}
	plain, decayed, skipped := results[0], results[1], results[2]
	if b := plain.beyond(4); b < 0.5 {
		t.Errorf("without decay %v is spent beyond training", b)
	}
	if b := decayed.beyond(4); b <= 0 || b > 0.05 {
		t.Errorf("with decay %v is spent beyond training", b)
	}
	if d := math.Abs(decayed.beyond(4) - skipped.beyond(4)); d > o.skip {
		t.Errorf("skipping moved %v of the weight", d)
	}
	if d, err := strconv.ParseFloat(skipped.difference, 64); err != nil || d > 2*o.skip*5 { // no value is larger than 5
		t.Errorf("skipping moved the output by %v", skipped.difference)
	}
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	if err := command(t.Context(), []string{"-trained", "4", "-times", "4", "-side", "2", "-heads", "1", "-out", out}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(), "16 frames of 2 x 2, trained with 4: 64 tokens, 1 heads of 64", "no decay", "FlexRoPE, slope 1.15", "wrote "+out+".png\n")
	programtest.Pictures(t, out+".png")
	programtest.Errors(t, command, map[string][]string{
		`unexpected argument "x"`:                               {"x"},
		"-trained, -times, -side and -heads must be 1 or more":  {"-times", "0"},
		"more than a million tokens":                            {"-times", "100000"},
		"rope: eps is 0, want a number above 0, at most 1":      {"-eps", "0", "-times", "1"},
		"attention: Skip is 2, want at least 0 and less than 1": {"-skip", "2", "-times", "1", "-side", "1"},
		"rope: Workers is -1, want 0 to 65536":                  {"-workers", "-1", "-times", "1"},
		"open " + out + "/no.png: no such file or directory":    {"-out", out + "/no", "-times", "1", "-side", "1"},
	})
}

func TestProgram(t *testing.T) { programtest.Check(t, "attention", command) }
