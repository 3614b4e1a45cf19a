package scratch

import (
	"runtime"
	"testing"
	"unsafe"
)

// TestList: what was put back is given again, up to one for each processor.
func TestList(t *testing.T) {
	var l List[int]
	a := l.Get()
	*a = 7
	l.Put(a)
	if b := l.Get(); b != a || *b != 7 {
		t.Errorf("another working set: %v", *b)
	}
	if c := l.Get(); *c != 0 {
		t.Errorf("a new working set is %v", *c)
	}
	for range 2 * runtime.GOMAXPROCS(0) {
		l.Put(new(int))
	}
	if n := len(l.free); n != runtime.GOMAXPROCS(0) {
		t.Errorf("%d working sets are kept, want %d", n, runtime.GOMAXPROCS(0))
	}
}

// TestFloats: memory begins a cache line, is used again, and has no room beyond its end.
func TestFloats(t *testing.T) {
	for n := range 100 {
		x := Floats(nil, n)
		if len(x) != n || cap(x) != n {
			t.Fatalf("%d elements of %d, want %d", len(x), cap(x), n)
		}
		if n == 0 {
			continue
		}
		if at := uintptr(unsafe.Pointer(&x[0])); at%64 != 0 {
			t.Fatalf("%d elements begin at %#x", n, at)
		}
		if y := Floats(x, n-1); n > 1 && &y[0] != &x[0] || len(y) != n-1 {
			t.Fatalf("%d elements of %d are not the same memory", n-1, n)
		}
	}
}
