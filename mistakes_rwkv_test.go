package subquad_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/ssm/rwkv"
)

func init() { rooms = append(rooms, rwkvRoom) }

func rwkvFile(seed uint64) []byte {
	const head, rank, up = 4, 3, 20
	s := weightstest.State{}
	put := maker(s, "", seed)
	norm := func(name string, n int) {
		put(name+".weight", 0.1, 1, n)
		put(name+".bias", 0.1, 0, n)
	}
	put("emb.weight", 1, 0, vocab, dim)
	put("head.weight", 0.3, 0, vocab, dim)
	norm("ln_out", dim)
	norm("blocks.0.ln0", dim)
	for i := range 2 {
		p := fmt.Sprintf("blocks.%d.", i)
		norm(p+"ln1", dim)
		norm(p+"ln2", dim)
		norm(p+"att.ln_x", dim)
		for _, name := range []string{"x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a"} {
			put(p+"att."+name, 0.5, 0.5, 1, 1, dim)
		}
		put(p+"att.r_k", 0.5, 0, dim/head, head)
		for _, name := range []string{"w", "a", "v", "g"} {
			put(p+"att."+name+"1", 0.3, 0, dim, rank)
			put(p+"att."+name+"2", 0.3, 0, rank, dim)
		}
		for _, name := range []string{"receptance", "key", "value", "output"} {
			put(p+"att."+name+".weight", 0.3, 0, dim, dim)
		}
		put(p+"ffn.x_k", 0.5, 0.5, 1, 1, dim)
		put(p+"ffn.key.weight", 0.3, 0, up, dim)
		put(p+"ffn.value.weight", 0.3, 0, dim, up)
	}
	return s.File()
}

func rwkvRoom(b *builder) {
	cfg := rwkv.Config{}
	file, second := rwkvFile(1), rwkvFile(2)
	b.add("rwkv.Read", rwkv.Read, func() []any { return []any{bytes.NewReader(file), int64(len(file)), cfg} })
	dir := b.t.TempDir()
	path := filepath.Join(dir, "rwkv.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	b.add("rwkv.Open", rwkv.Open, func() []any { return []any{path, cfg, nil} })
	b.add("rwkv.ParseConfig", rwkv.ParseConfig, func() []any {
		return []any{[]byte(`{"model_type":"rwkv7","hidden_size":12,"num_hidden_layers":2,"vocab_size":24,"head_dim":4}`)}
	})
	b.add("rwkv.NewSampler", rwkv.NewSampler, func() []any {
		return []any{rwkv.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}}
	})
	const words = "1 'a' 1\n2 'b' 1\n3 'ab' 2\n"
	list := filepath.Join(dir, "vocab.txt")
	must(0, os.WriteFile(list, []byte(words), 0o600))
	b.add("rwkv.OpenVocabulary", rwkv.OpenVocabulary, func() []any { return []any{list} })
	b.add("rwkv.ReadVocabulary", rwkv.ReadVocabulary, func() []any { return []any{strings.NewReader(words)} })
	vocabulary := must(rwkv.ReadVocabulary(strings.NewReader(words)))
	b.on(func() any { return vocabulary }, "Encode", func() []any { return []any{"abba"} })
	m, other := must(rwkv.Read(bytes.NewReader(file), int64(len(file)), cfg)), must(rwkv.Read(bytes.NewReader(second), int64(len(second)), cfg))
	self := func() any { return m }
	state := languageModel[rwkv.Call, *rwkv.State](b, "rwkv", m, other)
	alien := func() any { return newState(b.t, other, 0) }
	stored := filepath.Join(dir, "state")
	var to bytes.Buffer
	must(state().WriteTo(&to))
	must(0, os.WriteFile(stored, to.Bytes(), 0o600))
	b.on(self, "OpenState", func() []any { return []any{stored, nil} })
	seen := func() any {
		st := state()
		must(0, m.Step(matrix(tokens, vocab), ids(), st))
		return st
	}
	from := b.on(seen, "CopyFrom", func() []any { return []any{seen()} })
	from.foreign, from.pkg = alien, "rwkv"
	prefixes := rwkv.PrefixConfig{MaxBytes: 1 << 20}
	b.on(self, "NewPrefixes", func() []any { return []any{prefixes} })
	b.on(self, "NewBatch", func() []any { return []any{tokens} })
	var kept bytes.Buffer
	must(must(m.NewPrefixes(prefixes)).WriteTo(&kept))
	b.on(self, "ReadPrefixes", func() []any { return []any{bytes.NewReader(kept.Bytes()), prefixes} })
}
