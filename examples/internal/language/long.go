package language

import (
	"errors"

	"github.com/subquad/subquad/attention/transformer"
)

// Long says how a transformer goes on where a text is longer than those it was trained on.
type Long struct {
	// Recent is how many of the last tokens attention sees at their own distances, 0 for all.
	Recent int
	// Group is how many of those before share a position (Self-Extend); 0 forgets all of them
	// but the first four, so that a text may be endless (StreamingLLM).
	Group int
}

// kept are the first tokens of a text that is endless.
const kept = 4

// NewLongState returns an empty state, or ErrNoState.
func (m *Model) NewLongState(l Long) (*transformer.State, error) {
	if l == (Long{}) {
		return m.NewState()
	}
	cfg, err := l.config(m)
	if err != nil {
		return nil, err
	}
	return m.streamer.(*transformer.Model).NewState(cfg)
}

// NewLongPrefixes returns a cache of prefixes of such states, of that many bytes, or ErrNoState.
func (m *Model) NewLongPrefixes(most int64, l Long) (*transformer.Prefixes, error) {
	if l == (Long{}) {
		return m.NewPrefixes(most)
	}
	cfg, err := l.config(m)
	if err != nil {
		return nil, err
	}
	return m.streamer.(*transformer.Model).NewPrefixes(transformer.PrefixConfig{MaxBytes: most, State: cfg})
}

// config is that of states, which must be a transformer's.
func (l Long) config(m *Model) (cfg transformer.StateConfig, err error) {
	model, ok := m.streamer.(*transformer.Model)
	switch {
	case !ok:
		return cfg, errors.New("positions of long texts are for transformers, and this is a model of package " + m.Room)
	case l.Group > 0:
		cfg.Policies = model.SelfExtend(l.Group, l.Recent)
	default:
		cfg.Policies = model.Endless(kept, l.Recent)
	}
	return cfg, nil
}
