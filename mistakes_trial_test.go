package subquad_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"reflect"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/merge"
)

// row is a function of the table with valid arguments for it. A method's first argument
// is its receiver.
type row struct {
	name   string // as functions lists it
	call   string // which of its calls
	pkg    string // what its errors begin with
	method bool
	fn     reflect.Value
	params []string
	args   func() []any // new ones each time, always the same numbers
	// foreign makes a state of another operator; nil for functions without states.
	foreign func() any
	// free lists arguments of whose shape a part is the caller's choice: "x.Cols".
	free []string
	// never says that the call is never one of no tokens.
	never bool
	// fails is the error of the call as it is, nil for none.
	fails error
	// user is a call that uses what this one makes, where that is an operator or a state.
	user *row
	// unseen says that the call takes states that have seen nothing.
	unseen bool
}

// leaf is an argument, or a field or an element of one, that a mistake can be made in.
type leaf struct {
	path  string
	name  string        // the last part of the path
	owner reflect.Type  // the struct that it is a field of, or nil
	v     reflect.Value // settable
	done  func()        // to be called after a change
}

func (l leaf) set(x any) {
	if x == nil {
		l.v.SetZero()
	} else {
		l.v.Set(reflect.ValueOf(x).Convert(l.v.Type()))
	}
	l.done()
}

// in tells whether the leaf belongs to a struct whose name ends so: a Call, a Config.
func (l leaf) in(suffix string) bool {
	return l.owner != nil && strings.HasSuffix(l.owner.Name(), suffix)
}

// trial is one call of a row.
type trial struct {
	*row
	values []reflect.Value
	leaves []leaf
}

// trial makes a call, whose states have seen what the same call gave them once before.
func (r *row) trial() *trial {
	x := r.first()
	if r.unseen || r.foreign == nil || len(x.states()) == 0 {
		return x
	}
	if o := x.run("a call before"); o.err != nil || o.fault != "" {
		panic(fmt.Sprint(r.name, " ", r.call, ": ", o.err, o.fault))
	}
	y := r.first()
	y.give(x.states())
	return y
}

// give puts states in the place of those of the call.
func (x *trial) give(states []reflect.Value) {
	given := make(map[any]reflect.Value)
	for i, s := range x.states() {
		given[s.Interface()] = states[i]
	}
	for _, v := range x.values {
		visit(v, func(v reflect.Value) {
			if !v.CanSet() || v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface || v.IsNil() || !v.CanInterface() {
				return
			}
			if k := v.Interface(); isState(reflect.TypeOf(k)) {
				if s, ok := given[k]; ok {
					v.Set(s)
				}
			}
		})
	}
}

// first makes a call of the arguments as they are made.
func (r *row) first() *trial {
	x := &trial{row: r}
	args := r.args()
	for i, a := range args {
		v := reflect.New(r.fn.Type().In(i)).Elem()
		if a != nil {
			v.Set(reflect.ValueOf(a))
		}
		x.values = append(x.values, v)
		if r.method && i == 0 {
			continue
		}
		x.walk(leaf{r.param(i), r.param(i), nil, v, func() {}})
	}
	return x
}

func (r *row) param(i int) string {
	if r.method {
		i--
	}
	return r.params[i]
}

var (
	matrixType  = reflect.TypeFor[blas32.General]()
	contextType = reflect.TypeFor[context.Context]()
	stateType   = reflect.TypeFor[past]()
)

// past is what states of all operators have.
type past interface {
	Len() int
	Truncate(n int) error
	io.WriterTo
}

// isState tells states; the map remembers, for many are asked for.
func isState(t reflect.Type) bool {
	is, ok := known[t]
	if !ok {
		is = t.Implements(stateType)
		known[t] = is
	}
	return is
}

var known = map[reflect.Type]bool{}

// open tells whether a struct has fields that callers set.
func open(t reflect.Type) bool {
	for i := range t.NumField() {
		if t.Field(i).IsExported() {
			return true
		}
	}
	return false
}

// walk lists what there is to change in a value.
func (x *trial) walk(l leaf) {
	t := l.v.Type()
	inner := func(part string, owner reflect.Type, v reflect.Value, done func()) {
		name := part
		if part == "" || part[0] == '[' {
			name = l.name
		}
		x.walk(leaf{strings.TrimPrefix(l.path+"."+part, "."), name, owner, v, done})
	}
	if t.Kind() != reflect.Struct || t == matrixType {
		x.leaves = append(x.leaves, l)
	}
	if t == matrixType || t == contextType || isState(t) {
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				inner(f.Name, t, l.v.Field(i), l.done)
			}
		}
	case reflect.Pointer:
		if !l.v.IsNil() && (t.Elem().Kind() != reflect.Struct || open(t.Elem())) {
			x.walk(leaf{l.path, l.name, l.owner, l.v.Elem(), l.done})
		}
	case reflect.Interface:
		if l.v.IsNil() {
			return
		}
		switch e := l.v.Elem(); {
		case e.Kind() == reflect.Pointer && e.Type().Elem().Kind() == reflect.Struct && open(e.Type().Elem()):
			x.walk(leaf{l.path, l.name, l.owner, e.Elem(), l.done})
		case e.Kind() == reflect.Struct && open(e.Type()):
			c := reflect.New(e.Type()).Elem()
			c.Set(e)
			x.walk(leaf{l.path, l.name, l.owner, c, func() { l.v.Set(c); l.done() }})
		}
	case reflect.Slice:
		n := l.v.Len()
		if isState(t.Elem()) {
			return
		}
		for i := range n {
			if i == n-1 || t.Elem().Kind() == reflect.Struct {
				inner(fmt.Sprintf("[%d]", i), l.owner, l.v.Index(i), l.done)
			}
		}
	}
}

