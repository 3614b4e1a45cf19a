package subquad_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/cca"
)

var (
	errConfig, errShape, errCall = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall
	errState, errFull            = subquad.ErrState, subquad.ErrFull
	anyError                     = []error{errConfig, errShape, errCall, errState, errFull, subquad.ErrCheckpoint, errReader}
	errReader                    = errors.New("a reader that fails")
)

// mistakes is the table: where a mistake can be made, what error it gives, how it is
// made. Where a sentinel is not the only one, the comment says why.
var mistakes = []mistake{
	{"a malformed matrix", func(x *trial, l leaf) bool { return given(x, l) && !x.constructor() }, []error{errShape}, true, malform},
	{"a malformed matrix of a Config or weights", func(x *trial, l leaf) bool { return given(x, l) && x.constructor() }, []error{errShape, errConfig}, true, malform},
	{"a matrix that is not asked for, without data", func(x *trial, l leaf) bool { return isMatrix(l) && !given(x, l) && !x.constructor() },
		[]error{errShape, errCall}, true, malform}, // ErrCall: an option that the operator cannot honour
	{"an output of one row less", func(x *trial, l leaf) bool { return given(x, l) && x.output(l) && !x.isFree(l, "Rows") }, []error{errShape}, true,
		func(x *trial, l leaf, way int) string {
			m := l.v.Interface().(blas32.General)
			m.Rows--
			l.set(m)
			return once(way, "one row less")
		}},
	{"an output that shares elements with another argument", func(x *trial, l leaf) bool { return given(x, l) && x.output(l) }, []error{errShape}, true, overlap},
	{"a list of another length", isList, []error{errShape, errCall}, true, // ErrCall: a list that says how to, and not what
		func(x *trial, l leaf, way int) string {
			if way > 1 {
				return ""
			}
			return lengths(l, way+2)
		}},
	{"offsets", func(x *trial, l leaf) bool { return named(l, intsType, "Offsets", "KOffsets") }, []error{errCall}, true,
		func(x *trial, l leaf, way int) string {
			return pick(l, way, []int{1, tokens}, []int{0, tokens - 1}, []int{0, tokens + 1}, []int{0, 5, 4, tokens}, []int{}, []int{-1, tokens},
				[]int{0, math.MaxInt}, []int{0, math.MinInt, tokens}, []int{0, tokens, tokens - 1}, []int{tokens})
		}},
	{"workers", func(x *trial, l leaf) bool { return named(l, intType, "Workers") && !l.in("Config") }, []error{errCall}, true, workers},
	{"workers of a Config", func(x *trial, l leaf) bool { return named(l, intType, "Workers") && l.in("Config") }, []error{errConfig}, true, workers},
	{"a number of a Config that is none", func(x *trial, l leaf) bool { return x.constructor() && isFloat(l) && l.owner != nil && !x.weight(l) }, []error{errConfig}, true,
		func(x *trial, l leaf, way int) string { return pick(l, way, math.NaN(), math.Inf(1), math.Inf(-1)) }},
	{"no context", func(x *trial, l leaf) bool { return l.v.Type() == contextType }, []error{errCall}, true,
		func(x *trial, l leaf, way int) string { return pick(l, way, nil) }},
	{"no call", func(x *trial, l leaf) bool {
		t := l.v.Type()
		return t.Kind() == reflect.Pointer && strings.HasSuffix(t.Elem().Name(), "Call") && l.owner == nil
	}, []error{errCall}, true, func(x *trial, l leaf, way int) string { return pick(l, way, nil) }},
	{"a state", func(x *trial, l leaf) bool { return isState(l.v.Type()) && !l.v.IsNil() }, []error{errState}, true,
		func(x *trial, l leaf, way int) string {
			switch way {
			case 0: // a field of a Call that is nil says that there is no state
				if l.owner != nil && l.v.Kind() == reflect.Pointer {
					return "-"
				}
				if l.v.Kind() == reflect.Interface {
					l.v.Set(reflect.Zero(l.v.Elem().Type()))
				} else {
					l.v.SetZero()
				}
				return "a nil one"
			case 1:
				l.v.Set(reflect.ValueOf(x.foreign()))
				return "another operator's"
			case 2:
				l.v.Set(unmade(l.v))
				return "one that NewState has not made"
			}
			return ""
		}},
	{"states", func(x *trial, l leaf) bool { return isStates(l) && l.v.Len() > 1 }, []error{errState}, true,
		func(x *trial, l leaf, way int) string {
			switch way {
			case 0:
				l.v.Index(1).SetZero()
				return "a nil one"
			case 1:
				l.v.Index(1).Set(l.v.Index(0))
				return "one twice"
			case 2:
				l.v.Index(1).Set(reflect.ValueOf(x.foreign()))
				return "another operator's"
			case 3:
				if l.v.Type().Elem().Kind() != reflect.Interface {
					return "-"
				}
				l.v.Index(1).Set(reflect.Zero(l.v.Index(0).Elem().Type()))
				return "a nil one of its type"
			case 4:
				l.v.Index(1).Set(unmade(l.v.Index(0)))
				return "one that NewState has not made"
			}
			return ""
		}},
	{"a number of states that is wrong", func(x *trial, l leaf) bool { return isStates(l) && l.v.Len() > 1 }, []error{errCall, errState}, true, // ErrState: the one too many was given before
		func(x *trial, l leaf, way int) string {
			switch way {
			case 0:
				l.v.Set(l.v.Slice(0, l.v.Len()-1))
				return "one too few"
			case 1:
				l.v.Set(reflect.Append(l.v, l.v.Index(0)))
				return "one too many"
			}
			return ""
		}},
	{"a state and states", func(x *trial, l leaf) bool {
		return isStates(l) && l.owner != nil && x.field("State").IsValid() && !x.field("State").IsNil()
	},
		[]error{errCall}, true, func(x *trial, l leaf, way int) string {
			one := reflect.MakeSlice(l.v.Type(), 1, 1)
			one.Index(0).Set(x.field("State"))
			l.v.Set(one)
			return once(way, "both")
		}},
	{"a length to go back to", func(x *trial, l leaf) bool { return strings.HasSuffix(x.name, "State.Truncate") }, []error{errState}, true,
		func(x *trial, l leaf, way int) string {
			n := x.values[0].Interface().(past).Len()
			return pick(l, way, -1, n+1, math.MaxInt, math.MinInt)
		}},
	// A method reads a state of its operator, a function a file of its own kind.
	{"a file of a state", func(x *trial, l leaf) bool { return l.v.Type() == readerType && x.method }, []error{errState, errReader}, true, broken},
	{"another file", func(x *trial, l leaf) bool { return l.v.Type() == readerType && !x.method }, []error{subquad.ErrCheckpoint, errReader}, false, broken},
	{"a nil reader or writer", func(x *trial, l leaf) bool {
		return l.v.Type() == readerType || l.v.Type() == writerType || l.v.Type() == readerAtType
	}, []error{errState, errCall, subquad.ErrCheckpoint}, true, func(x *trial, l leaf, way int) string { return pick(l, way, nil) }},
	{"an option of attention that the operator may not have", func(x *trial, l leaf) bool {
		return l.owner == reflect.TypeFor[attention.Call]() && strings.Count(l.path, ".") == 1
	},
		[]error{errCall, errShape}, false, option}, // ErrShape: a mask of one sequence in a call of several
	{"options of no operator", func(x *trial, l leaf) bool {
		return l.owner == reflect.TypeFor[attention.Call]() && l.name == "Options"
	}, []error{errCall}, true,
		func(x *trial, l leaf, way int) string { return pick(l, way, new(int), (*cca.Options)(nil)) }},
	{"a file of weights", func(x *trial, l leaf) bool { return l.v.Type() == readerAtType }, []error{subquad.ErrCheckpoint, errReader}, false, damaged},
	{"a callback that panics", func(x *trial, l leaf) bool { return l.v.Kind() == reflect.Func }, nil, false, // whose error it is, no sentinel says
		func(x *trial, l leaf, way int) string {
			l.v.Set(reflect.MakeFunc(l.v.Type(), func([]reflect.Value) []reflect.Value { panic(fromCallback) }))
			l.done()
			return once(way, "panic")
		}},
	{"any value", func(x *trial, l leaf) bool {
		return l.v.Type() != contextType && l.v.Type() != writerType && l.v.Type() != readerAtType
	}, anyError, false, hostile},
}

