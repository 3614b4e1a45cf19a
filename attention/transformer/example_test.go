package transformer_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/attention/transformer"
)

// folder has stories260K, a model of children's stories (karpathy/tinyllamas, MIT).
var folder = filepath.Join("..", "..", "testdata", "golden", "transformer_stories260K")

func open() (*transformer.Model, *transformer.Tokenizer) {
	m, err := transformer.Open(folder, transformer.Config{})
	if err != nil {
		panic(err)
	}
	words, err := transformer.OpenTokenizer(filepath.Join(folder, "tok512.bin"))
	if err != nil {
		panic(err)
	}
	return m, words
}

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func ExampleModel_Generate() {
	m, words := open()
	st := must(m.NewState(transformer.StateConfig{}))
	text := must(words.Encode("One day, a dog named Max", true))
	for token, err := range m.Generate(context.Background(), text, st, transformer.GenerateConfig{MaxTokens: 30}) {
		if err != nil {
			panic(err)
		}
		text = append(text, token)
	}
	fmt.Println(words.Decode(text))
	// Output:
	// One day, a dog named Max went to the park with his mom. They saw a big box with a big box. Max was very
}

// A part of the past drafts: the text is the same, in fewer calls that read all of it.
func ExampleNear() {
	m, words := open()
	text := must(words.Encode("One day, a dog named Max", true))
	calls, cfg := 0, transformer.GenerateConfig{MaxTokens: 30, Draft: transformer.Near{Keep: 4, Recent: 20}, Drafts: 4}
	for piece, err := range m.Stream(context.Background(), text, must(m.NewState(transformer.StateConfig{})), cfg) {
		if err != nil {
			panic(err)
		}
		if piece.End == transformer.Going {
			text = append(text, piece.Token)
			if !piece.Drafted {
				calls++
			}
		}
	}
	fmt.Println(words.Decode(text))
	fmt.Println(calls < 20)
	// Output:
	// One day, a dog named Max went to the park with his mom. They saw a big box with a big box. Max was very
	// true
}

// The log-likelihood of a text, without its logits being kept.
func ExampleModel_Run() {
	m, words := open()
	ids := must(words.Encode("Once upon a time, there was a little girl named Sue.", true))
	logp := make([]float32, len(ids)-1)
	if err := m.Run(context.Background(), &transformer.Call{Tokens: ids, LogLikelihood: logp}); err != nil {
		panic(err)
	}
	sum := 0.0
	for _, v := range logp {
		sum += float64(v)
	}
	fmt.Printf("%d tokens, %.1f\n", len(ids), sum)
	// Output:
	// 18 tokens, -5.8
}

// A state is a prefix: it forks, is stored, and read by another process.
func ExampleState() {
	m, words := open()
	prefix := must(m.NewState(transformer.StateConfig{Format: asm.Float16}))
	ids := must(words.Encode("Tom and Ann went to the beach.", true))
	if err := m.Run(context.Background(), &transformer.Call{Tokens: ids, State: prefix}); err != nil {
		panic(err)
	}
	var file bytes.Buffer
	must(prefix.WriteTo(&file))
	read := must(m.ReadState(&file))
	next := must(words.Encode("They", false))
	var best [2]int
	for i, st := range []*transformer.State{prefix.Clone(), read} {
		logits := blas32.General{Rows: 1, Cols: 512, Stride: 512, Data: make([]float32, 512)}
		if err := m.Run(context.Background(), &transformer.Call{Tokens: next, State: st, Last: logits}); err != nil {
			panic(err)
		}
		best[i] = blas32.Iamax(blas32.Vector{N: 512, Inc: 1, Data: logits.Data})
	}
	fmt.Println(prefix.Len() == len(ids), best[0] == best[1])
	// Output:
	// true true
}

// An endless text takes memory of its last tokens and its first alone.
func ExampleStateConfig() {
	m, words := open()
	st := must(m.NewState(transformer.StateConfig{Window: 128, Keep: 4}))
	ids := must(words.Encode("Once upon a time", true))
	before, n := int64(0), 0
	for _, err := range m.Generate(context.Background(), ids, st, transformer.GenerateConfig{MaxTokens: 400, Stop: []int32{}}) {
		if err != nil {
			panic(err)
		}
		if n++; n == 200 {
			before = st.Bytes()
		}
	}
	fmt.Println(n, st.Bytes() == before)
	// Output:
	// 400 true
}

