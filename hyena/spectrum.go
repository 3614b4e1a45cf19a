package hyena

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// spectrumLen returns how many float32 the spectrum of a unit takes.
func (p *plan) spectrumLen(phases bool) int {
	if phases {
		return 2 * p.n * p.row()
	}
	return p.n * p.row()
}

// transformKernels transforms the kernels of a unit into dst: as many taps as the plan
// has elements, whatever the sequence's length, for taps out of its reach only
// add to the imaginary parts. If group is stopped it ends before that.
//
// The anticausal taps r[m] stand at z^-m = -i z^(n-m): they are the imaginary
// part of the kernel, backwards. The skip term is a tap at z^0.
func (p *plan) transformKernels(group *parallel.Group, dst []float32, k kernels, u unit, w *convWorker) {
	lanes := p.Lanes()
	elements := p.n
	if u.phases {
		elements *= lanes
	}
	w.kernel = scratch.Floats(w.kernel, p.n*lanes)
	w.work = scratch.Floats(w.work, p.n*p.row())
	put := func(t, c int, v float32) {
		if u.phases {
			w.kernel[t] = v
		} else {
			w.kernel[t*lanes+c] = v
		}
	}
	clear(w.kernel)
	for t := range min(k.causal.Rows, elements) {
		if t%stopRows == 0 && group.Stopped() {
			return
		}
		for c, v := range mat.Part(k.causal, t, u.channel, u.channels) {
			put(t, c, v)
		}
	}
	if k.skip != nil {
		for c, v := range k.skip[u.channel:][:u.channels] {
			put(0, c, w.kernel[c]+v)
		}
	}
	if k.reverse.Rows > 0 {
		for c, v := range mat.Part(k.reverse, 0, u.channel, u.channels) {
			put(0, c, w.kernel[c]+v)
		}
	}
	p.transform(group, w.kernel, lanes, p.n, w.work)
	if k.reverse.Rows > 1 {
		w.spare = scratch.Floats(w.spare, p.n*p.row())
		copy(w.spare, w.work)
		clear(w.kernel)
		for m := 1; m < min(k.reverse.Rows, elements); m++ {
			if m%stopRows == 0 && group.Stopped() {
				return
			}
			for c, v := range mat.Part(k.reverse, m, u.channel, u.channels) {
				put(elements-m, c, -v)
			}
		}
		p.transform(group, w.kernel, lanes, p.n, w.work)
		for at := 0; at < len(w.work); at += 2 * lanes { // spare + i work
			for i := at; i < at+lanes; i++ {
				re, im := w.work[i], w.work[i+lanes]
				w.work[i], w.work[i+lanes] = w.spare[i]-im, w.spare[i+lanes]+re
			}
		}
	}
	p.scaleSpectrum(group, dst, w.work, u.phases)
}

// scaleSpectrum divides a transform by n and lays it out as the product takes it.
func (p *plan) scaleSpectrum(group *parallel.Group, dst, work []float32, phases bool) {
	lanes, scale := p.Lanes(), 1/float32(p.n)
	if !phases {
		for from := 0; from < len(work) && !group.Stopped(); from += stopRows * 2 * lanes {
			to := min(from+stopRows*2*lanes, len(work))
			asm.Scale(dst[from:to], scale, work[from:to])
		}
		return
	}
	// The layout of kernel.Butterflies.Ring: zeta times the row, and the row.
	for at := range p.n {
		if at%stopRows == 0 && group.Stopped() {
			return
		}
		sin, cos := math.Sincos(math.Pi * (0.5 - 2*float64(p.frequency(at))) / float64(p.n))
		row, out := work[at*2*lanes:], dst[at*4*lanes:][:4*lanes]
		for i := range lanes {
			re, im := float64(row[i]), float64(row[lanes+i])
			out[i], out[2*lanes+i] = float32(re*cos-im*sin)*scale, float32(re*sin+im*cos)*scale
			out[lanes+i], out[3*lanes+i] = row[i]*scale, row[lanes+i]*scale
		}
	}
}

// spectra keeps spectra up to a number of bytes. Those that no longer fit are
// transformed for each call.
type spectra struct {
	mu      sync.Mutex
	budget  int64  // bytes that may be kept
	used    int64  // bytes that are
	clock   uint64 // claims so far
	entries map[spectrumKey]*spectrumEntry
}

// spectrumKey is the size of the plan and the unit's first channel.
type spectrumKey struct{ size, channel int }

// spectrumEntry is a spectrum that is kept. Who has put something into turn may fill it.
type spectrumEntry struct {
	turn  chan struct{}
	ready atomic.Bool
	plan  *plan     // keeps the plan for the next call
	data  []float32 // plan.spectrumLen
	used  uint64    // the clock at its last claim
}

// claim returns the entry of a key, nil if there is none and no room for it.
// Room is made by dropping entries of other sizes, the longest unused first:
// dropping this size's own would lose all of them in turn.
func (s *spectra) claim(key spectrumKey, p *plan, size int) *spectrumEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	if e := s.entries[key]; e != nil {
		e.used = s.clock
		return e
	}
	bytes := floatBytes(size)
	for bytes > s.budget-s.used {
		var oldest spectrumKey
		var found *spectrumEntry
		for k, e := range s.entries {
			if k.size != key.size && (found == nil || e.used < found.used) {
				oldest, found = k, e
			}
		}
		if found == nil {
			return nil
		}
		s.used -= floatBytes(len(found.data))
		delete(s.entries, oldest)
	}
	if s.entries == nil {
		s.entries = map[spectrumKey]*spectrumEntry{}
	}
	e := &spectrumEntry{turn: make(chan struct{}, 1), plan: p, used: s.clock, data: make([]float32, size)}
	s.entries[key] = e
	s.used += bytes
	return e
}

// bytes returns the memory of the spectra and of their plans.
func (s *spectra) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, seen := s.used, map[*plan]bool{}
	for _, e := range s.entries {
		if !seen[e.plan] {
			seen[e.plan] = true
			n = sumBytes(n, e.plan.bytes())
		}
	}
	return n
}
