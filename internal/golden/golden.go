// Package golden runs the reference vectors of testdata/golden, or of the folder
// that SUBQUAD_GOLDEN names.
//
// A file holds the inputs and the expected values of one case family of one
// operation. Its metadata names the operation, the configuration and the
// tolerances, so that another file of the same operation needs no new code.
package golden

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/weights"
)

// File is one file of reference vectors, opened for a test.
type File struct {
	t    *testing.T
	path string
	file *weights.File
	read map[string]bool
}

// Run runs every file whose operation tests has a function for, as a subtest with
// the file's name and below that once under every tier: all operations that
// belong to pkg (an import path below the module, as "hyena/dna"), and others
// that it has a part in.
//
// It fails when the folder is missing or empty, when a file is damaged, when an
// operation is in no table, and when a test leaves a tensor unread.
func Run(t *testing.T, pkg string, tests map[string]func(*testing.T, *File)) {
	t.Helper()
	for op, owner := range owners {
		if owner == pkg && tests[op] == nil {
			t.Errorf("operation %s belongs to %s, which has no test for it", op, pkg)
		}
	}
	later, ran := map[string]int{}, 0
	for _, path := range paths(t) {
		name := strings.TrimSuffix(filepath.Base(path), ".safetensors")
		f, err := weights.Open(path)
		if err != nil {
			t.Error(err)
			continue
		}
		defer f.Close()
		op := f.Metadata["op"]
		switch owner, known := owners[op]; {
		case !known:
			t.Errorf("%s: operation %q is in no table", name, op)
		case owner == notYet:
			later[op]++
		case tests[op] != nil:
			ran++
			t.Run(name, func(t *testing.T) {
				isatest.Run(t, func(t *testing.T) {
					g := &File{t: t, path: path, file: f, read: map[string]bool{}}
					tests[op](t, g)
					for _, input := range g.Inputs() {
						if !g.Has(input) {
							t.Errorf("the input %s is missing", input)
						}
					}
					if left := g.unread(); len(left) > 0 && !t.Failed() {
						t.Errorf("%d tensors were not read: %s", len(left), strings.Join(left, ", "))
					}
				})
			})
		}
	}
	if ran == 0 {
		t.Logf("no file of an operation of %s", pkg)
	}
	var ops []string
	for op, n := range later {
		ops = append(ops, fmt.Sprintf("%s (%d)", op, n))
	}
	sort.Strings(ops)
	t.Logf("operations not built yet: %d: %s", len(ops), strings.Join(ops, ", "))
}

// paths lists the files of the folder.
func paths(t *testing.T) []string {
	dir := os.Getenv("SUBQUAD_GOLDEN")
	if dir == "" {
		dir = filepath.Join(root(t), "testdata", "golden")
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no reference vectors in %s (SUBQUAD_GOLDEN=%q)", dir, os.Getenv("SUBQUAD_GOLDEN"))
	}
	return list
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

func (f *File) unread() (left []string) {
	for _, n := range f.file.Names() {
		if !f.read[n] {
			left = append(left, n)
		}
	}
	return left
}

// Meta returns a metadata string, "" where there is none.
func (f *File) Meta(key string) string { return f.file.Metadata[key] }

// Beside returns the path of a file in the same folder, which a metadata string
// names; it fails the test where the key is missing or names another folder.
func (f *File) Beside(key string) string {
	f.t.Helper()
	name := f.Meta(key)
	if name == "" || filepath.Base(name) != name {
		f.t.Fatalf("metadata %s is %q, want the name of a file", key, name)
	}
	return filepath.Join(filepath.Dir(f.path), name)
}

// Config decodes the JSON of a metadata string into v; it fails the test where
// the key is missing. Keys of the JSON that v lacks are errors, so that no
// option goes unseen.
func (f *File) Config(key string, v any) {
	f.t.Helper()
	text, ok := f.file.Metadata[key]
	if !ok {
		f.t.Fatalf("no metadata %q", key)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		f.t.Fatalf("metadata %q: %v", key, err)
	}
}

// Keys returns the metadata keys that begin with prefix, without it, sorted.
func (f *File) Keys(prefix string) (keys []string) {
	for k := range f.file.Metadata {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			keys = append(keys, rest)
		}
	}
	sort.Strings(keys)
	return keys
}

