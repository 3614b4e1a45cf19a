package pack

import (
	"errors"
	"slices"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

func TestLay(t *testing.T) {
	a, b, foreign := new(1), new(2), new(-1)
	valid := func(name string, s *int) error {
		if s == nil || *s < 0 {
			return check.Errorf(subquad.ErrState, "test: %s is not ours", name)
		}
		return nil
	}
	var l Layout[*int]
	for _, c := range []struct {
		name     string
		batch    Batch[*int]
		segments []Segment
		states   []*int
		err      error
	}{
		{"one sequence", Batch[*int]{Rows: 3}, []Segment{{0, 3}}, nil, nil},
		{"no row", Batch[*int]{}, []Segment{{0, 0}}, nil, nil},
		{"with a state", Batch[*int]{Rows: 3, State: a}, []Segment{{0, 3}}, []*int{a}, nil},
		{"a row each", Batch[*int]{Rows: 2, States: []*int{a, b}}, []Segment{{0, 1}, {1, 2}}, []*int{a, b}, nil},
		{"packed", Batch[*int]{Rows: 3, Offsets: []int{0, 1, 1, 3}}, []Segment{{0, 1}, {1, 1}, {1, 3}}, nil, nil},
		{"packed, with states", Batch[*int]{Rows: 3, Offsets: []int{0, 1, 3}, States: []*int{b, a}}, []Segment{{0, 1}, {1, 3}}, []*int{b, a}, nil},
		{"no sequence", Batch[*int]{Offsets: []int{0}}, nil, nil, nil},
		{"too few states", Batch[*int]{Rows: 3, States: []*int{a, b}}, nil, nil, subquad.ErrCall},
		{"state and states", Batch[*int]{Rows: 1, State: a, States: []*int{b}}, nil, nil, subquad.ErrCall},
		{"state for two", Batch[*int]{Rows: 3, Offsets: []int{0, 1, 3}, State: a}, nil, nil, subquad.ErrCall},
		{"states for other sequences", Batch[*int]{Rows: 3, Offsets: []int{0, 3}, States: []*int{a, b}}, nil, nil, subquad.ErrCall},
		{"empty offsets", Batch[*int]{Offsets: []int{}}, nil, nil, subquad.ErrCall},
		{"offsets from 1", Batch[*int]{Rows: 3, Offsets: []int{1, 3}}, nil, nil, subquad.ErrCall},
		{"backwards", Batch[*int]{Rows: 3, Offsets: []int{0, 2, 1, 3}}, nil, nil, subquad.ErrCall},
		{"another end", Batch[*int]{Rows: 3, Offsets: []int{0, 2}}, nil, nil, subquad.ErrCall},
		{"twice", Batch[*int]{Rows: 2, States: []*int{a, a}}, nil, nil, subquad.ErrState},
		{"nil among states", Batch[*int]{Rows: 2, States: []*int{a, nil}}, nil, nil, subquad.ErrState},
		{"foreign", Batch[*int]{Rows: 2, State: foreign}, nil, nil, subquad.ErrState},
	} {
		err := l.Lay("test", c.batch, valid)
		if !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if !slices.Equal(l.Segments, c.segments) || !slices.Equal(l.States, c.states) {
			t.Errorf("%s: %v %v, want %v %v", c.name, l.Segments, l.States, c.segments, c.states)
		}
	}
	batch := Batch[*int]{Rows: 2, States: []*int{a, b}}
	if n := testing.AllocsPerRun(10, func() { _ = l.Lay("test", batch, valid) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Any split of a sequence is cut at the same borders.
func TestCut(t *testing.T) {
	for split := range 20 {
		var borders []int
		for at, end := range map[int]int{0: split, split: 20} {
			for at < end {
				at += Cut(at, end-at, 8)
				borders = append(borders, at)
			}
		}
		for _, b := range borders {
			if b%8 != 0 && b != split && b != 20 {
				t.Errorf("split at %d: a border at %d", split, b)
			}
		}
	}
}
