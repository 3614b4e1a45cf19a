package state

// Ring keeps earlier versions of a state, those after each of its last calls, for a
// Truncate to go back to. S is what a version consists of, whose memory is made once
// and overwritten. The zero value keeps none.
type Ring[S any] struct {
	slots []slot[S]
	next  int // the slot that is overwritten next
}

// slot is a place of the ring, with the version that it has.
type slot[S any] struct {
	version S
	tokens  int // after which it was taken; -1 for none
}

// NewRing returns a ring of n versions with memory that fresh makes.
func NewRing[S any](n int, fresh func() S) Ring[S] {
	r := Ring[S]{slots: make([]slot[S], 0, n)}
	for range n {
		r.slots = append(r.slots, slot[S]{fresh(), -1})
	}
	return r
}

// Len returns how many versions the ring can keep.
func (r *Ring[S]) Len() int { return len(r.slots) }

// All yields the versions, also those that keep nothing at the moment.
func (r *Ring[S]) All(yield func(*S) bool) {
	for i := range r.slots {
		if !yield(&r.slots[i].version) {
			return
		}
	}
}

// Next returns the oldest version, to be overwritten with the one after tokens tokens,
// or nil where the ring keeps none.
func (r *Ring[S]) Next(tokens int) *S {
	if len(r.slots) == 0 {
		return nil
	}
	s := &r.slots[r.next]
	s.tokens = tokens
	r.next = (r.next + 1) % len(r.slots)
	return &s.version
}

// Back returns the version after tokens tokens and forgets those after more, or
// returns nil and forgets nothing where it is not kept.
func (r *Ring[S]) Back(tokens int) *S {
	for i := range r.slots {
		if s := &r.slots[i]; s.tokens == tokens && tokens >= 0 {
			r.Forget(tokens)
			r.next = (i + 1) % len(r.slots)
			return &s.version
		}
	}
	return nil
}

// Forget forgets the versions after more than tokens tokens; all of them for -1.
func (r *Ring[S]) Forget(tokens int) {
	for i := range r.slots {
		if s := &r.slots[i]; s.tokens > tokens {
			s.tokens = -1
		}
	}
	if tokens < 0 {
		r.next = 0
	}
}

// Clone returns a copy whose versions clone makes.
func (r *Ring[S]) Clone(clone func(S) S) Ring[S] {
	c := Ring[S]{next: r.next, slots: make([]slot[S], 0, len(r.slots))}
	for _, s := range r.slots {
		c.slots = append(c.slots, slot[S]{clone(s.version), s.tokens})
	}
	return c
}
