package main

import (
	"bytes"
	_ "embed"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/internal/weights"
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
	f, err := weights.Read(bytes.NewReader(checkpoint), int64(len(checkpoint)))
	if err != nil {
		return nil, err
	}
	c := weights.NewFinder("classify", weights.ErrFormat)
	for _, name := range f.Names() {
		c.Add(name, f.Tensor(name))
	}
	m := &model{bytes: c.Matrix("embed.byte.weight", 256, -1)}
	m.trigrams = c.Matrix("embed.hash.weight", 1<<hashBits, m.bytes.Cols)
	if scale := c.Vector("pos.scale", 1); c.Err == nil {
		m.positions = float64(scale[0])
	}
	return m, c.Err
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
