package transformer

import (
	"math"

	"github.com/subquad/subquad/asm"
)

// Bytes is the memory of the weights in a format, nearly, before it is taken: the matrices
// of all layers, the embedding and a head of its own where there must be one.
func (s *Shape) Bytes(format asm.Format) int64 { return s.bytes(format, false) }

// bytes is Bytes, of experts that stay in MXFP4 where kept says so.
func (s *Shape) bytes(format asm.Format, kept bool) int64 {
	size := elementBytes[format]
	return s.bytesOf(size, size, kept)
}

// elementBytes is what an element takes in a format.
var elementBytes = map[asm.Format]float64{asm.Float32: 4, asm.BFloat16: 2, asm.Float16: 2, asm.Int8: 1}

// bytesOf is bytes for elements of so many bytes, and for those of latent attention and of
// recurrent blocks, which are in no Config.Precision.
func (s *Shape) bytesOf(size, apart float64, kept bool) int64 {
	d := float64(s.Dim)
	each := size // of an expert's weight
	if kept && s.ModelType == "gpt_oss" {
		each = 17.0 / 32
	}
	total := float64(s.Vocab) * d * size
	if !s.tied {
		total *= 2
	}
	perMLP := 3.0 // matrices
	if s.plain {
		perMLP = 2
	}
	for i := range min(s.Layers, mostLayers) {
		kind := s.kind(i)
		if kind == Attention || kind == SideBySide {
			if s.Latent != nil {
				total += s.attentionElements() * apart
			} else {
				total += s.attentionElements() * size
			}
		}
		if kind == Recurrence || kind == SideBySide {
			if s.Delta != nil {
				total += s.Delta.elements(d) * apart
			} else {
				total += s.Mamba.elements(d) * apart
			}
		}
		switch e := s.Experts; {
		case s.bare && kind != Alone:
		case e != nil && i < len(e.Sparse) && e.Sparse[i]:
			wide := d
			if e.Latent > 0 {
				wide = float64(e.Latent)
				total += 2 * d * wide * size
			}
			total += (d*float64(e.Count)+perMLP*d*float64(e.Shared))*size + perMLP*wide*float64(e.Inner)*float64(e.Count)*each
		default:
			total += perMLP * d * float64(s.Inner) * size
		}
	}
	return int64(max(0, min(total, math.MaxInt64/2)))
}

// attentionElements returns how many elements the projections of a layer have.
func (s *Shape) attentionElements() float64 {
	d := float64(s.Dim)
	l := s.Latent
	if l == nil {
		parts := 2*s.Heads + 2*s.KVHeads
		if s.outGate {
			parts += s.Heads
		}
		return d * float64(s.HeadDim) * float64(parts)
	}
	total, q, in := 0.0, float64(s.Heads)*float64(l.NopeDim+l.RopeDim), d
	if l.QRank > 0 {
		in = float64(l.QRank)
		total = d * in
	}
	return total + in*q + d*float64(l.KVRank+l.RopeDim) + float64(s.Heads)*(2*float64(l.KVRank)*float64(l.NopeDim+l.ValueDim)+float64(l.ValueDim)*d)
}

// elements returns how many elements the projections of a block have, d being the width of
// a token.
func (m *Mamba) elements(d float64) float64 {
	inner, n := float64(m.Inner), float64(m.States)
	if m.Heads == 0 {
		return 3*inner*d + inner*(2*float64(m.Rank)+2*n)
	}
	return d * (3*inner + 2*float64(m.Groups)*n + float64(m.Heads))
}

func (m *Delta) elements(d float64) float64 {
	keys, values := float64(m.KeyHeads)*float64(m.KeyDim), float64(m.Heads)*float64(m.ValueDim)
	if m.ByChannel {
		rank := float64(m.KeyDim)
		return d*(2*keys+2*values+float64(m.Heads)+2*rank) + rank*(keys+values)
	}
	return d * (2*keys + 3*values + 2*float64(m.Heads))
}
