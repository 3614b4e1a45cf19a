package mamba

import (
	"bytes"
	"testing"
)

// TestPrefixes goes on from a known state, in memory and from a file.
func TestPrefixes(t *testing.T) {
	m := random(false, 1, 2).model(t, small)
	p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 20, Every: 64})
	must(t, err)
	ids := make([]int32, 200)
	for i := range ids {
		ids[i] = int32(i * i % vocab)
	}
	st, n, err := p.Prefill(t.Context(), ids, zeros(1, vocab))
	must(t, err)
	if n != 0 || st.Len() != 200 {
		t.Fatalf("%d known, %d seen", n, st.Len())
	}
	var file bytes.Buffer
	_, err = p.WriteTo(&file)
	must(t, err)
	read, err := m.ReadPrefixes(&file, PrefixConfig{MaxBytes: 1 << 20, Every: 64})
	must(t, err)
	want := zeros(1, vocab)
	must(t, m.Run(t.Context(), &Call{Tokens: ids[:150], Last: want}))
	for _, p := range []*Prefixes{p, read} {
		got := zeros(1, vocab)
		_, n, err := p.Prefill(t.Context(), ids[:150], got)
		must(t, err)
		if n != 128 {
			t.Errorf("%d of 150 tokens are known, want 128", n)
		}
		for i, v := range want.Data { // blocks cut at multiples of 64
			if got.Data[i] != v {
				t.Fatalf("logit %d is %v, want %v", i, got.Data[i], v)
			}
		}
	}
}
