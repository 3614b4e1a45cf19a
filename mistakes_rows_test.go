package subquad_test

import (
	"bytes"
	"context"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
)

// builder makes the rows of the table.
type builder struct {
	t     *testing.T
	known map[string]function
	rows  []*row
}

// nowhere is a context without an end.
var nowhere = context.Background()

// fileOf is the file of a state.
func fileOf(state any) io.Reader {
	var file bytes.Buffer
	if _, err := state.(past).WriteTo(&file); err != nil {
		panic(err)
	}
	return bytes.NewReader(file.Bytes())
}

// rooms make the rows of packages.
var rooms = []func(b *builder){}

// matrix makes a matrix of numbers around 0, at most 1, with gaps between its rows.
func matrix(rows, cols int) blas32.General {
	stride := cols + 2
	return blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: vector(rows * stride)}
}

func vector(n int) []float32 {
	x := make([]float32, n)
	seed := uint32(n)
	for i := range x {
		seed = seed*1664525 + 1013904223
		x[i] = float32(int32(seed)) / (1 << 31)
	}
	return x
}

// add puts a function into the table.
func (b *builder) add(name string, fn any, args func() []any) *row {
	b.t.Helper()
	f, ok := b.known[name]
	if !ok {
		b.t.Fatalf("there is no %s", name)
	}
	r := &row{name: name, call: "call", pkg: name[:strings.IndexByte(name, '.')], fn: reflect.ValueOf(fn), params: f.params, args: args}
	b.rows = append(b.rows, r)
	return r
}

// on puts a method into the table; receiver makes what it is called on.
func (b *builder) on(receiver func() any, method string, args func() []any) *row {
	b.t.Helper()
	t := reflect.TypeOf(receiver())
	m, ok := t.MethodByName(method)
	if !ok {
		b.t.Fatalf("%s has no method %s", t, method)
	}
	r := b.add(strings.TrimPrefix(t.String(), "*")+"."+method, m.Func.Interface(), func() []any { return append([]any{receiver()}, args()...) })
	r.method = true
	return r
}

// operator is an operator with its calls.
type operator struct {
	op, other any // other has another Config or weights
	// whole, packed, step and batch make arguments of Run: one sequence, several, the
	// next tokens of a state, one for each of many. nil is for those that it has not.
	whole, packed, step, batch func() any
	// args make arguments of Forward and the like that Call has not, by name, for a call.
	args map[string]func(call any) any
	free []string
	// pkg is what the errors of its states begin with, where that is not their package.
	pkg   string
	never bool
	// endless says that MaxTokens of its states are not those of a call.
	endless bool
}

// operator puts the methods that all operators share into the table.
func (b *builder) operator(o operator) {
	b.t.Helper()
	t := reflect.TypeOf(o.op)
	self := func() any { return o.op }
	var state func(op any, cfg int) any
	var foreign func() any
	if m, ok := t.MethodByName("NewState"); ok {
		state = func(op any, max int) any { return newState(b.t, op, max) }
		foreign = func() any { return state(o.other, 0) }
		cfg := func() []any { return []any{reflect.Zero(m.Type.In(1)).Interface()} }
		b.on(self, "NewState", cfg)
	}
	var calls []*row
	put := func(r *row, call string) {
		r.call, r.foreign, r.free, r.never = call, foreign, o.free, o.never
		calls = append(calls, r)
	}
	for _, c := range []struct {
		name, method string
		make         func() any
	}{{"whole", "Forward", o.whole}, {"packed", "", o.packed}, {"step", "Step", o.step}, {"batch", "StepBatch", o.batch}} {
		if c.make == nil {
			continue
		}
		if _, ok := t.MethodByName("Run"); ok {
			put(b.on(self, "Run", func() []any { return []any{nowhere, c.make()} }), c.name)
		}
		if m, ok := t.MethodByName(c.method); ok {
			put(b.on(self, c.method, func() []any { return b.arguments(o, m, c.make()) }), c.name)
		}
	}
	if _, ok := t.MethodByName("Prepare"); ok {
		b.on(self, "Prepare", func() []any { return []any{nowhere, tokens} })
	}
	for i := range t.NumMethod() {
		if m := t.Method(i); m.Type.NumIn() > 1 && slices.Contains([]string{"ScratchBytes", "StepScratchBytes", "StateBytes"}, m.Name) {
			b.on(self, m.Name, func() []any {
				args := make([]any, m.Type.NumIn()-1)
				for i := range args {
					args[i] = reflect.Zero(m.Type.In(i + 1)).Interface()
				}
				return args
			})
		}
	}
	if state == nil {
		return
	}
	seen := func() any { // a state that has seen tokens
		r := calls[0]
		for _, c := range calls {
			if c.call == "step" {
				r = c
			}
		}
		x := r.trial()
		if out := x.run("a step"); out.err != nil {
			b.t.Fatalf("%s: a step: %v", r.name, out.err)
		}
		return x.states()[0].Interface()
	}
	of := func(method string, args ...any) {
		if r := b.on(seen, method, func() []any { return args }); o.pkg != "" {
			r.pkg = o.pkg
		}
	}
	of("Truncate", 0)
	of("WriteTo", io.Discard)
	if step := o.step; step != nil && !o.endless {
		if _, ok := method(o.op, "NewState").In(1).FieldByName("MaxTokens"); ok {
			full := b.on(self, "Run", func() []any {
				c := step()
				s := reflect.ValueOf(state(o.op, tokens-1))
				reflect.ValueOf(c).Elem().FieldByName("State").Set(s)
				return []any{nowhere, c}
			})
			full.call, full.fails = "full", subquad.ErrFull
		}
	}
	b.on(self, "ReadState", func() []any {
		return []any{fileOf(seen())}
	}).foreign = foreign
}

