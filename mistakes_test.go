package subquad_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
)

// The table of mistakes: every mistake of the list below in every argument of every
// function of every package of operators and models. A function that is not in it fails
// the test: rows says how to make valid arguments, one file for each room.
//
// A mistake gives an error that matches the sentinel of its kind, whose text begins with
// the package, and changes nothing: no element of an argument, no state. No mistake
// panics, takes seconds or takes memory.

// tokens is how many tokens the calls of the table have; no other size is as much.
const tokens = 7

// elsewhere lists functions that rows cannot call, with the reason.
var elsewhere = map[string]string{
	"dna.NewGenome": "its files are texts, too short for the damage that the table does: TestGenomeErrors and FuzzGenome of hyena/dna",
}

func rows(t *testing.T) (list []*row) {
	b := &builder{t: t, known: functions(t)}
	for _, room := range rooms {
		room(b)
	}
	calls := map[[2]reflect.Type]*row{} // that use an operator, or an operator's state
	for _, r := range b.rows {
		switch x := r.first(); {
		case !strings.HasSuffix(r.name, ".Run"):
		case r.call == "whole":
			calls[[2]reflect.Type{x.values[0].Type()}] = r
		case r.call == "step":
			calls[[2]reflect.Type{x.states()[0].Type(), x.values[0].Type()}] = r
		}
	}
	for _, r := range b.rows {
		if out := r.fn.Type(); out.NumOut() > 1 && r.trial().constructor() {
			key := [2]reflect.Type{out.Out(0)}
			if r.method {
				key[1] = out.In(0)
			}
			r.user = calls[key]
		}
	}
	return b.rows
}

