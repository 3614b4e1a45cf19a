package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// stream is what a long convolution remembers of a sequence. Tokens are in blocks of sizes U
// that are powers of 2. The output at t is the sum of
//
//   - what inputs in its own block of 32 give, tap by tap;
//   - near sums: a tile of U tokens, U from 32 to near, gives the U outputs after its inputs
//     as soon as these are there. Its size is the largest power of 2 that divides the tokens
//     seen then (Flash Inference), at most near;
//   - far sums: of blocks of U = near, 2 near, 4 near, ... tokens, output block b sums over
//     input block b-2 and, where b is odd, b-3. All other blocks are near or, at the next
//     level, far. It is done while block b-1 is put out, a few channels at a time.
//
// What is added to what, and in which order, depends on t alone.
type stream struct {
	c     *Conv
	n     int       // tokens seen
	first int       // the first token of in
	in    []float32 // inputs, [n-first, C]
	hint  int       // tokens to take memory for, or 0
	stale bool      // sums are to be computed again, by the next step
	block int       // tokens of a near block; 0 where all taps are summed as they stand
	near  []float32 // [block, C], for the block of token n
	far   []farLevel
}

// farLevel is a level of far sums.
type farLevel struct {
	size int       // U
	sums []float32 // [2 U, C]: output blocks of even and of odd number; nil before they are needed
	job  int       // the output block that is summed at present
	done int       // units of it that are
}

// newStream returns an empty stream. Errors match ErrCall.
func (c *Conv) newStream(hint int) (*stream, error) {
	if c.cfg.Reverse.Rows > 0 {
		return nil, errReverse
	}
	s := &stream{c: c, hint: hint}
	if c.taps > directTaps {
		s.block = nearTokens(c.taps)
		s.near = make([]float32, s.block*c.channels)
		for i := range farLevels(s.block, c.taps) {
			s.far = append(s.far, farLevel{size: s.block << i})
		}
	}
	if hint > 0 {
		s.in = make([]float32, 0, min(hint, s.mostRows())*c.channels)
		for i := range s.far {
			if l := &s.far[i]; 2*l.size <= hint {
				l.sums = make([]float32, 2*l.size*c.channels)
			}
		}
	}
	return s, nil
}

// reach is how many tokens of a block at the highest level.
func (s *stream) top() int {
	switch {
	case s.block == 0:
		return directTaps
	case len(s.far) == 0:
		return s.block
	}
	return s.far[len(s.far)-1].size
}

// mostRows is how many inputs are kept at the most, unless a call brings more.
func (s *stream) mostRows() int { return min(8*s.top(), mostTokens) }

// needed returns the first of the inputs that a stream of n tokens needs.
func (s *stream) needed(n int) int {
	if s.block == 0 {
		return max(0, n-s.c.taps+1)
	}
	top := s.top()
	return max(0, (n/top-3)*top)
}

