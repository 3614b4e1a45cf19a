package maelre

import (
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// Open returns the encoder of a checkpoint: a safetensors file or one of PyTorch, the index
// of several, or the folder of either. Errors match ErrCheckpoint and name the tensor that
// is missing or has another shape, match ErrConfig, or come from the file system.
//
// Tensors are blocks.N.{ln1,ln2,qkv,proj,fc1,fc2}, ln and head, each with .weight
// and .bias, as F32, F16, BF16 or F64; head may be missing. Others, those of an
// embedding say, are passed over.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Encoder, error) {
	f, err := weights.OpenCheckpoint(path, options...)
	if err != nil {
		return nil, fmt.Errorf("maelre: %w", err)
	}
	defer f.Close()
	return read(f, cfg)
}

// Read returns the encoder of a safetensors file, or one of PyTorch, of size bytes, which
// is no longer needed afterwards. Errors match ErrConfig or ErrCheckpoint.
func Read(r io.ReaderAt, size int64, cfg Config) (*Encoder, error) {
	if err := check.Stream(ErrCheckpoint, "maelre", "reader", r); err != nil {
		return nil, err
	}
	f, err := weights.Read(r, size)
	if err != nil {
		return nil, fmt.Errorf("maelre: %w", err)
	}
	return read(f, cfg)
}

// read returns the encoder of the tensors of a file.
func read(f *weights.File, cfg Config) (*Encoder, error) {
	c := weights.NewFinder("maelre", ErrCheckpoint)
	for _, name := range f.Names() {
		c.Add(name, f.Tensor(name))
	}
	w := Weights{Norm: c.Vector("ln.weight", -1)}
	d := len(w.Norm)
	bias := func(name string, n int) []float32 {
		if !c.Has(name) {
			return nil
		}
		return c.Vector(name, n)
	}
	w.NormBias = bias("ln.bias", d)
	for i := 0; c.Err == nil; i++ {
		at := func(name string) string { return fmt.Sprintf("blocks.%d.%s", i, name) }
		if !c.Has(at("qkv.weight")) {
			break
		}
		b := Block{
			Norm1: c.Vector(at("ln1.weight"), d), Norm1Bias: bias(at("ln1.bias"), d),
			QKV: c.Matrix(at("qkv.weight"), 3*d, d), QKVBias: bias(at("qkv.bias"), 3*d),
			Out: c.Matrix(at("proj.weight"), d, d), OutBias: bias(at("proj.bias"), d),
			Norm2: c.Vector(at("ln2.weight"), d), Norm2Bias: bias(at("ln2.bias"), d),
			Up: c.Matrix(at("fc1.weight"), -1, d),
		}
		hidden := b.Up.Rows
		b.UpBias = bias(at("fc1.bias"), hidden)
		b.Down, b.DownBias = c.Matrix(at("fc2.weight"), d, hidden), bias(at("fc2.bias"), d)
		w.Blocks = append(w.Blocks, b)
	}
	if len(w.Blocks) == 0 {
		c.Fail("no tensor blocks.0.qkv.weight")
	}
	if c.Has("head.weight") {
		w.Head = c.Matrix("head.weight", -1, d)
		w.HeadBias = bias("head.bias", w.Head.Rows)
	}
	if c.Err != nil {
		return nil, c.Err
	}
	return New(cfg, w)
}