// outcome is what came of a call.
type outcome struct {
	err   error
	fault string        // a panic, too much time or memory; "" for none
	made  reflect.Value // what the call returns besides an error
}

const (
	mostTime  = 2 * time.Second
	mostBytes = 64 << 20
)

var heap = []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}

func allocated() uint64 {
	metrics.Read(heap)
	return heap[0].Value.Uint64()
}

// run makes the call. One that does not come back ends the test with its stack.
func (x *trial) run(what string) (o outcome) {
	hung := time.AfterFunc(60*time.Second, func() { panic("hangs: " + x.name + " " + x.call + ": " + what) })
	defer hung.Stop()
	defer func() {
		if p := recover(); p != nil {
			if s := fmt.Sprint(p); strings.Contains(s, fromCallback) { // where the caller's own goroutine calls it
				return
			}
			o.fault = fmt.Sprintf("panic: %v\n%s", p, where(debug.Stack()))
		}
	}()
	from, bytes := time.Now(), allocated()
	call := x.fn.Call
	if x.fn.Type().IsVariadic() {
		call = x.fn.CallSlice
	}
	results := call(x.values)
	if took, more := time.Since(from), allocated()-bytes; took > mostTime || more > mostBytes {
		o.fault = fmt.Sprintf("took %v and %d MB", took.Round(time.Millisecond), more>>20)
	}
	if n := len(results); n > 0 {
		o.made = results[0]
		o.err, _ = results[n-1].Interface().(error)
	}
	return o
}

// where is the module's part of a stack, for short messages.
func where(stack []byte) string {
	var lines []string
	for _, l := range strings.Split(string(stack), "\n") {
		if strings.Contains(l, ".go:") && !strings.Contains(l, "_test.go") && !strings.Contains(l, "/src/") && len(lines) < 3 {
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	return strings.Join(lines, "\n")
}

// states returns all states among the arguments.
func (x *trial) states() (list []reflect.Value) {
	for _, v := range x.values {
		visit(v, func(v reflect.Value) {
			if isState(v.Type()) && v.Kind() == reflect.Pointer && !v.IsNil() {
				list = append(list, reflect.ValueOf(v.Interface()))
			}
		})
	}
	return list
}

// digest hashes everything that a call may write: all numbers reached from the
// arguments and, with what states have seen, their files. With only, states alone.
func (x *trial) digest(only bool) uint64 {
	h := fnv.New64a()
	if !only {
		for _, v := range x.values {
			visit(v, func(v reflect.Value) { put(h, v) })
		}
	}
	for _, s := range x.states() {
		put(h, s)
	}
	return h.Sum64()
}

func put(h hash.Hash64, v reflect.Value) {
	number := func(n uint64) { binary.Write(h, binary.LittleEndian, n) }
	if v.Kind() == reflect.Pointer && !v.IsNil() && isState(v.Type()) {
		s := v.Interface().(past)
		var file bytes.Buffer
		_, err := s.WriteTo(&file)
		number(uint64(s.Len()))
		fmt.Fprint(h, err)
		h.Write(file.Bytes())
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		switch t := v.Type().Elem().Kind(); {
		case !v.CanInterface():
			fmt.Fprint(h, v)
		case t >= reflect.Bool && t <= reflect.Float64 && t != reflect.Int && t != reflect.Uint:
			binary.Write(h, binary.LittleEndian, v.Interface())
		case t == reflect.Int:
			fmt.Fprint(h, v.Interface())
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		number(uint64(v.Int()))
	case reflect.Float32, reflect.Float64:
		binary.Write(h, binary.LittleEndian, v.Float())
	}
}

var planType = reflect.TypeFor[*merge.Plan]()

// visit calls f for a value and all that is reached from it, but for what is within
// operators.
func visit(v reflect.Value, f func(reflect.Value)) {
	f(v)
	t := v.Type()
	if isState(t) && t.Kind() == reflect.Pointer || t == contextType {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && (t.Elem().Kind() != reflect.Struct || open(t.Elem()) || t == planType) {
			visit(v.Elem(), f)
		}
	case reflect.Interface:
		if !v.IsNil() {
			visit(v.Elem(), f)
		}
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() || t == planType.Elem() {
				visit(v.Field(i), f)
			}
		}
	case reflect.Slice:
		if k := t.Elem().Kind(); k == reflect.Struct || k == reflect.Slice || k == reflect.Pointer || k == reflect.Interface {
			for i := range v.Len() {
				visit(v.Index(i), f)
			}
		}
	}
}
