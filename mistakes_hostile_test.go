package subquad_test

import (
	"math"
	"reflect"
	"slices"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/rope"
)

// hostile sets a leaf to one after the other of the values that callers should not, but
// can give it: huge, negative, nil, NaN.
func hostile(x *trial, l leaf, way int) string {
	t := l.v.Type()
	switch {
	case isMatrix(l):
		return malformAny(x, l, way)
	case t == readerType || isState(t) && x.foreign == nil:
		return ""
	case isState(t) && l.v.IsNil(): // where the call had none
		return pick(l, way, x.foreign())
	case isState(t):
		return ""
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface:
		return pick(l, way, nil)
	case reflect.Func:
		return pick(l, way, nil)
	case reflect.Slice:
		return lengths(l, way)
	}
	list := numbers(t)
	if way < len(list) && (slices.Contains(reserved, l.name) && l.in("Config") || l.name == "tokens" && strings.HasSuffix(x.name, ".Prepare")) {
		if n := reflect.ValueOf(list[way]).Int(); n > 1<<10 && n < 1<<50 {
			return "-"
		}
	}
	return pick(l, way, list...)
}

// reserved are numbers of a Config by which, as by Prepare, a caller asks for memory to be taken at once,
// as documented: of these, only what no machine has is a mistake.
var reserved = []string{"MaxTokens", "Window", "Snapshots"}

func malformAny(x *trial, l leaf, way int) string { return malform(&trial{row: &row{}}, l, way) }

// lengths gives slices of another length.
func lengths(l leaf, way int) string {
	n := l.v.Len()
	zero := reflect.Zero(l.v.Type().Elem())
	switch way {
	case 0:
		l.v.SetZero()
	case 1:
		l.v.Set(reflect.MakeSlice(l.v.Type(), 0, 0))
	case 2:
		if n == 0 {
			return "-"
		}
		l.v.Set(l.v.Slice(0, n-1))
	case 3:
		l.v.Set(reflect.Append(l.v.Slice3(0, n, n), zero))
	case 4:
		l.v.Set(reflect.MakeSlice(l.v.Type(), 1000, 1000))
	default:
		return ""
	}
	l.done()
	return []string{"nil", "empty", "one less", "one more", "a thousand"}[way]
}

func numbers(t reflect.Type) []any {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		var out []any
		for _, n := range []int64{0, 1, 2, -1, 1 << 16, math.MinInt, math.MaxInt, math.MinInt64, math.MinInt64 + 1, 1 << 31, 1 << 32, 1<<32 + 1, 1 << 40, 1 << 62, math.MaxInt64} {
			if t.Kind() == reflect.Int64 || int64(int(n)) == n {
				out = append(out, n)
			}
		}
		return out
	case reflect.Int32:
		return []any{int32(-1), int32(math.MinInt32), int32(math.MaxInt32), int32(0)}
	case reflect.Uint8, reflect.Uint32:
		return []any{uint8(255), uint8(17), uint8(0), uint8(1)}
	case reflect.Uint64:
		return []any{uint64(math.MaxUint64)}
	case reflect.Float32, reflect.Float64:
		return []any{math.NaN(), math.Inf(1), math.Inf(-1), -1.0, math.MaxFloat32, 1e-40, 0.0}
	case reflect.Bool:
		return []any{true, false}
	case reflect.String:
		return []any{"", "\xff\x00", strings.Repeat("x", 1<<16)}
	}
	return nil
}

// option sets one of the options of attention that only some operators have.
func option(x *trial, l leaf, way int) string {
	if way > 0 {
		return ""
	}
	switch l.name {
	case "Tree":
		l.set([]int{-1, 0, 0, 1, 1, 2, 2})
	case "KOffsets":
		l.set([]int{0, tokens})
	case "QueryPos", "KeyPos":
		l.set([]int64{0})
	case "Bias":
		l.set(must(rope.NewALiBi(rope.ALiBiSlopes(heads))))
	case "Mask":
		l.set(attention.MatrixMask{Queries: tokens, Keys: tokens, Seen: make([]bool, tokens*tokens)})
	case "Visible":
		l.set(func(int64) (int64, int64) { return 0, 3 })
	case "Extra":
		l.set([]attention.Extra{{K: []blas32.General{matrix(3, kvHeads*headDim)}, V: []blas32.General{matrix(3, kvHeads*valueDim)}}})
	case "Partial":
		l.set(true)
	case "Select":
		l.set([]attention.Selection{{{From: 0, To: 1}}})
	case "Weights":
		l.set([][]float32{vector(tokens * heads)})
	case "Read":
		l.set(new(attention.Read))
	case "Stats":
		l.set(new(attention.Stats))
	case "LogWeights":
		l.set(matrix(tokens, 1))
	case "LSE", "Mass", "Entropy":
		l.set(matrix(tokens, heads))
	default:
		return ""
	}
	return l.name
}
