package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/examples/internal/program/programtest"
)

func small() options {
	return options{exact: 2048, heads: 2, dim: 16, group: 8, window: 64, rows: 24}
}

// TestCompare wants of each method what the table is there to show.
func TestCompare(t *testing.T) {
	results, err := compare(t.Context(), small(), 2048)
	if err != nil {
		t.Fatal(err)
	}
	errs := map[string][2]float64{}
	for _, r := range results {
		var e [2]float64
		for i, x := range r.reports {
			if x == nil {
				e[i] = -1
				continue
			}
			if x.Rows != 24 || !(x.Mass > 0 && x.Mass <= 1) {
				t.Errorf("%s: %+v", r.method, x)
			}
			e[i] = x.Mean
		}
		errs[r.method] = e
	}
	const smooth, needle = 0, 1
	if len(errs) != 10 {
		t.Fatalf("%d methods: %v", len(errs), errs)
	}
	if e := errs[exactly]; e[smooth] > 1e-6 || e[needle] > 1e-6 {
		t.Errorf("exact attention errs by %v", e)
	}
	if e := errs[counted][smooth]; e > 1e-3 {
		t.Errorf("counted cores err by %v where neighbours are alike", e)
	}
	if a, b := errs[counted][smooth], errs[pooled][smooth]; a > b/10 {
		t.Errorf("counted cores err by %v, others by %v where neighbours are alike", a, b)
	}
	if a, b := errs[blocks][needle], errs[pooled][needle]; a > b/3 || b < 0.3 {
		t.Errorf("CCA errs by %v with the needles' groups, by %v without", a, b)
	}
	if a, b := errs[chosen][needle], errs[window][needle]; a > 0.1 || b < 0.3 {
		t.Errorf("TokenSelect errs by %v where it can find needles, a window by %v", a, b)
	}
	for _, name := range []string{means, mixed} {
		if a, b := errs[name][needle], errs[window][needle]; a > 0.1 || b < 0.3 {
			t.Errorf("%s errs by %v where it can find needles, a window by %v", name, a, b)
		}
	}
	if e := errs[blocks][smooth]; e != -1 {
		t.Errorf("needles were sought where there are none: %v", e)
	}
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	if err := command(t.Context(), []string{"-from", "1", "-to", "1100", "-exact", "100", "-dim", "4", "-window", "8", "-out", out}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(), "1 heads of 4, groups of 16, window of 8", "smooth error", "       64  exact ", "     1024  CCA, needles as they are", "wrote "+out+".png\n")
	if strings.Contains(stdout.String(), "     1024  exact") {
		t.Error("attended exactly beyond -exact")
	}
	programtest.Pictures(t, out+".png")
	programtest.Errors(t, command, map[string][]string{
		`unexpected argument "x"`:                                     {"x"},
		"-from 5 and -to 4, want 1 <= from <= to <= 1048576":          {"-from", "5", "-to", "4"},
		"-from 1024 and -to 1048577, want 1 <= from <= to <= 1048576": {"-to", "1048577"},
		"-heads, -dim, -group, -window and -rows must be 1 or more":   {"-group", "0"},
		"attention: Workers is -1, want 0 to 65536":                   {"-workers", "-1"},
		"open " + out + "/no.png: no such file or directory":          {"-from", "4", "-to", "4", "-out", out + "/no"},
	})
}

func TestProgram(t *testing.T) { programtest.Check(t, "longcontext", command) }
