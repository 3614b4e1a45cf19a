package transformer

import (
	"errors"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// TestKeepMXFP4: experts that stay in 4 bits give the bits of those that are expanded, from states of
// either, by one and by all workers, in less memory, which is told before.
func TestKeepMXFP4(t *testing.T) {
	for _, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Float16, asm.Int8} {
		wide, narrow := open(t, "gpt_oss_mxfp4", Config{Format: format}), open(t, "gpt_oss_mxfp4", Config{Format: format, KeepMXFP4: true})
		ids := tokens(wide, 70)
		v := wide.shape.Vocab
		want, got := zeros(len(ids), v), zeros(len(ids), v)
		st := newState(t, wide, StateConfig{})
		must(t, wide.Step(mat.Rows(want, 0, 60), ids[:60], st))
		must(t, narrow.Run(t.Context(), &Call{Tokens: ids[:60], State: newState(t, narrow, StateConfig{}), Logits: mat.Rows(got, 0, 60), Workers: 1}))
		fork := st.Clone()
		for i := 60; i < 70; i++ {
			must(t, wide.Step(mat.Rows(want, i, i+1), ids[i:i+1], st))
			must(t, narrow.Step(mat.Rows(got, i, i+1), ids[i:i+1], fork))
		}
		same(t, format.String(), got.Data, want.Data)
		if a, b := narrow.Bytes(), wide.Bytes(); a >= b {
			t.Errorf("%v: %d bytes in 4 bits, %d expanded", format, a, b)
		}
		s := narrow.Shape()
		kept, all := s.bytes(format, true), s.Bytes(format)
		if difference := wide.Bytes() - narrow.Bytes(); format != asm.Int8 && all-kept < difference*9/10 || all-kept > difference*11/10+64 { // int8 has scales, which are many for rows as short as these
			t.Errorf("%v: %d bytes less are told, %d are", format, all-kept, difference)
		}
		if _, err := Open(goldenFolder+"gpt_oss_mxfp4", Config{Format: format, KeepMXFP4: true, MaxBytes: kept}); err != nil {
			t.Errorf("%v: %v", format, err)
		}
		if _, err := Open(goldenFolder+"gpt_oss_mxfp4", Config{Format: format, MaxBytes: kept}); !errors.Is(err, ErrConfig) {
			t.Errorf("%v: %v", format, err)
		}
	}
	if a := testing.AllocsPerRun(20, stepOf(t, open(t, "gpt_oss_mxfp4", Config{KeepMXFP4: true, Workers: 1}))); a > 0 {
		t.Errorf("%v allocations a token", a)
	}
}

// stepOf returns a step of a model, after some.
func stepOf(t *testing.T, m *Model) func() {
	t.Helper()
	st, last := newState(t, m, StateConfig{MaxTokens: 200}), zeros(1, m.shape.Vocab)
	call := &Call{Tokens: tokens(m, 1), State: st, Last: last}
	step := func() { must(t, m.Run(t.Context(), call)) }
	for range 20 {
		step()
	}
	return step
}