// Names returns the names of the tensors.
func (f *File) Names() []string { return f.file.Names() }

// Has tells whether there is a tensor of a name.
func (f *File) Has(name string) bool { return f.file.Tensor(name) != nil }

// Weights returns the tensors as a checkpoint would hold them; those whose name
// the test returns true for count as read.
func (f *File) Weights(read func(name string) bool) *weights.File {
	for _, n := range f.file.Names() {
		if read(n) {
			f.read[n] = true
		}
	}
	return f.file
}

// Ignore counts the tensors for which match holds as read: they are informative.
func (f *File) Ignore(match func(name string) bool) { f.Weights(match) }

func (f *File) tensor(name string) *weights.Tensor {
	f.t.Helper()
	tensor := f.file.Tensor(name)
	if tensor == nil {
		f.t.Fatalf("no tensor %q", name)
	}
	f.read[name] = true
	return tensor
}

// Shape returns a tensor's shape.
func (f *File) Shape(name string) []int { return f.tensor(name).Shape }

// Type returns the element type of a tensor.
func (f *File) Type(name string) weights.Type { f.t.Helper(); return f.tensor(name).Type }

// Float32 returns an input.
func (f *File) Float32(name string) []float32 {
	f.t.Helper()
	return elements(f, name, (*weights.Tensor).Float32)
}

// Float64 returns an input that is stored, or wanted, in float64.
func (f *File) Float64(name string) []float64 {
	f.t.Helper()
	return elements(f, name, (*weights.Tensor).Float64)
}

// Int64 returns an integer tensor.
func (f *File) Int64(name string) []int64 {
	f.t.Helper()
	return elements(f, name, (*weights.Tensor).Int64)
}

// elements returns those of a tensor, as read reads them.
func elements[T any](f *File, name string, read func(*weights.Tensor) ([]T, error)) []T {
	f.t.Helper()
	v, err := read(f.tensor(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// Tolerance is |got - want| <= Abs + Rel |want| + Max max|want|.
type Tolerance struct{ Abs, Rel, Max float64 }

// Tolerance returns the file's own.
func (f *File) Tolerance() Tolerance {
	f.t.Helper()
	number := func(key string) float64 {
		v, err := strconv.ParseFloat(f.file.Metadata[key], 64)
		if err != nil || !(v >= 0) {
			f.t.Fatalf("metadata %s is %q", key, f.file.Metadata[key])
		}
		return v
	}
	tol := Tolerance{Abs: number("atol"), Rel: number("rtol")}
	if _, ok := f.file.Metadata["mtol"]; ok {
		tol.Max = number("mtol")
	}
	return tol
}

// Compare fails the test unless got agrees with a tensor within the file's
// tolerance, or within tol where one is given.
func (f *File) Compare(name string, got []float32, tol ...Tolerance) {
	f.t.Helper()
	wide := make([]float64, len(got))
	for i, v := range got {
		wide[i] = float64(v)
	}
	f.Compare64(name, wide, tol...)
}

// Compare64 is Compare for float64. Infinities agree with themselves.
func (f *File) Compare64(name string, got []float64, tol ...Tolerance) {
	f.t.Helper()
	f.record(name, got)
	want := f.Float64(name)
	limit := append(tol, f.Tolerance())[0]
	if len(got) != len(want) {
		f.t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	var largest float64
	for _, w := range want {
		if !math.IsInf(w, 0) {
			largest = math.Max(largest, math.Abs(w))
		}
	}
	for i, w := range want {
		if math.IsInf(w, 0) {
			if got[i] != w {
				f.t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
			}
			continue
		}
		if d := math.Abs(got[i] - w); !(d <= limit.Abs+limit.Rel*math.Abs(w)+limit.Max*largest) {
			f.t.Fatalf("%s: element %d is %v, want %v (%+v)", name, i, got[i], w, limit)
		}
	}
}

// CompareInts fails the test unless got is a tensor, exactly.
func (f *File) CompareInts(name string, got []int64) {
	f.t.Helper()
	f.record(name, got)
	want := f.Int64(name)
	if len(got) != len(want) {
		f.t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		if got[i] != w {
			f.t.Fatalf("%s: element %d is %d, want %d", name, i, got[i], w)
		}
	}
}
