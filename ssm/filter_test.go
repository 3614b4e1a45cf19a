package ssm

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// TestStepsFilters: steps that are recorded and replayed are the same, and filters in a
// chain come one after the other.
func TestStepsFilters(t *testing.T) {
	for _, s := range steppers(t) {
		if !s.filters() {
			continue
		}
		const n = 70
		x := random(1, n, s.in, 1, 0)
		run := func(f DeltaFilter, workers int) []float32 {
			y := zeros(n, s.out)
			must(t, s.run(t.Context(), y, x, batch{}, f, workers))
			return y.Data
		}
		plain, halved := zeros(n, s.channels), zeros(n, s.channels)
		want := run(nil, 1)
		same(t, s.name, run(ChainFilters(nil, RecordSteps(plain), ScaleSteps(0.5), RecordSteps(halved), ScaleSteps(2)), 3), want)
		for i, v := range plain.Data {
			if halved.Data[i] != v/2 {
				t.Fatalf("%s: step %d is %v, then %v", s.name, i, v, halved.Data[i])
			}
		}
		same(t, s.name, run(ReplaySteps(plain), 2), want)
		if slices.Equal(run(ReplaySteps(halved), 1), want) {
			t.Errorf("%s: other steps change nothing", s.name)
		}
		for _, f := range []DeltaFilter{RecordSteps(zeros(n-1, s.channels)), ReplaySteps(zeros(n, s.channels-1))} {
			err := s.run(t.Context(), zeros(n, s.out), x, batch{}, f, 2)
			if err == nil || !strings.HasPrefix(err.Error(), "ssm: panic in a worker: ssm: steps of token") {
				t.Errorf("%s: error %v", s.name, err)
			}
		}
	}
	if ChainFilters() != nil || ChainFilters(nil, nil) != nil {
		t.Error("a chain of no filters is one")
	}
}

// refusing is a source whose filters fit no operator.
type refusing struct{}

func (refusing) Bind(op Identity, _ int) (DeltaFilter, error) { return nil, errors.New(op.Name) }

// TestSetFilter: a state asks the source of its filter who it is.
func TestSetFilter(t *testing.T) {
	for _, s := range steppers(t) {
		st := value[*State](t)(s.newState(StateConfig{Filter: nil, Prompt: 3}))
		_, err := s.newState(StateConfig{Filter: refusing{}, Prompt: 3})
		switch again := st.SetFilter(refusing{}, 3); {
		case !s.filters():
			text := "ssm: Filter is given, but a " + st.kind.Name + " has no steps that it could filter"
			wants(t, err, ErrConfig, text)
			wants(t, again, ErrConfig, text)
		case err == nil || again == nil || err.Error() != st.kind.Name || again.Error() != st.kind.Name:
			t.Errorf("%s: errors %v and %v", s.name, err, again)
		default:
			must(t, st.SetFilter(panicking{at: 100}, 3))
			if !st.Filtered() || !st.Clone().Filtered() {
				t.Errorf("%s: no filter", s.name)
			}
		}
	}
	st := value[*State](t)(steppers(t)[0].newState(StateConfig{}))
	for _, prompt := range []int{-1, math.MaxInt} {
		if err := st.SetFilter(nil, prompt); !errors.Is(err, ErrConfig) {
			t.Errorf("a prompt of %d tokens: error %v", prompt, err)
		}
	}
	wants(t, new(State).SetFilter(nil, 3), ErrState, "ssm: the state was not made by NewState")
	wants(t, new(State).Skip(3), ErrState, "ssm: the state was not made by NewState")
	wants(t, new(State).CopyFrom(st), ErrState, "ssm: the state was not made by NewState")
}

