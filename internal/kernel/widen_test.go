package kernel

import (
	"encoding/binary"
	"math"
	"testing"
	"unsafe"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// TestWiden widens every number of 16 bits, and every length across the parts of a
// kernel against unmapped memory.
func TestWiden(t *testing.T) {
	widen := func(t *testing.T, dst []float32, x []byte) {
		t.Helper()
		for name, w := range map[string]struct {
			all func([]float32, []byte)
			one func(uint16) float32
		}{"bfloat16": {WidenBFloat16, scalar.BFloat16Of}, "float16": {WidenFloat16, scalar.Float16Of}} {
			w.all(dst, x)
			for i, v := range dst {
				bits := binary.LittleEndian.Uint16(x[2*i:])
				want := w.one(bits)
				if math.Float32bits(v) != math.Float32bits(want) && (v == v || want == want) {
					t.Fatalf("%s, element %d of %d, %#04x: %v, want %v", name, i, len(dst), bits, v, want)
				}
			}
		}
	}
	isatest.Run(t, func(t *testing.T) {
		all := make([]byte, 2<<16)
		for i := range 1 << 16 {
			binary.LittleEndian.PutUint16(all[2*i:], uint16(i))
		}
		widen(t, make([]float32, 1<<16), all)
		lengths := []int{widenStep - 1, widenStep, widenStep + 1, 2*widenStep + 17}
		for n := range 150 {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			for _, low := range []bool{false, true} {
				x, dst := guarded(t, (n+1)/2, low), guarded(t, n, low)
				if n == 0 {
					WidenBFloat16(nil, nil)
					continue
				}
				b := unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
				if !low {
					b = b[len(b)-2*n:]
				}
				b = b[:2*n]
				copy(b, all[2*12345:])
				widen(t, dst, b)
			}
		}
	})
}
