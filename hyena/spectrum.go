package hyena

import (
	"math"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/scratch"
)

// unit is what is transformed at once: up to Lanes channels side by side, or one
// channel whose elements fill the lanes.
type unit struct {
	channel, channels int
	phases            bool
}

// kernels are the filters of a convolution in time: causal [taps, channels],
// reverse [taps, channels] or empty, skip [channels] or nil.
type kernels struct {
	causal, reverse blas32.General
	skip            []float32
}

// spectrumLen returns how many float32 the spectrum of a unit takes.
func (p *plan) spectrumLen(phases bool) int {
	if phases {
		return 2 * p.n * p.row()
	}
	return p.n * p.row()
}

// spectrum transforms the kernels of a unit into dst: as many taps as the plan
// has elements, whatever the sequence's length, for taps out of its reach only
// add to the imaginary parts.
//
// The anticausal taps r[m] stand at z^-m = -i z^(n-m): they are the imaginary
// part of the kernel, backwards. The skip term is a tap at z^0.
func (p *plan) spectrum(dst []float32, k kernels, u unit, s *convWork) {
	lanes := p.Lanes()
	elements := p.n
	if u.phases {
		elements *= lanes
	}
	s.kernel = scratch.Floats(s.kernel, p.n*lanes)
	s.work = scratch.Floats(s.work, p.n*p.row())
	put := func(t, c int, v float32) {
		if u.phases {
			s.kernel[t] = v
		} else {
			s.kernel[t*lanes+c] = v
		}
	}
	clear(s.kernel)
	for t := range min(k.causal.Rows, elements) {
		for c := range u.channels {
			put(t, c, k.causal.Data[t*k.causal.Stride+u.channel+c])
		}
	}
	if k.skip != nil {
		for c := range u.channels {
			put(0, c, s.kernel[c]+k.skip[u.channel+c])
		}
	}
	if k.reverse.Rows > 0 {
		for c := range u.channels {
			put(0, c, s.kernel[c]+k.reverse.Data[u.channel+c])
		}
	}
	p.transform(s.kernel, lanes, p.n, s.work)
	if k.reverse.Rows > 1 {
		s.spare = scratch.Floats(s.spare, p.n*p.row())
		copy(s.spare, s.work)
		clear(s.kernel)
		for m := 1; m < min(k.reverse.Rows, elements); m++ {
			for c := range u.channels {
				put(elements-m, c, -k.reverse.Data[m*k.reverse.Stride+u.channel+c])
			}
		}
		p.transform(s.kernel, lanes, p.n, s.work)
		for at := 0; at < len(s.work); at += 2 * lanes { // spare + i work
			for i := at; i < at+lanes; i++ {
				re, im := s.work[i], s.work[i+lanes]
				s.work[i], s.work[i+lanes] = s.spare[i]-im, s.spare[i+lanes]+re
			}
		}
	}
	scale := 1 / float32(p.n)
	if !u.phases {
		for i, v := range s.work {
			dst[i] = v * scale
		}
		return
	}
	// The layout of kernel.Butterflies.Ring: zeta times the row, and the row.
	for at := range p.n {
		sin, cos := math.Sincos(math.Pi * (0.5 - 2*float64(p.frequency(at))) / float64(p.n))
		row, out := s.work[at*2*lanes:], dst[at*4*lanes:][:4*lanes]
		for i := range lanes {
			re, im := float64(row[i]), float64(row[lanes+i])
			out[i], out[2*lanes+i] = float32(re*cos-im*sin)*scale, float32(re*sin+im*cos)*scale
			out[lanes+i], out[3*lanes+i] = row[i]*scale, row[lanes+i]*scale
		}
	}
}

// spectra keeps spectra up to a number of bytes. What no longer fits is
// transformed for each call.
type spectra struct {
	mu      sync.Mutex
	budget  int64
	used    int64
	clock   uint64
	entries map[spectrumKey]*spectrumEntry
}

type spectrumKey struct{ size, channel int }

type spectrumEntry struct {
	once sync.Once
	plan *plan
	data []float32
	used uint64
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
	bytes := 4 * int64(size)
	for s.used+bytes > s.budget {
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
		s.used -= 4 * int64(len(found.data))
		delete(s.entries, oldest)
	}
	if s.entries == nil {
		s.entries = map[spectrumKey]*spectrumEntry{}
	}
	e := &spectrumEntry{plan: p, used: s.clock, data: make([]float32, size)}
	s.entries[key] = e
	s.used += bytes
	return e
}
