package rwkv

import (
	"bytes"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	m := read(t, stateDict(t, "fla_names"), Config{})
	ids := tokens(m, 40)
	st := newState(t, m, StateConfig{})
	must(t, m.Step(mat.New(30, m.cfg.Vocab), ids[:30], st))
	statetest.Mutate(t, st, m.ReadState, func(st *State) error {
		if err := m.Step(mat.New(1, m.cfg.Vocab), ids[30:31], st); err != nil {
			return err
		}
		return m.Step(mat.New(9, m.cfg.Vocab), ids[31:], st)
	})
}

// TestHostileCheckpoints opens checkpoints and configurations that another program has changed.
func TestHostileCheckpoints(t *testing.T) {
	open := func(file, config []byte) (func() error, error) {
		cfg := Config{}
		if len(config) > 0 {
			var err error
			if cfg, err = ParseConfig(config); err != nil {
				return nil, err
			}
		}
		cfg.Workers = 1
		m, err := Read(bytes.NewReader(file), int64(len(file)), cfg)
		if err != nil {
			return nil, err
		}
		return func() error { return m.Forward(mat.New(3, m.cfg.Vocab), make([]int32, 3)) }, nil
	}
	weightstest.Mutate(t, stateDict(t, "fla_names"), `{"model_type": "rwkv7", "hidden_size": 16, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 29, "norm_eps": 1e-5, "norm_first": true, "norm_bias": true,
		"hidden_act": "sqrelu", "attn": null, "fuse_norm": true, "intermediate_size": 32, "tie_word_embeddings": false, "decay_low_rank_dim": 4, "value_dim": [16, 16]}`, open)
	weightstest.Mutate(t, stateDict(t, "fla_names"), "", open)
}
