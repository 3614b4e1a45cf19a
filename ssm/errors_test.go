package ssm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// wants fails the test unless err matches kind and reads as it should.
func wants(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || err.Error() != text {
		t.Errorf("error %q, want %q", err, text)
	}
}

func TestConfigErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	scan := ScanConfig{Channels: 4, States: 2}
	a := mat.Of(decays(1, 8), 4, 2)
	for text, f := range map[string]func() error{
		"ssm: Channels is 0, want 1 to 16777216":      func() error { _, err := NewScan(ScanConfig{States: 2}, ScanWeights{}); return err },
		"ssm: States is 16777217, want 1 to 16777216": func() error { _, err := NewScan(ScanConfig{Channels: 1, States: 1<<24 + 1}, ScanWeights{}); return err },
		"ssm: 16777216 states of 16777216 channels are too many": func() error {
			_, err := NewScan(ScanConfig{Channels: 1 << 24, States: 1 << 24}, ScanWeights{})
			return err
		},
		"ssm: Groups is 3, want a divisor of Channels = 4": func() error {
			_, err := NewScan(ScanConfig{Channels: 4, States: 2, Groups: 3}, ScanWeights{A: a})
			return err
		},
		"ssm: DtMin is NaN, want a finite number, 0 or more": func() error { c := scan; c.DtMin = nan; _, err := NewScan(c, ScanWeights{A: a}); return err },
		"ssm: DtMax is 1, want a finite number, at least DtMin = 2, or 0 for no limit": func() error {
			c := scan
			c.DtMin, c.DtMax = 2, 1
			_, err := NewScan(c, ScanWeights{A: a})
			return err
		},
		"ssm: DtMax is +Inf, want a finite number, at least DtMin = 0, or 0 for no limit": func() error {
			c := scan
			c.DtMax = inf
			_, err := NewScan(c, ScanWeights{A: a})
			return err
		},
		"ssm: Workers is -1, want 0 to 65536":      func() error { c := scan; c.Workers = -1; _, err := NewScan(c, ScanWeights{A: a}); return err },
		"ssm: A has 0 rows, want 4":                func() error { _, err := NewScan(scan, ScanWeights{}); return err },
		"ssm: D has 3 elements, want Channels = 4": func() error { _, err := NewScan(scan, ScanWeights{A: a, D: make([]float32, 3)}); return err },
		"ssm: A[1] is NaN, want a finite number": func() error {
			_, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 1, States: 1}, SSDWeights{A: []float32{1, nan}})
			return err
		},
		"ssm: A has 1 elements, want Heads = 2": func() error {
			_, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 1, States: 1}, SSDWeights{A: []float32{1}})
			return err
		},
		"ssm: D has 3 elements, want Heads = 2 or Heads*HeadDim = 8": func() error {
			_, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 4, States: 1}, SSDWeights{D: make([]float32, 3)})
			return err
		},
		"ssm: Angles is 3, want 0 to States/2 = 2": func() error {
			_, err := NewSISO(SISOConfig{Heads: 2, HeadDim: 4, States: 4, Angles: 3}, SISOWeights{})
			return err
		},
		"ssm: Weight is 0 x 0, want channels x taps": func() error { _, err := NewConv(ConvConfig{}, ConvWeights{}); return err },
		"ssm: GroupSize is 3, want a divisor of the 4 channels": func() error {
			_, err := NewGatedNorm(GatedNormConfig{GroupSize: 3}, GatedNormWeights{make([]float32, 4)})
			return err
		},
		"ssm: Eps is NaN, want a finite number above 0": func() error {
			_, err := NewGatedNorm(GatedNormConfig{Eps: math.NaN()}, GatedNormWeights{make([]float32, 4)})
			return err
		},
		"ssm: X has 10 rows, want 11": func() error {
			w := mambaWeights(6, 8, 4, 2, 3)
			w.X.Rows, w.Dt.Cols, w.Dt.Stride = 10, 3, 3
			w.Dt.Data = make([]float32, 24)
			_, err := NewMamba(MambaConfig{}, w)
			return err
		},
		"ssm: Format is 9, want 0 to 3": func() error { _, err := NewMamba(MambaConfig{Format: 9}, mambaWeights(6, 8, 4, 2, 3)); return err },
		"ssm: Out has 16 columns, want at least Heads*HeadDim = 128": func() error {
			_, err := NewMamba2(Mamba2Config{States: 4}, mamba2Weights(6, 0, 2, 8, 4, 1, 3))
			return err
		},
		"ssm: ALog[3][1] is NaN, want a finite number": func() error {
			w := mambaWeights(6, 8, 4, 2, 3)
			w.ALog.Data[3*4+1] = nan
			_, err := NewMamba(MambaConfig{}, w)
			return err
		},
		"ssm: A[2][0] is -Inf, want a finite number": func() error { // from the scan inside
			w := mambaWeights(6, 8, 4, 2, 3)
			w.ALog.Data[2*4] = 1000
			_, err := NewMamba(MambaConfig{}, w)
			return err
		},
		"ssm: ALog[1] is +Inf, want a finite number": func() error {
			w := mamba2Weights(6, 0, 2, 8, 4, 1, 3)
			w.ALog[1] = inf
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8}, w)
			return err
		},
		"ssm: A[1] is -Inf, want a finite number": func() error { // from the SSD inside
			w := mamba2Weights(6, 0, 2, 8, 4, 1, 3)
			w.ALog[1] = 1000
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8}, w)
			return err
		},
		"ssm: D has 5 elements, want Heads = 2 or Heads*HeadDim = 16": func() error {
			w := mamba2Weights(6, 0, 2, 8, 4, 1, 3)
			w.D = w.Norm[:5]
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8}, w)
			return err
		},
		"ssm: NormGroups is 3, want a divisor of Heads*HeadDim = 32": func() error {
			_, err := NewMamba2(Mamba2Config{States: 2, HeadDim: 8, NormGroups: 3}, mamba2Weights(6, 0, 4, 8, 2, 1, 3))
			return err
		},
		"ssm: Groups is 3, want a divisor of Heads = 4": func() error {
			_, err := NewMamba2(Mamba2Config{States: 2, HeadDim: 8, Groups: 3}, mamba2Weights(6, 0, 4, 8, 2, 3, 3))
			return err
		},
		"ssm: Eps is +Inf, want a finite number above 0": func() error { // from the norm inside
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8, Eps: math.Inf(1)}, mamba2Weights(6, 0, 2, 8, 4, 1, 3))
			return err
		},
		"ssm: Eps is -1, want a finite number above 0": func() error {
			_, err := NewMamba(MambaConfig{Eps: -1}, mambaWeights(6, 8, 4, 2, 3))
			return err
		},
		"ssm: Workers is 65537, want 0 to 65536": func() error {
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8, Workers: 1<<16 + 1}, mamba2Weights(6, 0, 2, 8, 4, 1, 3))
			return err
		},
		"ssm: Weight is empty, want an element for each channel":                   func() error { _, err := NewGatedNorm(GatedNormConfig{}, GatedNormWeights{}); return err },
		"ssm: the number of rows of Out, Dim, is 0, want 1 to 16777216":            func() error { _, err := NewMamba(MambaConfig{}, MambaWeights{}); return err },
		"ssm: the number of elements of ALog, the heads, is 0, want 1 to 16777216": func() error { _, err := NewMamba2(Mamba2Config{}, Mamba2Weights{}); return err },
		"ssm: Norm has 0 elements, want Heads*HeadDim = 16": func() error {
			w := mamba2Weights(6, 0, 2, 8, 4, 1, 3)
			w.Norm = nil
			_, err := NewMamba2(Mamba2Config{States: 4, HeadDim: 8}, w)
			return err
		},
	} {
		wants(t, f(), ErrConfig, text)
	}
}

