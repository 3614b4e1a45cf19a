package topk

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// ranked returns all indices in the order that Select promises, by a stable sort.
func ranked[T float32 | float64](scores []T) []int32 {
	order := make([]int32, len(scores))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(i, j int32) int {
		a, b := scores[i], scores[j]
		switch {
		case a > b || a == a && b != b:
			return -1
		case a < b || a != a && b == b:
			return 1
		}
		return 0
	})
	return order
}

// compareWithSort selects every k of the scores, and more and fewer than there are.
func compareWithSort[T float32 | float64](t *testing.T, scores []T) {
	t.Helper()
	before := slices.Clone(scores)
	want := ranked(scores)
	dst := []int32{-1, -2, -3} // less than needed, now and then
	var stream Stream
	for k := -1; k <= len(scores)+1; k++ {
		n := max(0, min(k, len(scores)))
		if scores, ok := any(scores).([]float32); ok {
			up := slices.Clone(want[:n])
			slices.Sort(up)
			if got := stream.Ascending(scores, k); !slices.Equal(got, up) {
				t.Fatalf("the %d largest of %v are %v, ascending, want %v", k, scores, got, up)
			}
		}
		if dst = Select(dst, scores, k); !slices.Equal(dst, want[:n]) {
			t.Fatalf("the %d largest of %v are %v, want %v", k, scores, dst, want[:n])
		}
		list := make([]int, len(scores))
		for i := range list {
			list[i] = i
		}
		at := func(i int) int { return slices.Index(want, int32(i)) }
		first := First(list, k, func(i, j int) int { return cmp.Compare(at(i), at(j)) })
		if len(first) != n || n > 0 && &first[0] != &list[0] {
			t.Fatalf("%d first elements of %d, want %d at the front", len(first), len(list), n)
		}
		for i, e := range list {
			if (at(e) < n) != (i < n) {
				t.Fatalf("the %d first of %v: %v has element %d, rank %d, at %d", k, scores, list, e, at(e), i)
			}
		}
		if slices.Sort(list); len(slices.Compact(list)) != len(scores) {
			t.Fatalf("the %d first of %v: elements are lost", k, scores)
		}
	}
	for i := range scores {
		if math.Float64bits(float64(scores[i])) != math.Float64bits(float64(before[i])) {
			t.Fatalf("score %d is %v, was %v", i, scores[i], before[i])
		}
	}
}

// TestSelect compares with a sort: lists of few values, so that many are equal, with
// NaN, infinities and both zeros among them, and lists that ascend and descend.
func TestSelect(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	special := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1, -1}
	for n := range 30 {
		for range 8 {
			values := 1 + r.IntN(12)
			wide, narrow := make([]float64, n), make([]float32, n)
			for i := range wide {
				if v := r.IntN(values + 3); v < len(special) && r.IntN(2) == 0 {
					wide[i] = special[v]
				} else {
					wide[i] = float64(v) / 4
				}
				narrow[i] = float32(wide[i])
			}
			compareWithSort(t, wide)
			compareWithSort(t, narrow)
			slices.Sort(wide)
			compareWithSort(t, wide)
			slices.Reverse(wide)
			compareWithSort(t, wide)
		}
	}
}

// FuzzSelect compares with a sort of scores of any bits.
func FuzzSelect(f *testing.F) {
	f.Add([]byte{})
	f.Add(binary.LittleEndian.AppendUint32([]byte{0, 0, 128, 63, 0, 0, 128, 63}, math.Float32bits(float32(math.NaN()))))
	f.Fuzz(func(t *testing.T, bits []byte) {
		scores := make([]float32, min(len(bits)/4, 64))
		for i := range scores {
			scores[i] = math.Float32frombits(binary.LittleEndian.Uint32(bits[4*i:]))
		}
		compareWithSort(t, scores)
	})
}

// TestAllocations: nothing is allocated where dst is large enough.
func TestAllocations(t *testing.T) {
	scores, dst := random(1000), make([]int32, 0, 1000)
	list := make([]float32, len(scores))
	for _, k := range []int{0, 1, 10, 1000} {
		if n := testing.AllocsPerRun(10, func() {
			dst = Select(dst, scores, k)
			copy(list, scores)
			First(list, k, cmp.Compare[float32])
		}); n != 0 {
			t.Errorf("%v allocations select %d, want none", n, k)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{64, 4096, 65536} {
		scores := random(n)
		for _, k := range []int{1, 8, n / 2, n} {
			b.Run(fmt.Sprintf("%d of %d", k, n), func(b *testing.B) {
				b.ReportAllocs()
				dst := make([]int32, 0, k)
				for b.Loop() {
					dst = Select(dst, scores, k)
				}
			})
		}
	}
}

func random(n int) []float32 {
	r := rand.New(rand.NewPCG(3, 4))
	x := make([]float32, n)
	for i := range x {
		x[i] = r.Float32()
	}
	return x
}

// BenchmarkStream selects 2,048 of 262,144 scores beside Select.
func BenchmarkStream(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	scores := make([]float32, 1<<18)
	for i := range scores {
		scores[i] = float32(r.NormFloat64())
	}
	var dst []int32
	var stream Stream
	b.Run("Stream", func(b *testing.B) {
		for b.Loop() {
			stream.Ascending(scores, 2048)
		}
	})
	b.Run("Select", func(b *testing.B) {
		for b.Loop() {
			dst = Select(dst, scores, 2048)
		}
	})
}

// TestStream pushes long lists in stretches, with many equal scores and NaN.
func TestStream(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var stream Stream
	for trial := range 200 {
		scores := make([]float32, r.IntN(4000))
		kinds := [...]int{2, 30, 1 << 20}[trial%3]
		for i := range scores {
			if scores[i] = float32(r.IntN(kinds)); r.IntN([...]int{3, 50, 1 << 30}[trial%3]) == 0 {
				scores[i] = float32(math.NaN())
			}
		}
		k := [...]int{0, 1, 7, 64, 300, 5000}[r.IntN(6)]
		want := ranked(scores)
		want = want[:min(k, len(want))]
		slices.Sort(want)
		stream.Reset(k)
		for at := 0; at < len(scores); {
			n := min(r.IntN(700), len(scores)-at)
			stream.Push(scores[at:at+n], at)
			at += n
		}
		got, values := stream.Selected()
		if !slices.Equal(got, want) {
			t.Fatalf("trial %d: the %d largest of %d: %v, want %v", trial, k, len(scores), got, want)
		}
		for i, at := range got {
			if values[i] != scores[at] && scores[at] == scores[at] {
				t.Fatalf("score of %d is %v, want %v", at, values[i], scores[at])
			}
		}
	}
	// What moves most often: sorted, and all equal.
	for _, step := range []float32{1, -1, 0} {
		list := make([]float32, 100000)
		for i := range list {
			list[i] = step * float32(i)
		}
		if value, _ := Threshold(slices.Clone(list), 1000); value != map[float32]float32{1: 99000, -1: -999, 0: 0}[step] {
			t.Errorf("the 1000th of a list in steps of %v is %v", step, value)
		}
	}
}
