package transformer

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/cca"
	"github.com/subquad/subquad/internal/state/statetest"
)

// hostileStates reads files of states of a model that another program has changed.
func hostileStates(t *testing.T, m *Model, cfg StateConfig) {
	t.Helper()
	const seen = 30
	ids := tokens(m, seen+8)
	st := newState(t, m, cfg)
	must(t, m.Step(zeros(seen, m.shape.Vocab), ids[:seen], st))
	read := func(r io.Reader) (*State, error) { return m.ReadStateWith(r, cfg) }
	statetest.Mutate(t, st, read, func(st *State) error {
		for _, n := range []int{1, 7} {
			if err := m.Step(zeros(n, m.shape.Vocab), ids[seen:seen+n], st); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestHostileStates: of models of all kinds of layers, of states of all kinds, and of
// prefixes.
func TestHostileStates(t *testing.T) {
	names := laws
	if testing.Short() {
		names = []string{"gemma3", "phi3_longrope", "deepseek_v3"}
	}
	for _, name := range names {
		hostileStates(t, open(t, name, Config{Workers: 1}), StateConfig{})
	}
	m, _ := tinyLlama(t, 2, Config{Workers: 1})
	for what, cfg := range policies() {
		t.Run(what, func(t *testing.T) { hostileStates(t, m, cfg) })
	}
	replaced, _ := tinyLlama(t, 1, Config{Workers: 1, Attention: func(layer int, cfg attention.Config) (*Replacement, error) {
		op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, GroupSize: 4, Window: 9})
		if err != nil {
			return nil, err
		}
		return Replace(op, func(c StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{MaxTokens: c.MaxTokens}) }, op.ReadState), nil
	}})
	hostileStates(t, replaced, StateConfig{})
	for _, cfg := range []StateConfig{{Format: asm.Int8}, {Policies: m.Endless(2, 8)}} {
		cfg := PrefixConfig{MaxBytes: 1 << 20, Every: 64, State: cfg}
		p, err := m.NewPrefixes(cfg)
		must(t, err)
		prefill := func(p *Prefixes, ids []int32) error {
			_, _, err := p.Prefill(t.Context(), ids, zeros(1, m.shape.Vocab))
			return err
		}
		ids := tokens(m, 150)
		must(t, prefill(p, ids))
		other := append(ids[:80:80], 3, 4, 5)
		must(t, prefill(p, other))
		statetest.Mutate(t, p, func(r io.Reader) (*Prefixes, error) { return m.ReadPrefixes(r, cfg) }, func(p *Prefixes) error {
			if err := prefill(p, ids); err != nil {
				return err
			}
			return prefill(p, append(other, 7, 8, 9))
		})
	}
}

// TestStoredRoom: a layer that has less room than the state says is of a wrong state.
func TestStoredRoom(t *testing.T) {
	m, _ := tinyLlama(t, 2, Config{Workers: 1})
	ids := tokens(m, 30)
	for what, cfg := range map[string]StateConfig{"keys": {}, "a policy": {Policies: m.Endless(2, 50)}} {
		st, small := newState(t, m, cfg), cfg
		small.MaxTokens = 30
		full := newState(t, m, small)
		for _, st := range []*State{st, full} {
			must(t, m.Step(zeros(30, m.shape.Vocab), ids, st))
		}
		switch l := st.Layer(1).(type) {
		case *cache:
			l.State = full.Layer(1).(*cache).State
		case *policyState:
			l.State = full.Layer(1).(*policyState).State
		}
		var file bytes.Buffer
		_, err := st.WriteTo(&file)
		must(t, err)
		if _, err := m.ReadStateWith(bytes.NewReader(file.Bytes()), cfg); !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestStoredWeights: so is one whose keys have weights.
func TestStoredWeights(t *testing.T) {
	m, _ := tinyLlama(t, 1, Config{Workers: 1})
	st := newState(t, m, StateConfig{})
	l := st.Layer(0).(*cache)
	cfg := l.Config()
	cfg.LogWeights = true
	var err error
	l.State, err = l.owner.(*mixer).op.NewState(cfg)
	must(t, err)
	var file bytes.Buffer
	_, err = st.WriteTo(&file)
	must(t, err)
	if _, err := m.ReadState(&file); !errors.Is(err, ErrState) {
		t.Errorf("error %v", err)
	}
}

// TestReplacedRoom: a stored state of other operators is full where it was, and then no layer takes
// a token; nor does one where an operator alone is full.
func TestReplacedRoom(t *testing.T) {
	m, _ := tinyLlama(t, 2, Config{Workers: 1, Attention: func(layer int, cfg attention.Config) (*Replacement, error) {
		if layer == 0 {
			return nil, nil
		}
		op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, GroupSize: 4, Window: 9})
		if err != nil {
			return nil, err
		}
		return Replace(op, func(StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{MaxTokens: 30}) }, op.ReadState), nil
	}})
	ids := tokens(m, 31)
	for _, most := range []int{0, 30} {
		st := newState(t, m, StateConfig{MaxTokens: most})
		must(t, m.Step(zeros(30, m.shape.Vocab), ids[:30], st))
		var file bytes.Buffer
		_, err := st.WriteTo(&file)
		must(t, err)
		st, err = m.ReadState(&file)
		must(t, err)
		if room := st.Layer(1).Room(1); (room != nil) != (most > 0) {
			t.Errorf("MaxTokens %d: a stored layer has room: %v", most, room)
		}
		if err := m.Step(zeros(1, m.shape.Vocab), ids[30:], st); !errors.Is(err, ErrFull) {
			t.Errorf("MaxTokens %d: error %v", most, err)
		}
		if n := st.Layer(0).Len(); n != 30 || st.Len() != 30 {
			t.Errorf("MaxTokens %d: %d tokens in a layer, %d in the state", most, n, st.Len())
		}
		must(t, st.Truncate(0))
		must(t, m.Step(zeros(30, m.shape.Vocab), ids[:30], st))
	}
}
