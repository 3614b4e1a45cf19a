package transformer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/rope"
)

// TestPrefixes goes on from known tokens of two texts that part within a page, in every kind of
// state, from memory and from a file, and compares with a state that was cut back to there.
func TestPrefixes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, name := range laws {
			m := open(t, name, Config{})
			for what, cfg := range map[string]StateConfig{
				"plain": {}, "most": {MaxTokens: 200}, "bfloat16": {Format: asm.BFloat16}, "int8": {Format: asm.Int8},
				"windows": {WindowsOnly: true}, "endless": {Window: 70, Keep: 4}, "each step": {Policy: rope.EachStep}, "rerotate": {Policy: rope.Rerotate},
			} {
				cfg.Length = 200
				what = name + ", " + what
				p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 30, Every: 64, State: cfg})
				must(t, err)
				first := tokens(m, 150)
				second := append(slices.Clone(first[:110]), 3, 4, 5, 6, 7)
				second[110] = (first[110] + 1) % int32(m.shape.Vocab)
				v := m.shape.Vocab
				st, n, err := p.Prefill(t.Context(), first, zeros(1, v))
				must(t, err)
				if n != 0 || st.Len() != 150 {
					t.Fatalf("%s: %d known, %d seen", what, n, st.Len())
				}
				var file bytes.Buffer
				_, err = p.WriteTo(&file)
				must(t, err)
				read, err := m.ReadPrefixes(&file, PrefixConfig{MaxBytes: 1 << 30, Every: 64, State: cfg})
				must(t, err)
				got, again, want := zeros(1, v), zeros(1, v), zeros(1, v)
				_, n, err = p.Prefill(t.Context(), second, got)
				must(t, err)
				_, _, err = read.Prefill(t.Context(), second, again)
				must(t, err)
				if n != 110 && n != 64 {
					t.Errorf("%s: %d tokens are known of 110", what, n)
				}
				cut := newState(t, m, cfg)
				for _, to := range []int{64, 128, 150} {
					if n == 64 && to <= n || n == 110 && to == 150 {
						must(t, m.Run(t.Context(), &Call{Tokens: first[cut.Len():to], State: cut}))
					}
				}
				must(t, cut.Truncate(n))
				must(t, m.Run(t.Context(), &Call{Tokens: second[n:], State: cut, Last: want}))
				same(t, what, got.Data, want.Data)
				same(t, what+", read", again.Data, want.Data)
				// A state of one's own is copied.
				q, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 30, State: cfg})
				must(t, err)
				must(t, q.Insert(second, cut))
				if _, n, err := q.Lookup(append(second, 1)); n != len(second) || err != nil {
					t.Errorf("%s: %d of %d tokens that were inserted: %v", what, n, len(second), err)
				}
				cfg.Format = asm.Float16
				if cfg.Policy == rope.Rerotate { // of which only float32 can
					continue
				}
				other := newState(t, m, cfg)
				must(t, m.Run(t.Context(), &Call{Tokens: second, State: other}))
				if err := q.Insert(second, other); err == nil && q.Len() > len(second) || err != nil && !errors.Is(err, ErrState) {
					t.Errorf("%s: error %v of a state of another Format", what, err)
				}
			}
		}
	})
}

// BenchmarkPrefixes times a prompt of 2,048 tokens, of which all but 100 are known or none.
func BenchmarkPrefixes(b *testing.B) {
	m := random135M(b, asm.BFloat16)
	length := 2048
	if testing.Short() {
		length = 256
	}
	ids := tokens(m, length)
	last := zeros(1, m.shape.Vocab)
	for _, known := range []int{length - 100, 0} {
		b.Run(fmt.Sprintf("llama-135m/n=%d/known=%d", length, known), func(b *testing.B) {
			p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 30})
			must(b, err)
			if known > 0 {
				_, _, err = p.Prefill(b.Context(), ids[:known], blas32.General{})
				must(b, err)
			}
			for b.Loop() {
				st, n, err := p.Lookup(ids)
				must(b, err)
				if n != known {
					b.Fatalf("%d tokens are known", n)
				}
				must(b, m.Run(b.Context(), &Call{Tokens: ids[n:], State: st, Last: last}))
			}
		})
	}
}

// TestPrefixFilesOfPolicies: a file of states with policies is none of states without, and the other
// way, which is told before anything of it is read.
func TestPrefixFilesOfPolicies(t *testing.T) {
	m := open(t, "llama", Config{})
	configs := []StateConfig{{}, {Policies: m.Endless(2, 8)}}
	for i, cfg := range configs {
		p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 20, State: cfg})
		must(t, err)
		_, _, err = p.Prefill(t.Context(), tokens(m, 40), blas32.General{})
		must(t, err)
		var file bytes.Buffer
		_, err = p.WriteTo(&file)
		must(t, err)
		_, err = m.ReadPrefixes(bytes.NewReader(file.Bytes()), PrefixConfig{MaxBytes: 1 << 20, State: configs[1-i]})
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "it is of another operator") {
			t.Errorf("%v", err)
		}
		if p, err = m.ReadPrefixes(&file, PrefixConfig{MaxBytes: 1 << 20, State: cfg}); err != nil || p.Len() != 40 {
			t.Errorf("%v", err)
		}
	}
}
