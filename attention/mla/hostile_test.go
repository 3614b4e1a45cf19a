package mla

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states that another program has changed.
func TestHostileFiles(t *testing.T) {
	m, err := New(mlaOp, mlaWeights(mlaOp))
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(9, 13, mlaOp.Dim)
	for _, cfg := range []attention.StateConfig{{}, {MaxTokens: 12, Format: asm.Float16}, {Window: 4, Keep: 1, Format: asm.Int8}} {
		s, err := m.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Step(mat.New(7, mlaOp.Dim), mat.Rows(x, 0, 7), s); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, s, m.ReadState, func(s *attention.State) error {
			if err := m.Step(mat.New(1, mlaOp.Dim), mat.Rows(x, 7, 8), s); err != nil {
				return err
			}
			return m.Step(mat.New(5, mlaOp.Dim), mat.Rows(x, 8, 13), s)
		})
	}
}

// TestStoredValues: a file of values that are not those of latents is a wrong state.
func TestStoredValues(t *testing.T) {
	m, err := New(mlaOp, mlaWeights(mlaOp))
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.latent.NewState(attention.StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadState(&file); !errors.Is(err, attention.ErrState) {
		t.Errorf("error %v", err)
	}
}
