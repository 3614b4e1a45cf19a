package approx

import (
	"context"
	"testing"
)

// TestScratchBytes: no call takes more memory than is said.
func TestScratchBytes(t *testing.T) {
	held := func(lists ...[]float32) (n int64) {
		for _, l := range lists {
			n += 4 * int64(cap(l))
		}
		return n
	}
	tops := func(t *keyTops) (n int64) {
		n = held(t.partial, t.all)
		for i := range t.work {
			n += held(t.work[i].block)
		}
		return n
	}
	sums := func(s *sums) (n int64) {
		r := s.scratch.Get()
		defer s.scratch.Put(r)
		n = held(r.parts, r.vectors) + tops(&r.tops)
		for i := range r.matrices {
			n += int64(r.matrices[i].Bytes())
		}
		for i := range r.work {
			w := &r.work[i]
			n += held(w.e, w.k, w.v, w.scale, w.top, w.shift, w.row, w.ones, w.factors, w.m, w.phi.row, w.phi.ones, w.phi.block) + int64(w.right.Bytes())
		}
		return n
	}
	for _, sh := range []shape{{4, 2, 32, 48}, {1, 1, 100, 100}, {12, 12, 5, 5}} {
		for _, n := range []int{1, 300, 5000} {
			if n > 300 && testing.Short() {
				continue
			}
			for _, op := range operators(t, sh, 2) {
				c := randomCall(1, op.shape, n, n)
				op.dress(c, "both")
				if err := op.run.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				var got int64
				if x := featuredOf(op.run); x != nil && x.causal {
					r := x.scratch.Get()
					got = held(r.memory) + tops(&r.tops)
					for i := range r.work {
						w := &r.work[i]
						got += held(w.k, w.left, w.scale, w.value, w.nothing, w.phi.row, w.phi.ones, w.phi.block) + int64(w.keys.Bytes())
						for j := range w.right {
							got += int64(w.right[j].Bytes())
						}
					}
				} else if x != nil {
					got = sums(&x.sums)
				}
				switch x := op.run.(type) {
				case *Efficient:
					got = sums(&x.sums)
				case *XCA:
					got = sums(&x.sums)
				case *Linformer:
					r := x.scratch.Get()
					got = held(r.memory[:]...)
					for i := range r.work {
						got += held(r.work[i].block) + int64(r.work[i].right.Bytes())
					}
				case *MRA2:
					r := x.scratch.Get()
					got = held(r.memory[:]...) + held(r.counts, r.bias)
					for i := range r.packed {
						got += int64(r.packed[i].k.Bytes() + r.packed[i].v.Bytes())
					}
					for i := range r.choices {
						got += 4 * int64(cap(r.choices[i].pairs)+cap(r.choices[i].starts))
					}
					for i := range r.work {
						w := &r.work[i]
						e := &w.exact
						got += held(w.low, w.coarse, w.den, w.top, e.q, e.o, e.s, e.top, e.sum, e.factor, e.k, e.v, e.rows, e.bias, e.ones)
					}
				case *Nystrom:
					r := x.scratch.Get()
					got = held(r.tops) + held(r.memory[:]...)
					for i := range r.work {
						w := &r.work[i]
						got += held(w.k2, w.z, w.kz, w.t, w.x) + int64(w.right.Bytes())
					}
				}
				least := op.bytes(n) / 100
				if op.name == "nystrom" || n == 1 {
					least = 0 // most of it is what exact attention holds, or blocks of tokens
				}
				if most := op.bytes(n); got > most || got < least {
					t.Errorf("%s %v of %d tokens holds %d bytes, ScratchBytes is %d", op.name, sh, n, got, most)
				}
			}
		}
	}
}
