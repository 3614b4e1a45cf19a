//go:build linux || darwin

package kerneltest

import (
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// Guarded returns n float32 that end where an unmapped page begins, or, with
// low, that begin where one ends, so that the first access outside crashes.
func Guarded(t testing.TB, n int, low bool) []float32 {
	t.Helper()
	if os.Getenv("SUBQUAD_EMULATED") != "" {
		// QEMU's VMASKMOVPS reads the lanes that are masked out; processors do not.
		t.Log("no unmapped pages under an emulator")
		return make([]float32, n)
	}
	page := syscall.Getpagesize()
	size := (4*n + page - 1) / page * page
	if size == 0 {
		size = page
	}
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	for _, edge := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(edge, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if !low {
		at += size - 4*n
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&m[at])), n)
}
