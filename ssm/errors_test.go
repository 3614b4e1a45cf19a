package ssm

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

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
		"ssm: Workers is -1, want 0 or more":       func() error { c := scan; c.Workers = -1; _, err := NewScan(c, ScanWeights{A: a}); return err },
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
		"ssm: the convolution's weight is 0 x 0, want channels x taps": func() error { _, err := NewConv(ConvConfig{}, blas32.General{}, nil); return err },
		"ssm: GroupSize is 3, want a divisor of the 4 channels":        func() error { _, err := NewGatedNorm(GatedNormConfig{GroupSize: 3}, make([]float32, 4)); return err },
		"ssm: Eps is NaN, want a finite number above 0":                func() error { _, err := NewGatedNorm(GatedNormConfig{Eps: math.NaN()}, make([]float32, 4)); return err },
		"ssm: X has 10 rows, want 11": func() error {
			w := mambaWeights(6, 8, 4, 2, 3)
			w.X.Rows, w.Dt.Cols, w.Dt.Stride = 10, 3, 3
			w.Dt.Data = make([]float32, 24)
			_, err := NewMamba(MambaConfig{}, w)
			return err
		},
		"ssm: Format is 9": func() error { _, err := NewMamba(MambaConfig{Format: 9}, mambaWeights(6, 8, 4, 2, 3)); return err },
		"ssm: Out has 16 columns, want at least Heads*HeadDim = 128": func() error {
			_, err := NewMamba2(Mamba2Config{States: 4}, mamba2Weights(6, 0, 2, 8, 4, 1, 3))
			return err
		},
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
	for text, change := range map[string]func(c *ScanCall){
		"ssm: X has 5 columns, want Channels = 4":               func(c *ScanCall) { c.X = zeros(3, 5) },
		"ssm: Dt has 2 rows, want 3":                            func(c *ScanCall) { c.Dt = zeros(2, 4) },
		"ssm: B has 3 columns, want Groups*States = 2":          func(c *ScanCall) { c.B = zeros(3, 3) },
		"ssm: Z is 3 x 4 with stride 4 but has only 5 elements": func(c *ScanCall) { c.Z = blas32.General{Rows: 3, Cols: 4, Stride: 4, Data: make([]float32, 5)} },
		"ssm: dst has 1 rows, want 3":                           func(c *ScanCall) { c.Dst = zeros(1, 4) },
		"ssm: dst shares elements with Dt":                      func(c *ScanCall) { c.Dst = c.Dt; c.X = zeros(3, 4) },
		"ssm: Workers is -2, want 0 or more":                    func(c *ScanCall) { c.Workers = -2 },
		"ssm: a state is of a scan of 4 channels in 1 groups with 3 states, want a scan of 4 channels in 1 groups with 2 states": func(c *ScanCall) { c.State = state(wide) },
		"ssm: a state is of another scan of 4 channels in 1 groups with 2 states, with other weights":                            func(c *ScanCall) { c.State = state(other) },
		"ssm: a state was not made by NewState":                                                         func(c *ScanCall) { c.State = new(State) },
		"ssm: States is given without Offsets":                                                          func(c *ScanCall) { c.States = []*State{st} },
		"ssm: Offsets is [0 2], want a row for each sequence's begin and at last the number of rows, 3": func(c *ScanCall) { c.Offsets = []int{0, 2} },
		"ssm: Offsets[2] is 1, less than the one before it":                                             func(c *ScanCall) { c.Offsets = []int{0, 2, 1, 3} },
		"ssm: States has 1 elements, want one for each sequence, 2":                                     func(c *ScanCall) { c.Offsets, c.States = []int{0, 1, 3}, []*State{st} },
		"ssm: one state stands for two sequences":                                                       func(c *ScanCall) { c.Offsets, c.States = []int{0, 1, 3}, []*State{st, st} },
		"ssm: State is given with Offsets; want States":                                                 func(c *ScanCall) { c.Offsets, c.State = []int{0, 3}, st },
	} {
		c := ok()
		change(&c)
		wants(t, op.Run(t.Context(), &c), ErrShape, text)
	}
	wants(t, op.Step(zeros(3, 4), x, x, bc, bc, nil), ErrShape, "ssm: the state is nil")
	wants(t, op.StepBatch(zeros(3, 4), x, x, bc, bc, []*State{st}), ErrShape, "ssm: 1 states for 3 rows")
	if st.Len() != 0 {
		t.Errorf("a failed call left %d tokens", st.Len())
	}
	_, err := op.NewState(StateConfig{Snapshots: -1})
	wants(t, err, ErrConfig, "ssm: Snapshots is -1, want 0 to 16777216")
	wants(t, st.CopyFrom(state(wide)), ErrShape, "ssm: from is of a scan of 4 channels in 1 groups with 3 states, want a scan of 4 channels in 1 groups with 2 states")
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
	wants(t, read(other, b.Bytes()), ErrState, "ssm: state: it is of another operator than this scan of 4 channels in 1 groups with 2 states, or of other weights")
	for i := range b.Len() {
		damaged := bytes.Clone(b.Bytes())
		damaged[i] ^= 0x10
		if err := read(op, damaged); !errors.Is(err, ErrState) {
			t.Errorf("byte %d damaged: error %v", i, err)
		}
	}
	if _, err := new(State).WriteTo(io.Discard); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

// FuzzReadState wants an error or a state that can be used.
func FuzzReadState(f *testing.F) {
	op := value[*Conv](f)(NewConv(ConvConfig{}, random(1, 2, 3, 1, 0), nil))
	var b bytes.Buffer
	_, err := value[*State](f)(op.NewState(StateConfig{})).WriteTo(&b)
	must(f, err)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		st, err := op.ReadState(bytes.NewReader(p))
		if err == nil {
			must(t, op.Step(zeros(2, 2), zeros(2, 2), st))
		}
	})
}
