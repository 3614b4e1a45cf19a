package approx

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
)

// TestProjectionBits: a seed gives the same projection on every port, and so the same states.
func TestProjectionBits(t *testing.T) {
	for _, c := range []struct {
		features, dim int
		seed          uint64
		want          uint32
	}{
		{1, 1, 0, 0x0c4fb2fb},
		{19, 8, 7, 0x45fddf60},
		{35, 16, 1 << 60, 0x63ac42c3},
		{266, 64, 0, 0x8d88b370},
		{100, 100, 3, 0x4c4b1ae0},
		{64, 130, 1, 0x8219a554},
	} {
		sum := crc32.NewIEEE()
		for _, x := range orthogonal(c.features, c.dim, c.seed).Data {
			sum.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(x)))
		}
		if got := sum.Sum32(); got != c.want {
			t.Errorf("%d x %d of seed %d: the bits have the checksum %#08x, want %#08x", c.features, c.dim, c.seed, got, c.want)
		}
	}
	p := value[*Performer](t)(NewPerformer(PerformerConfig{Heads: 1, HeadDim: 64, Causal: true, Stabilizer: new(float32)}))
	if got, want := uint64(p.fingerprint), uint64(0x7c07417d60c2ed9c); got != want {
		t.Errorf("the states' fingerprint is %#x, want %#x", got, want)
	}
}

// TestProjectionFunctions: what stands for functions of package math gives their values, and
// what is rounded to a float32 or an int the same.
func TestProjectionFunctions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100000 {
		u := r.Float64()
		if i == 0 {
			u = 0x1p-54 // the least uniform variate
		}
		if got, want := logarithm(u), math.Log(u); !(math.Abs(got-want) <= 5e-16*math.Abs(want)) {
			t.Fatalf("the logarithm of %v is %v, want %v", u, got, want)
		}
		cos, sin := cosSinTurn(u)
		if wc, ws := math.Cos(2*math.Pi*u), math.Sin(2*math.Pi*u); !(math.Abs(cos-wc) <= 1e-15 && math.Abs(sin-ws) <= 1e-15) {
			t.Fatalf("cosine and sine of %v turns are %v and %v, want %v and %v", u, cos, sin, wc, ws)
		}
	}
	if cos, sin := cosSinTurn(1); cos != 1 || sin != 0 || logarithm(1) != 0 {
		t.Errorf("of a whole turn: %v and %v, and the logarithm is %v", cos, sin, logarithm(1))
	}
	step := 1
	if testing.Short() {
		step = 37
	}
	for d := 1; d <= maxDim; d += step {
		x := float64(d)
		if got, want := quarterRoot(d), float32(math.Pow(x, -0.25)); got != want {
			t.Fatalf("the root of %d is %v, want %v", d, got, want)
		}
		if got, want := int(x*logarithm(x)), int(x*math.Log(x)); got != want {
			t.Fatalf("HeadDim %d has %d features, want %d", d, got, want)
		}
	}
	for f := 1; f <= 1<<20; f += step {
		if got, want := float32(logarithm(float64(f))/2), float32(math.Log(float64(f))/2); got != want {
			t.Fatalf("half the logarithm of %d is %v, want %v", f, got, want)
		}
	}
}
