package main

import (
	"slices"
	"testing"

	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/internal/weights"
)

// TestSelected compares what selectors read for the first answer with what two independent
// programs chose: the tokens themselves, in every layer and head that the case has.
func TestSelected(t *testing.T) {
	f, err := weights.Open("testdata/cases.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids, err := f.Tensor("long.ids").Int64()
	if err != nil {
		t.Fatal(err)
	}
	var tokens []int32
	for _, id := range ids {
		tokens = append(tokens, int32(id))
	}
	answer := len(tokens) - queryTokens + 1 // position of the first key that is asked for
	checked := 0
	for _, p := range policies {
		tensor := f.Tensor("long." + p.name + ".selected")
		if tensor == nil || p.layer(1, 0).Evict != nil {
			continue // TestCases has what evictors hold
		}
		checked++
		t.Run(p.name, func(t *testing.T) {
			list, err := tensor.Int64()
			if err != nil {
				t.Fatal(err)
			}
			m, err := p.open(len(tokens), 0)
			if err != nil {
				t.Fatal(err)
			}
			shape := m.Shape()
			reads, calls := make([][]int64, shape.Layers*shape.Heads), 0
			if _, err := p.answers(t.Context(), m, tokens, func(st *transformer.State) {
				calls++
				for l := range shape.Layers {
					for h := range shape.Heads {
						s := transformer.Past(st, l)
						switch calls {
						case 1: // after the context
							s.Trace(true)
						case 3: // after the first key
							reads[l*shape.Heads+h] = s.Reads(nil, h)
						}
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			// Of the lists, one for each layer, or the last one; for each head, or all.
			layers, heads := shape.Layers, shape.Heads
			switch size := len(tensor.Shape); size {
			case 1:
				layers, heads = 1, 1
			case 2:
				heads = 1
			}
			each := len(list) / (layers * heads)
			for i := range layers * heads {
				want := slices.DeleteFunc(slices.Clone(list[i*each:][:each]), func(x int64) bool { return x < 0 })
				slices.Sort(want)
				layer := shape.Layers - layers + i/heads
				for h := range shape.Heads { // all of them, where they share a choice
					if heads > 1 && h != i%heads {
						continue
					}
					if got := chosen(p.layer(layer, answer-1), reads[layer*shape.Heads+h], answer); !slices.Equal(got, want) {
						t.Errorf("layer %d, head %d read %v, want %v", layer, h, got, want)
					}
				}
			}
		})
	}
	if checked != 7 {
		t.Errorf("%d selectors, want 7", checked)
	}
}

// chosen makes of what a query at a position read what a case lists of it: tokens between the
// first and the last ones, the first token of each block, or all.
func chosen(cfg *kvcache.Config, reads []int64, position int) (list []int64) {
	from, to := int64(cfg.Keep), int64(position+1-cfg.Recent)
	blocks, step := false, int64(1)
	switch p := cfg.Select.(type) {
	case kvcache.InfLLM:
		blocks, step = true, int64(p.Block)
		to = from + (int64(position)-from-int64(cfg.Recent))/step*step // of whole blocks that have left
	case kvcache.Quest, kvcache.Top:
		if cfg.Positions == kvcache.AtOrigin {
			return reads
		}
	}
	for _, x := range reads {
		if x >= from && x < to && (!blocks || (x-from)%step == 0) {
			list = append(list, x)
		}
	}
	return list
}
