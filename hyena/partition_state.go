package hyena

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// PartitionState is a signal that runs through a Partition: its last samples and blocks, and
// sums of outputs to come. It does not grow. Two calls must not use it at once.
type PartitionState struct {
	op     *Partition
	n      int            // samples so far
	in     blas32.General // [2 Largest, C], the last samples, a ring of 2 Largest or more
	ready  blas32.General // [B, C], the block that is put out
	stages []stageState
	voices []*voice // of the kernel; of the one that takes its place

	rows, work []float32
}

// stageState is what a stage remembers of a signal.
type stageState struct {
	spectra [][][]float32 // [unit][slot], transforms of the last blocks, a ring
	job     int           // the output block that is worked on; 0 for none
	done    int           // pieces of work that are done for it
	begun   int           // the sample at which it was begun
}

// voice is the output of one kernel.
type voice struct {
	op    *Partition
	since int            // samples when it began
	out   blas32.General // [2 Largest, C], sums of outputs, a ring
	sums  [][][]float32  // [stage][unit], the output block that is worked on, transformed
	block blas32.General // [B, C], its samples of the block that is put out
}

// NewState returns a state of silence. All that it takes is taken at once: steps allocate
// nothing. Its error is nil.
func (p *Partition) NewState() (*PartitionState, error) {
	ring := 2 * p.stages[len(p.stages)-1].size
	if first := &p.stages[0]; first.direct != nil {
		for ring < first.to+first.size {
			ring *= 2
		}
	}
	st := &PartitionState{op: p, in: mat.New(ring, p.channels), ready: mat.New(p.cfg.Block, p.channels)}
	rows, work := p.stages[0].to+p.cfg.Block, 0
	if p.stages[0].direct == nil {
		rows = 0
	}
	for i := range p.stages {
		s := &p.stages[i]
		state := stageState{spectra: make([][][]float32, len(s.units))}
		for j, u := range s.units {
			plan := s.plans[kindOf(u)]
			for range s.first + s.count {
				state.spectra[j] = append(state.spectra[j], make([]float32, plan.n*plan.row()))
			}
			rows, work = max(rows, plan.n*plan.Lanes()), max(work, plan.n*plan.row())
		}
		st.stages = append(st.stages, state)
	}
	st.rows, st.work = make([]float32, rows), make([]float32, work)
	st.voices = append(make([]*voice, 0, 2), st.newVoice(p))
	return st, nil
}

func (st *PartitionState) newVoice(op *Partition) *voice {
	v := &voice{op: op, since: st.n, out: mat.New(st.in.Rows, op.channels), block: mat.New(op.cfg.Block, op.channels)}
	for i := range op.stages {
		s := &op.stages[i]
		sums := make([][]float32, len(s.units))
		for j, u := range s.units {
			plan := s.plans[kindOf(u)]
			sums[j] = make([]float32, plan.n*plan.row())
		}
		v.sums = append(v.sums, sums)
	}
	return v
}

// Len returns how many samples have gone in.
func (st *PartitionState) Len() int { return st.n }

// Bytes returns the memory of the state.
func (st *PartitionState) Bytes() int64 {
	n := floatBytes(len(st.in.Data) + len(st.ready.Data) + len(st.rows) + len(st.work))
	for _, s := range st.stages {
		n += nestedBytes(s.spectra)
	}
	for _, v := range st.voices {
		n += floatBytes(len(v.out.Data)+len(v.block.Data)) + nestedBytes(v.sums)
	}
	return n
}

func nestedBytes(list [][][]float32) (n int64) {
	for _, l := range list {
		for _, x := range l {
			n += floatBytes(len(x))
		}
	}
	return n
}

// Reset makes the state one of silence, with the kernel that it has; one that was to take its
// place does at once.
func (st *PartitionState) Reset() {
	st.n = 0
	st.voices = append(st.voices[:0], st.voices[len(st.voices)-1])
	v := st.voices[0]
	v.since, st.op = 0, v.op
	clear(st.in.Data)
	clear(st.ready.Data)
	clear(v.out.Data)
	for i := range st.stages {
		s := &st.stages[i]
		s.job, s.done, s.begun = 0, 0, 0
		for _, unit := range s.spectra {
			for _, x := range unit {
				clear(x)
			}
		}
	}
}

// Clone returns a copy: a signal that goes on in two ways.
func (st *PartitionState) Clone() *PartitionState {
	c := *st
	c.in, c.ready = cloneMatrix(st.in), cloneMatrix(st.ready)
	c.rows, c.work = make([]float32, len(st.rows)), make([]float32, len(st.work))
	c.stages = append([]stageState{}, st.stages...)
	for i := range c.stages {
		c.stages[i].spectra = cloneNested(st.stages[i].spectra)
	}
	c.voices = make([]*voice, 0, 2)
	for _, v := range st.voices {
		w := *v
		w.out, w.block, w.sums = cloneMatrix(v.out), cloneMatrix(v.block), cloneNested(v.sums)
		c.voices = append(c.voices, &w)
	}
	return &c
}

func cloneMatrix(m blas32.General) blas32.General {
	m.Data = append([]float32{}, m.Data...)
	return m
}

