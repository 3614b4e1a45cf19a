package transformer

import (
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/kvcache"
)

// TestStatesOfAllKinds: a model's working memory serves states of every configuration, one call
// after the other and in one call.
func TestStatesOfAllKinds(t *testing.T) {
	m, _ := tinyLlama(t, 2, Config{})
	ids := tinyTokens(60)
	configs := []StateConfig{
		{}, {Window: 8, Keep: 2}, {Window: 30}, {Format: asm.Int8}, {Format: asm.Float16, Window: 8}, {Policies: m.Endless(2, 8)},
		{Policies: m.SelfExtend(2, 8)}, {Policies: func(int) *kvcache.Config { return &kvcache.Config{Select: kvcache.Top{TopK: 4}} }},
		{Policies: func(int) *kvcache.Config { return &kvcache.Config{Evict: kvcache.H2O{Budget: 9}} }},
	}
	states := make([]*State, len(configs))
	alone := make([][]float32, len(configs))
	for i, cfg := range configs {
		states[i] = newState(t, m, cfg)
		got := zeros(1, tinyVocab)
		for at := 0; at < len(ids); at += 20 {
			must(t, m.Run(t.Context(), &Call{Tokens: ids[at : at+20], State: states[i], Last: got}))
		}
		alone[i] = append(alone[i], got.Data...)
	}
	for i, cfg := range configs {
		states[i] = newState(t, m, cfg)
	}
	got := zeros(len(configs), tinyVocab)
	for at := 0; at < len(ids); at += 20 {
		var list []int32
		offsets := []int{0}
		for range configs {
			list = append(list, ids[at:at+20]...)
			offsets = append(offsets, len(list))
		}
		must(t, m.Run(t.Context(), &Call{Tokens: list, Offsets: offsets, States: states, Last: got}))
	}
	for i := range configs {
		same(t, "a state beside others", got.Data[i*tinyVocab:][:tinyVocab], alone[i])
	}
}
