package subquad_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/hyena/striped"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

func init() { rooms = append(rooms, stripedRoom) }

func stripedFile(seed uint64) []byte {
	const up, modes, taps = 20, 2, 3
	s := weightstest.State{}
	put := maker(s, "", seed)
	put("embedding_layer.weight", 1, 0, vocab, dim)
	put("norm.scale", 0.1, 1, dim)
	for i := range 2 {
		p := fmt.Sprintf("blocks.%d.", i)
		put(p+"pre_norm.scale", 0.1, 1, dim)
		put(p+"post_norm.scale", 0.1, 1, dim)
		put(p+"mlp.l1.weight", 0.3, 0, up, dim)
		put(p+"mlp.l2.weight", 0.3, 0, up, dim)
		put(p+"mlp.l3.weight", 0.3, 0, dim, up)
	}
	put("blocks.0.projections.weight", 0.3, 0, 3*dim, dim)
	put("blocks.0.out_filter_dense.weight", 0.3, 0, dim, dim)
	f := "blocks.0.filter."
	put(f+"D", 1, 0, dim)
	put(f+"short_filter_weight", 0.5, 0, 3*dim, 1, taps)
	put(f+"short_filter_bias", 0.1, 0, 3*dim)
	put(f+"poles", 0.3, 0, dim, modes, 1, 2)
	put(f+"residues", 0.3, 0, dim, modes, 1, 2)
	put("blocks.1.inner_mha_cls.Wqkv.weight", 0.3, 0, 3*dim, dim)
	put("blocks.1.inner_mha_cls.out_proj.weight", 0.3, 0, dim, dim)
	return s.File()
}

func stripedRoom(b *builder) {
	file, second := stripedFile(1), stripedFile(2)
	cfg := striped.Config{Heads: 3, Eps: 1e-6, RotaryBase: 10000, RotaryScale: 1}
	b.add("striped.Read", striped.Read, func() []any { return []any{bytes.NewReader(file), int64(len(file)), cfg} })
	dir := b.t.TempDir()
	path := filepath.Join(dir, "striped.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	b.add("striped.Open", striped.Open, func() []any { return []any{path, cfg, nil} })
	b.add("striped.ParseConfig", striped.ParseConfig, func() []any {
		return []any{[]byte(`{"hidden_size":12,"num_layers":2,"num_attention_heads":3,"attn_layer_idxs":[1],"vocab_size":24}`)}
	})
	b.add("striped.NewSampler", striped.NewSampler, func() []any {
		return []any{striped.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}}
	})
	m, other := must(striped.Read(bytes.NewReader(file), int64(len(file)), cfg)), must(striped.Read(bytes.NewReader(second), int64(len(second)), cfg))
	self := func() any { return m }
	state := languageModel[striped.Call, *striped.State](b, "striped", m, other)
	stored := filepath.Join(dir, "state")
	var to bytes.Buffer
	must(state().WriteTo(&to))
	must(0, os.WriteFile(stored, to.Bytes(), 0o600))
	b.on(self, "OpenState", func() []any { return []any{stored, nil} })
}
