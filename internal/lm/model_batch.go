package lm

import (
	"context"
	"errors"
	"fmt"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
)

// sharedTokens is the length from which a call of a batch gets all workers.
const sharedTokens = 8 * dense.BlockRows

// RunBatch runs many calls: short ones side by side, long ones one after the other. Each
// gives what it gives alone, to the bit. All are checked before any is run. Workers of a
// call count for itself, as many as the configuration has for the batch.
func (m *Model) RunBatch(ctx context.Context, calls []*Call) error {
	return m.RunBatchOn(ctx, calls, 0)
}

// RunBatchOn is RunBatch on as many goroutines as workers says, 0 for the configuration's.
func (m *Model) RunBatchOn(ctx context.Context, calls []*Call, workers int) error {
	pkg := m.cfg.Package
	if err := check.Call(pkg, ctx, true); err != nil {
		return err
	}
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	states := map[*State]bool{}
	for i, call := range calls {
		if call == nil {
			return check.Errorf(subquad.ErrCall, "%s: call %d is nil", pkg, i)
		}
		if err := s.accept(m, call); err != nil {
			return fmt.Errorf("%s: call %d: %w", pkg, i, err)
		}
		shared := s.claim(states)
		if s.release(); shared {
			return check.Errorf(subquad.ErrState, "%s: call %d has a state that another has", pkg, i)
		}
	}
	var short []*Call
	for _, call := range calls {
		if len(call.Tokens) < sharedTokens {
			short = append(short, call)
		} else if err := m.Run(ctx, call); err != nil {
			return err
		}
	}
	errs := make([]error, len(short))
	var group parallel.Group
	err := group.Run(ctx, parallel.Choose(m.cfg.Workers, workers), len(short), func(_, i int) {
		errs[i] = m.runWith(ctx, short[i], drafting{}, 1)
	})
	if done := ctx.Err(); done != nil {
		return done
	}
	return errors.Join(append(errs, check.Wrap(ctx, pkg, err))...)
}

// claim notes the states of a call, and tells whether one of them was noted before.
func (s *run) claim(states map[*State]bool) (shared bool) {
	for _, st := range s.layout.States {
		shared = shared || states[st]
		states[st] = true
	}
	return shared
}
