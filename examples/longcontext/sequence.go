package main

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/subquad/subquad/attention/cca"
	"gonum.org/v1/gonum/blas/blas32"
)

// sequence is queries, keys and values, and where needles are.
type sequence struct {
	q, k, v blas32.General
	planted []int
}

// kinds are the kinds of sequences.
var kinds = []struct {
	name string
	make func(o options, n int) *sequence
}{{"smooth", newSmooth}, {needles, newNeedles}}

const needles = "needles"

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

// newSmooth has every feature of keys and values be a wave of its own, thousands
// of tokens long, and queries that look for keys like their own token's.
func newSmooth(o options, n int) *sequence {
	width := o.heads * o.dim
	s := &sequence{q: matrix(n, width), k: matrix(n, width), v: matrix(n, width)}
	random := rand.New(rand.NewPCG(1, 2))
	for _, m := range []blas32.General{s.k, s.v} {
		for d := range width {
			// Periods of 2048 to 65536 tokens; a rotation by a small angle at each token.
			step := 2 * math.Pi / (2048 * math.Exp2(5*random.Float64()))
			sin, cos := math.Sincos(2 * math.Pi * random.Float64())
			turnSin, turnCos := math.Sincos(step)
			for t := range n {
				m.Data[t*width+d] = float32(sin)
				sin, cos = sin*turnCos+cos*turnSin, cos*turnCos-sin*turnSin
			}
		}
	}
	copy(s.q.Data, s.k.Data)
	return s
}

// newNeedles has noise for keys and values and, among them, some tokens with long
// keys. Each query asks for one of those that are not after it.
func newNeedles(o options, n int) *sequence {
	width := o.heads * o.dim
	s := &sequence{q: matrix(n, width), k: matrix(n, width), v: matrix(n, width)}
	random := rand.New(rand.NewPCG(3, 4))
	for _, m := range []blas32.General{s.q, s.k, s.v} {
		for i := range m.Data {
			m.Data[i] = float32(random.NormFloat64())
		}
	}
	s.planted = []int{0} // so that there is one for every query
	for range 7 {
		s.planted = append(s.planted, random.IntN(n))
	}
	slices.Sort(s.planted)
	s.planted = slices.Compact(s.planted)
	// A logit that outweighs n tokens of noise thirty times: theirs with such a query
	// have a variance of logit/sqrt(dim).
	logit := math.Log(30*float64(n)) / (1 - 0.5/math.Sqrt(float64(o.dim)))
	long := float32(math.Sqrt(logit / math.Sqrt(float64(o.dim))))
	for i := range n {
		before, _ := slices.BinarySearch(s.planted, i+1)
		asked := s.planted[random.IntN(before)]
		for d := range width {
			s.q.Data[i*width+d] = sign(asked, d) * long
		}
	}
	for _, at := range s.planted {
		for d := range width {
			s.k.Data[at*width+d] = sign(at, d) * long
		}
	}
	return s
}

// sign is 1 or -1: a needle's direction.
func sign(needle, d int) float32 {
	h := (uint64(needle)*0x9E3779B97F4A7C15 ^ uint64(d)) * 0xD6E8FEB86659FD93
	return 1 - 2*float32(h>>63)
}

// blocks returns the groups that have needles.
func (s *sequence) blocks(group int) (list []cca.Block) {
	rows := func(m blas32.General, from int) blas32.General {
		m.Rows, m.Data = group, m.Data[from*m.Stride:]
		return m
	}
	for _, at := range s.planted {
		p := at / group
		if len(list) > 0 && list[len(list)-1].Group == p || (p+1)*group > s.k.Rows {
			continue
		}
		list = append(list, cca.Block{Group: p, K: rows(s.k, p*group), V: rows(s.v, p*group)})
	}
	return list
}
