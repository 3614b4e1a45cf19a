package isatest

import (
	"cmp"
	"reflect"
	"slices"
)

// Held returns the bytes of all slices that x, a pointer to working memory,
// holds, in its fields and in those of its slices' elements. What lies behind
// pointers and interfaces is somebody else's; memory that several slices share
// counts once.
func Held(x any) (bytes int64) { return held(x, nil) }

// HeldBehind is Held for what x, a pointer, leads to through other pointers, too: an
// operator with its working memory.
func HeldBehind(x any) (bytes int64) { return held(x, map[uintptr]bool{}) }

func held(x any, behind map[uintptr]bool) (bytes int64) {
	var slicesOf func(v reflect.Value, list [][2]uintptr) [][2]uintptr
	slicesOf = func(v reflect.Value, list [][2]uintptr) [][2]uintptr {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				list = slicesOf(v.Field(i), list)
			}
		case reflect.Slice, reflect.Array:
			if v.Kind() == reflect.Slice && v.Cap() > 0 {
				begin := v.Pointer()
				list = append(list, [2]uintptr{begin, begin + uintptr(v.Cap())*v.Type().Elem().Size()})
				v = v.Slice(0, v.Cap())
			}
			switch v.Type().Elem().Kind() {
			case reflect.Struct, reflect.Slice, reflect.Array, reflect.Pointer:
				for i := range v.Len() {
					list = slicesOf(v.Index(i), list)
				}
			}
		case reflect.Pointer:
			if behind != nil && !v.IsNil() && !behind[v.Pointer()] {
				behind[v.Pointer()] = true
				list = slicesOf(v.Elem(), list)
			}
		}
		return list
	}
	list := slicesOf(reflect.ValueOf(x).Elem(), nil)
	slices.SortFunc(list, func(a, b [2]uintptr) int { return cmp.Compare(a[0], b[0]) })
	end := uintptr(0)
	for _, r := range list {
		if r[1] > end {
			bytes += int64(r[1] - max(r[0], end))
			end = r[1]
		}
	}
	return bytes
}
