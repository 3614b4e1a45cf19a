package landmark

import (
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestLandmarkScratchBytes compares what a call holds with what was said before.
func TestLandmarkScratchBytes(t *testing.T) {
	for _, n := range []int{1, 300, 1500} {
		const d = 20
		l := mustLandmark(t, Config{Heads: 4, KVHeads: 2, HeadDim: d, ValueDim: 7, Rotation: rotation(d), Workers: 1})
		is := make([]bool, n)
		for i := range is {
			is[i] = l.IsLandmark(int64(i))
		}
		if err := l.Forward(zeroMatrix(n, 28), matrix(1, n, 80), matrix(2, n, 40), matrix(3, n, 14), is); err != nil {
			t.Fatal(err)
		}
		held := isatest.Held(l.scratch.Get())
		if said := l.ScratchBytes(n); held > said || held < said/3 {
			t.Errorf("%d tokens: %d bytes, said %d", n, held, said)
		}
	}
}

func TestLandmarkAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			const n, d = 70, 8
			l := mustLandmark(t, Config{Heads: 4, KVHeads: 2, HeadDim: d, Block: 6, TopK: 2, Workers: workers, Rotation: rotation(d)})
			l.sizes.Alone = 1
			q, k, v, dst := matrix(1, n, 4*d), matrix(2, n, 2*d), matrix(3, n, 2*d), zeroMatrix(n, 4*d)
			is := make([]bool, n)
			for i := range is {
				is[i] = l.IsLandmark(int64(i))
			}
			s, _ := l.NewState(StateConfig{MaxBlocks: 8})
			step := func() {
				if err := l.Step(dst, q, k, v, is, s); err != nil {
					t.Fatal(err)
				}
			}
			forward := func() {
				if err := l.Forward(dst, q, k, v, is); err != nil {
					t.Fatal(err)
				}
			}
			forward()
			for range 5 {
				step()
			}
			if x := isatest.Allocations(forward); x != 0 {
				t.Errorf("%d workers: %v allocations a call", workers, x)
			}
			if x := isatest.Allocations(step); x != 0 {
				t.Errorf("%d workers: %v allocations a step", workers, x)
			}
		}
	})
}

// TestMetaScratchBytes compares what a call holds with what was said before.
func TestMetaScratchBytes(t *testing.T) {
	for _, n := range []int{1, 300, 2000} {
		m := mustMeta(t, MetaConfig{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 5, Workers: 3})
		meta := make([]bool, n)
		count := 0
		for i := 0; i < n; i += 3 {
			meta[i] = true
			count++
		}
		if err := m.Forward(zeroMatrix(n, 20), matrix(1, n, 96), matrix(2, n, 48), matrix(3, n, 10), meta); err != nil {
			t.Fatal(err)
		}
		held := isatest.HeldBehind(m)
		if said := m.ScratchBytes(count); held > said || held < said/4 {
			t.Errorf("%d meta-tokens: holds %d bytes, said %d", count, held, said)
		}
	}
}
