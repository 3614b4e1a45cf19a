package transformer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// BenchmarkDraft times a hundred tokens after a long past of noise, with and without drafts, in
// a small Llama: reading the past takes most of the time there.
//
//	go test -run '^$' -bench Draft -benchtime 3x ./attention/transformer
func BenchmarkDraft(b *testing.B) {
	const folder = "../../examples/needles/model"
	if _, err := os.Stat(folder); err != nil {
		b.Skip("the examples' model is not there")
	}
	m, err := Open(folder, Config{Workers: 1})
	must(b, err)
	lengths := []int{4096, 24576}
	if testing.Short() {
		lengths = lengths[:1]
	}
	for _, n := range lengths {
		r, ids := rand.New(rand.NewPCG(1, 2)), make([]int32, n)
		for i := range ids {
			ids[i] = int32(66 + r.IntN(30))
		}
		st := newState(b, m, StateConfig{MaxTokens: n + 200})
		must(b, m.Run(b.Context(), &Call{Tokens: ids, State: st}))
		for _, d := range []struct {
			name  string
			draft Drafter
		}{{"alone", nil}, {"near", Near{Keep: 4, Recent: 256}}, {"lookup", Lookup{}}} {
			b.Run(fmt.Sprintf("llama-105k/%s/n=%d", d.name, n), func(b *testing.B) {
				cfg := GenerateConfig{MaxTokens: 100, Stop: []int32{}, Seen: ids, Draft: d.draft}
				if d.draft != nil {
					cfg.Drafts = 3
				}
				write := func() {
					must(b, st.Truncate(n))
					for _, err := range m.Generate(b.Context(), ids[:1], st, cfg) {
						must(b, err)
					}
				}
				write()
				var t best
				for b.Loop() {
					t.time(write)
				}
				t.report(b, 100, "tokens/s")
			})
		}
	}
}