func TestMistakesAreComplete(t *testing.T) {
	known := functions(t)
	in := map[string]bool{}
	for _, r := range rows(t) {
		in[r.name] = true
	}
	var missing []string
	for name := range known {
		if strings.HasPrefix(name, "lm.") {
			continue // internal: mamba.Model and dna.Model are what is seen of it
		}
		if !in[name] && elsewhere[name] == "" {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	for _, name := range missing {
		t.Errorf("%s is not in the table of mistakes", name)
	}
	for name := range elsewhere {
		if _, ok := known[name]; !ok || in[name] {
			t.Errorf("%s is said to be tested elsewhere, but is in the table or not there at all", name)
		}
	}
}

// TestErrorsAreTold: the documentation of what returns an error says what it matches.
func TestErrorsAreTold(t *testing.T) {
	told := regexp.MustCompile(`\bErr[A-Z]|\b[Ee]rrors?\b|implements [A-Z]`)
	for name, f := range functions(t) {
		if f.fails && !strings.HasPrefix(name, "lm.") && !told.MatchString(f.doc) {
			t.Errorf("the documentation of %s says nothing of errors: %s", name, f.doc)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, r := range rows(t) {
		t.Run(strings.ReplaceAll(r.name, ".", "/")+"/"+r.call, func(t *testing.T) {
			x := r.trial()
			before := x.digest(false)
			o := x.run("nothing wrong")
			if r.fails != nil {
				if !errors.Is(o.err, r.fails) || o.fault != "" || x.digest(false) != before {
					t.Fatalf("want %v and nothing written: %v %s", r.fails, o.err, o.fault)
				}
				return
			}
			if o.fault != "" || o.err != nil {
				t.Fatalf("a valid call: %v %s", o.err, o.fault)
			}
			x = r.trial()
			for i, l := range x.leaves {
				for _, m := range mistakes {
					if m.in(x, l) {
						m.try(t, r, i)
					}
				}
			}
			contexts(t, r)
			empty(t, r)
			together(t, r)
			ofNone(t, r)
		})
	}
}

// mistake is a kind of mistake that a leaf can have.
type mistake struct {
	name string
	// in tells whether a leaf can have it.
	in func(x *trial, l leaf) bool
	// want lists the sentinels one of which an error must match. nil says that it is
	// found late, and may be any error.
	want []error
	// must says that there has to be an error.
	must bool
	// make changes the leaf, one way after the other, and returns what it did, "" when
	// there are no more ways.
	make func(x *trial, l leaf, way int) string
}

var sentinels = []error{subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrFull, subquad.ErrCheckpoint}

func (m *mistake) try(t *testing.T, r *row, i int) {
	for way := 0; ; way++ {
		x := r.trial()
		l := x.leaves[i]
		was := x.states()
		what := m.make(x, l, way)
		if what == "" {
			return
		}
		if what == "-" { // this way is none for this leaf
			continue
		}
		what = fmt.Sprintf("%s: %s: %s", l.path, m.name, what)
		before := x.digest(false)
		o := x.run(what)
		switch {
		case o.fault != "":
			t.Errorf("%s: %s", what, o.fault)
			continue
		case o.err == nil && m.must:
			t.Errorf("%s: no error", what)
			continue
		case o.err == nil:
			if x.constructor() {
				r.use(t, what, o.made)
			}
			continue
		}
		var path *fs.PathError // of a file that is not there
		if m.want != nil && !slices.ContainsFunc(m.want, func(e error) bool { return errors.Is(o.err, e) }) && !errors.As(o.err, &path) {
			t.Errorf("%s: %q matches none of %v", what, o.err, m.want)
		}
		if !strings.HasPrefix(o.err.Error(), r.pkg+": ") {
			t.Errorf("%s: %q does not begin with %q", what, o.err, r.pkg+": ")
		}
		if x.digest(false) != before && m.want != nil {
			t.Errorf("%s: something was written", what)
		}
		if m.must && len(was) > 0 {
			r.goOn(t, what, was)
		}
	}
}

// use makes a call of what a constructor has made of numbers that are strange, but
// accepted: it may be an error, and nothing worse.
func (r *row) use(t *testing.T, what string, made reflect.Value) {
	if r.user == nil || !made.IsValid() { // a callback has panicked
		return
	}
	x := r.user.first()
	if s := x.states(); len(s) == 1 && isState(made.Type()) {
		x.give([]reflect.Value{made})
	} else {
		x.values[0].Set(made)
	}
	if o := x.run(what); o.fault != "" {
		t.Errorf("%s: %s accepts what was made so, but: %s", what, r.user.name, o.fault)
	}
}

// goOn wants states that were in a call that failed to go on as if it had not been.
func (r *row) goOn(t *testing.T, what string, states []reflect.Value) {
	x, y := r.trial(), r.first()
	if len(y.states()) != len(states) {
		return
	}
	y.give(states)
	a, b := x.run("after "+what), y.run("after "+what)
	if a.fault+b.fault != "" || fmt.Sprint(a.err) != fmt.Sprint(b.err) || x.digest(false) != y.digest(false) {
		t.Errorf("%s: the state goes on otherwise (%v%v, %v%v)", what, a.err, a.fault, b.err, b.fault)
	}
}

// together makes the same mistake in all matrices of a call, which then go with each other.
func together(t *testing.T, r *row) {
	for _, way := range []struct {
		name string
		make func(m blas32.General) blas32.General
	}{
		{"rows without end and columns", func(m blas32.General) blas32.General { return blas32.General{Rows: math.MaxInt} }},
		{"negative columns", func(m blas32.General) blas32.General { m.Cols = -m.Cols; return m }},
		{"no rows, of a stride of 0", func(m blas32.General) blas32.General { return blas32.General{Cols: m.Cols} }},
	} {
		x, changed := r.trial(), false
		for _, l := range x.leaves {
			if given(x, l) {
				l.set(way.make(l.v.Interface().(blas32.General)))
				changed = true
			}
		}
		if !changed {
			return
		}
		before := x.digest(false)
		o := x.run(way.name)
		switch {
		case o.fault != "" || o.err != nil && !slices.ContainsFunc(sentinels, func(e error) bool { return errors.Is(o.err, e) }):
			t.Errorf("%s: %v %s", way.name, o.err, o.fault)
		case o.err != nil && x.digest(false) != before:
			t.Errorf("%s: something was written", way.name)
		case o.err == nil && x.constructor():
			r.use(t, way.name, o.made)
		}
	}
}

// ofNone calls the methods of states on one that NewState has not made.
func ofNone(t *testing.T, r *row) {
	x := r.trial()
	if !r.method || !isState(x.values[0].Type()) {
		return
	}
	x.values[0] = unmade(x.values[0])
	if o := x.run("a state that NewState has not made"); o.fault != "" || o.err != nil && !slices.ContainsFunc(sentinels, func(e error) bool { return errors.Is(o.err, e) }) {
		t.Errorf("a state that NewState has not made: %v %s", o.err, o.fault)
	}
}

// contexts tries contexts that are done, from the beginning or later.
func contexts(t *testing.T, r *row) {
	at := slices.IndexFunc(r.trial().leaves, func(l leaf) bool { return l.v.Type() == contextType })
	if at < 0 {
		return
	}
	for after := range 4 {
		x := r.trial()
		ctx := newEnding(after)
		x.leaves[at].set(ctx)
		before := x.digest(true)
		o := x.run("a context that ends")
		what := fmt.Sprintf("ctx: done after %d looks", after)
		switch {
		case o.fault != "":
			t.Errorf("%s: %s", what, o.fault)
		case o.err == nil && after == 0:
			t.Errorf("%s: no error", what)
		case o.err != nil && o.err != ctx.Err():
			t.Errorf("%s: %q is not ctx.Err()", what, o.err)
		case o.err != nil && after == 0 && x.digest(true) != before:
			t.Errorf("%s: a state was changed", what)
		}
	}
}

// empty makes the call with no tokens at all.
func empty(t *testing.T, r *row) {
	x := r.trial()
	if r.never || !x.shrink() {
		return
	}
	if o := x.run("no tokens"); o.fault != "" || o.err != nil {
		t.Errorf("no tokens: %v %s", o.err, o.fault)
	}
}
