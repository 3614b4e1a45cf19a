package transformer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
)

// stored is a tensor of a file, its numbers in the type's bytes.
type stored struct {
	kind  string
	shape []int
	data  []byte
}

func fileOf(t testing.TB, tensors map[string]stored) []byte {
	t.Helper()
	header, body := map[string]any{}, []byte{}
	var names []string
	for name := range tensors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		x := tensors[name]
		header[name] = map[string]any{"dtype": x.kind, "shape": x.shape, "data_offsets": []int{len(body), len(body) + len(x.data)}}
		body = append(body, x.data...)
	}
	text, err := json.Marshal(header)
	must(t, err)
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), body...)
}

func floats(x []float32) (b []byte) {
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// e4m3 is a number of 8 bits: a sign, four bits of exponent, three of fraction.
func e4m3(b int) float64 {
	v := math.Ldexp(1+float64(b&7)/8, b>>3&15-7)
	if b>>3&15 == 0 {
		v = math.Ldexp(float64(b&7), -9)
	}
	if b&0x80 != 0 {
		v = -v
	}
	return v
}

// eightBits quantizes a matrix in blocks as such checkpoints are, and returns what its file has
// and what that stands for.
func eightBits(x []float32, rows, cols, down, across int) (codes []byte, scales, means []float32) {
	codes, means = make([]byte, len(x)), make([]float32, len(x))
	var numbers [256]float64
	for b := range numbers {
		if numbers[b] = e4m3(b); b&0x7f == 0x7f { // not a number
			numbers[b] = math.Inf(1)
		}
	}
	for i := 0; i < rows; i += down {
		for j := 0; j < cols; j += across {
			top := 0.0
			each := func(f func(at int)) {
				for r := i; r < min(i+down, rows); r++ {
					for c := j; c < min(j+across, cols); c++ {
						f(r*cols + c)
					}
				}
			}
			each(func(at int) { top = max(top, math.Abs(float64(x[at]))) })
			scale := float32(top / 448)
			scales = append(scales, scale)
			each(func(at int) {
				best := math.Inf(1)
				for b, v := range numbers {
					if d := math.Abs(v*float64(scale) - float64(x[at])); d < best {
						best, codes[at], means[at] = d, byte(b), float32(v)*scale
					}
				}
			})
		}
	}
	return codes, scales, means
}

// quantized returns the file of a checkpoint with its projections in 8 bits, and with the numbers
// that these stand for; sizes are those of blocks, 0 for a tensor.
func quantized(t *testing.T, name string, down, across int) (narrow, wide map[string]stored, config string) {
	t.Helper()
	dir := folderOf(t, name)
	f, err := weights.Open(filepath.Join(dir, "model.safetensors"))
	must(t, err)
	defer f.Close()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	narrow, wide = map[string]stored{}, map[string]stored{}
	for _, name := range f.Names() {
		x := f.Tensor(name)
		data, err := x.Float32()
		must(t, err)
		narrow[name] = stored{"F32", x.Shape, floats(data)}
		wide[name] = narrow[name]
		if !strings.HasSuffix(name, "_proj.weight") && !strings.HasSuffix(name, "_mqa.weight") && !strings.HasSuffix(name, "_proj") {
			continue
		}
		matrices, shape := 1, x.Shape
		if len(shape) == 3 {
			matrices, shape = shape[0], shape[1:]
		}
		rows, cols := shape[0], shape[1]
		d, a := down, across
		if d == 0 {
			d, a = rows, cols
		}
		var codes []byte
		var scales, means []float32
		for i := range matrices {
			c, s, m := eightBits(data[i*rows*cols:][:rows*cols], rows, cols, d, a)
			codes, scales, means = append(codes, c...), append(scales, s...), append(means, m...)
		}
		scaleShape := []int{(rows + d - 1) / d, (cols + a - 1) / a}
		switch {
		case matrices > 1:
			scaleShape = append([]int{matrices}, scaleShape...)
		case down == 0:
			scaleShape = []int{}
		}
		narrow[name], wide[name] = stored{"F8_E4M3", x.Shape, codes}, stored{"F32", x.Shape, floats(means)}
		narrow[name+"_scale_inv"] = stored{"F32", scaleShape, floats(scales)}
		if down == 0 {
			narrow[strings.TrimSuffix(name, "weight")+"activation_scale"] = stored{"F32", []int{}, floats([]float32{1})}
		}
	}
	size := fmt.Sprintf("[%d, %d]", down, across)
	if down == 0 {
		size = "null"
	}
	config = fmt.Sprintf(`{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": %s}, %s`, size, text[bytes.IndexByte(text, '{')+1:])
	return narrow, wide, config
}

// TestEightBits: a checkpoint of 8 bits has the bits of one with the numbers that these stand for,
// with blocks cut off at edges, one for a tensor, with latent attention and experts in one tensor.
func TestEightBits(t *testing.T) {
	for _, c := range []struct {
		name         string
		down, across int
	}{{"llama", 16, 32}, {"qwen3", 5, 7}, {"llama", 0, 0}, {"deepseek_v3", 16, 16}, {"qwen3_moe", 128, 128}, {"qwen3_next_model_35_moe", 8, 8}} {
		narrow, wide, config := quantized(t, c.name, c.down, c.across)
		open := func(tensors map[string]stored, config string) *Model {
			file := fileOf(t, tensors)
			m, err := Read(bytes.NewReader(file), int64(len(file)), []byte(config), Config{})
			must(t, err)
			return m
		}
		got, want := open(narrow, config), open(wide, strings.Replace(config, "quantization_config", "other", 1))
		ids := tokens(got, 30)
		a, b := zeros(len(ids), got.shape.Vocab), zeros(len(ids), got.shape.Vocab)
		must(t, got.Forward(a, ids))
		must(t, want.Forward(b, ids))
		same(t, c.name, a.Data, b.Data)
	}
}

// TestEightBitsHostile: scales that are missing, of another shape or of another method are errors
// that name them.
func TestEightBitsHostile(t *testing.T) {
	narrow, _, config := quantized(t, "llama", 16, 32)
	name := "model.layers.1.mlp.down_proj.weight"
	for _, c := range []struct {
		says   string
		kind   error
		change func(map[string]stored)
		config string
	}{
		{"no tensor " + name + "_scale_inv", ErrCheckpoint, func(m map[string]stored) { delete(m, name+"_scale_inv") }, config},
		{name + "_scale_inv has the shape [1 1]", ErrCheckpoint, func(m map[string]stored) { m[name+"_scale_inv"] = stored{"F32", []int{1, 1}, make([]byte, 4)} }, config},
		{"are not those of a llama", ErrCheckpoint, func(map[string]stored) {}, strings.Replace(config, "quantization_config", "other", 1)},
		{"weight_block_size is [16]", ErrConfig, func(map[string]stored) {}, strings.Replace(config, "[16, 32]", "[16]", 1)},
		{"weight_block_size is [0 32]", ErrConfig, func(map[string]stored) {}, strings.Replace(config, "[16, 32]", "[0, 32]", 1)},
		{`format "e3m4"`, ErrConfig, func(map[string]stored) {}, strings.Replace(config, "e4m3", "e3m4", 1)},
	} {
		tensors := map[string]stored{}
		for k, v := range narrow {
			tensors[k] = v
		}
		c.change(tensors)
		file := fileOf(t, tensors)
		if _, err := Read(bytes.NewReader(file), int64(len(file)), []byte(c.config), Config{}); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %s", err, c.says)
		}
	}
}
