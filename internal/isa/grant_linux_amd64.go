//go:build !purego

package isa

import "syscall"

// askForTiles asks Linux (5.16 and later) for the tiles of AMX, for all threads.
func askForTiles() bool {
	const (
		archRequestPermission = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData              = 18     // XFEATURE_XTILEDATA
	)
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, archRequestPermission, tileData, 0)
	return errno == 0
}