// unmade is the zero value of a state's type.
func unmade(state reflect.Value) reflect.Value {
	if state.Kind() == reflect.Interface {
		state = state.Elem()
	}
	return reflect.New(state.Type().Elem())
}

// outputs are the names of arguments that are written.
var outputs = []string{"Dst", "LSE", "Mass", "Entropy", "Hidden", "Residuals", "Logits", "Last", "LogLikelihood", "Pooled", "Classes", "CoreK", "CoreV", "Weights", "Cos", "Sin"}

func (x *trial) output(l leaf) bool {
	return !x.constructor() && slices.ContainsFunc(outputs, func(s string) bool { return strings.EqualFold(s, l.name) }) &&
		!strings.HasPrefix(l.path, "parts")
}

// constructor tells whether the row makes an operator, a state or the like of a Config.
func (x *trial) constructor() bool {
	f := x.name[strings.LastIndexByte(x.name, '.')+1:]
	return strings.HasPrefix(f, "New") || f == "Open" || f == "Read"
}

// weight tells whether the leaf belongs to the weights that an operator is made with.
func (x *trial) weight(l leaf) bool {
	return strings.HasPrefix(l.path, "w.") || strings.HasPrefix(l.path, "weights.") ||
		x.name == "hyena.NewConv" && (strings.HasPrefix(l.path, "cfg.Skip") || strings.HasPrefix(l.path, "cfg.Kernel"))
}