// TestBytes: operators say what their weights take, whatever is kept of them.
func TestBytes(t *testing.T) {
	a, weight := mat.Of(decays(1, 64), 16, 4), random(1, 16, 4, 1, 0)
	scan := value[*Scan](t)(NewScan(ScanConfig{Channels: 16, States: 4}, ScanWeights{A: a, D: normal(1, 1, 0, 16)}))
	conv := value[*Conv](t)(NewConv(ConvConfig{}, ConvWeights{weight, normal(1, 1, 0, 16)}))
	ssd := value[*SSD](t)(NewSSD(SSDConfig{Heads: 4, HeadDim: 3, States: 2}, SSDWeights{A: decays(1, 4), D: decays(1, 4)}))
	siso := value[*SISO](t)(NewSISO(SISOConfig{Heads: 4, HeadDim: 3, States: 2}, SISOWeights{D: decays(1, 4)}))
	norm := value[*GatedNorm](t)(NewGatedNorm(GatedNormConfig{}, GatedNormWeights{decays(1, 16)}))
	mamba := value[*Mamba](t)(NewMamba(MambaConfig{}, mambaWeights(12, 24, 5, 3, 4)))
	mamba2 := value[*Mamba2](t)(NewMamba2(Mamba2Config{States: 6, HeadDim: 8, Groups: 2}, mamba2Weights(12, 5, 4, 8, 6, 2, 4)))
	elements := func(matrices []blas32.General, vectors ...[]float32) (n int64) {
		for _, m := range matrices {
			n += int64(len(m.Data))
		}
		for _, v := range vectors {
			n += int64(len(v))
		}
		return n
	}
	w1, w2 := mambaWeights(12, 24, 5, 3, 4), mamba2Weights(12, 5, 4, 8, 6, 2, 4)
	for name, x := range map[string]struct{ got, least int64 }{
		"scan": {scan.Bytes(), 4 * (64 + 16)}, "conv": {conv.Bytes(), 4 * (64 + 16)}, "SSD": {ssd.Bytes(), 4 * (4 + 12)},
		"SISO": {siso.Bytes(), 16}, "norm": {norm.Bytes(), 64},
		"Mamba":  {mamba.Bytes(), 4 * elements([]blas32.General{w1.In, w1.Conv, w1.X, w1.Dt, w1.ALog, w1.Out}, w1.InBias, w1.ConvBias, w1.DtBias, w1.D, w1.OutBias)},
		"Mamba2": {mamba2.Bytes(), 4 * elements([]blas32.General{w2.In, w2.Conv, w2.Out}, w2.ConvBias, w2.DtBias, w2.ALog, w2.D, w2.Norm)},
	} {
		if x.got < x.least || x.got > 4*x.least {
			t.Errorf("%s: %d bytes, want a little more than %d", name, x.got, x.least)
		}
	}
	st := value[*State](t)(scan.NewState(StateConfig{Snapshots: 2}))
	if got, want := st.Bytes(), int64(3*4*64); got != want {
		t.Errorf("a state of %d bytes, want %d", got, want)
	}
}

// TestNoState: Step of no state is an error in every operator, and so is StepBatch of
// none for some rows.
func TestNoState(t *testing.T) {
	conv := value[*Conv](t)(NewConv(ConvConfig{}, ConvWeights{Weight: zeros(1, 1)}))
	scan := value[*Scan](t)(NewScan(ScanConfig{Channels: 1, States: 1}, ScanWeights{A: zeros(1, 1)}))
	ssd := value[*SSD](t)(NewSSD(SSDConfig{Heads: 1, HeadDim: 1, States: 1}, SSDWeights{A: make([]float32, 1)}))
	siso := value[*SISO](t)(NewSISO(SISOConfig{Heads: 1, HeadDim: 1, States: 1}, SISOWeights{}))
	block := value[*Mamba](t)(NewMamba(MambaConfig{}, mambaWeights(1, 8, 4, 2, 3)))
	y, x, none := zeros(1, 1), zeros(1, 1), blas32.General{}
	for _, err := range []error{
		conv.Step(y, x, nil), scan.Step(y, x, x, x, x, nil), ssd.Step(y, x, x, x, x, nil), siso.Step(y, x, x, x, x, x, x, none, nil), block.Step(y, x, nil),
		scan.Read(x, nil), scan.Write(nil, x), ssd.Read(x, nil), ssd.Write(nil, x), siso.Read(SISOState{}, nil), siso.Write(nil, SISOState{}),
		block.ReadWindow(x, nil), block.ReadScan(x, nil),
	} {
		wants(t, err, ErrState, "ssm: State is nil, want one of NewState")
	}
	for _, err := range []error{
		conv.StepBatch(y, x, nil), scan.StepBatch(y, x, x, x, x, nil), ssd.StepBatch(y, x, x, x, x, nil), siso.StepBatch(y, x, x, x, x, x, x, none, nil), block.StepBatch(y, x, nil),
	} {
		wants(t, err, ErrCall, "ssm: 0 States for 1 rows, want one for each row, or Offsets")
	}
	for _, err := range []error{
		conv.StepBatch(zeros(0, 1), zeros(0, 1), nil), block.StepBatch(zeros(0, 1), zeros(0, 1), []*State{}),
	} {
		must(t, err)
	}
	st := value[*State](t)(block.NewState(StateConfig{}))
	wants(t, block.ReadWindow(zeros(2, 7), st), ErrShape, "ssm: conv has 7 columns, want channels = 8")
	wants(t, block.ReadScan(zeros(8, 3), st), ErrShape, "ssm: h has 3 columns, want States = 4")
	var b bytes.Buffer
	_, err := st.WriteTo(&b)
	must(t, err)
	if _, err := conv.ReadState(&b); !errors.Is(err, ErrState) {
		t.Errorf("a convolution reads a block's state: error %v", err)
	}
}
