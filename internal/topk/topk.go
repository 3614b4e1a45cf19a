// Package topk selects the k largest of a list of n without sorting the list: a heap of
// k elements keeps the best so far, its last on top, and most others are compared with
// that one and passed over. It costs O(n log k) at worst and allocates nothing.
//
// Select ranks scores; Stream selects the same without ranking them, from scores that
// come in stretches, and Threshold tells where they end. First does the same for elements of any type in any
// order.
package topk

import "slices"

// Select returns the indices of the k largest scores, the largest first, or of all
// where k is more. The lower index goes first among equal scores (0 and -0 are equal),
// and NaN goes after all numbers. k below 1 selects none.
//
// The result is in the memory of dst, whose length and elements do not matter; its
// capacity should be k, and a new slice is allocated where it is less. There must be
// no more than math.MaxInt32 scores.
func Select[T float32 | float64](dst []int32, scores []T, k int) []int32 {
	k = max(0, min(k, len(scores)))
	heap := slices.Grow(dst[:0], k)[:k]
	if k == 0 {
		return heap
	}
	order := func(i, j int32) int {
		a, b := scores[i], scores[j]
		switch {
		case a > b || a == a && b != b:
			return -1
		case a < b || a != a && b == b:
			return 1
		}
		return int(i - j)
	}
	for i := range heap {
		heap[i] = int32(i)
	}
	heapify(heap, order)
	last := scores[heap[0]]
	for i := k; i < len(scores); i++ {
		// An equal score comes later in the list, so it loses.
		if s := scores[i]; s > last || last != last && s == s {
			heap[0] = int32(i)
			down(heap, 0, order)
			last = scores[heap[0]]
		}
	}
	slices.SortFunc(heap, order)
	return heap
}

// First moves the k elements that go first in an order to the front of list, or all
// where k is more, and returns them; the others follow. Neither part is sorted, but the
// same list always ends up in the same arrangement. compare is negative where a goes
// before b, as for slices.SortFunc; which of two equal elements is selected is not
// defined. k below 1 selects none.
func First[E any](list []E, k int, compare func(a, b E) int) []E {
	k = max(0, min(k, len(list)))
	heap, rest := list[:k], list[k:]
	if k == 0 {
		return heap
	}
	heapify(heap, compare)
	last := heap[0]
	for i, e := range rest {
		if compare(e, last) < 0 {
			heap[0], rest[i] = e, last
			down(heap, 0, compare)
			last = heap[0]
		}
	}
	return heap
}

// heapify arranges elements so that each goes after its children 2i+1 and 2i+2, the
// last of all on top.
func heapify[E any](heap []E, compare func(a, b E) int) {
	for i := len(heap)/2 - 1; i >= 0; i-- {
		down(heap, i, compare)
	}
}

// down moves element i below all children that go after it.
func down[E any](heap []E, i int, compare func(a, b E) int) {
	for {
		last := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(heap); child++ {
			if compare(heap[child], heap[last]) > 0 {
				last = child
			}
		}
		if last == i {
			return
		}
		heap[i], heap[last] = heap[last], heap[i]
		i = last
	}
}