// field is the argument with a name.
func (x *trial) field(name string) reflect.Value {
	for _, l := range x.leaves {
		if l.name == name {
			return l.v
		}
	}
	return reflect.Value{}
}

func (x *trial) isFree(l leaf, what string) bool { return slices.Contains(x.free, l.path+"."+what) }

const half = bits.UintSize / 2

var (
	intType, intsType      = reflect.TypeFor[int](), reflect.TypeFor[[]int]()
	readerType, writerType = reflect.TypeFor[io.Reader](), reflect.TypeFor[io.Writer]()
	readerAtType           = reflect.TypeFor[io.ReaderAt]()
)

func isMatrix(l leaf) bool { return l.v.Type() == matrixType }

func given(x *trial, l leaf) bool {
	m, ok := l.v.Interface().(blas32.General)
	return ok && m.Rows > 0 && m.Cols > 0
}

// isList tells whether a leaf is a list of numbers whose length others give.
func isList(x *trial, l leaf) bool {
	if l.v.Kind() != reflect.Slice || l.v.Len() == 0 || x.constructor() || x.isFree(l, "") {
		return false
	}
	k := l.v.Type().Elem().Kind()
	return k == reflect.Float32 || k == reflect.Float64 || k == reflect.Bool || k == reflect.Int64
}

func isStates(l leaf) bool { return l.v.Kind() == reflect.Slice && isState(l.v.Type().Elem()) }

func isFloat(l leaf) bool { return l.v.Kind() == reflect.Float32 || l.v.Kind() == reflect.Float64 }

func named(l leaf, t reflect.Type, names ...string) bool {
	return l.v.Type() == t && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(l.name, n) })
}

func once(way int, what string) string {
	if way > 0 {
		return ""
	}
	return what
}

// pick sets a leaf to one of some values.
func pick(l leaf, way int, values ...any) string {
	if way >= len(values) {
		return ""
	}
	l.set(values[way])
	if s := fmt.Sprint(values[way]); len(s) < 60 {
		return s
	}
	return fmt.Sprintf("value %d", way)
}

func workers(x *trial, l leaf, way int) string {
	return pick(l, way, -1, 1<<16+1, int(min(int64(1)<<40, math.MaxInt)), math.MaxInt, math.MinInt)
}

