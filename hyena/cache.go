package hyena

import (
	"sync"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
)

// Cache is what operators keep of their filters and spectra, one memory budget for all that
// share it: those of a model's layers, for instance. Filters come first, since they are
// computed for much longer than they are transformed; what has no room is computed again by
// each call. Results do not depend on it. A Cache is safe for concurrent use.
type Cache struct {
	mu      sync.Mutex
	most    int64  // bytes that may be kept
	used    int64  // bytes that are
	clock   uint64 // claims so far
	spectra map[spectrumKey]*spectrumEntry
	filters map[*grownKernel]*filterEntry
}

// NewCache returns a cache of that many bytes, or an error that matches ErrConfig for a
// negative number. 0 stands for 2 GiB.
func NewCache(bytes int64) (*Cache, error) {
	if bytes < 0 {
		return nil, check.Errorf(ErrConfig, "hyena: a Cache of %d bytes, want 0 or more", bytes)
	}
	if bytes == 0 {
		bytes = defaultCacheBytes
	}
	return &Cache{most: bytes}, nil
}

const defaultCacheBytes = 2 << 30

// spectrumKey is a convolution, the size of the plan and the unit's first channel.
type spectrumKey struct {
	conv          *Conv
	size, channel int
}

// spectrumEntry is a spectrum that is kept. Who has put something into turn may fill it.
type spectrumEntry struct {
	turn  chan struct{}
	ready atomic.Bool
	plan  *plan     // keeps the plan for the next call
	data  []float32 // plan.spectrumLen
	used  uint64    // the clock at its last claim
}

// filterEntry is the beginning of a filter's kernel.
type filterEntry struct {
	k       blas32.General // [rows, Channels]
	bytes   int64          // of k or, while it grows, of what it is going to be
	growing bool
	size    int    // of the plan that it was last needed for
	used    uint64 // the clock then
}

// find returns the entry of a key if its spectrum is there.
func (c *Cache) find(key spectrumKey) *spectrumEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.spectra[key]
	if e == nil || !e.ready.Load() {
		return nil
	}
	c.clock++
	e.used = c.clock
	return e
}

// claim returns the entry of a key, nil if there is none and no room for it.
// Room is made by dropping spectra of other sizes, the longest unused first:
// dropping this size's own would lose all of them in turn.
func (c *Cache) claim(key spectrumKey, p *plan, size int) *spectrumEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	if e := c.spectra[key]; e != nil {
		e.used = c.clock
		return e
	}
	bytes := floatBytes(size)
	for bytes > c.most-c.used {
		if !c.dropSpectrum(key.size) {
			return nil
		}
	}
	if c.spectra == nil {
		c.spectra = map[spectrumKey]*spectrumEntry{}
	}
	e := &spectrumEntry{turn: make(chan struct{}, 1), plan: p, used: c.clock, data: make([]float32, size)}
	c.spectra[key] = e
	c.used += bytes
	return e
}

// dropSpectrum drops the spectrum that has been unused for the longest, of any size but
// one, and tells whether there was one.
func (c *Cache) dropSpectrum(but int) bool {
	var oldest spectrumKey
	var found *spectrumEntry
	for k, e := range c.spectra {
		if k.size != but && (found == nil || e.used < found.used) {
			oldest, found = k, e
		}
	}
	if found == nil {
		return false
	}
	c.used -= floatBytes(len(found.data))
	delete(c.spectra, oldest)
	return true
}

// known returns the rows of a filter that there are, which a plan of that size asks for.
func (c *Cache) known(g *grownKernel, size int) blas32.General {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.filters[g]
	if e == nil {
		return blas32.General{}
	}
	c.clock++
	if e.used = c.clock; size > 0 {
		e.size = size
	}
	return e.k
}

// reserve makes room for that many rows of a filter, and tells whether there is: of spectra
// and of filters that were last needed for another size, the longest unused ones are
// dropped. keep must follow.
func (c *Cache) reserve(g *grownKernel, rows, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.filters[g]
	if e == nil {
		e = &filterEntry{}
	}
	more := floatBytes(rows, g.filter.Channels()) - e.bytes
	var stay int64 // what cannot be dropped
	for _, f := range c.filters {
		if f.growing || f.size == size || f == e {
			stay = sumBytes(stay, f.bytes)
		}
	}
	if more > c.most-stay {
		return false
	}
	for more > c.most-c.used {
		if !c.dropSpectrum(0) {
			c.dropFilter(e, size)
		}
	}
	if c.filters == nil {
		c.filters = map[*grownKernel]*filterEntry{}
	}
	c.clock++
	c.filters[g] = e
	c.used += more
	e.bytes, e.growing, e.size, e.used = e.bytes+more, true, size, c.clock
	return true
}

// dropFilter drops the filter that has been unused for the longest, but for one and those
// needed for a size.
func (c *Cache) dropFilter(but *filterEntry, size int) {
	var oldest *grownKernel
	for g, e := range c.filters {
		if e != but && !e.growing && e.size != size && (oldest == nil || e.used < c.filters[oldest].used) {
			oldest = g
		}
	}
	c.used -= c.filters[oldest].bytes
	delete(c.filters, oldest)
}

// keep ends what reserve began, with the rows or, where they could not be computed, without.
func (c *Cache) keep(g *grownKernel, k blas32.General) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.filters[g]
	if k.Rows > 0 {
		e.k = k
	}
	kept := floatBytes(e.k.Rows, e.k.Cols)
	c.used += kept - e.bytes
	e.bytes, e.growing = kept, false
}

// spectraBytes returns the memory of a convolution's spectra and of their plans.
func (c *Cache) spectraBytes(conv *Conv) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[*plan]bool{}
	for k, e := range c.spectra {
		if k.conv != conv {
			continue
		}
		n = sumBytes(n, floatBytes(len(e.data)))
		if !seen[e.plan] {
			seen[e.plan] = true
			n = sumBytes(n, e.plan.bytes())
		}
	}
	return n
}