// Beyond the length of its training a model sees the last tokens and the first at positions that
// it knows, or all of them by groups.
func ExampleModel_Endless() {
	m, words := open()
	ids := must(words.Encode("Once upon a time", true))
	for _, policies := range []func(int) *kvcache.Config{m.Endless(4, 100), m.SelfExtend(4, 100)} {
		st := must(m.NewState(transformer.StateConfig{Policies: policies}))
		for _, err := range m.Generate(context.Background(), ids, st, transformer.GenerateConfig{MaxTokens: 300, Stop: []int32{}}) {
			if err != nil {
				panic(err)
			}
		}
		fmt.Println(st.Len(), transformer.Past(st, 0).Held(0))
	}
	// Output:
	// 304 104
	// 304 304
}

func ExampleParseConfig() {
	shape := must(transformer.ParseConfig([]byte(`{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
		"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": true, "rope_theta": 1000000}`)))
	fmt.Printf("%.2f GB in bfloat16, %.2f GB in int8\n", float64(shape.Bytes(asm.BFloat16))/1e9, float64(shape.Bytes(asm.Int8))/1e9)
	// Output:
	// 1.19 GB in bfloat16, 0.60 GB in int8
}

// A Sampler chooses the next token of logits that come from anywhere.
func ExampleNewSampler() {
	sampler := must(transformer.NewSampler(transformer.SampleConfig{Temperature: 0.8, TopK: 2, Seed: 1}))
	logits := []float32{-3, 2, -1, 2.5}
	var counts [4]int
	for range 1000 {
		counts[must(sampler.Sample(logits))]++
	}
	fmt.Println(counts[0], counts[2], counts[1] > 100, counts[3] > counts[1])
	// Output:
	// 0 0 true true
}

// A checkpoint from memory, as one embedded in a program is, with its config.json.
func ExampleRead() {
	weights := must(os.ReadFile(filepath.Join(folder, "model.safetensors")))
	config := must(os.ReadFile(filepath.Join(folder, "config.json")))
	m := must(transformer.Read(bytes.NewReader(weights), int64(len(weights)), config, transformer.Config{}))
	fmt.Println(m.Shape().Layers, "layers")
	// Output:
	// 5 layers
}

// Text as it comes, with how likely each token was, up to a word.
func ExampleModel_Stream() {
	m, words := open()
	st := must(m.NewState(transformer.StateConfig{}))
	cfg := transformer.GenerateConfig{Words: words, StopText: []string{"mom"}, LogProbs: true}
	least := float32(0)
	for piece, err := range m.Stream(context.Background(), must(words.Encode("One day, a dog named Max", true)), st, cfg) {
		if err != nil {
			panic(err)
		}
		fmt.Print(string(piece.Text))
		least = min(least, piece.LogProb)
		if piece.End != transformer.Going {
			fmt.Printf("| %v, %.1f\n", piece.End, least)
		}
	}
	// Output:
	//  went to the park with his | text, -1.0
}

// A conversation, as the checkpoint's chat template has it.
func ExampleOpenTemplate() {
	dir := must(os.MkdirTemp("", "chat"))
	defer os.RemoveAll(dir)
	must(0, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(`{"added_tokens": [{"id": 3, "content": "<|im_start|>", "special": true}, {"id": 4, "content": "<|im_end|>", "special": true}],
		"pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": {"user": 0, "assistant": 1, "hello": 2}}}`), 0o600))
	must(0, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(`{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}{% endfor %}
		{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`), 0o600))
	words := must(transformer.OpenTokenizer(dir))
	chat := must(transformer.OpenTemplate(dir, words, transformer.TemplateConfig{}))
	fmt.Println(must(chat.Apply([]transformer.Message{{Role: "user", Content: "hello"}}, true)), chat.Ends())
	// Output:
	// [3 0 2 4 3 1] [4]
}