func malform(x *trial, l leaf, way int) string {
	m := l.v.Interface().(blas32.General)
	was := m
	ways := []struct {
		name string
		make func()
	}{
		{"no data", func() { m = blas32.General{Rows: 9, Cols: max(m.Cols, 6), Stride: max(m.Cols, 6)} }},
		{"no data, but as many rows", func() { m.Data = nil }},
		{"negative rows", func() { m.Rows = -1 }},
		{"negative columns", func() { m.Cols = -1 }},
		{"columns the other way", func() { m.Cols = -m.Cols }},
		{"rows without end", func() { m.Rows = math.MaxInt }},
		{"columns without end", func() { m.Cols = math.MaxInt }},
		{"a size that overflows", func() { m.Rows, m.Stride = 1<<half, 1<<half }},
		{"a column less", func() { m.Cols-- }},
		{"a column more", func() { m.Cols++ }},
		{"a stride of less than the columns", func() { m.Stride = m.Cols - 1 }},
		{"a negative stride", func() { m.Stride = -m.Stride }},
		{"a stride without end", func() { m.Stride = math.MaxInt }},
		{"an element too few", func() { m.Data = m.Data[:max(0, (m.Rows-1)*m.Stride+m.Cols-1)] }},
	}
	if way == len(ways) {
		return ""
	}
	w := ways[way]
	w.make()
	switch {
	case was.Rows == 0 && way > 0, was.Rows == 1 && w.name == "a stride without end", m.Rows == 0, m.Cols == 0,
		x.isFree(l, "Cols") && m.Cols != was.Cols && m.Cols > 0, x.isFree(l, "") || l.v.Type() != matrixType:
		return "-"
	}
	l.set(m)
	return w.name
}

// overlap puts an output one row before another matrix.
func overlap(x *trial, l leaf, way int) string {
	if way >= len(x.leaves) {
		return ""
	}
	o := x.leaves[way]
	if o.path == l.path || !given(x, o) {
		return "-"
	}
	a, b := l.v.Interface().(blas32.General), o.v.Interface().(blas32.General)
	if a.Rows < 2 {
		return "-"
	}
	stride := max(a.Cols, b.Cols)
	data := make([]float32, (max(a.Rows, b.Rows)+1)*stride)
	for i := range b.Rows {
		copy(data[(i+1)*stride:][:b.Cols], b.Data[i*b.Stride:])
	}
	a.Stride, a.Data, b.Stride, b.Data = stride, data, stride, data[stride:]
	l.set(a)
	o.set(b)
	return o.path
}

// broken gives a reader of what is no file.
func broken(x *trial, l leaf, way int) string {
	file, err := io.ReadAll(l.v.Interface().(io.Reader))
	if err != nil {
		return ""
	}
	switch {
	case way < 8:
		l.set(bytes.NewReader(file[:len(file)*way/8]))
		return fmt.Sprintf("%d eighths", way)
	case way < 24:
		file[(way-8)*len(file)/64] ^= 0x80
		l.set(bytes.NewReader(file))
		return fmt.Sprintf("a bit changed at byte %d", (way-8)*len(file)/64)
	case way == 24:
		l.set(io.MultiReader(bytes.NewReader(file[:len(file)/2]), failing{}))
		return "a reader that fails"
	case way == 25 && x.foreign != nil:
		var other bytes.Buffer
		if _, err := x.foreign().(past).WriteTo(&other); err != nil {
			return "-"
		}
		l.set(bytes.NewReader(other.Bytes()))
		return "another operator's"
	}
	return ""
}

// damaged gives a file of weights that ends too early or has a wrong header.
func damaged(x *trial, l leaf, way int) string {
	file := l.v.Interface().(*bytes.Reader)
	data := make([]byte, file.Size())
	if _, err := file.ReadAt(data, 0); err != nil || way >= 48 {
		return ""
	}
	what := "cut"
	if way < 8 {
		data = data[:len(data)*way/8]
		x.field("size").SetInt(int64(len(data)))
	} else {
		at := way - 8
		if at > 10 {
			at *= 41
		}
		data[at] ^= 0xff >> (way % 7)
		what = fmt.Sprintf("other bits in byte %d", at)
	}
	l.set(bytes.NewReader(data))
	return what
}

// fromCallback is what a callback of the table panics with.
const fromCallback = "from a callback"

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errReader }
func (failing) Write([]byte) (int, error) { return 0, errReader }

// ending is a context that is done after it has been looked at a number of times.
type ending struct {
	context.Context
	looks atomic.Int64
	done  chan struct{}
}

func newEnding(looks int) *ending {
	e := &ending{Context: context.Background(), done: make(chan struct{})}
	e.looks.Store(int64(looks))
	if looks == 0 {
		e.looks.Store(-1)
		close(e.done)
	}
	return e
}

func (e *ending) Done() <-chan struct{} { return e.done }

func (e *ending) Err() error {
	switch n := e.looks.Add(-1); {
	case n == 0:
		close(e.done)
		fallthrough
	case n < 0:
		return context.Canceled
	}
	return nil
}
