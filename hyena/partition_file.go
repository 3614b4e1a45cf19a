package hyena

import (
	"fmt"
	"io"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A stored signal has this kind, the fingerprint of its Partition, how many samples it has
// seen, where its stages are, and its numbers.
const signalKind = "sqSignl1"

// parts lists all numbers of a state with one kernel.
func (st *PartitionState) parts() (list [][]float32) {
	v := st.voices[0]
	list = append(list, st.in.Data, st.ready.Data, v.out.Data)
	for i := range st.stages {
		for _, unit := range st.stages[i].spectra {
			list = append(list, unit...)
		}
		list = append(list, v.sums[i]...)
	}
	return list
}

// WriteTo stores the state: a signal that goes on another day, or on another machine of the
// same tier. It implements io.WriterTo. Errors match ErrState, also where a kernel of Replace
// is on its way, or are those of w.
func (st *PartitionState) WriteTo(w io.Writer) (int64, error) {
	switch {
	case st.op == nil:
		return 0, check.Errorf(ErrState, "hyena: the state was not made by NewState")
	case w == nil:
		return 0, check.Errorf(ErrState, "hyena: the writer is nil")
	case len(st.voices) > 1:
		return 0, check.Errorf(ErrState, "hyena: a kernel is on its way, want a state with one")
	}
	f := state.NewWriter(w, signalKind, []int64{int64(st.op.hash)})
	f.Ints(int64(st.n), int64(st.voices[0].since))
	for _, s := range st.stages {
		f.Ints(int64(s.job), int64(s.done), int64(s.begun))
	}
	for _, x := range st.parts() {
		f.Floats(x)
	}
	n, err := f.End()
	return n, wrapped(err)
}

// ReadState reads a state that WriteTo wrote, of a Partition with the same kernel and sizes and
// in the same tier. Errors match ErrState or are those of r.
func (p *Partition) ReadState(r io.Reader) (*PartitionState, error) {
	if r == nil {
		return nil, check.Errorf(ErrState, "hyena: the reader is nil")
	}
	st, err := p.NewState()
	if err != nil {
		return nil, err
	}
	f := state.NewReader(r, pkg, ErrState, signalKind, []int64{int64(p.hash)})
	number := func(most int) int {
		n := f.Int()
		if n < 0 || n > int64(most) {
			f.Fail("it has a number %d, want 0 to %d", n, most)
			n = 0
		}
		return int(n)
	}
	st.n = number(mostTokens)
	st.voices[0].since = number(st.n)
	for i := range st.stages {
		s := &st.stages[i]
		s.job, s.done, s.begun = number(st.n/p.stages[i].size+2), number(st.pieces(&p.stages[i])), number(st.n)
	}
	for _, x := range st.parts() {
		copy(x, f.Floats(int64(len(x))))
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	return st, nil
}

// fingerprint tells partitions with other kernels or sizes, or of other tiers, apart.
func (cfg *PartitionConfig) fingerprint(lanes int) uint64 {
	f := state.NewFingerprint(fmt.Sprintf("Partition of %d channels, %d to %d, up to %d taps, %d lanes", cfg.Kernel.Cols, cfg.Block, cfg.Largest, cfg.MaxTaps, lanes))
	f.Matrices(cfg.Kernel)
	return uint64(f)
}
