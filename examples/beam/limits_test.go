package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// withFlags sets flags for a test.
func withFlags(t *testing.T, values map[string]string) {
	t.Helper()
	for name, value := range values {
		f := cmp.Or(flags.Lookup(name), flag.Lookup(name))
		was := f.Value.String()
		must(0, f.Value.Set(value))(t)
		t.Cleanup(func() { must(0, f.Value.Set(was))(t) })
	}
}

// TestCommandMistakes: what is wrong with a command is told before a job begins, by the name of
// the flag or the file, and leaves nothing behind.
func TestCommandMistakes(t *testing.T) {
	dir, files := genomes(t)
	out := filepath.Join(dir, "out")
	for _, m := range []struct {
		want  string
		flags map[string]string
		args  []string
	}{
		{"-pipeline", map[string]string{"pipeline": "x"}, nil},
		{"unexpected", map[string]string{"pipeline": "scan"}, files},
		{"-bin", nil, []string{files[0], "-bin", "10"}}, // package flag stops at the first file
		{"empty", nil, []string{""}},
		{"-out", map[string]string{"out": ""}, files},
		{files[0], map[string]string{"out": files[0]}, files}, // not a folder
		{"-config", map[string]string{"config": files[0]}, files},
		{"-stretch", map[string]string{"stretch": "4611686018427387904"}, files},
		{"-async", map[string]string{"async": "true"}, files},
		{"Workers", map[string]string{"workers": "-1"}, files},
		{"Workers", map[string]string{"pipeline": "attention", "workers": "-1"}, nil},
		{"Workers", map[string]string{"pipeline": "scan", "workers": "-1"}, nil},
		{"-keys", map[string]string{"pipeline": "attention", "keys": "9223372036854775807"}, nil},
		{"-shard-keys", map[string]string{"pipeline": "attention", "keys": "100", "shard-keys": "9223372036854775807"}, nil},
		{"-queries", map[string]string{"pipeline": "attention", "queries": "9223372036854775807"}, nil},
		{"-tokens", map[string]string{"pipeline": "scan", "tokens": "9223372036854775807"}, nil},
		{"-shard-tokens", map[string]string{"pipeline": "scan", "shard-tokens": "9223372036854775744"}, nil},
	} {
		t.Run(m.want, func(t *testing.T) {
			withFlags(t, map[string]string{"out": out})
			withFlags(t, m.flags)
			err := command(context.Background(), m.args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), m.want) || strings.Contains(err.Error(), "bundle") {
				t.Errorf("error %v, want one that names %s before a job begins", err, m.want)
			}
			if list, _ := filepath.Glob(filepath.Join(out, "*")); len(list) > 0 {
				t.Errorf("left %q", list)
			}
		})
	}
}

// TestCommandAgain: results that are there are kept, and a command of which no file can be
// scored fails.
func TestCommandAgain(t *testing.T) {
	dir, files := genomes(t)
	out := filepath.Join(dir, "out")
	withFlags(t, map[string]string{"out": out, "window": "256", "workers": "1"})
	var text bytes.Buffer
	must(0, command(context.Background(), files[3:], &text))(t)
	before := must(os.ReadFile(filepath.Join(out, contigsTable)))(t)
	if !bytes.Contains(text.Bytes(), before) {
		t.Errorf("the table is not printed: %s", text.Bytes())
	}
	err := command(context.Background(), files[:1], io.Discard)
	if after := must(os.ReadFile(filepath.Join(out, contigsTable)))(t); err == nil || !bytes.Equal(after, before) {
		t.Errorf("error %v, the table of the job before is now\n%s", err, after)
	}
	withFlags(t, map[string]string{"out": filepath.Join(dir, "none")})
	if err := command(context.Background(), []string{filepath.Join(dir, "*.none")}, io.Discard); err == nil {
		t.Error("no error where no file could be scored")
	}
	must(0, command(context.Background(), files[3:], io.Discard))(t) // nothing is lost by it
}

