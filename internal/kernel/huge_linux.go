package kernel

import (
	"syscall"
	"unsafe"
)

// hugePages asks for large pages for memory that is new and large, before it is written to:
// a decoded token reads all weights once, and with pages of 4 KiB the processor looks
// addresses up for half of that time. Without them all is as it was.
func hugePages(b []byte) {
	const (
		page  = 2 << 20
		large = 256 << 10
		huge  = 14 // MADV_HUGEPAGE
	)
	if len(b) < large {
		return
	}
	// Whole pages around b: what else stands in them is the heap's, and may have the same.
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	from := at &^ (page - 1)
	to := (at + uintptr(len(b)) + page - 1) &^ (page - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, huge)
}
