package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
	"github.com/subquad/subquad/ssm/mamba"
)

// kinds of tokens of the context, as diagnose tells them apart.
var kinds = []string{"marker", "key of a pair", "value of a pair", "unmarked key", "unmarked value", "noise"}

// kindOf returns a kind for each token in front of the queries.
func kindOf(s *sequence) []int {
	kind := make([]int, len(s.tokens)-queryTokens)
	for i := range kind {
		switch id := s.tokens[i]; {
		case id >= firstNoise:
			kind[i] = 5
		case id >= firstValue:
			kind[i] = 4
		default:
			kind[i] = 3
		}
	}
	for _, at := range s.pairs {
		for i := range 3 {
			kind[at+i] = i
		}
	}
	return kind
}

// diagnose prints which kinds of tokens the global heads keep, in sequences of the
// harder task, and the mean of their steps.
func diagnose(ctx context.Context, o options, model *mamba.Model, filter *longmamba.Filter, stdout io.Writer) error {
	n := min(1024, o.to)
	if n == trainLength {
		return nil // nothing is filtered
	}
	const layers, heads = 2, 8
	var count [6]float64
	var kept, mean [layers][6]float64
	for i := range min(o.sequences, 10) {
		s := newSequence(rand.New(rand.NewPCG(o.seed, uint64(i))), n, true)
		var before, after [layers]blas32.General
		for layer := range layers {
			before[layer], after[layer] = matrix(n, heads), matrix(n, heads)
		}
		call := mamba.Call{Tokens: s.tokens, Filter: func(layer int) ssm.DeltaFilter {
			delta, err := filter.Delta(layer, n)
			if err != nil {
				panic(err) // which Run returns
			}
			return ssm.ChainFilters(ssm.RecordSteps(before[layer]), delta, ssm.RecordSteps(after[layer]))
		}}
		if err := model.Run(ctx, &call); err != nil {
			return err
		}
		for t, kind := range kindOf(s) {
			count[kind]++
			for layer := range layers {
				global, err := filter.Global(layer)
				if err != nil {
					return err
				}
				if !slices.Contains(global, true) {
					continue
				}
				var filtered, keeps, sum float64
				for h, is := range global {
					if is {
						filtered++
						sum += float64(before[layer].Data[t*heads+h])
						if after[layer].Data[t*heads+h] != 0 {
							keeps++
						}
					}
				}
				kept[layer][kind] += keeps / filtered
				mean[layer][kind] += sum / filtered
			}
		}
	}
	fmt.Fprintf(stdout, "\nwhy: what the global heads keep of %d tokens, and the mean of the steps dt\n%-16s", n, "")
	for layer := range layers {
		fmt.Fprintf(stdout, "    layer %d: kept      dt", layer)
	}
	fmt.Fprintln(stdout)
	for kind, name := range kinds {
		fmt.Fprintf(stdout, "%-16s", name)
		for layer := range layers {
			fmt.Fprintf(stdout, " %15.1f %% %7.4f", 100*kept[layer][kind]/max(count[kind], 1), mean[layer][kind]/max(count[kind], 1))
		}
		fmt.Fprintln(stdout)
	}
	return nil
}

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}
