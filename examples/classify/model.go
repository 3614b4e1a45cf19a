package main

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/maelre"
)

//go:embed model/model.safetensors
var checkpoint []byte

// model is the embedding of text and the weights of the encoder, of which each
// method makes its own.
type model struct {
	bytes, trigrams blas32.General // [256, D], [4096, D]
	positions       float64        // what sines and cosines are multiplied by

	progress *program.Progress // of comparisons; nil for none
}

const heads = 4

func openModel() (*model, error) {
	var scale blas32.General
	m := new(model)
	for name, to := range map[string]*blas32.General{"embed.byte.weight": &m.bytes, "embed.hash.weight": &m.trigrams, "pos.scale": &scale} {
		var err error
		if *to, err = tensor(name); err != nil {
			return nil, fmt.Errorf("classify: tensor %s of the model: %w", name, err)
		}
	}
	m.positions = float64(scale.Data[0])
	return m, nil
}

// tensor returns a matrix of the checkpoint, or a vector as one row. maelre.Read reads the
// encoder and passes over the embedding, which each model makes in its own way, so here is
// what it takes to read that: a safetensors file is the length of a header in JSON, the
// header, and numbers from and to where it says. The file is the program's own.
func tensor(name string) (m blas32.General, err error) {
	var header map[string]struct {
		Shape   []int
		Offsets [2]int `json:"data_offsets"`
	}
	data := checkpoint[8:]
	n := binary.LittleEndian.Uint64(checkpoint)
	if err := json.Unmarshal(data[:n], &header); err != nil {
		return m, err
	}
	t, ok := header[name]
	if !ok {
		return m, errors.New("there is none")
	}
	m.Rows, m.Cols = 1, t.Shape[len(t.Shape)-1]
	if len(t.Shape) == 2 {
		m.Rows = t.Shape[0]
	}
	m.Stride, m.Data = m.Cols, make([]float32, m.Rows*m.Cols)
	_, err = binary.Decode(data[n:][t.Offsets[0]:t.Offsets[1]], binary.LittleEndian, m.Data)
	return m, err
}

// encoder returns the encoder that merges as a method does.
func (m *model) encoder(how method, workers int) (*maelre.Encoder, error) {
	cfg := maelre.Config{Heads: heads, Ratios: how.ratios, IfPays: how.ifPays, Workers: workers}
	how.matching.Workers = workers
	matching, err := merge.New(how.matching)
	if err != nil {
		return nil, err
	}
	cfg.Matching = matching
	return maelre.Read(bytes.NewReader(checkpoint), int64(len(checkpoint)), cfg)
}

const hashBits = 12

// embed returns the text as the model sees it, a row for each byte: the byte, a hash
// of the three bytes that end with it, and its position.
func (m *model) embed(text string) blas32.General {
	d := m.bytes.Cols
	x := blas32.General{Rows: len(text), Cols: d, Stride: d, Data: make([]float32, len(text)*d)}
	var trigram uint32
	for t := range len(text) {
		trigram = trigram<<8&0xffffff | uint32(text[t])
		one := m.bytes.Data[int(text[t])*d:][:d]
		three := m.trigrams.Data[int(trigram*2654435761>>(32-hashBits))*d:][:d]
		for j := range d {
			at := float64(t) * math.Exp(-float64(j/2*2)*math.Log(10000)/float64(d))
			position := math.Sin(at)
			if j%2 == 1 {
				position = math.Cos(at)
			}
			x.Data[t*d+j] = one[j] + three[j] + float32(m.positions*position)
		}
	}
	return x
}
