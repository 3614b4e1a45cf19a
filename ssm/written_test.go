package ssm

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestWritten: a state that was given values goes back to those, never to what it had in
// their place, however it was stored or copied on the way.
func TestWritten(t *testing.T) {
	scan := value[*Scan](t)(NewScan(ScanConfig{Channels: 18, States: 3}, ScanWeights{A: mat.Of(decays(1, 54), 18, 3)}))
	ssd := value[*SSD](t)(NewSSD(SSDConfig{Heads: 2, HeadDim: 4, States: 3}, SSDWeights{A: decays(2, 2)}))
	siso := value[*SISO](t)(NewSISO(SISOConfig{Heads: 2, HeadDim: 4, States: 3, Angles: 1}, SISOWeights{}))
	for name, op := range map[string]struct {
		newState func(StateConfig) (*State, error)
		read     func([]byte) (*State, error)
		write    func(st *State) error
		step     func(st *State, n int) error
	}{
		"scan": {
			scan.NewState, func(b []byte) (*State, error) { return scan.ReadState(bytes.NewReader(b)) },
			func(st *State) error { return scan.Write(st, random(3, 18, 3, 1, 0)) },
			func(st *State, n int) error {
				return scan.Step(zeros(n, 18), random(4, n, 18, 1, 0), random(5, n, 18, 0, 1), random(6, n, 3, 1, 0), random(7, n, 3, 1, 0), st)
			},
		},
		"SSD": {
			ssd.NewState, func(b []byte) (*State, error) { return ssd.ReadState(bytes.NewReader(b)) },
			func(st *State) error { return ssd.Write(st, random(3, 8, 3, 1, 0)) },
			func(st *State, n int) error {
				return ssd.Step(zeros(n, 8), random(4, n, 8, 1, 0), random(5, n, 2, 0, 1), random(6, n, 3, 1, 0), random(7, n, 3, 1, 0), st)
			},
		},
		"SISO": {
			siso.NewState, func(b []byte) (*State, error) { return siso.ReadState(bytes.NewReader(b)) },
			func(st *State) error {
				return siso.Write(st, SISOState{random(3, 8, 3, 1, 0), random(4, 2, 3, 1, 0), random(5, 2, 4, 1, 0), random(6, 2, 1, 1, 0)})
			},
			func(st *State, n int) error {
				return siso.Step(zeros(n, 8), random(4, n, 8, 1, 0), random(5, n, 2, 0, 1), random(6, n, 2, 0, -1), random(7, n, 2, 1, 0),
					random(8, n, 3, 1, 0), random(9, n, 3, 1, 0), random(10, n, 2, 1, 0), st)
			},
		},
	} {
		stored := func(st *State) *State {
			var b bytes.Buffer
			value[int64](t)(st.WriteTo(&b))
			return value[*State](t)(op.read(b.Bytes()))
		}
		st := value[*State](t)(op.newState(StateConfig{Snapshots: 2}))
		must(t, op.write(st))
		given := slices.Clone(st.fixed.Values)
		must(t, op.step(st, 2))
		must(t, st.Truncate(0))
		same(t, name+": the beginning", st.fixed.Values, given)
		for range 3 { // more calls than it has snapshots
			must(t, op.step(st, 2))
		}
		other := value[*State](t)(op.newState(StateConfig{}))
		must(t, other.CopyFrom(st))
		for what, st := range map[string]*State{"the state": st, "a clone": st.Clone(), "a copy": other, "a stored one": stored(st), "a stored clone": stored(stored(st).Clone())} {
			if err := st.Truncate(0); !errors.Is(err, ErrState) || st.Len() != 6 {
				t.Errorf("%s: %s of %d tokens goes back to 0, which it does not keep: error %v", name, what, st.Len(), err)
			}
			st.Reset()
			must(t, op.step(st, 2))
			must(t, st.Truncate(0))
			same(t, name+": "+what, st.fixed.Values, make([]float32, len(given)))
		}

		// On the way.
		must(t, op.step(st, 2))
		must(t, op.step(st, 1))
		must(t, op.write(st))
		must(t, op.step(st, 3))
		must(t, st.Truncate(3))
		same(t, name+": the middle", st.fixed.Values, given)
	}
}
