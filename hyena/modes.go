package hyena

import (
	"math"
	"math/cmplx"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Modes is a filter that is a sum of decaying oscillations, N of them in each channel, given
// by their poles p and residues R:
//
//	k[t][c] = Re sum over n of R[c][n] p[c][n]^t.
//
// So are the filters of StripedHyena (Poli et al. 2023), those that Laughing Hyena distils
// from others (Massaroli et al. 2023, arXiv 2310.18780; see [Distill]) and the kernels of
// diagonal state spaces (see [NewS4DModes]). A Modal convolution with such a filter needs N
// numbers of the past and not all of it.
//
// It is computed in float64. Modes are immutable and safe for concurrent use.
type Modes struct {
	channels, n     int
	poles, residues []complex128 // [channels, n]
}

// ModesWeights are the poles and residues of Modes, [channels, 2 N]: the real and the
// imaginary part of each mode, one mode after the other, as checkpoints of StripedHyena
// store them ([channels, N, 1, 2]).
type ModesWeights struct{ Poles, Residues blas32.General }

const (
	// mostModes bounds the modes of a channel.
	mostModes = 1 << 16
	// mostTable bounds the elements of what is computed from modes once.
	mostTable = math.MaxInt32 / 4
)

// NewModes returns the modes of weights, of which it keeps nothing, or an error that matches
// ErrConfig.
func NewModes(w ModesWeights) (*Modes, error) {
	channels, n := w.Poles.Rows, w.Poles.Cols/2
	if channels <= 0 || n <= 0 || w.Poles.Cols%2 != 0 {
		return nil, check.Errorf(ErrConfig, "hyena: Poles is %d x %d, want a channel or more, and two columns for each mode", channels, w.Poles.Cols)
	}
	for _, m := range []struct {
		name string
		m    blas32.General
	}{{"Poles", w.Poles}, {"Residues", w.Residues}} {
		if err := check.Matrix(ErrConfig, pkg, m.name, m.m, channels, 2*n, "2*modes"); err != nil {
			return nil, err
		}
	}
	var list [2][]complex128
	for i, m := range [2]blas32.General{w.Poles, w.Residues} {
		list[i] = make([]complex128, 0, channels*n)
		for c := range channels {
			row := mat.Row(m, c)
			for j := 0; j < 2*n; j += 2 {
				list[i] = append(list[i], complex(float64(row[j]), float64(row[j+1])))
			}
		}
	}
	return newModes(channels, n, list[0], list[1])
}

func newModes(channels, n int, poles, residues []complex128) (*Modes, error) {
	if n > mostModes || check.Product(mostTable, channels, n, 4, modalChunk) < 0 {
		return nil, check.Errorf(ErrConfig, "hyena: %d channels of %d modes are too many", channels, n)
	}
	return &Modes{channels, n, poles, residues}, nil
}

// Channels returns the number of channels.
func (m *Modes) Channels() int { return m.channels }

// Modes returns N, the number of modes of a channel.
func (m *Modes) Modes() int { return m.n }

// MaxLen returns the length of the longest kernel: modes have no end, and it is more than a
// machine can address.
func (m *Modes) MaxLen() int { return mostTokens }

// Bytes returns the memory of poles and residues, in float64.
func (m *Modes) Bytes() int64 { return 16 * int64(len(m.poles)+len(m.residues)) }

// Mode returns the pole and the residue of a channel's mode n.
func (m *Modes) Mode(channel, n int) (pole, residue complex128) {
	return m.poles[channel*m.n+n], m.residues[channel*m.n+n]
}

// Kernel sets dst [rows, channels] to rows from, from+1, ... of the kernel. It costs 8 N flop
// for each element. Errors match ErrShape or ErrTooLong.
func (m *Modes) Kernel(dst blas32.General, from int) error {
	if err := check.Matrix(ErrShape, pkg, "dst", dst, -1, m.channels, "channels"); err != nil {
		return err
	}
	if from < 0 || from > mostTokens || dst.Rows > mostTokens-from {
		return check.Errorf(ErrTooLong, "hyena: dst is %d rows of a kernel from row %d, more than %d", dst.Rows, from, mostTokens)
	}
	m.columns(dst, from, 0, make([]float64, dst.Rows))
	return nil
}

// columns implements implicit.
func (m *Modes) columns(dst blas32.General, from, channel int, work []float64) {
	sum := work[:dst.Rows]
	for c := range dst.Cols {
		clear(sum)
		for i := (channel + c) * m.n; i < (channel+c+1)*m.n; i++ {
			at := m.residues[i]
			if from > 0 {
				at *= power(m.poles[i], from)
			}
			decays := cmplx.Abs(m.poles[i]) < 1
			for t := 0; t < len(sum) && !(decays && vanished(at)); { // a mode stays denormal, which costs 20 times as much
				for end := min(t+decayRows, len(sum)); t < end; t++ {
					sum[t] += real(at)
					at *= m.poles[i]
				}
			}
		}
		for t, v := range sum {
			dst.Data[t*dst.Stride+c] = float32(v)
		}
	}
}

// decayRows is after how many rows columns looks whether a mode has decayed.
const decayRows = 64

// vanished tells whether no row has a bit of a mode any more: float32 ends at 1e-45.
func vanished(at complex128) bool { return math.Abs(real(at))+math.Abs(imag(at)) < 1e-200 }

// whole implements implicit.
func (m *Modes) whole() bool { return false }

// power returns p^t, of which no partial product overflows that the result does not.
func power(p complex128, t int) complex128 {
	if p == 0 {
		return 0
	}
	r, phase := cmplx.Polar(p)
	return cmplx.Rect(math.Pow(r, float64(t)), math.Mod(phase*float64(t), 2*math.Pi))
}

// work implements implicit.
func (m *Modes) work() int { return m.taskRows() }

// taskRows implements implicit.
func (m *Modes) taskRows() int { return max(1, min(4096, 4_000_000/(m.channels*m.n))) }

// S4DWeights are the parameters of a diagonal state space under the names of S4D's module:
// N modes are half of its state, whose other half is their conjugate.
type S4DWeights struct {
	LogDt    []float32      // log_dt, [channels]
	LogAReal blas32.General // log_A_real, [channels, N]
	AImag    blas32.General // A_imag, [channels, N]
	C        blas32.General // C, [channels, 2 N]: real and imaginary part of each mode
}

// NewS4DModes returns the kernel of a diagonal state space, discretized by a zero-order hold, as
// modes (Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space
// Models", arXiv 2206.11893): with A = -exp(LogAReal) + i AImag and dt = exp(LogDt),
//
//	k[t] = 2 Re sum over n of C (exp(dt A) - 1) / A exp(dt A t).
//
// Errors match ErrConfig.
func NewS4DModes(w S4DWeights) (*Modes, error) {
	channels, n := len(w.LogDt), w.LogAReal.Cols
	if channels == 0 || n <= 0 {
		return nil, check.Errorf(ErrConfig, "hyena: LogDt has %d elements and LogAReal %d columns, want a channel and a mode or more", channels, n)
	}
	for _, m := range []struct {
		name string
		m    blas32.General
		cols int
		what string
	}{{"LogAReal", w.LogAReal, n, "modes"}, {"AImag", w.AImag, n, "modes"}, {"C", w.C, 2 * n, "2*modes"}} {
		if err := check.Matrix(ErrConfig, pkg, m.name, m.m, channels, m.cols, m.what); err != nil {
			return nil, err
		}
	}
	var poles, residues []complex128
	for c := range channels {
		dt := math.Exp(float64(w.LogDt[c]))
		for j := range n {
			a := complex(-math.Exp(float64(mat.Row(w.LogAReal, c)[j])), float64(mat.Row(w.AImag, c)[j]))
			weight := complex(float64(mat.Row(w.C, c)[2*j]), float64(mat.Row(w.C, c)[2*j+1]))
			step := a * complex(dt, 0)
			pole := cmplx.Exp(step)
			factor := (pole - 1) / a
			if cmplx.Abs(step) < 1e-6 { // the limit of exp(x) - 1 over x
				factor = complex(dt, 0) * (1 + step/2)
			}
			poles, residues = append(poles, pole), append(residues, 2*weight*factor)
		}
	}
	return newModes(channels, n, poles, residues)
}
