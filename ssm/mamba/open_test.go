package mamba

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
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

// TestOpenOther: a folder without weights is told by one name, and the weights of another
// kind of model are said to be that, whether or not a config.json beside them says its own.
func TestOpenOther(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "none"), Config{})
	if want := "mamba: open "; !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	other := weightstest.State{
		"backbone.embeddings.word_embeddings.weight": {Shape: []int{16, 8}, Data: make([]float32, 128)},
		"backbone.layers.0.norm1.weight":             {Shape: []int{8}, Data: make([]float32, 8)},
	}
	must(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), other.File(), 0o600))
	for config, want := range map[string]struct {
		kind error
		text string
	}{
		`{}`: {ErrCheckpoint, "mamba: checkpoint: no block, as there is no tensor backbone.layers.0.norm.weight: it is of another kind of model; " +
			"the file has backbone.embeddings.word_embeddings.weight, backbone.layers.0.norm1.weight"},
		`{"d_model": 8, "n_layer": 2, "vocab_size": 12, "layer": {"l_max": 333}}`: {ErrCheckpoint, "mamba: checkpoint: no block, as there is no tensor backbone.layers.0.norm.weight: it is of another kind"},
		`{"model_type": "hyenadna"}`: {ErrConfig, `mamba: config.json: model_type is "hyenadna"`},
	} {
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
		if _, err := Open(dir, Config{}); !errors.Is(err, want.kind) || !strings.HasPrefix(err.Error(), want.text) {
			t.Errorf("%s: error %v, want %s", config, err, want.text)
		}
	}
}
