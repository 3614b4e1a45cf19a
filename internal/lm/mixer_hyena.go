package lm

import (
	"context"

	"github.com/subquad/subquad/hyena"
)

// Hyena is a Hyena operator as a mixer. It reads whole sequences: its filters are as long
// as they are, and it keeps no state.
type Hyena struct{ *hyena.Operator }

// Mix implements Mixer.
func (m Hyena) Mix(ctx context.Context, mix *Mix) error {
	return m.Run(ctx, &hyena.OperatorCall{Dst: mix.X, X: mix.X, Workers: mix.Workers})
}

// Kind implements Mixer.
func (m Hyena) Kind() string { return "Hyena" }
