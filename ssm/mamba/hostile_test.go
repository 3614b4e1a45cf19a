package mamba

import (
	"bytes"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	for _, m := range models(t) {
		ids := tokens(1, 40)
		st := newState(t, m, 0)
		must(t, m.Step(mat.New(30, vocab), ids[:30], st))
		statetest.Mutate(t, st, m.ReadState, func(st *State) error {
			if err := m.Step(mat.New(1, vocab), ids[30:31], st); err != nil {
				return err
			}
			return m.Step(mat.New(9, vocab), ids[31:], st)
		})
	}
}

// TestHostileCheckpoints opens checkpoints and configurations that another program has changed.
func TestHostileCheckpoints(t *testing.T) {
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
		return func() error { return m.Forward(zeros(3, m.cfg.Vocab), make([]int32, 3)) }, nil
	}
	weightstest.Mutate(t, random(true, 1, 2).State, `{"ssm_cfg": {"d_state": 6, "headdim": 8, "ngroups": 1, "dt_limit": [0.001, 100]}, "d_model": 12, "n_layer": 2, "vocab_size": 23,
		"pad_vocab_size_multiple": 8, "norm_epsilon": 1e-5, "rms_norm": true}`, open)
	weightstest.Mutate(t, random(false, 1).State, `{"model_type": "falcon_mamba", "hidden_size": 12, "num_hidden_layers": 1, "state_size": 6, "time_step_limit": [0, 1e9], "mixer_rms_eps": 1e-6}`, open)
}