func TestCallErrors(t *testing.T) {
	op := value[*Scan](t)(NewScan(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: mat.Of(decays(1, 8), 4, 2)}))
	other := value[*Scan](t)(NewScan(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: mat.Of(decays(2, 8), 4, 2)}))
	wide := value[*Scan](t)(NewScan(ScanConfig{Channels: 4, States: 3}, ScanWeights{A: mat.Of(decays(2, 12), 4, 3)}))
	state := func(op *Scan) *State { return value[*State](t)(op.NewState(StateConfig{})) }
	x, bc := zeros(3, 4), zeros(3, 2)
	ok := func() ScanCall { return ScanCall{Dst: zeros(3, 4), X: x, Dt: x, B: bc, C: bc} }
	st := state(op)
	for _, x := range []struct {
		kind   error
		text   string
		change func(c *ScanCall)
	}{
		{ErrShape, "X has 5 columns, want Channels = 4", func(c *ScanCall) { c.X = zeros(3, 5) }},
		{ErrShape, "Dt has 2 rows, want 3", func(c *ScanCall) { c.Dt = zeros(2, 4) }},
		{ErrShape, "B has 3 columns, want Groups*States = 2", func(c *ScanCall) { c.B = zeros(3, 3) }},
		{ErrShape, "Z is 3 x 4 with stride 4 but has only 5 elements", func(c *ScanCall) { c.Z = blas32.General{Rows: 3, Cols: 4, Stride: 4, Data: make([]float32, 5)} }},
		{ErrShape, "dst has 1 rows, want 3", func(c *ScanCall) { c.Dst = zeros(1, 4) }},
		{ErrShape, "dst shares elements with Dt", func(c *ScanCall) { c.Dst = c.Dt; c.X = zeros(3, 4) }},
		{ErrCall, "Workers is -2, want 0 to 65536", func(c *ScanCall) { c.Workers = -2 }},
		{ErrCall, "Workers is 65537, want 0 to 65536", func(c *ScanCall) { c.Workers = 1<<16 + 1 }},
		{ErrState, "State is of a scan of 4 channels in 1 groups with 3 states, want a scan of 4 channels in 1 groups with 2 states", func(c *ScanCall) { c.State = state(wide) }},
		{ErrState, "State is of another scan of 4 channels in 1 groups with 2 states, with another Config or other weights", func(c *ScanCall) { c.State = state(other) }},
		{ErrState, "State was not made by NewState", func(c *ScanCall) { c.State = new(State) }},
		{ErrState, "a state of States is nil, want one of NewState", func(c *ScanCall) { c.States = []*State{st, nil, st} }},
		{ErrState, "States[1] is given twice", func(c *ScanCall) { c.Offsets, c.States = []int{0, 1, 3}, []*State{st, st} }},
		{ErrCall, "1 States for 3 rows, want one for each row, or Offsets", func(c *ScanCall) { c.States = []*State{st} }},
		{ErrCall, "Offsets ends with 2, want the number of rows = 3", func(c *ScanCall) { c.Offsets = []int{0, 2} }},
		{ErrCall, "Offsets runs backwards, from 2 to 1 at 2", func(c *ScanCall) { c.Offsets = []int{0, 2, 1, 3} }},
		{ErrCall, "Offsets has 0 elements, want one more than sequences = 0", func(c *ScanCall) { c.Offsets = []int{} }},
		{ErrCall, "1 States for 2 sequences", func(c *ScanCall) { c.Offsets, c.States = []int{0, 1, 3}, []*State{st} }},
		{ErrCall, "State is given with Offsets of 2 sequences, want States", func(c *ScanCall) { c.Offsets, c.State = []int{0, 1, 3}, st }},
		{ErrCall, "State is given together with States", func(c *ScanCall) { c.State, c.States = st, []*State{} }},
	} {
		c := ok()
		x.change(&c)
		wants(t, op.Run(t.Context(), &c), x.kind, "ssm: "+x.text)
	}
	wants(t, op.Step(zeros(3, 4), x, x, bc, bc, nil), ErrState, "ssm: State is nil, want one of NewState")
	wants(t, op.StepBatch(zeros(3, 4), x, x, bc, bc, []*State{st}), ErrCall, "ssm: 1 States for 3 rows, want one for each row, or Offsets")
	wants(t, op.StepBatch(zeros(3, 4), x, x, bc, bc, nil), ErrCall, "ssm: 0 States for 3 rows, want one for each row, or Offsets")
	if st.Len() != 0 {
		t.Errorf("a failed call left %d tokens", st.Len())
	}
	_, err := op.NewState(StateConfig{Snapshots: -1})
	wants(t, err, ErrConfig, "ssm: Snapshots is -1, want 0 to 1048576")
	_, err = op.NewState(StateConfig{Snapshots: 1<<20 + 1})
	wants(t, err, ErrConfig, "ssm: Snapshots is 1048577, want 0 to 1048576")
	large := value[*Scan](t)(NewScan(ScanConfig{Channels: 1 << 14, States: 4}, ScanWeights{A: zeros(1<<14, 4)}))
	_, err = large.NewState(StateConfig{Snapshots: 1 << 20})
	wants(t, err, ErrConfig, "ssm: Snapshots is 1048576, too many for a state of 262144 bytes")
	wants(t, st.CopyFrom(state(wide)), ErrState, "ssm: from is of a scan of 4 channels in 1 groups with 3 states, want a scan of 4 channels in 1 groups with 2 states")
}