// TestCommandChecks: what -check finds to differ from one process is an error.
func TestCommandChecks(t *testing.T) {
	for _, d := range []float64{math.NaN(), 1e-3, math.Inf(1)} {
		if within(d, 1e-5) == nil {
			t.Errorf("%v is near", d)
		}
	}
	must(0, within(1e-6, 1e-5))(t)
	must(0, within(0, 0))(t)
	for _, flags := range []map[string]string{
		{"pipeline": "attention", "keys": "3000", "shard-keys": "1000"},
		{"pipeline": "attention", "keys": "5", "shard-keys": "1"},
		{"pipeline": "scan", "tokens": "100", "shard-tokens": "64"},
		{"pipeline": "scan", "tokens": "1", "rule": "delta"},
		{"pipeline": "scan", "tokens": "100", "shard-tokens": "64", "inorder": "true"},
	} {
		withFlags(t, map[string]string{"out": t.TempDir(), "workers": "1"})
		withFlags(t, flags)
		must(0, command(context.Background(), nil, io.Discard))(t)
	}
}

// TestOtherShards: outputs of a scan in other shards are not taken for this one's.
func TestOtherShards(t *testing.T) {
	many, few := longScan{"mamba", 640, 64, 1}, longScan{"mamba", 640, 320, 1}
	for shard := range few.shards() {
		if many.outputs("x", shard) == few.outputs("x", shard) {
			t.Errorf("shard %d of %d and of %d: %s", shard, many.shards(), few.shards(), few.outputs("x", shard))
		}
	}
}

// TestCancel: a job whose context ends gives the context's error, and no table.
func TestCancel(t *testing.T) {
	_, files := genomes(t)
	out := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	withFault(t, cancel)
	if err := score(ctx, files, out, small, &faultyScoreFn{scoreFn{Scoring: small}}); !errors.Is(err, context.Canceled) || err.Error() != context.Canceled.Error() {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if _, err := os.Stat(filepath.Join(out, contigsTable)); !os.IsNotExist(err) {
		t.Errorf("a job that was cancelled left a table: error %v", err)
	}
}

// TestOneFileOnce: a file that patterns name in two ways counts once.
func TestOneFileOnce(t *testing.T) {
	dir, files := genomes(t)
	for _, pattern := range []string{files[0], dir + "/./genome0*", dir + "//genome0.fa"} {
		must(0, (&matchFn{}).ProcessElement(context.Background(), pattern, func(path string) {
			if path != files[0] {
				t.Errorf("%s is %s, want %s", pattern, path, files[0])
			}
		}))(t)
	}
}

// TestOutputsAlone: outputs are not held against log-sum-exps, which are larger.
func TestOutputsAlone(t *testing.T) {
	c := longContext{Queries: 1, Heads: 1, Dim: 2}
	if d := c.difference([]float32{1, 1, 1000}, []float32{1, 2, 1000}); d != 0.5 {
		t.Errorf("outputs differ by %v, want 0.5", d)
	}
	if d := c.difference([]float32{1, 1}, []float32{1, 1, 1000}); d == d {
		t.Errorf("other lengths differ by %v, want NaN", d)
	}
}

// TestModelFiles: a checkpoint's folder is found as package dna finds it, and what is no file is
// no checkpoint.
func TestModelFiles(t *testing.T) {
	if _, err := loadModel(context.Background(), scoring{Weights: "../internal/ecoli/model", Workers: 1}); err != nil {
		t.Error(err)
	}
	if _, err := loadModel(context.Background(), scoring{Weights: "../internal/ecoli/model", Config: "/dev/zero", Workers: 1}); err == nil {
		t.Error("a configuration without end: no error")
	}
	for _, path := range []string{os.DevNull, t.TempDir(), "missing", "none://x"} {
		if _, err := loadModel(context.Background(), scoring{Weights: path, Workers: 1}); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}
