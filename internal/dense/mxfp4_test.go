package dense

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestPackedLinear: weights that stay in 4 bits have the bits of those that are expanded, with any
// number of rows, in every format and tier; they are those of a table of the 16 numbers, and nothing
// is allocated for them at use.
func TestPackedLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 4))
	values := []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}
	isatest.Run(t, func(t *testing.T) {
		for _, shape := range [][2]int{{1, 32}, {70, 64}, {333, 96}, {2100, 160}} {
			out, in := shape[0], shape[1]
			blocks, scales := make([]byte, out*in/2), make([]byte, out*in/MXBlock)
			for i := range blocks {
				blocks[i] = byte(r.Uint32())
			}
			for i := range scales {
				scales[i] = byte(120 + r.IntN(14))
			}
			w := mat.New(out, in)
			for i := range w.Data {
				code := int(blocks[i/2]) >> (4 * (i % 2)) & 15
				x := math.Ldexp(values[code&7], int(scales[i/MXBlock])-127)
				if code > 8 { // there is no zero below 0
					x = -x
				}
				w.Data[i] = float32(x)
			}
			bias := make([]float32, out)
			for i := range bias {
				bias[i] = r.Float32()
			}
			for _, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Float16, asm.Int8} {
				want, got := NewLinear(format, w, bias), NewPackedLinear(format, out, in, blocks, scales, bias)
				if want.Fingerprint() != got.Fingerprint() {
					t.Errorf("%v: another fingerprint", format)
				}
				for _, rows := range []int{1, 3, 40} {
					x, a, b := mat.New(rows, in), mat.New(rows, out), mat.New(rows, out)
					for i := range x.Data {
						x.Data[i] = float32(r.NormFloat64())
					}
					want.Forward(a, x)
					got.Forward(b, x)
					for i, v := range a.Data {
						if b.Data[i] != v {
							t.Fatalf("%v, %v, %d rows: element %d is %v, want %v", shape, format, rows, i, b.Data[i], v)
						}
					}
				}
				one, other := make([]float32, in), make([]float32, in)
				want.Output(one, out-1)
				got.Output(other, out-1)
				if fmt.Sprint(one) != fmt.Sprint(other) {
					t.Errorf("%v: output %v, want %v", format, other, one)
				}
				if got.Bytes() != out*in/2+out*in/32+4*out {
					t.Errorf("%d bytes", got.Bytes())
				}
			}
		}
	})
}

// TestScalesOfMXFP4: every scale is its power of two, and 255 is no number.
func TestScalesOfMXFP4(t *testing.T) {
	blocks := make([]byte, MXBlock/2)
	blocks[0] = 0x12 // 1, and 0.5 after it
	w := make([]float32, MXBlock)
	for scale := range 256 {
		DecodeMXFP4(w, blocks, []byte{byte(scale)})
		want := float32(math.Ldexp(1, scale-127))
		if scale == 255 && w[0] == w[0] || scale < 255 && (w[0] != want || w[1] != want/2) {
			t.Errorf("scale %d: %v and %v, want %v", scale, w[0], w[1], want)
		}
	}
}
