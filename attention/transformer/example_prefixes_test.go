package transformer_test

import (
	"bytes"
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/cca"
	"github.com/subquad/subquad/attention/transformer"
)

// Two prompts begin alike: what the first has computed is not computed again, here and in
// another process that reads it.
func ExampleModel_NewPrefixes() {
	m, words := open()
	ctx, cfg := context.Background(), transformer.PrefixConfig{MaxBytes: 64 << 20}
	prefixes := must(m.NewPrefixes(cfg))
	begin := "Once upon a time, there was a little girl named Sue. Sue had a big red ball. "
	for _, prompt := range []string{begin + "One day", begin + "Her dog", begin + "Her cat"} {
		ids := must(words.Encode(prompt, true))
		st, known, err := prefixes.Prefill(ctx, ids, blas32.General{})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d tokens, %d of them known\n", st.Len(), known)
	}
	var file bytes.Buffer
	must(prefixes.WriteTo(&file))
	again := must(m.ReadPrefixes(&file, cfg))
	_, known, err := again.Lookup(must(words.Encode(begin+"Then", true)))
	if err != nil {
		panic(err)
	}
	fmt.Println(known, "known after reading")
	// Output:
	// 31 tokens, 0 of them known
	// 33 tokens, 29 of them known
	// 33 tokens, 31 of them known
	// 29 known after reading
}

// Every other layer attends to the last 64 tokens and, of those before, to one core for 8.
func ExampleReplace() {
	m := must(transformer.Open(folder, transformer.Config{
		Attention: func(layer int, cfg attention.Config) (*transformer.Replacement, error) {
			if layer%2 == 0 {
				return nil, nil
			}
			op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.Scale, GroupSize: 8, Window: 64})
			if err != nil {
				return nil, err
			}
			newState := func(transformer.StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{}) }
			return transformer.Replace(op, newState, op.ReadState), nil
		},
	}))
	_, words := open()
	text := must(words.Encode("One day, a dog named Max", true))
	st := must(m.NewState(transformer.StateConfig{}))
	for token, err := range m.Generate(context.Background(), text, st, transformer.GenerateConfig{MaxTokens: 12}) {
		if err != nil {
			panic(err)
		}
		text = append(text, token)
	}
	fmt.Println(words.Decode(text))
	// Output:
	// One day, a dog named Max went to the park with his mom. They
}
