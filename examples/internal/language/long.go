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
	model, ok := m.streamer.(*transformer.Model)
	switch {
	case !ok:
		return nil, errors.New("positions of long texts are for transformers, and this is a model of package " + m.Room)
	case l.Group > 0:
		return model.NewState(transformer.StateConfig{Policies: model.SelfExtend(l.Group, l.Recent)})
	}
	return model.NewState(transformer.StateConfig{Policies: model.Endless(kept, l.Recent)})
}
