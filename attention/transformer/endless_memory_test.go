package transformer

import (
	"testing"
)

// TestEndlessPositions: with positions counted within what is kept a text goes on for any number
// of tokens in the memory that it had, allocates nothing for them, and its state is stored and gone
// on from with the same bits.
func TestEndlessPositions(t *testing.T) {
	tokens := 100_000
	if testing.Short() {
		tokens = 4_000
		t.Logf("%d tokens, not 100,000, which take some seconds", tokens)
	}
	m, _ := tinyLlama(t, 2, Config{Workers: 1})
	st, last := newState(t, m, StateConfig{Policies: m.Endless(4, 20)}), zeros(1, tinyVocab)
	call := &Call{State: st, Last: last}
	ids := tinyTokens(tokens)
	var bytes int64
	for i := range ids {
		call.Tokens = ids[i : i+1]
		must(t, m.Run(t.Context(), call))
		switch n := st.Bytes(); {
		case i == 200:
			bytes = n
		case i > 200 && n != bytes:
			t.Fatalf("%d bytes after %d tokens, %d after 200", n, i, bytes)
		}
	}
	if a := testing.AllocsPerRun(200, func() { must(t, m.Run(t.Context(), call)) }); a > 0 {
		t.Errorf("%v allocations a token", a)
	}
	fork := st.Clone()
	must(t, m.Run(t.Context(), call))
	want := append([]float32(nil), last.Data...)
	call.State = fork
	must(t, m.Run(t.Context(), call))
	same(t, "a fork", last.Data, want)
}
