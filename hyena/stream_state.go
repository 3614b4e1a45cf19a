package hyena

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// errReverse is the error about states of a convolution with an anticausal kernel.
var errReverse = check.Errorf(ErrCall, "hyena: a convolution with a Reverse kernel cannot go on from a state: its outputs depend on later inputs")

// keep appends inputs, and forgets those that are not needed where memory runs out.
func (s *stream) keep(u blas32.General) {
	c := s.c.channels
	have, more := len(s.in), u.Rows*c
	if have+more > cap(s.in) {
		if drop := (s.needed(s.n) - s.first) * c; drop > have/2 {
			s.in = s.in[:copy(s.in, s.in[drop:])]
			s.first += drop / c
			have = len(s.in)
		}
	}
	if have+more > cap(s.in) {
		grown := make([]float32, have, max(have+more, min(2*cap(s.in), s.mostRows()*c)))
		copy(grown, s.in)
		s.in = grown
	}
	s.in = s.in[:have+more]
	mat.Copy(mat.Of(s.in[have:], u.Rows, c), u)
}

// rebuild computes the sums of a stream of n tokens again, from its inputs.
func (s *stream) rebuild(ctx context.Context, r *convRun, workers int) error {
	if s.block == 0 {
		return nil
	}
	n := s.n
	clear(s.near)
	for size := s.block; size >= directTaps; size /= 2 {
		at := n / size * size
		if at == 0 || size < s.block && at/size%2 == 0 {
			continue
		}
		s.n = at
		err := s.nearTile(ctx, r, workers)
		if s.n = n; err != nil {
			return err
		}
	}
	for i := range s.far {
		l := &s.far[i]
		l.job, l.done = n/l.size, 0
		if n < l.size {
			l.job = 0
			continue
		}
		if err := s.farJob(ctx, r, l, l.job, l.units(s.c, l.job), workers); err != nil {
			return err
		}
	}
	return s.farTiles(ctx, r, workers)
}

// holds tells whether the inputs are there to go back to n tokens.
func (s *stream) holds(n int) bool { return n <= s.n && s.first <= s.needed(n) }

// truncate goes back to n tokens, of which it has the inputs; after a step that has failed, to
// those that there were. The sums of n tokens are left to the next step, which can be stopped.
func (s *stream) truncate(n int) {
	if n == 0 {
		s.reset()
		return
	}
	s.stale = s.stale || s.n != n
	s.n = n
	s.in = s.in[:min(len(s.in), max(0, n-s.first)*s.c.channels)]
}

// reset forgets all tokens.
func (s *stream) reset() {
	s.n, s.first, s.in, s.stale = 0, 0, s.in[:0], false
	clear(s.near)
	for i := range s.far {
		s.far[i].job, s.far[i].done = 0, 0
	}
}

func (s *stream) bytes() int64 {
	n := floatBytes(cap(s.in) + len(s.near))
	for _, l := range s.far {
		n = sumBytes(n, floatBytes(len(l.sums)))
	}
	return n
}

// streamBytes returns the most memory of a stream of n tokens that came in steps.
func (c *Conv) streamBytes(n int) int64 {
	n = min(n, mostTokens)
	if c.taps <= directTaps {
		return floatBytes(min(2*n, 8*directTaps), c.channels)
	}
	near := nearTokens(c.taps)
	sums, top := near, near
	for i := range farLevels(near, c.taps) {
		if top = near << i; top <= n {
			sums += 2 * top
		}
	}
	return floatBytes(sums+min(2*n, 8*top), c.channels)
}

func (s *stream) clone() *stream {
	c := *s
	c.in = append(make([]float32, 0, cap(s.in)), s.in...)
	c.near = append([]float32{}, s.near...)
	c.far = append([]farLevel{}, s.far...)
	for i := range c.far {
		if l := &c.far[i]; l.sums != nil {
			l.sums = append([]float32{}, l.sums...)
		}
	}
	return &c
}

// copyFrom makes the stream what another of the same convolution is.
func (s *stream) copyFrom(from *stream) {
	s.n, s.first, s.stale = from.n, from.first, from.stale
	s.in = append(s.in[:0], from.in...)
	copy(s.near, from.near)
	for i := range s.far {
		l, f := &s.far[i], &from.far[i]
		l.job, l.done = f.job, f.done
		if f.sums != nil {
			l.sums = append(l.sums[:0], f.sums...)
		}
	}
}

// held are the inputs that a file stores, heldFloats how many these are.
func (s *stream) held() []float32 { return s.in[(s.needed(s.n)-s.first)*s.c.channels:] }

func (s *stream) heldFloats(n int) int64 {
	size := check.Product(math.MaxInt64, n-s.needed(n), s.c.channels)
	return size
}

// refill makes the stream that of n tokens whose last inputs are given.
func (s *stream) refill(held []float32, n int) {
	s.in, s.first, s.n, s.stale = held, s.needed(n), n, n > 0
}
