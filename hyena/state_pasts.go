package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/scratch"
)

// pasts are the sequences of a call and what each goes on from.
type pasts struct {
	kind   *kind
	layout pack.Layout[*State]
	memory []float32 // values of sequences without a state, or of states as they were
	copied bool
}

// briefRows is how many rows a call with states may have that is not interrupted once it has
// begun, unless it has long convolutions, of which a token may take long.
const briefRows = 32

// begin checks the batch of a call and lays it out, and returns the context to run with.
// Unless it returns an error, end must follow.
func (p *pasts) begin(ctx context.Context, k *kind, batch pack.Batch[*State]) (context.Context, error) {
	if err := p.layout.Lay(pkg, batch, k.accept); err != nil {
		return nil, err
	}
	err := ctx.Err()
	for i, st := range p.layout.States {
		if err == nil {
			err = st.Room(p.rows(i))
		}
	}
	if err != nil {
		p.layout.Clear()
		return nil, err
	}
	p.kind, p.copied = k, false
	switch {
	case !p.given():
		p.memory = scratch.Floats(p.memory, len(p.layout.Segments)*k.size)
		clear(p.memory)
	case ctx.Done() == nil:
	case batch.Rows <= briefRows && len(k.convs) == 0:
		ctx = context.Background()
	default:
		p.copied = true
		p.memory = scratch.Floats(p.memory, len(p.layout.Segments)*k.size)
		for i, st := range p.layout.States {
			copy(p.memory[i*k.size:], st.values)
		}
	}
	return ctx, nil
}

// given tells whether the sequences have states.
func (p *pasts) given() bool { return len(p.layout.States) > 0 }

func (p *pasts) rows(i int) int { return p.layout.Segments[i].To - p.layout.Segments[i].From }

// values returns what sequence i goes on from, and how many tokens that has seen.
func (p *pasts) values(i int) ([]float32, int) {
	if p.given() {
		return p.layout.States[i].values, p.layout.States[i].n
	}
	return p.memory[i*p.kind.size:][:p.kind.size], 0
}

// end counts the tokens as seen or, where the call has failed, makes the states what they
// were. It returns err.
func (p *pasts) end(err error) error {
	for i, st := range p.layout.States {
		switch {
		case err == nil:
			st.advance(p.rows(i))
		case p.copied:
			copy(st.values, p.memory[i*p.kind.size:][:p.kind.size])
		}
		if err != nil {
			for _, s := range st.streams {
				s.truncate(st.n)
			}
		}
	}
	p.layout.Clear()
	return err
}

// batchOf is the batch of a call over the rows of x.
func batchOf(x blas32.General, offsets []int, st *State, states []*State) pack.Batch[*State] {
	return pack.Batch[*State]{Rows: x.Rows, Offsets: offsets, State: st, States: states}
}
