// Package weightstest makes checkpoints for tests.
package weightstest

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
)

// Tensor is one of a checkpoint under construction.
type Tensor struct {
	Shape []int
	Data  []float32
}

// State is a checkpoint under construction, by names.
type State map[string]Tensor

// Put adds a tensor of normally distributed elements.
func (s State) Put(r *rand.Rand, name string, scale, offset float64, shape ...int) {
	n := 1
	for _, k := range shape {
		n *= k
	}
	t := Tensor{shape, make([]float32, n)}
	for i := range t.Data {
		t.Data[i] = float32(offset + scale*r.NormFloat64())
	}
	s[name] = t
}

// File returns it as a safetensors file.
func (s State) File() []byte {
	var names []string
	for n := range s {
		names = append(names, n)
	}
	slices.Sort(names)
	header, body := map[string]any{}, []byte{}
	for _, n := range names {
		from := len(body)
		for _, v := range s[n].Data {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		header[n] = map[string]any{"dtype": "F32", "shape": s[n].Shape, "data_offsets": []int{from, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
}

// Renamed returns it with other names; those that become "" are left out.
func (s State) Renamed(name func(string) string) State {
	out := State{}
	for n, t := range s {
		if n = name(n); n != "" {
			out[n] = t
		}
	}
	return out
}
