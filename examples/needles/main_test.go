package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/subquad/subquad/examples/internal/program/programtest"
)

// TestSequence: pairs in their places, all asked for once, with their values.
func TestSequence(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		n := 40 + r.IntN(200)
		s := newSequence(r, n)
		found := map[int32]int32{} // values of marked keys
		for i := range n - queryTokens {
			if s.tokens[i] == pairMarker {
				found[s.tokens[i+1]] = s.tokens[i+2]
			}
		}
		if len(s.tokens) != n || len(s.targets) != pairs || len(found) != pairs {
			t.Fatalf("%+v", s)
		}
		for j, want := range s.targets {
			at := n - queryTokens + 3*j
			key := s.tokens[at+1]
			if s.tokens[at] != queryMarker || found[key] != want || s.tokens[at+2] != want {
				t.Fatalf("query %d of %+v", j, s)
			}
			delete(found, key)
		}
	}
}

// TestRecall wants the published recall at the lengths of the training and beyond: policies
// that mend positions go on, the plain model does not.
func TestRecall(t *testing.T) {
	if testing.Short() {
		t.Skip("some thousands of tokens")
	}
	o := &options{sequences: 5, seed: 3}
	for name, want := range map[string]map[int][2]float64{ // from least to most
		"plain": {512: {0.9, 1}, 2048: {0, 0.6}}, "tokenselect": {512: {0.9, 1}, 2048: {0.9, 1}}, "infllm": {2048: {0.8, 1}}, "yarn": {2048: {0.75, 1}},
		"streaming": {2048: {0, 0.5}}, "h2o": {2048: {0.7, 1}}, "far_clamp": {2048: {0.9, 1}}, "window_tokenselect": {2048: {0.9, 1}},
	} {
		i := slices.IndexFunc(policies, func(p policy) bool { return p.name == name })
		for n, between := range want {
			got, err := policies[i].recall(t.Context(), o, n)
			if err != nil {
				t.Fatal(err)
			}
			if got < between[0] || got > between[1] {
				t.Errorf("%s recalls %.2f of %d tokens, want %v", name, got, n, between)
			}
		}
	}
}

// TestText: what looks at every key finds every needle; what sees a window does not; a
// question that is asked late is not the one that was kept for.
func TestText(t *testing.T) {
	o := &options{seed: 1, topic: 0.7, heads: 4}
	got, err := readText(t.Context(), o, tasks[0], 4096, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"exact", "Top", "TokenSelect", "Shadow", "SirLLM", "SnapKV, asked early"} {
		if f := got[name]; f.recall < 0.9 || f.off > 0.2 {
			t.Errorf("%s finds %.2f, off by %.2g", name, f.recall, f.off)
		}
	}
	for _, name := range []string{"Window", "SnapKV, asked late"} {
		if f := got[name]; f.recall > 0.7 {
			t.Errorf("%s finds %.2f", name, f.recall)
		}
	}
	if exact, quest := got["exact"].bytes, got["Quest"].bytes; quest >= exact {
		t.Errorf("Quest reads %v bytes, exact attention %v", quest, exact)
	}
	if got["KeyDiff"].held > got["exact"].held*2/3 {
		t.Errorf("%d bytes after forgetting half, %d before", got["KeyDiff"].held, got["exact"].held)
	}
}

// TestTasks: what reads most finds needles among keys like them, and beside sinks; where the
// weight is spread, an estimate of all is closer than the best few.
func TestTasks(t *testing.T) {
	o := &options{seed: 2, topic: 0.7, heads: 4}
	for _, x := range tasks[1:] {
		if testing.Short() && x.name != "multikey" && x.name != "diffuse" {
			continue
		}
		got, err := readText(t.Context(), o, x, 4096, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"exact", "Top", "TokenSelect", "Shadow"} {
			if f := got[name]; x.name != "diffuse" && f.recall < 0.9 || f.off > 0.2 {
				t.Errorf("%s: %s finds %.2f, off by %.2g", x.name, name, f.recall, f.off)
			}
		}
		if x.name == "diffuse" && !(got["Shadow"].off < got["Top"].off && got["Top"].off < got["Window"].off) {
			t.Errorf("diffuse: off by %.2g, %.2g and %.2g", got["Shadow"].off, got["Top"].off, got["Window"].off)
		}
	}
}

// TestCommand runs it small, and with mistakes.
func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "needles")
	var stdout, stderr bytes.Buffer
	if err := command(t.Context(), []string{"-to", "256", "-sequences", "1", "-text", "4096", "-policies", "plain, tokenselect", "-out", out}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(), "plain", "tokenselect", "TokenSelect", "SnapKV, asked late", "wrote")
	programtest.Pictures(t, out+".png")
	for _, args := range [][]string{{"-to", "100"}, {"-text", "7"}, {"-sequences", "0"}, {"-heads", "5"}, {"-topic", "1"}, {"-workers", "-1"}, {"-policies", "none"}, {"-tasks", "none"}, {"-tokens", "5"}, {"-budget", "5"}, {"-out", "no/such/folder"}, {"-to", "0", "-text", "0"}, {"extra"}} {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
