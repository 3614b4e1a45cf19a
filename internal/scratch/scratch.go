// Package scratch keeps the working memory of operators between calls.
package scratch

import (
	"runtime"
	"sync"
	"unsafe"
)

// List is a bounded free list of working sets. The zero value is ready. It is
// safe for concurrent use.
type List[T any] struct {
	mu   sync.Mutex
	free []*T
}

// Get returns a working set that Put gave back, or a zero one.
func (l *List[T]) Get() *T {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		s := l.free[n-1]
		l.free = l.free[:n-1]
		return s
	}
	return new(T)
}

// Put keeps a working set for the next Get, or drops it when there are already
// as many as processors.
func (l *List[T]) Put(s *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < runtime.GOMAXPROCS(0) {
		l.free = append(l.free, s)
	}
}

// Floats returns n float32 that begin a cache line: old's memory where it is
// large enough, with whatever it holds.
func Floats(old []float32, n int) []float32 {
	if cap(old) >= n {
		return old[:n]
	}
	const line = 16
	b := make([]float32, n+line-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))/4) & (line - 1)
	return b[skip : skip+n : skip+n]
}

// Sized returns n elements: old's memory where it is large enough, with whatever it
// holds.
func Sized[T any](old []T, n int) []T {
	if cap(old) >= n {
		return old[:n]
	}
	return make([]T, n)
}