func TestStoredErrors(t *testing.T) {
	op := value[*Scan](t)(NewScan(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: mat.Of(decays(1, 8), 4, 2)}))
	other := value[*Scan](t)(NewScan(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: mat.Of(decays(2, 8), 4, 2)}))
	var b bytes.Buffer
	_, err := value[*State](t)(op.NewState(StateConfig{})).WriteTo(&b)
	must(t, err)
	read := func(op *Scan, p []byte) error { _, err := op.ReadState(bytes.NewReader(p)); return err }
	for n := range b.Len() {
		wants(t, read(op, b.Bytes()[:n]), ErrState, "ssm: state: it ends too early")
	}
	wants(t, read(other, b.Bytes()), ErrState, "ssm: state: it is of another operator: the Config or the weights differ")
	for i := range b.Len() {
		damaged := bytes.Clone(b.Bytes())
		damaged[i] ^= 0x10
		if err := read(op, damaged); !errors.Is(err, ErrState) {
			t.Errorf("byte %d damaged: error %v", i, err)
		}
	}
	if _, err := new(State).WriteTo(io.Discard); !errors.Is(err, ErrState) {
		t.Errorf("error %v", err)
	}
}

// TestLengths: states do not count further than they can.
func TestLengths(t *testing.T) {
	for _, s := range steppers(t) {
		st := value[*State](t)(s.newState(StateConfig{}))
		step := func() error { return s.run(t.Context(), zeros(1, s.out), zeros(1, s.in), batch{state: st}, nil, 1) }
		must(t, step())
		for _, n := range []int{math.MaxInt, math.MaxInt - 10, maxTokens} {
			if err := st.Skip(n); !errors.Is(err, ErrFull) || st.Len() != 1 {
				t.Fatalf("%s: error %v after %d tokens", s.name, err, st.Len())
			}
		}
		wants(t, st.Skip(-1), ErrCall, "ssm: n is -1, want 0 or more")
		must(t, st.Skip(maxTokens-2))
		must(t, step())
		if err := step(); !errors.Is(err, ErrFull) || st.Len() != maxTokens {
			t.Fatalf("%s: error %v after %d tokens", s.name, err, st.Len())
		}
		var b bytes.Buffer
		_, err := st.WriteTo(&b)
		must(t, err)
		if got := value[*State](t)(s.read(b.Bytes())); got.Len() != maxTokens {
			t.Errorf("%s: read %d tokens", s.name, got.Len())
		}
		for _, n := range []int64{-2 - maxTokens, math.MinInt64, maxTokens + 1, math.MaxInt64} {
			file := bytes.Clone(b.Bytes())
			binary.LittleEndian.PutUint64(file[24:], uint64(n)) // after kind, length of the fingerprint, and it
			sum := crc32.ChecksumIEEE(file[:len(file)-4])
			binary.LittleEndian.PutUint32(file[len(file)-4:], sum)
			_, err := s.read(file)
			wants(t, err, ErrState, fmt.Sprintf("ssm: state: it has seen %d tokens, want 0 to %d", max(n, -1-n), int64(maxTokens))) // -1-n where it was written to
		}
	}
}

