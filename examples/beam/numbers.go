package main

import (
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