// step convolves the next tokens. After an error the stream must be truncated.
func (s *stream) step(ctx context.Context, r *convRun, dst, u blas32.General, workers int) error {
	c := s.c
	if s.stale {
		if err := s.rebuild(ctx, r, workers); err != nil {
			return err
		}
		s.stale = false
	}
	if s.n == 0 && s.block > 0 && u.Rows >= 2*nearMost {
		return s.begin(ctx, r, dst, u, workers)
	}
	s.keep(u)
	taps, err := r.directTaps(ctx, c, workers)
	if err != nil {
		return err
	}
	for t := 0; t < u.Rows; {
		n := min(u.Rows-t, directTaps-s.n%directTaps)
		for i := range n {
			s.output(r, mat.Row(dst, t+i), taps, s.n+i)
		}
		t, s.n = t+n, s.n+n
		if s.block > 0 {
			if err := s.nearTile(ctx, r, workers); err != nil {
				return err
			}
			if err := s.farTiles(ctx, r, workers); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// begin convolves the first tokens, a long stretch, by one transform.
func (s *stream) begin(ctx context.Context, r *convRun, dst, u blas32.General, workers int) error {
	s.first = s.needed(u.Rows)
	s.keep(mat.Rows(u, s.first, u.Rows))
	s.n = u.Rows
	if err := r.convolveAll(ctx, s.c, dst, u, workers); err != nil {
		return err
	}
	return s.rebuild(ctx, r, workers)
}

// directTaps returns the first taps backwards.
func (r *convRun) directTaps(ctx context.Context, c *Conv, workers int) (blas32.General, error) {
	if !c.direct.ready() {
		k, err := c.source.rows(ctx, &r.group, workers, want{directTaps, directTaps, 0, c.channels}, &r.filter)
		if err != nil {
			return blas32.General{}, err
		}
		return c.direct.backwards(k), nil
	}
	return c.direct.backwards(kernels{}), nil
}

// output sets dst to the output at token t, of which the input is there.
func (s *stream) output(r *convRun, dst []float32, taps blas32.General, t int) {
	c := s.c
	from := max(0, t-taps.Rows+1) // the first input that is summed tap by tap
	var bias []float32
	if s.block > 0 {
		from = max(from, t-t%directTaps)
		r.rows = scratch.Floats(r.rows, c.channels)
		bias = r.rows
		copy(bias, mat.Row(mat.Of(s.near, s.block, c.channels), t%s.block))
		for i := range s.far {
			if l := &s.far[i]; t >= 2*l.size {
				asm.Add(bias, bias, l.sums[t%(2*l.size)*c.channels:][:c.channels])
			}
		}
	}
	x := mat.Of(s.in[(from-s.first)*c.channels:], t-from+1, c.channels)
	dotRows(mat.Of(dst, 1, c.channels), x, mat.Rows(taps, taps.Rows-x.Rows, taps.Rows), bias)
	if c.cfg.GELU {
		asm.GELU(dst, dst)
	}
}

// inputs are those of a block.
func (s *stream) inputs(from, n int) blas32.General {
	return mat.Of(s.in[(from-s.first)*s.c.channels:], n, s.c.channels)
}

// nearTile adds the tile of which the last input has come.
func (s *stream) nearTile(ctx context.Context, r *convRun, workers int) error {
	if s.n%directTaps != 0 {
		return nil
	}
	size := min(s.n&-s.n, s.block)
	t := s.c.tile(size, 1)
	sums := mat.Rows(mat.Of(s.near, s.block, s.c.channels), s.n%s.block, s.n%s.block+size)
	if size == s.block {
		return r.convolveTile(ctx, t, sums, s.inputs(s.n-size, size), workers, 0, t.units)
	}
	return r.addTile(ctx, t, sums, s.inputs(s.n-size, size), workers, 0, t.units)
}

// farTiles does as much of the far sums as the tokens seen ask for.
func (s *stream) farTiles(ctx context.Context, r *convRun, workers int) error {
	for i := range s.far {
		l := &s.far[i]
		if s.n < l.size {
			return nil
		}
		block := s.n/l.size + 1
		if l.job != block {
			if err := s.farJob(ctx, r, l, l.job, l.units(s.c, l.job), workers); err != nil {
				return err
			}
			l.job, l.done = block, 0
		}
		units := l.units(s.c, block)
		// At odd multiples of half the time of a unit, so that of two levels only those come
		// together of which one has twice the units, for its two tiles.
		target := int((int64(units)*int64(s.n%l.size) + int64(l.size/2)) / int64(l.size))
		if err := s.farJob(ctx, r, l, block, target, workers); err != nil {
			return err
		}
	}
	return nil
}

// units is how many units there are to do for an output block, of one tile or two.
func (l *farLevel) units(c *Conv, block int) int {
	if block < 2 {
		return 0
	}
	units := c.tile(l.size, 2).units
	if block%2 == 1 && 2*l.size+1 < c.taps {
		units *= 2
	}
	return units
}

// farJob does the units of an output block up to a number of them.
func (s *stream) farJob(ctx context.Context, r *convRun, l *farLevel, block, to, workers int) error {
	if l.sums == nil && to > 0 {
		l.sums = make([]float32, 2*l.size*s.c.channels)
	}
	for l.done < to {
		sums := mat.Rows(mat.Of(l.sums, 2*l.size, s.c.channels), block%2*l.size, (block%2+1)*l.size)
		t, err := s.c.tile(l.size, 2), error(nil)
		end := min(to, t.units)
		if l.done < t.units {
			err = r.convolveTile(ctx, t, sums, s.inputs((block-2)*l.size, l.size), workers, l.done, end)
		} else {
			end = to
			err = r.addTile(ctx, s.c.tile(l.size, 3), sums, s.inputs((block-3)*l.size, l.size), workers, l.done-t.units, end-t.units)
		}
		if err != nil {
			return err
		}
		l.done = end
	}
	return nil
}

func addRows(dst, x blas32.General) {
	for i := range dst.Rows {
		row := mat.Row(dst, i)
		asm.Add(row, row, mat.Row(x, i))
	}
}
