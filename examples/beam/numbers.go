package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

func matrix(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// drawn is a matrix of numbers from lo to hi, which the stream determines.
func drawn(stream uint64, rows, cols int, lo, hi float32) blas32.General {
	r := rand.New(rand.NewPCG(1, stream))
	m := matrix(make([]float32, rows*cols), rows, cols)
	for i := range m.Data {
		m.Data[i] = lo + (hi-lo)*r.Float32()
	}
	return m
}

// upTo is 0 to n-1.
func upTo(n int64) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = int64(i)
	}
	return list
}

// A sequence is cut into so many shards at most, for a pipeline names each, of so many rows.
const maxShards, maxShard = 1 << 16, 1 << 22

// shardsOf is how many shards of size rows a sequence has.
func shardsOf(rows, size int) int64 { return int64((rows-1)/size + 1) }

// checkShards returns an error where a sequence cannot be cut so; the unit is what its rows are.
func checkShards(unit string, rows, size int) error {
	switch {
	case rows < 1:
		return fmt.Errorf("-%s is %d, want 1 or more", unit, rows)
	case size < 1 || size > maxShard:
		return fmt.Errorf("-shard-%s is %d, want 1 to %d", unit, size, maxShard)
	case shardsOf(rows, size) > maxShards:
		return fmt.Errorf("-%s is %d, which are %d shards of %d, want at most %d shards", unit, rows, shardsOf(rows, size), size, maxShards)
	}
	return nil
}

// within returns an error where a difference from one process is larger than rounding makes it.
func within(difference, most float64) error {
	if difference <= most {
		return nil
	}
	return fmt.Errorf("results differ from those of one process by %.1e, want at most %.0e", difference, most)
}

// difference is the largest difference as a part of b's largest number, and NaN where there is one
// or the lengths differ.
func difference(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var most, largest float64
	for i := range a {
		most = max(most, math.Abs(float64(a[i])-float64(b[i])))
		largest = max(largest, math.Abs(float64(b[i])))
	}
	if most == 0 {
		return 0
	}
	return most / largest
}
