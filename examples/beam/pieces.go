package main

import (
	"fmt"
	"slices"
)

// Piece is what is known of 2^Level shards in a row, the first of them shard Index 2^Level.
type Piece struct {
	Level, Index int64
	Data         []float32
}

func (p Piece) from() int64 { return p.Index << p.Level }
func (p Piece) to() int64   { return (p.Index + 1) << p.Level }

// Pieces is an accumulator for what is associative and no more. Beam adds inputs in any order,
// and merges accumulators as they come; so pieces are only ever joined with their neighbours,
// the left one on the left. And rounding depends on how terms are grouped; so only the two halves
// of a larger piece are joined, as in a binary tree over the shards. The result is then the same
// to the bit however Beam divides the work, and a shard that counts twice or not at all is an
// error. It holds as many pieces as there are gaps, or log2(shards), whichever is more.
type Pieces struct{ List []Piece }

// A joiner puts what is known of two neighbours together. It leaves both as they are.
type joiner func(left, right []float32) ([]float32, error)

// with returns the pieces and one more. p's own list is left as it is.
func (p Pieces) with(piece Piece, join joiner) (Pieces, error) {
	list := slices.Clone(p.List)
	for {
		at, _ := slices.BinarySearchFunc(list, piece.from(), func(p Piece, from int64) int { return int(p.to() - from - 1) })
		if at < len(list) && list[at].from() < piece.to() {
			return p, fmt.Errorf("shards %d to %d are counted twice", max(list[at].from(), piece.from()), min(list[at].to(), piece.to())-1)
		}
		half := at // where the other half of a larger piece would be
		if piece.Index%2 == 1 {
			half = at - 1
		}
		if half < 0 || half >= len(list) || list[half].Level != piece.Level || list[half].Index != piece.Index^1 {
			return Pieces{slices.Insert(list, at, piece)}, nil
		}
		left, right := list[half].Data, piece.Data
		if half == at {
			left, right = right, left
		}
		data, err := join(left, right)
		if err != nil {
			return p, err
		}
		list = slices.Delete(list, half, half+1)
		piece = Piece{piece.Level + 1, piece.Index / 2, data}
	}
}

// and returns the pieces of both.
func (p Pieces) and(other Pieces, join joiner) (Pieces, error) {
	for _, piece := range other.List {
		var err error
		if p, err = p.with(piece, join); err != nil {
			return p, err
		}
	}
	return p, nil
}

// whole returns what is known of all shards, of which none may be missing.
func (p Pieces) whole(shards int64, join joiner) ([]float32, error) {
	next := int64(0)
	for _, piece := range p.List {
		if piece.from() != next {
			return nil, fmt.Errorf("shards %d to %d are missing", next, piece.from()-1)
		}
		next = piece.to()
	}
	if next != shards || shards == 0 {
		return nil, fmt.Errorf("%d shards, want %d", next, shards)
	}
	data := p.List[len(p.List)-1].Data
	for i := len(p.List) - 2; i >= 0; i-- {
		var err error
		if data, err = join(p.List[i].Data, data); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// inOneProcess puts all shards together here, divided as the pipelines divide them.
func inOneProcess(shards int64, join joiner, of func(shard int64) ([]float32, error)) ([]float32, error) {
	var p Pieces
	for i := range shards {
		data, err := of(i)
		if err == nil {
			p, err = p.with(Piece{0, i, data}, join)
		}
		if err != nil {
			return nil, err
		}
	}
	return p.whole(shards, join)
}
