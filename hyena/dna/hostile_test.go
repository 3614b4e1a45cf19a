package dna

import (
	"bytes"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	d := small
	d.order = 3
	m, ids := d.random(4).model(t, d.config()), bases(1, 40)
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
	d := dims{dim: 4, layers: 2, inner: 3, vocab: 8, maxLen: 40, order: 3, hidden: 2, inners: 1}
	open := func(file, config []byte) (func() error, error) {
		cfg, err := ParseConfig(config)
		if err != nil {
			return nil, err
		}
		cfg.Workers = 1
		m, err := Read(bytes.NewReader(file), int64(len(file)), cfg)
		if err != nil {
			return nil, err
		}
		return func() error {
			if m.cfg.MaxLen < 3 {
				return nil
			}
			return m.Forward(zeros(3, m.cfg.Dim), make([]int32, 3))
		}, nil
	}
	weightstest.Mutate(t, d.random(1).State, `{"d_model": 4, "n_layer": 2, "d_inner": 3, "vocab_size": 8, "pad_vocab_size_multiple": 8, "layer": {"_name_": "hyena", "l_max": 40, "order": 3, "emb_dim": 5,
		"filter_order": 2, "short_filter_order": 3, "fast_decay_pct": 0.3, "slow_decay_pct": 1.5, "target": 0.01, "shift": 0.05, "w": 10, "modulate": true}}`, open)
	weightstest.Mutate(t, d.random(1).renamed(layouts["MultiMolecule"]).State, `{"max_position_embeddings": 40, "hyena_order": 3, "model_type": "hyenadna", "hidden_size": 4, "norm_epsilon": 1e-5}`, open)
}