// TestBadOutputs: an output that is none is an error for every operator, also where its
// shape says more than its data.
func TestBadOutputs(t *testing.T) {
	norm := value[*GatedNorm](t)(NewGatedNorm(GatedNormConfig{}, GatedNormWeights{make([]float32, 6)}))
	list := append(steppers(t), stepper{
		name: "norm", in: 12, out: 6,
		run: func(ctx context.Context, dst, x blas32.General, _ batch, _ DeltaFilter, workers int) error {
			c := columns(x, 6, 6)
			return norm.Run(ctx, &GatedNormCall{Dst: dst, X: c[0], Z: c[1], Workers: workers})
		},
	})
	for _, s := range list {
		x := random(1, 9, s.in, 1, 0)
		for _, dst := range []blas32.General{
			{},
			{Rows: 9, Cols: s.out, Stride: s.out},
			{Rows: 9, Cols: s.out, Stride: s.out, Data: x.Data[:1]},
			{Rows: 9, Cols: s.out, Stride: s.out, Data: make([]float32, 9*s.out-1)},
			{Rows: 9, Cols: s.out, Stride: s.out - 1, Data: make([]float32, 9*s.out)},
			{Rows: 9, Cols: s.out, Stride: -s.out, Data: make([]float32, 9*s.out)},
			{Rows: 9, Cols: s.out, Stride: math.MaxInt, Data: make([]float32, 9*s.out)},
			{Rows: -9, Cols: s.out, Stride: s.out, Data: make([]float32, 9*s.out)},
			{Rows: 9, Cols: s.out + 1, Stride: s.out + 1, Data: make([]float32, 9*s.out+9)},
			{Rows: math.MaxInt, Cols: s.out, Stride: s.out, Data: make([]float32, 9*s.out)},
			{Rows: 9, Cols: s.out, Stride: s.in, Data: x.Data[s.in-s.out:]}, // an input
		} {
			if s.in == s.out && dst.Stride == s.in && len(dst.Data) == len(x.Data) {
				dst.Data = dst.Data[1:] // x itself would do
			}
			if err := s.run(t.Context(), dst, x, batch{}, nil, 1); !errors.Is(err, ErrShape) {
				t.Errorf("%s: dst of %d x %d, stride %d and %d elements: error %v", s.name, dst.Rows, dst.Cols, dst.Stride, len(dst.Data), err)
			}
		}
		for _, workers := range []int{-1, 1<<16 + 1} {
			if err := s.run(t.Context(), zeros(9, s.out), x, batch{}, nil, workers); !errors.Is(err, ErrCall) {
				t.Errorf("%s: %d workers: error %v", s.name, workers, err)
			}
		}
		if err := s.run(nil, zeros(9, s.out), x, batch{}, nil, 1); !errors.Is(err, ErrCall) { //nolint:staticcheck
			t.Errorf("%s: no context: error %v", s.name, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.run(ended, zeros(9, s.out), x, batch{}, nil, 1); err != context.Canceled {
			t.Errorf("%s: an ended context: error %v", s.name, err)
		}
	}
}

// TestNilCalls: a call that is nil is an error.
func TestNilCalls(t *testing.T) {
	for _, err := range []error{
		value[*Conv](t)(NewConv(ConvConfig{}, ConvWeights{Weight: zeros(1, 1)})).Run(t.Context(), nil),
		value[*Scan](t)(NewScan(ScanConfig{Channels: 1, States: 1}, ScanWeights{A: zeros(1, 1)})).Run(t.Context(), nil),
		value[*SSD](t)(NewSSD(SSDConfig{Heads: 1, HeadDim: 1, States: 1}, SSDWeights{})).Run(t.Context(), nil),
		value[*SISO](t)(NewSISO(SISOConfig{Heads: 1, HeadDim: 1, States: 1}, SISOWeights{})).Run(t.Context(), nil),
		value[*GatedNorm](t)(NewGatedNorm(GatedNormConfig{}, GatedNormWeights{make([]float32, 1)})).Run(t.Context(), nil),
		value[*Mamba](t)(NewMamba(MambaConfig{}, mambaWeights(6, 8, 4, 2, 3))).Run(t.Context(), nil),
		value[*Mamba2](t)(NewMamba2(Mamba2Config{States: 4, HeadDim: 8}, mamba2Weights(6, 0, 2, 8, 4, 1, 3))).Run(t.Context(), nil),
	} {
		wants(t, err, ErrCall, "ssm: call is nil")
	}
}

// TestFingerprints: a state goes from one operator to another that is the same, under
// any tier, and not to one that differs in anything.
func TestFingerprints(t *testing.T) {
	hashes := map[string]uint64{}
	isatest.Run(t, func(t *testing.T) {
		list, again := steppers(t), steppers(t)
		for i, s := range list {
			st := value[*State](t)(s.newState(StateConfig{}))
			must(t, again[i].run(t.Context(), zeros(2, s.out), zeros(2, s.in), batch{state: st}, nil, 1))
			if h, ok := hashes[s.name]; ok && h != st.kind.Hash {
				t.Errorf("%s: another fingerprint under another tier", s.name)
			}
			hashes[s.name] = st.kind.Hash
		}
	})
	a := mat.Of(decays(1, 8), 4, 2)
	state := func(cfg ScanConfig, w ScanWeights) *State {
		return value[*State](t)(value[*Scan](t)(NewScan(cfg, w)).NewState(StateConfig{}))
	}
	plain := state(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: a})
	for i, st := range []*State{
		state(ScanConfig{Channels: 4, States: 2, Softplus: true}, ScanWeights{A: a}),
		state(ScanConfig{Channels: 4, States: 2, DtMax: 1}, ScanWeights{A: a}),
		state(ScanConfig{Channels: 4, States: 2, Groups: 2}, ScanWeights{A: a}),
		state(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: a, B: a}),
		state(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: a, C: a}),
		state(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: a, DtBias: make([]float32, 4)}),
	} {
		if err := plain.CopyFrom(st); !errors.Is(err, ErrState) {
			t.Errorf("scan %d: error %v", i, err)
		}
	}
	must(t, plain.CopyFrom(state(ScanConfig{Channels: 4, States: 2, Workers: 3}, ScanWeights{A: a})))
}
