package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestDecode widens numbers of 8 bits.
func TestDecode(t *testing.T) {
	for b, want := range map[byte]float64{0: 0, 0x80: math.Copysign(0, -1), 0x38: 1, 0xb8: -1, 0x7e: 448, 0x08: 0x1p-6, 0x01: 0x1p-9, 0x87: -7 * 0x1p-9} {
		if got := float64(float8E4M3(b)); got != want || math.Signbit(got) != math.Signbit(want) {
			t.Errorf("F8_E4M3 %#02x is %v, want %v", b, got, want)
		}
	}
	for b, want := range map[byte]float64{0: 0, 0x3c: 1, 0xc0: -2, 0x7b: 57344, 0x7c: math.Inf(1), 0x04: 0x1p-14, 0x01: 0x1p-16} {
		if got := float64(float8E5M2(b)); got != want {
			t.Errorf("F8_E5M2 %#02x is %v, want %v", b, got, want)
		}
	}
	if a, b, c := float8E4M3(0x7f), float8E4M3(0xff), float8E5M2(0x7e); a == a || b == b || c == c {
		t.Errorf("%v, %v, %v, want NaN", a, b, c)
	}
}

// TestOtherTypes: a valid file may have tensors that are not read, or only if asked for.
func TestOtherTypes(t *testing.T) {
	f, err := parse(file(`{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
		"b":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[2,3]},
		"c":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[3,4]},
		"d":{"dtype":"F4","shape":[2,3],"data_offsets":[4,7]},
		"e":{"dtype":"C64","shape":[1],"data_offsets":[7,15]},
		"f":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[15,18]}}`, []byte{0x38, 0xb8, 0x3c, 18: 0}[:18]))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "[1 -1]", "b": "[1]"} {
		v, err := f.Tensor(name).Float32()
		wide, err64 := f.Tensor(name).Float64()
		if err != nil || err64 != nil || fmt.Sprint(v) != want || fmt.Sprint(wide) != want {
			t.Errorf("%s: %v, %v, errors %v, %v, want %s", name, v, wide, err, err64, want)
		}
	}
	for _, name := range []string{"c", "d", "e", "f"} {
		if _, err := f.Tensor(name).Float32(); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

// BenchmarkLoad reads 33.5 million elements, beside a bare read of the file.
func BenchmarkLoad(b *testing.B) {
	n := 1 << 25
	if testing.Short() {
		n = 1 << 16
	}
	for _, kind := range []struct {
		name string
		kind Type
		size int
	}{{"f32", "F32", 4}, {"bf16", "BF16", 2}, {"f16", "F16", 2}} {
		path := filepath.Join(b.TempDir(), "x.safetensors")
		body := make([]byte, n*kind.size)
		for i := range n { // as weights are
			v := float32(math.Sin(float64(i))) / 10
			switch kind.kind {
			case "F32":
				binary.LittleEndian.PutUint32(body[4*i:], math.Float32bits(v))
			case "BF16":
				binary.LittleEndian.PutUint16(body[2*i:], uint16(math.Float32bits(v)>>16))
			default:
				u := math.Float32bits(v)
				binary.LittleEndian.PutUint16(body[2*i:], uint16(u>>16&0x8000|(u>>13-112<<10)&0x7fff))
			}
		}
		if err := os.WriteFile(path, file(fmt.Sprintf(`{"a":{"dtype":"%s","shape":[%d],"data_offsets":[0,%d]}}`, kind.kind, n, len(body)), body), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run(kind.name, func(b *testing.B) {
			defer processor(b)()
			for b.Loop() {
				f, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Tensor("a").Float32(); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
		b.Run(kind.name+"/bare", func(b *testing.B) {
			defer processor(b)()
			for b.Loop() {
				if _, err := os.ReadFile(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// processor reports the processor's time, which does not depend on what else runs.
func processor(b *testing.B) func() {
	begin := processorTime()
	return func() { b.ReportMetric(float64((processorTime()-begin).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}
