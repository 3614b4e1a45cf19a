package striped

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	m, ids := read(t, small.random(4), small.config()), ids(1, 40, small.vocab)
	st := newState(t, m)
	must(t, m.Step(mat.New(30, small.vocab), ids[:30], st))
	statetest.Mutate(t, st, m.ReadState, func(st *State) error {
		if err := m.Step(mat.New(1, small.vocab), ids[30:31], st); err != nil {
			return err
		}
		return m.Step(mat.New(9, small.vocab), ids[31:], st)
	})
}

// TestStoredRoom: a stored state is full where it was, and then no layer takes a token.
func TestStoredRoom(t *testing.T) {
	m, ids := read(t, small.random(4), small.config()), ids(1, 31, small.vocab)
	st, err := m.NewState(StateConfig{MaxTokens: 30})
	must(t, err)
	must(t, m.Step(mat.New(30, small.vocab), ids[:30], st))
	for range 2 {
		var file bytes.Buffer
		_, err := st.WriteTo(&file)
		must(t, err)
		st, err = m.ReadState(&file)
		must(t, err)
		if err := m.Step(mat.New(1, small.vocab), ids[30:], st); !errors.Is(err, ErrFull) || st.Len() != 30 {
			t.Errorf("error %v, %d tokens", err, st.Len())
		}
	}
}

// TestHostileCheckpoints opens checkpoints and configurations that another program has changed.
func TestHostileCheckpoints(t *testing.T) {
	d := dims{dim: 8, layers: 2, heads: 2, kvHeads: 1, inner: 6, vocab: 8, modes: 2, taps: 3, attention: []int{1}}
	config := `{"model_type": "stripedhyena", "vocab_size": 8, "hidden_size": 8, "num_filters": 8, "num_layers": 2, "num_attention_heads": 2, "inner_mlp_size": 6, "attn_layer_idxs": [1],
		"hyena_layer_idxs": [0], "proj_groups": 2, "eps": 1e-5, "rotary_emb_base": 10000, "rotary_emb_scaling_factor": 2, "use_interpolated_rotary_pos_emb": true, "mlp_activation": "gelu",
		"column_split_hyena": false, "tie_embeddings": false, "final_norm": true}`
	weightstest.Mutate(t, d.random(1), config, func(file, config []byte) (func() error, error) {
		cfg, err := ParseConfig(config)
		if err != nil {
			return nil, err
		}
		cfg.Workers = 1
		m, err := Read(bytes.NewReader(file), int64(len(file)), cfg)
		if err != nil {
			return nil, err
		}
		return func() error { return m.Forward(mat.New(3, m.cfg.Vocab), make([]int32, 3)) }, nil
	})
}
