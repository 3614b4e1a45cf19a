package subquad_test

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

func init() { rooms = append(rooms, transformerRoom) }

const llamaConfig = `{"model_type":"llama","hidden_size":12,"intermediate_size":20,"num_hidden_layers":2,"num_attention_heads":3,"num_key_value_heads":1,"vocab_size":24,"tie_word_embeddings":true}`

func llamaFile(seed uint64) []byte {
	const up, head = 20, 4
	s := weightstest.State{}
	put := maker(s, "model.", seed)
	put("embed_tokens.weight", 1, 0, vocab, dim)
	put("norm.weight", 0.1, 1, dim)
	for _, p := range []string{"layers.0.", "layers.1."} {
		put(p+"input_layernorm.weight", 0.1, 1, dim)
		put(p+"post_attention_layernorm.weight", 0.1, 1, dim)
		for name, shape := range map[string][2]int{
			"self_attn.q_proj": {3 * head, dim}, "self_attn.k_proj": {head, dim}, "self_attn.v_proj": {head, dim}, "self_attn.o_proj": {dim, 3 * head},
			"mlp.gate_proj": {up, dim}, "mlp.up_proj": {up, dim}, "mlp.down_proj": {dim, up},
		} {
			put(p+name+".weight", 0.3, 0, shape[0], shape[1])
		}
	}
	return s.File()
}

// hybridConfig is a layer of gated attention behind one of Gated DeltaNet.
const hybridConfig = `{"model_type":"qwen3_5_text","hidden_size":12,"intermediate_size":20,"num_hidden_layers":2,"num_attention_heads":3,"num_key_value_heads":1,"head_dim":4,
	"vocab_size":24,"full_attention_interval":2,"linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":3,"linear_value_head_dim":5,"linear_conv_kernel_dim":4,
	"rope_parameters":{"rope_type":"default","rope_theta":1e4,"partial_rotary_factor":0.5},"tie_word_embeddings":true}`

func hybridFile(seed uint64) []byte {
	const up, head, keys, values, heads = 20, 4, 2 * 3, 4 * 5, 4
	s := weightstest.State{}
	put := maker(s, "model.", seed)
	put("embed_tokens.weight", 1, 0, vocab, dim)
	put("norm.weight", 0.1, 0, dim)
	for _, p := range []string{"layers.0.", "layers.1."} {
		put(p+"input_layernorm.weight", 0.1, 0, dim)
		put(p+"post_attention_layernorm.weight", 0.1, 0, dim)
		for name, shape := range map[string][2]int{"gate_proj": {up, dim}, "up_proj": {up, dim}, "down_proj": {dim, up}} {
			put(p+"mlp."+name+".weight", 0.3, 0, shape[0], shape[1])
		}
	}
	for name, shape := range map[string][]int{
		"in_proj_qkv.weight": {2*keys + values, dim}, "in_proj_z.weight": {values, dim}, "in_proj_b.weight": {heads, dim}, "in_proj_a.weight": {heads, dim},
		"conv1d.weight": {2*keys + values, 1, 4}, "A_log": {heads}, "dt_bias": {heads}, "norm.weight": {5}, "out_proj.weight": {dim, values},
	} {
		put("layers.0.linear_attn."+name, 0.3, 0, shape...)
	}
	for name, shape := range map[string][]int{
		"q_proj": {2 * 3 * head, dim}, "k_proj": {head, dim}, "v_proj": {head, dim}, "o_proj": {dim, 3 * head}, "q_norm": {head}, "k_norm": {head},
	} {
		put("layers.1.self_attn."+name+".weight", 0.3, 0, shape...)
	}
	return s.File()
}

func transformerRoom(b *builder) {
	file, second := llamaFile(1), llamaFile(2)
	cfg := transformer.Config{}
	b.add("transformer.ParseConfig", transformer.ParseConfig, func() []any { return []any{[]byte(llamaConfig)} })
	b.add("transformer.Read", transformer.Read, func() []any { return []any{bytes.NewReader(file), int64(len(file)), []byte(llamaConfig), cfg} })
	dir := b.t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	must(0, os.WriteFile(filepath.Join(dir, "config.json"), []byte(llamaConfig), 0o600))
	must(0, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(`{"model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}}`), 0o600))
	b.add("transformer.Open", transformer.Open, func() []any { return []any{path, cfg, nil} })
	b.add("transformer.OpenTokenizer", transformer.OpenTokenizer, func() []any { return []any{dir} })
	b.add("transformer.NewSampler", transformer.NewSampler, func() []any {
		return []any{transformer.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}}
	})
	chat := must(transformer.OpenTokenizer(dir))
	must(0, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(chatML), 0o600))
	b.add("transformer.OpenTemplate", transformer.OpenTemplate, func() []any { return []any{dir, chat, transformer.TemplateConfig{}} })
	m, other := must(transformer.Read(bytes.NewReader(file), int64(len(file)), []byte(llamaConfig), cfg)), must(transformer.Read(bytes.NewReader(second), int64(len(second)), []byte(llamaConfig), cfg))
	self := func() any { return m }
	b.bytes(m)
	state := languageModel[transformer.Call, *transformer.State](b, "transformer", m, other)
	alien := func() any { return newState(b.t, other, 0) }
	hybrid := func(seed uint64) *transformer.Model {
		file := hybridFile(seed)
		return must(transformer.Read(bytes.NewReader(file), int64(len(file)), []byte(hybridConfig), cfg))
	}
	languageModel[transformer.Call, *transformer.State](b, "transformer", hybrid(1), hybrid(2))
	stored := filepath.Join(dir, "state")
	var to bytes.Buffer
	must(state().WriteTo(&to))
	must(0, os.WriteFile(stored, to.Bytes(), 0o600))
	shape := m.Shape()
	b.on(func() any { return &shape }, "Bytes", func() []any { return []any{asm.Float32} })
	b.on(self, "ReadStateWith", func() []any { return []any{bytes.NewReader(to.Bytes()), transformer.StateConfig{}} }).foreign = alien
	b.on(self, "NewSourceWith", func() []any { return []any{transformer.StateConfig{Snapshots: 3, Keep: 1, Window: 4}} })
	b.on(self, "OpenState", func() []any { return []any{stored, nil} })
	prefixes := transformer.PrefixConfig{MaxBytes: 1 << 20, State: transformer.StateConfig{MaxTokens: 20}}
	b.on(self, "NewPrefixes", func() []any { return []any{prefixes} })
	b.on(self, "NewBatch", func() []any { return []any{tokens} })
	kept := must(m.NewPrefixes(prefixes))
	_, _, err := kept.Prefill(nowhere, ids(), matrix(1, vocab))
	must(0, err)
	var first bytes.Buffer
	must(kept.WriteTo(&first))
	b.on(self, "ReadPrefixes", func() []any { return []any{bytes.NewReader(first.Bytes()), prefixes} })
	cache := func() any { return must(m.NewPrefixes(prefixes)) }
	b.on(cache, "Lookup", func() []any { return []any{ids()} }).pkg = "transformer"
	fill := b.on(cache, "Prefill", func() []any { return []any{nowhere, ids(), matrix(1, vocab)} })
	fill.pkg, fill.never = "transformer", true // Last wants a token
	insert := b.on(cache, "Insert", func() []any {
		st := state()
		must(0, m.Step(matrix(tokens, vocab), ids(), st))
		return []any{ids(), st}
	})
	insert.foreign, insert.pkg = alien, "transformer"
}
