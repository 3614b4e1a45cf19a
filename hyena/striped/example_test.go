package striped_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/subquad/subquad/hyena/striped"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// A config.json tells the size of a model before its weights are read.
func ExampleParseConfig() {
	cfg, err := striped.ParseConfig([]byte(`{"hidden_size": 4096, "num_layers": 32, "attn_layer_idxs": [8, 16, 24], "num_attention_heads": 32, "mlp_activation": "gelu"}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Dim, "wide,", cfg.Layers, "layers, attention in", cfg.Attention)
	// Output: 4096 wide, 32 layers, attention in [8 16 24]
}

// A checkpoint from anywhere that can be read at any place; one block here, with random
// weights, that goes on with a sequence.
func ExampleRead() {
	const dim, vocab, inner, modes = 8, 4, 16, 2
	s, r := weightstest.State{}, rand.New(rand.NewPCG(1, 1))
	for name, shape := range map[string][]int{
		"embedding_layer.weight": {vocab, dim}, "norm.scale": {dim},
		"blocks.0.pre_norm.scale": {dim}, "blocks.0.post_norm.scale": {dim},
		"blocks.0.projections.weight": {3 * dim, dim}, "blocks.0.out_filter_dense.weight": {dim, dim},
		"blocks.0.filter.D": {dim}, "blocks.0.filter.short_filter_weight": {3 * dim, 1, 3},
		"blocks.0.filter.poles": {dim, modes, 1, 2}, "blocks.0.filter.residues": {dim, modes, 1, 2},
		"blocks.0.mlp.l1.weight": {inner, dim}, "blocks.0.mlp.l2.weight": {inner, dim}, "blocks.0.mlp.l3.weight": {dim, inner},
	} {
		s.Put(r, name, 0.3, 0, shape...)
	}
	file := s.File()
	m, err := striped.Read(bytes.NewReader(file), int64(len(file)), striped.Config{Heads: 2})
	if err != nil {
		log.Fatal(err)
	}
	st, err := m.NewState(striped.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	n := 0
	for _, err := range m.Generate(context.Background(), []int32{0, 1, 2}, st, striped.GenerateConfig{MaxTokens: 5}) {
		if err != nil {
			log.Fatal(err)
		}
		n++
	}
	fmt.Println(n, "tokens; the state has seen", st.Len())
	// Output: 5 tokens; the state has seen 7
}
