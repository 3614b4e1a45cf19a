package topk

import "slices"

// Threshold returns the k-th largest of the scores, and how many scores equal to it are
// among the k largest: those with the lowest indices, by the rule of Select. NaN is
// below all numbers. It moves the scores about and takes time in proportion to their
// number. k must be 1 to len(scores).
func Threshold(scores []float32, k int) (value float32, equal int) {
	n := 0 // numbers go to the front
	for i, s := range scores {
		if s == s {
			scores[n], scores[i] = s, scores[n]
			n++
		}
	}
	if k > n {
		return scores[k-1], k - n // NaN, which all that is left are
	}
	list := scores[:n]
	lo, hi := 0, n // the k-th largest is in list[lo:hi]
	for rounds := 0; hi-lo > 12 && rounds < 64; rounds++ {
		p := median(list[lo], list[lo+(hi-lo)/2], list[hi-1])
		// list[lo:a] > p, list[a:i] == p, list[b:hi] < p.
		a, i, b := lo, lo, hi
		for i < b {
			switch x := list[i]; {
			case x > p:
				list[a], list[i] = x, list[a]
				a++
				i++
			case x < p:
				b--
				list[i], list[b] = list[b], x
			default:
				i++
			}
		}
		switch {
		case k <= a:
			hi = a
		case k > b:
			lo = b
		default:
			return p, k - a
		}
	}
	slices.SortFunc(list[lo:hi], func(x, y float32) int {
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	value = list[k-1]
	for equal < k && list[k-1-equal] == value {
		equal++
	}
	return value, equal
}

// Stream selects the k largest of scores that come one stretch after the other, as Select
// would of all of them together. The zero value selects none.
type Stream struct {
	k      int
	scores []float32
	index  []int32
	work   []float32
	cut    float32 // what a further score must exceed
	full   bool    // there is such a bound
}

// Reset makes the stream empty, for k scores. It keeps its memory.
func (t *Stream) Reset(k int) {
	*t = Stream{k: max(k, 0), scores: t.scores[:0], index: t.index[:0], work: t.work}
}

// Cut returns what a further score must exceed to be selected, and whether there is such
// a bound yet. Where it is NaN, every number exceeds it.
func (t *Stream) Cut() (float32, bool) { return t.cut, t.full }

// Push takes up the scores of indices first, first+1 and so on, above all before.
func (t *Stream) Push(scores []float32, first int) {
	if t.k == 0 {
		return
	}
	room := max(4*t.k, 256)
	for i, s := range scores {
		if t.full && !(s > t.cut || t.cut != t.cut && s == s) {
			continue
		}
		t.scores, t.index = append(t.scores, s), append(t.index, int32(first+i))
		if len(t.scores) == room {
			t.narrow()
		}
	}
}

// narrow drops all but the k largest so far.
func (t *Stream) narrow() {
	if len(t.scores) <= t.k {
		return
	}
	t.work = append(t.work[:0], t.scores...)
	value, equal := Threshold(t.work, t.k)
	n := 0
	for i, s := range t.scores {
		switch {
		case s > value || value != value && s == s:
		case (s == value || s != s && value != value) && equal > 0:
			equal--
		default:
			continue
		}
		t.scores[n], t.index[n] = s, t.index[i]
		n++
	}
	t.scores, t.index = t.scores[:n], t.index[:n]
	t.cut, t.full = value, true
}

// Selected returns the indices of the k largest scores, or of all where there were fewer,
// in ascending order, and the scores. They stand in the stream's memory.
func (t *Stream) Selected() ([]int32, []float32) {
	t.narrow()
	return t.index, t.scores
}

// Ascending returns the indices of the k largest scores, as Select chooses them, in
// ascending order, in the stream's memory. It ranks nothing and is faster than Select
// where k is large.
func (t *Stream) Ascending(scores []float32, k int) []int32 {
	t.Reset(k)
	t.Push(scores, 0)
	list, _ := t.Selected()
	return list
}

func median(a, b, c float32) float32 { return max(min(a, b), min(max(a, b), c)) }
