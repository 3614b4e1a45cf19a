package mapped

// reserve takes disk for n bytes from one on.
func (b backing) reserve(from, n int64) error { return b.fill(from, n) }