// method is the type of a method, its receiver first.
func method(x any, name string) reflect.Type {
	m, _ := reflect.TypeOf(x).MethodByName(name)
	return m.Type
}

// newState makes a state of at most max tokens, 0 for any number.
func newState(t *testing.T, op any, max int) any {
	t.Helper()
	m := reflect.ValueOf(op).MethodByName("NewState")
	cfg := reflect.New(m.Type().In(0)).Elem()
	if max > 0 {
		cfg.FieldByName("MaxTokens").SetInt(int64(max))
	}
	out := m.Call([]reflect.Value{cfg})
	if err, _ := out[1].Interface().(error); err != nil {
		t.Fatal(err)
	}
	return out[0].Interface()
}

// arguments takes the arguments of Forward and the like from a Call's fields.
func (b *builder) arguments(o operator, m reflect.Method, call any) (list []any) {
	c := reflect.ValueOf(call).Elem()
	f := b.known[strings.TrimPrefix(m.Type.In(0).String(), "*")+"."+m.Name]
	for i, name := range f.params {
		if x, ok := o.args[name]; ok {
			list = append(list, x(call))
			continue
		}
		switch name {
		case "s", "st":
			name = "State"
		}
		v := c.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, name) })
		if !v.IsValid() {
			b.t.Fatalf("%s: no argument %s in %T", m.Name, name, call)
		}
		t := m.Type.In(i + 1)
		switch {
		case v.Type() == t:
		case v.Kind() == reflect.Slice && t == matrixType:
			v = v.Index(0)
		case v.Kind() == reflect.Slice: // states
			s := reflect.MakeSlice(t, v.Len(), v.Len())
			for j := range v.Len() {
				s.Index(j).Set(v.Index(j).Elem())
			}
			v = s
		case v.Kind() == reflect.Interface:
			v = v.Elem()
		}
		list = append(list, v.Interface())
	}
	return list
}

// shrink leaves no tokens: matrices and vectors of so many rows or elements get none. It
// reports false where there are none.
func (x *trial) shrink() bool {
	changed := false
	for _, l := range x.leaves {
		switch {
		case isMatrix(l):
			if m := l.v.Interface().(blas32.General); m.Rows == tokens {
				m.Rows, m.Data = 0, nil
				l.set(m)
				changed = true
			}
		case named(l, intsType, "Offsets", "KOffsets") && l.v.Len() > 0 && l.v.Index(l.v.Len()-1).Int() == tokens:
			l.set(make([]int, l.v.Len()))
		case l.v.Kind() == reflect.Slice && l.v.Len() == tokens:
			l.v.Set(l.v.Slice(0, 0))
			l.done()
			changed = true
		}
	}
	return changed
}
