package state

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
)

var errInvalid = errors.New("invalid")

func TestFile(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b, "sqTest01", []int64{3, 4})
	w.Ints(7, -1)
	w.Floats([]float32{1, 2, 3})
	if n, err := w.End(); err != nil || n != int64(b.Len()) {
		t.Fatalf("End: %d, %v; %d bytes", n, err, b.Len())
	}
	read := func(data []byte, kind string, fingerprint ...int64) error {
		r := NewReader(bytes.NewReader(data), "test", errInvalid, kind, fingerprint)
		a, b, x := r.Int(), r.Int(), r.Floats(3)
		err := r.End()
		if err == nil && (a != 7 || b != -1 || !slices.Equal(x, []float32{1, 2, 3})) {
			t.Errorf("read %d %d %v", a, b, x)
		}
		return err
	}
	if err := read(b.Bytes(), "sqTest01", 3, 4); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"kind":        read(b.Bytes(), "sqOther1", 3, 4),
		"fingerprint": read(b.Bytes(), "sqTest01", 3, 5),
		"cut":         read(b.Bytes()[:b.Len()-5], "sqTest01", 3, 4),
		"changed":     read(append(slices.Clone(b.Bytes()[:b.Len()-9]), append([]byte{1}, b.Bytes()[b.Len()-8:]...)...), "sqTest01", 3, 4),
		"empty":       read(nil, "sqTest01", 3, 4),
	} {
		if !errors.Is(err, errInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFingerprint(t *testing.T) {
	of := func(name string, numbers []int64, x []float32, rows, cols int) Fingerprint {
		f := NewFingerprint(name, numbers...)
		f.Floats(x)
		f.Matrices(blas32.General{Rows: rows, Cols: cols, Stride: 3, Data: []float32{1, 2, 3, 4, 5, 6}})
		return f
	}
	same := of("op", []int64{1}, []float32{1, 2}, 2, 2)
	if got := of("op", []int64{1}, []float32{1, 2}, 2, 2); got != same {
		t.Error("equal operators have different fingerprints")
	}
	for i, got := range []Fingerprint{
		of("oq", []int64{1}, []float32{1, 2}, 2, 2),
		of("op", []int64{2}, []float32{1, 2}, 2, 2),
		of("op", []int64{1}, []float32{-1, 2}, 2, 2),
		of("op", []int64{1}, []float32{1, 2, 0}, 2, 2),
		of("op", []int64{1}, []float32{1, 2}, 2, 1),
	} {
		if got == same {
			t.Errorf("case %d: the same fingerprint", i)
		}
	}
}

func TestRing(t *testing.T) {
	r := NewRing(3, func() []int { return make([]int, 1) })
	take := func(n int) { (*r.Next(n))[0] = 10 * n }
	for n := range 5 {
		take(n + 1) // 3, 4, 5 are left
	}
	if r.Back(2) != nil || r.Back(-1) != nil {
		t.Error("a version that is not kept was found")
	}
	c := r.Clone(slices.Clone)
	if v := r.Back(4); v == nil || (*v)[0] != 40 {
		t.Fatalf("Back(4): %v", v)
	}
	if r.Back(5) != nil {
		t.Error("Back did not forget the later version")
	}
	take(6) // in place of 5, not of 3
	if v := r.Back(3); v == nil || (*v)[0] != 30 {
		t.Errorf("Back(3): %v", v)
	}
	if v := c.Back(5); v == nil || (*v)[0] != 50 {
		t.Errorf("the clone's Back(5): %v", v)
	}
	c.Forget(-1)
	if c.Back(3) != nil {
		t.Error("Forget kept a version")
	}
	var none Ring[int]
	if none.Next(1) != nil || none.Back(0) != nil || none.Len() != 0 {
		t.Error("a ring of none keeps some")
	}
}

// TestFixed: a state goes back to what it was given, never to what it had in its place.
func TestFixed(t *testing.T) {
	k := &Kind{Package: "test", File: "sqTest01", Name: "test", Size: 1}
	st, err := k.New(1)
	if err != nil {
		t.Fatal(err)
	}
	back := func(n int, want float32) {
		t.Helper()
		if err := st.Truncate("test", n); err != nil || st.Values[0] != want || st.N != n {
			t.Errorf("back to %d: %v after %d tokens, want %v; error %v", n, st.Values[0], st.N, want, err)
		}
	}
	step := func() { st.Values[0]++; st.Advance(1) }
	step()
	back(0, 0)
	st.Values[0] = 10
	st.Written()
	step()
	if err := st.Truncate("test", 0); !errors.Is(err, subquad.ErrState) || st.N != 1 {
		t.Errorf("back to 0, which is not kept: error %v", err)
	}
	st.Values[0] = 20
	st.Written()
	st.Values[0] = 30
	st.spoiled = true
	if err := k.Accept("st", &st); !errors.Is(err, subquad.ErrState) {
		t.Errorf("a spoiled state: error %v", err)
	}
	back(1, 20)

	var b bytes.Buffer
	if _, err := st.WriteTo("test", &b); err != nil {
		t.Fatal(err)
	}
	read, err := k.Read(&b)
	if err != nil || read.N != 1 || read.Values[0] != 20 || !read.given {
		t.Errorf("read: %+v, error %v", read, err)
	}
	st.Reset()
	step()
	step()
	back(0, 0)
}
