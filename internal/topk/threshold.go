package topk

import "math"

// Threshold returns the k-th largest of the scores, and how many scores equal to it are
// among the k largest: those with the lowest indices, by the rule of Select. NaN is
// below all numbers. It counts scores by their leading bits, and again those that begin
// as the k-th does: time in proportion to their number, whatever they are. It overwrites
// the scores. k must be 1 to len(scores).
func Threshold(scores []float32, k int) (value float32, equal int) {
	var prefix, mask uint32 // of the key of the k-th
	for shift := 24; shift >= 0; shift -= 8 {
		var count [256]int32
		for _, s := range scores {
			count[descending(s)>>shift&255]++
		}
		digit := 0
		for k > int(count[digit]) {
			k -= int(count[digit])
			digit++
		}
		prefix |= uint32(digit) << shift
		mask |= 255 << shift
		n := 0
		for _, s := range scores {
			if descending(s)&mask == prefix {
				scores[n] = s
				n++
			}
		}
		scores = scores[:n]
	}
	return score(prefix), k
}

// descending maps scores to integers that rise as scores fall: 0 and -0 alike, all NaN
// to the largest.
func descending(s float32) uint32 {
	if s != s {
		return math.MaxUint32
	}
	bits := math.Float32bits(s + 0)
	return bits ^ (^uint32(int32(bits)>>31) &^ (1 << 31))
}

// score is the inverse of descending.
func score(key uint32) float32 {
	if key == math.MaxUint32 {
		return float32(math.NaN())
	}
	return math.Float32frombits(key ^ (^uint32(int32(key)>>31) &^ (1 << 31)))
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
