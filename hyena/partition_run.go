package hyena

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// advanceStage does a stage's part of the work when a block of B samples is whole.
//
// The first stage answers it at once. Of a larger one, block b is transformed and multiplied
// while block b+1 comes in, and gives what it and those before it add to block b+2.
func (st *PartitionState) advanceStage(i int) {
	s, state := &st.op.stages[i], &st.stages[i]
	if s.direct != nil {
		for _, v := range st.voices {
			st.sumDirect(v)
		}
		return
	}
	if i == 0 {
		st.beginJob(i, st.n/s.size-1)
		st.doPieces(i, st.pieces(s))
		return
	}
	into := (st.n - 1) % s.size / st.op.cfg.Block // blocks of B in the stage's, before this one
	if into == 0 && st.n > st.op.cfg.Block {
		st.beginJob(i, (st.n-1)/s.size+1)
	}
	if state.job > 0 {
		st.doPieces(i, st.pieces(s)*(into+1)/(s.size/st.op.cfg.Block))
	}
}

// sumDirect adds to a voice's output what the first stage's taps give, tap by tap.
func (st *PartitionState) sumDirect(v *voice) {
	s := &v.op.stages[0]
	n := s.to - 1 + s.size // the samples that the block sees
	for c, taps := range s.direct {
		x := st.rows[:n]
		at := (st.n - n + st.in.Rows) % st.in.Rows // before the signal the ring has silence
		for i := range x {
			x[i] = st.in.Data[at*st.in.Stride+c]
			if at++; at == st.in.Rows {
				at = 0
			}
		}
		from := (st.n - s.size) % v.out.Rows
		for i := range s.size {
			v.out.Data[(from+i)*v.out.Stride+c] += asm.Dot(taps, x[i:i+s.to])
		}
	}
}

// beginJob begins with output block c of a stage.
func (st *PartitionState) beginJob(i, c int) {
	state := &st.stages[i]
	state.job, state.done, state.begun = c, 0, st.n
	if i > 0 {
		state.begun = (c - 1) * st.op.stages[i].size
	}
	for _, v := range st.voices {
		for _, sums := range v.sums[i] {
			clear(sums)
		}
	}
}

// pieces is how many pieces of work a block of a stage is: for each unit, a transform, a
// product for each partition, and a transform back.
func (st *PartitionState) pieces(s *partitionStage) int { return len(s.units) * (s.count + 2) }

// doPieces does a stage's pieces up to a number of them.
func (st *PartitionState) doPieces(i, to int) {
	s, state := &st.op.stages[i], &st.stages[i]
	for ; state.done < to; state.done++ {
		piece, unit := state.done/len(s.units), state.done%len(s.units)
		if piece == 0 {
			st.transformBlock(s, state, i, unit)
			continue
		}
		for _, v := range st.voices {
			switch {
			case v.since > state.begun && i > 0, v.since >= st.n && i == 0:
			case piece <= s.count:
				st.multiplyBlock(v, state, i, unit, piece-1)
			default:
				st.putBlock(v, state, i, unit)
			}
		}
	}
}

// input is the number of the last input block that an output block of stage i sees.
func (state *stageState) input(i int) int {
	if i == 0 {
		return state.job
	}
	return state.job - 2
}

// transformBlock transforms the last input block of the job.
func (st *PartitionState) transformBlock(s *partitionStage, state *stageState, i, unit int) {
	u := s.units[unit]
	plan := s.plans[kindOf(u)]
	lanes := plan.Lanes()
	b := state.input(i)
	if b < 0 {
		return
	}
	rows := st.rows[:plan.n*lanes]
	if u.channels < lanes && !u.phases {
		clear(rows)
	}
	from := b * s.size % st.in.Rows
	mat.Copy(ownRows(rows, u, s.size, lanes), mat.Columns(mat.Rows(st.in, from, from+s.size), u.channel, u.channels))
	dst := state.spectra[unit][b%len(state.spectra[unit])]
	if u.phases {
		plan.transform(nil, rows, lanes, plan.n, dst)
		return
	}
	plan.fold(nil, rows, lanes, plan.n, dst)
}

// multiplyBlock adds to a voice's sums what partition q makes of the block it meets.
func (st *PartitionState) multiplyBlock(v *voice, state *stageState, i, unit, q int) {
	s := &v.op.stages[i]
	b := state.job - s.first - q
	spectrum := s.spectra[unit][q]
	if b < 0 || spectrum == nil {
		return
	}
	u := s.units[unit]
	plan := s.plans[kindOf(u)]
	work := st.work[:plan.n*plan.row()]
	copy(work, state.spectra[unit][b%len(state.spectra[unit])])
	if u.phases {
		plan.Ring(work, spectrum, plan.n)
	} else {
		plan.Center(work, spectrum, plan.n/4)
	}
	sums := v.sums[i][unit]
	const piece = 1 << 13
	for at := 0; at < len(work); at += piece {
		end := min(at+piece, len(work))
		asm.Add(sums[at:end], sums[at:end], work[at:end])
	}
}

// putBlock transforms a voice's sums back and adds them to its output.
func (st *PartitionState) putBlock(v *voice, state *stageState, i, unit int) {
	s := &v.op.stages[i]
	u := s.units[unit]
	plan := s.plans[kindOf(u)]
	lanes, sums := plan.Lanes(), v.sums[i][unit]
	if u.phases {
		plan.Inverse(4, sums, 1, 1, plan.n/4, ones)
	}
	rows := st.rows[:plan.n*lanes]
	plan.unfold(nil, rows, lanes, plan.n, sums)
	from := state.job * s.size % v.out.Rows
	out := mat.Columns(mat.Rows(v.out, from, from+s.size), u.channel, u.channels)
	addColumns(out, ownRows(rows, u, s.size, lanes))
}

// addColumns adds rows of few columns.
func addColumns(dst, x blas32.General) {
	if dst.Cols == 1 {
		for i := range dst.Rows {
			dst.Data[i*dst.Stride] += x.Data[i*x.Stride]
		}
		return
	}
	addRows(dst, x)
}
