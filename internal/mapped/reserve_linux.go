package mapped

import "syscall"

// reserve takes disk for n bytes from one on.
func (b backing) reserve(from, n int64) error {
	for {
		switch err := syscall.Fallocate(int(b.f.Fd()), 0, from, n); err {
		case syscall.EINTR:
		case syscall.EOPNOTSUPP, syscall.ENOSYS: // of some file systems
			return b.fill(from, n)
		default:
			return err
		}
	}
}
