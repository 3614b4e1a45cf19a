//go:build unix

package weights

import (
	"syscall"
	"time"
)

func makePipe(path string) error { return syscall.Mkfifo(path, 0o600) }

// processorTime is the time that the process has computed for, in all its threads.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
