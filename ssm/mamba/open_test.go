package mamba

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// TestWithMmap: a mapped checkpoint and a mapped state give what read ones do.
func TestWithMmap(t *testing.T) {
	dir := t.TempDir()
	path, stored := filepath.Join(dir, "consolidated.safetensors"), filepath.Join(dir, "state")
	s := random(true, 1, 2)
	must(t, os.WriteFile(path, s.File(), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "params.json"), []byte(`{"head_dim": 8, "state_size": 6}`), 0o600))
	var want []float32
	var state []byte
	for _, options := range [][]subquad.OpenOption{nil, {subquad.WithMmap()}} {
		m, err := Open(dir, Config{}, options...)
		must(t, err)
		st := newState(t, m, 0)
		logits := mat.New(1, vocab)
		must(t, m.Step(logits, []int32{3}, st))
		var file bytes.Buffer
		_, err = st.WriteTo(&file)
		must(t, err)
		must(t, os.WriteFile(stored, file.Bytes(), 0o600))
		st, err = m.OpenState(stored, options...)
		must(t, err)
		must(t, m.Step(logits, []int32{5}, st))
		if want == nil {
			want, state = logits.Data, file.Bytes()
		}
		if !slices.Equal(logits.Data, want) || !bytes.Equal(file.Bytes(), state) {
			t.Errorf("options %v: %v, want %v", options, logits.Data, want)
		}
		if _, err := m.OpenState(dir, options...); !errors.Is(err, subquad.ErrCheckpoint) {
			t.Errorf("a folder as a state: error %v", err)
		}
		if _, err := m.OpenState(stored+".none", options...); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no state: error %v", err)
		}
	}
}
