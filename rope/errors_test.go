package rope

import (
	"errors"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// TestErrors: errors name the field and its value, and nothing is written.
func TestErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "HeadDim is 0"},
		{Config{HeadDim: 1<<31 - 1}, "HeadDim is 2147483647, want 1 to 65536"},
		{Config{HeadDim: 8, Workers: 1<<31 - 1}, "Workers is 2147483647"},
		{Config{HeadDim: 8, Offset: 8}, "Offset is 8, want 0 to HeadDim-1 = 7"},
		{Config{HeadDim: 8, Offset: 2, RotaryDim: 8}, "the rotary dimension is 8, want an even number from 2 to HeadDim-Offset = 6"},
		{Config{HeadDim: 8, None: true, RotaryDim: 4}, "RotaryDim is 4 together with None"},
		{Config{HeadDim: 8, None: true, XPos: &XPos{}}, "together with None"},
		{Config{HeadDim: 7}, "the rotary dimension is 7"},
		{Config{HeadDim: 8, RotaryDim: 5}, "the rotary dimension is 5"},
		{Config{HeadDim: 8, RotaryDim: 10}, "the rotary dimension is 10"},
		{Config{HeadDim: 8, RotaryDim: -2}, "the rotary dimension is -2"},
		{Config{HeadDim: 8, Layout: 2}, "Layout is 2"},
		{Config{HeadDim: 8, Accuracy: 3}, "Accuracy is 3"},
		{Config{HeadDim: 8, Base: -1}, "Base is -1"},
		{Config{HeadDim: 8, Base: nan}, "Base is NaN"},
		{Config{HeadDim: 8, Base: inf}, "Base is +Inf"},
		{Config{HeadDim: 8, Length: -1}, "Length is -1"},
		{Config{HeadDim: 8, Workers: -1}, "Workers is -1, want 0 to 65536"},
		{Config{HeadDim: 8, Scheme: Linear{}}, "Factor is 0, want a number above 0"},
		{Config{HeadDim: 8, Scheme: Linear{Factor: -2}}, "Factor is -2"},
		{Config{HeadDim: 8, Scheme: Linear{Factor: nan}}, "Factor is NaN"},
		{Config{HeadDim: 8, Scheme: NTK{Factor: inf}}, "Factor is +Inf"},
		{Config{HeadDim: 2, Scheme: NTK{Factor: 2}}, "the rotary dimension is 2"},
		{Config{HeadDim: 8, Scheme: DynamicNTK{Factor: 2}}, "MaxPosition is 0"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2}}, "Original is 0"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, BetaFast: -1}}, "BetaFast is -1"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, MScale: -1}}, "MScale is -1"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, MScale: 1e300, MScaleAllDim: 1}}, "the attention factor is 6"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, MScale: 1, MScaleAllDim: 1e300}}, "the attention factor is 1"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, AttentionFactor: 1e39}}, "the attention factor is 1e+39, want a number above 0 that float32 has"},
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 2, Original: 64, ExtrapolationFactor: &nan}}, "ExtrapolationFactor is NaN"},
		{Config{HeadDim: 8, Scheme: NTKByParts{Factor: 2, Original: 64, NTKFactor: &inf}}, "NTKFactor is +Inf"},
		{Config{HeadDim: 8, Scheme: LongRoPE{Long: []float64{1, 1, 1}, Original: 64, Factor: 2}}, "Long has 3 factors, want half the rotary dimension = 4"},
		{Config{HeadDim: 8, Scheme: LongRoPE{Long: []float64{1, 1, 0, 1}, Original: 64, Factor: 2}}, "Long[2] is 0"},
		{Config{HeadDim: 8, Scheme: LongRoPE{Short: []float64{1}, Long: []float64{1, 1, 1, 1}, Original: 64, Factor: 2}}, "Short has 1 factors"},
		{Config{HeadDim: 8, Scheme: Llama3{LowFreqFactor: 4}}, "LowFreqFactor and HighFreqFactor are both 4"},
		{Config{HeadDim: 8, Scheme: Giraffe{Power: -1}}, "Power is -1"},
		{Config{HeadDim: 8, Scheme: RIFLEx{K: 5, Length: 9}}, "K is 5"},
		{Config{HeadDim: 8, Scheme: Proportional{Fraction: 1.5}}, "Fraction is 1.5"},
		{Config{HeadDim: 8, Scheme: Custom{Frequencies: []float64{1}}}, "Frequencies has 1 elements, want half the rotary dimension = 4"},
		{Config{HeadDim: 4, Scheme: Custom{Frequencies: []float64{1, nan}}}, "frequency 1 is NaN"},
		{Config{HeadDim: 4, Scheme: Custom{Frequencies: []float64{1, 1e300}}}, "frequency 1 is 1e+300"},
		{Config{HeadDim: 8, Axes: []Axis{{Dim: 3}}}, "Axes[0].Dim is 3"},
		{Config{HeadDim: 8, Axes: []Axis{}}, "Axes is empty"},
		{Config{HeadDim: 8, Axes: []Axis{{Dim: 4}, {Dim: 8}}}, "the rotary dimension is 12"},
		{Config{HeadDim: 8, RotaryDim: 8, Axes: []Axis{{Dim: 4}}}, "RotaryDim is 8, want the sum of the axes = 4"},
		{Config{HeadDim: 8, Axes: []Axis{{Dim: 4, Base: nan}}}, "Axes[0].Base is NaN"},
		{Config{HeadDim: 8, Axes: []Axis{{Dim: 4, Scheme: Linear{}}}}, "Axes[0]: Factor is 0"},
		{Config{HeadDim: 8, Axes: []Axis{{Dim: 4}}, Sections: []int{4}}, "more than one of"},
		{Config{HeadDim: 8, Sections: []int{1, 1}}, "Sections sum to 2, want half the rotary dimension = 4"},
		{Config{HeadDim: 8, Sections: []int{-1, 5}}, "Sections[0] is -1"},
		{Config{HeadDim: 8, Learned: &Learned{Axes: 2, Heads: 1, Frequencies: make([]float32, 7)}}, "Learned.Frequencies has 7 elements"},
		{Config{HeadDim: 8, Learned: &Learned{Axes: math.MaxInt, Heads: math.MaxInt, Frequencies: make([]float32, 4)}}, "Learned.Frequencies has 4 elements"},
		{Config{HeadDim: 2, Learned: &Learned{Axes: 1, Heads: 1, Frequencies: []float32{float32(nan)}}}, "frequency 0 is NaN"},
		{Config{HeadDim: 8, XPos: &XPos{ScaleBase: -1}}, "XPos.ScaleBase is -1"},
	} {
		if _, err := New(c.cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "rope: ") {
			t.Errorf("%+v: error %v, want one with %q", c.cfg, err, c.want)
		}
	}

	r := mustNew(t, Config{HeadDim: 8})
	other := mustNew(t, Config{HeadDim: 8, Layout: Interleaved})
	x := matrix(random(1, 32), 2, 16)
	before := clone(x)
	overlapping := blas32.General{Rows: 1, Cols: 16, Stride: 16, Data: x.Data[8:]}
	for _, c := range []struct {
		call Call
		kind error
		want string
	}{
		{Call{X: matrix(x.Data, 2, 12)}, ErrShape, "x has 12 columns, want a multiple of HeadDim = 8"},
		{Call{X: blas32.General{Rows: 3, Cols: 16, Stride: 16, Data: x.Data}}, ErrShape, "has only 32 elements"},
		{Call{X: blas32.General{Rows: -1, Cols: 16, Stride: 16, Data: x.Data}}, ErrShape, "-1 rows"},
		{Call{X: rows(x, 0, 1), Dst: overlapping}, ErrShape, "dst shares elements"},
		{Call{X: x, Dst: matrix(make([]float32, 16), 1, 16)}, ErrShape, "dst has 1 rows, want 2"},
		{Call{X: x, Positions: Positions{At: []int64{1}}}, ErrShape, "Positions.At has 1 elements, want 2 rows * 1 axes"},
		{Call{X: x, Positions: Positions{Fractional: []float64{1, 2, 3}}}, ErrShape, "Positions.Fractional has 3 elements"},
		{Call{X: x, Positions: Positions{Fractional: []float64{1, nan}}}, ErrPosition, "Positions.Fractional[1] is NaN"},
		{Call{X: x, Positions: Positions{Fractional: []float64{1, 1e19}}}, ErrPosition, "Positions.Fractional[1] is 1e+19"},
		{Call{X: x, Positions: Positions{At: []int64{1, 2}, Fractional: []float64{1, 2}}}, ErrPosition, "both"},
		{Call{X: x, From: other}, ErrCall, "From rotates 8 of 8 features from 0 on, interleaved, want 8 of 8 from 0 on, half"},
		{Call{X: x, From: r, FromPositions: Positions{At: []int64{}}}, ErrShape, "FromPositions.At has 0 elements"},
	} {
		err := r.Run(t.Context(), &c.call)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
		same(t, "after an error", x.Data, before.Data)
	}
	learned := mustNew(t, Config{HeadDim: 8, Learned: &Learned{Axes: 1, Heads: 3, Frequencies: make([]float32, 12)}})
	if err := learned.Rotate(x, 0); !errors.Is(err, ErrShape) {
		t.Errorf("2 heads of 3: error %v", err)
	}
}
