package main

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/subquad/subquad/examples/internal/program/programtest"
)

// TestMeasure wants memory in the proportions of the storage types, a ring that
// stops growing, and errors that the types explain.
func TestMeasure(t *testing.T) {
	results, err := measure(t.Context(), options{heads: 4, kv: 2, dim: 16, context: 4096, window: 512})
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]point{}
	for _, r := range results {
		if len(r.points) != 3 || r.points[0].tokens != 1024 || r.points[2].tokens != 4096 {
			t.Fatalf("%s: %v", r.name, r.points)
		}
		last[r.name] = r.points[2]
		for i, p := range r.points[1:] {
			if grown := p.bytes > r.points[i].bytes; r.name != "StreamingLLM" && grown != (r.name != "float32 ring") {
				t.Errorf("%s: %d bytes after %d", r.name, p.bytes, r.points[i].bytes)
			}
		}
	}
	for name, most := range map[string]float64{"Shadow, 8 bits": 0.5, "Shadow, 4 bits": 0.5, "TokenSelect 2048": 0.8, "Quest 2048": 1.2} {
		if p := last[name]; !(p.err > 0 && p.err <= most) || p.read >= 2*last["float32"].read/3 && name != "TokenSelect 2048" { // which reads all keys
			t.Errorf("%s: %d bytes read of %d, error %v", name, p.read, last["float32"].read, p.err)
		}
	}
	if p := last["StreamingLLM"]; p.bytes > 2*last["float32"].bytes/3 || p.read > last["float32"].read/6 {
		t.Errorf("StreamingLLM holds %d bytes and reads %d", p.bytes, p.read)
	}
	f32 := last["float32"]
	if f32.err != 0 || f32.read != 4096*2*2*16*4 {
		t.Errorf("float32: error %v, %d bytes read", f32.err, f32.read)
	}
	for name, limits := range map[string][2]float64{"bfloat16": {2, 0.02}, "bfloat16, paged": {2, 0.02}, "int8": {3, 0.05}} {
		p := last[name]
		if float64(f32.read)/float64(p.read) < limits[0] || p.err == 0 || p.err > limits[1] {
			t.Errorf("%s: %d bytes read, error %v", name, p.read, p.err)
		}
	}
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var stdout bytes.Buffer
	small := []string{"-heads", "2", "-kv", "1", "-dim", "16", "-context", "2048", "-window", "100"}
	if err := command(t.Context(), append(small, "-out", out), &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, stdout.String(), "2 heads of 16 over 1 of keys", "bfloat16, paged", "float32 ring", "Quest 2048", "wrote "+out+".png\n")
	programtest.Pictures(t, out+".png")
	programtest.Errors(t, command, map[string][]string{
		`unexpected argument "x"`:                            {"x"},
		"-context must be 2 to 4194304":                      {"-context", "1"},
		"-window must be 1 or more":                          {"-window", "0"},
		"attention: Heads is 0, want 1 or more":              {"-heads", "0"},
		"attention: Workers is -1, want 0 to 65536":          {"-workers", "-1"},
		"open " + out + "/no.png: no such file or directory": append(small, "-out", out+"/no"),
	})
}

func TestProgram(t *testing.T) { programtest.Check(t, "decode", command) }