func cloneNested(list [][][]float32) (c [][][]float32) {
	for _, l := range list {
		var d [][]float32
		for _, x := range l {
			d = append(d, append([]float32{}, x...))
		}
		c = append(c, d)
	}
	return c
}

// Replace gives the state the kernel of another Partition, of as many channels and with the
// same Block, Largest and MaxTaps, while the signal goes on. Its sums are begun with the next
// samples; when they are whole, at most 2 Largest + 2 Block samples later, the output goes
// over from one kernel to the other, in a straight line over next's Fade samples: what was put
// in before sounds on in both, and there is no click. Meanwhile steps take up to twice the
// time. Errors match ErrState: another kernel is on its way already, or the states of next are
// of another shape.
func (st *PartitionState) Replace(next *Partition) error {
	switch {
	case st.op == nil || next == nil:
		return check.Errorf(ErrState, "hyena: next is nil, or the state was not made by NewState")
	case next.channels != st.op.channels || next.cfg.Block != st.op.cfg.Block || next.cfg.Largest != st.op.cfg.Largest || next.cfg.MaxTaps != st.op.cfg.MaxTaps:
		return check.Errorf(ErrState, "hyena: next is of %d channels with Block %d, Largest %d and MaxTaps %d, want %d with %d, %d and %d", next.channels, next.cfg.Block, next.cfg.Largest,
			next.cfg.MaxTaps, st.op.channels, st.op.cfg.Block, st.op.cfg.Largest, st.op.cfg.MaxTaps)
	case next.b != st.op.b:
		return check.Errorf(ErrState, "hyena: next is of another tier")
	case len(st.voices) > 1:
		return check.Errorf(ErrState, "hyena: another kernel is on its way")
	}
	st.voices = append(st.voices, st.newVoice(next))
	return nil
}

// Replacing tells whether a kernel of Replace is still on its way.
func (st *PartitionState) Replacing() bool { return len(st.voices) > 1 }

// Forward convolves a whole signal, [samples, channels], from silence: the output begins with
// Latency samples of it. dst may be x. Errors match ErrShape.
func (p *Partition) Forward(dst, x blas32.General) error {
	st, err := p.NewState()
	if err != nil {
		return err
	}
	return p.Step(dst, x, st)
}

// Step takes the next samples, any number of them, and puts out as many, Latency samples late:
// any split of a signal gives the same bits. dst may be x. The state may be one of another
// Partition that this one has replaced, or of one with the same sizes: the kernel is the
// state's. It allocates nothing. Errors match ErrShape or ErrState.
func (p *Partition) Step(dst, x blas32.General, st *PartitionState) error {
	switch {
	case st == nil || st.op == nil:
		return check.NilState(pkg, "State")
	case st.op.channels != p.channels || st.op.cfg.Block != p.cfg.Block || st.op.cfg.Largest != p.cfg.Largest || st.op.cfg.MaxTaps != p.cfg.MaxTaps:
		return check.Errorf(ErrState, "hyena: State is of a Partition of other sizes")
	}
	if err := check.Matrix(ErrShape, pkg, "x", x, -1, p.channels, "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, dst, x.Rows, p.channels, "channels", x, true); err != nil {
		return err
	}
	block := p.cfg.Block
	for t := 0; t < x.Rows; {
		at := st.n % block
		n := min(block-at, x.Rows-t)
		mat.Copy(mat.Rows(st.in, st.n%st.in.Rows, st.n%st.in.Rows+n), mat.Rows(x, t, t+n))
		mat.Copy(mat.Rows(dst, t, t+n), mat.Rows(st.ready, at, at+n))
		t, st.n = t+n, st.n+n
		if st.n%block == 0 {
			st.turn()
		}
	}
	return nil
}

// turn does what there is to do when a block is whole.
func (st *PartitionState) turn() {
	for i := range st.stages {
		st.advanceStage(i)
	}
	from := st.n - st.op.cfg.Block // the first sample of the block that is put out
	for _, v := range st.voices {
		ring := mat.Rows(v.out, from%v.out.Rows, from%v.out.Rows+v.block.Rows)
		mat.Copy(v.block, ring)
		clear(ring.Data[:len(v.block.Data)])
	}
	mat.Copy(st.ready, st.voices[0].block)
	if len(st.voices) == 1 {
		return
	}
	next := st.voices[1]
	begin := next.whole()
	if from < begin {
		return
	}
	for i := range st.ready.Rows {
		g := float32(min(float64(from+i-begin+1)/float64(next.op.cfg.Fade), 1))
		row := mat.Row(st.ready, i)
		asm.Scale(row, 1-g, row)
		asm.Axpy(row, g, mat.Row(next.block, i))
	}
	if from+st.ready.Rows-begin >= next.op.cfg.Fade {
		st.voices[0] = next
		st.voices = st.voices[:1]
		st.op = next.op
	}
}

// whole returns the first sample of which a voice has all sums.
func (v *voice) whole() int {
	n := 0
	for i := range v.op.stages {
		size := v.op.stages[i].size
		first := (v.since + size - 1) / size // the first block that is begun after it
		if i > 0 {
			first++
		}
		n = max(n, first*size)
	}
	return n
}
