// Package golden runs the reference vectors of testdata/golden, or of the folder
// that SUBQUAD_GOLDEN names.
//
// A file holds the inputs and the expected values of one case family of one
// operation. Its metadata names the operation, the configuration and the
// tolerances, so that another file of the same operation needs no new code.
package golden

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"sort"
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
	read map[string]bool // tensors
	told map[string]bool // metadata keys that were read

	compared int      // expected values
	lacking  []string // those that the test would have compared
}

// Run runs every file whose operation tests has a function for, as a subtest with
// the file's name and below that once under every tier: all operations that
// belong to pkg (an import path below the module, as "hyena/dna"), and others
// that it has a part in.
//
// It fails when the folder is missing or empty, when a file is damaged, when an
// operation is in no table, when a test leaves a tensor unread, or a key of the metadata that
// is not for readers alone (informative.go), and when a file has none of the expected values
// that its test compares.
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
		op := operation(path)
		if owner := owners[op]; owner != "" && owner != notYet && tests[op] == nil {
			continue // read by the package that it belongs to
		}
		f, err := weights.Open(path)
		if err != nil {
			t.Error(err)
			continue
		}
		defer f.Close()
		op = f.Metadata["op"]
		switch owner, known := owners[op]; {
		case !known:
			t.Errorf("%s: operation %q is in no table", name, op)
		case owner == notYet:
			later[op]++
		case tests[op] != nil:
			ran++
			t.Run(name, func(t *testing.T) {
				isatest.Run(t, func(t *testing.T) {
					g := &File{t: t, path: path, file: f, read: map[string]bool{}, told: map[string]bool{}}
					tests[op](t, g)
					for _, name := range append(g.Inputs(), g.list("expected")...) {
						if !g.Has(name) {
							t.Errorf("the tensor %s, of which the metadata tells, is missing", name)
						}
					}
					if len(g.lacking) > 0 && g.compared == 0 {
						t.Errorf("nothing was compared: the file lacks every expected value, %s", strings.Join(g.lacking, ", "))
					}
					if left := g.unread(); !t.Failed() {
						for _, text := range left {
							t.Error(text)
						}
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

// named finds the operation in a header, where nothing else is called op and has a text.
var named = regexp.MustCompile(`"op"\s*:\s*"([^"\\]*)"`)

// operation returns what operation a file is of, from its header alone, of which each package
// has some hundred that are not its own; nothing where it does not say.
func operation(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	header := make([]byte, 4<<10) // the metadata is in front
	n, _ := io.ReadFull(f, header)
	if n < 8 {
		return ""
	}
	length := min(binary.LittleEndian.Uint64(header), uint64(n-8))
	if found := named.FindSubmatch(header[8 : 8+length]); found != nil {
		return string(found[1])
	}
	return ""
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

// unread says what a test left unread, and what to do about it.
func (f *File) unread() (left []string) {
	file := filepath.Base(f.path)
	for _, n := range f.file.Names() {
		if !f.read[n] {
			left = append(left, fmt.Sprintf("%s: tensor %s was not read: compare it, or Ignore it with a reason", file, n))
		}
	}
	for _, key := range f.Keys("") {
		if !f.told[key] && !isInformative(f.file.Metadata["op"], key) {
			left = append(left, fmt.Sprintf("%s: metadata %s = %.80q was not read: act on it (Meta, Number, Config, Sizes, Margin, …), or list it with a reason in internal/golden/informative.go if it is for readers alone", file, key, f.file.Metadata[key]))
		}
	}
	return left
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

// Width returns the last dimension of a tensor, none where the file lacks it.
func (f *File) Width(name string, none int) int {
	if !f.Has(name) {
		return none
	}
	s := f.Shape(name)
	return s[len(s)-1]
}

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

// Compare fails the test unless got agrees with a tensor within the file's
// tolerance, or within tol where one is given. A file may lack any expected value but not all:
// what it has under a name that the test does not know is unread, and fails.
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
	if f.lacks(name) {
		return
	}
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

// lacks notes an expected value that is compared, and tells whether the file lacks it.
func (f *File) lacks(name string) bool {
	f.t.Helper()
	if f.Has(name) {
		f.compared++
		return false
	}
	f.lacking = append(f.lacking, name)
	f.t.Logf("%s: not compared, the file lacks it", name)
	return true
}

// CompareInts fails the test unless got is a tensor, exactly; as with Compare, a file may lack it.
func (f *File) CompareInts(name string, got []int64) {
	f.t.Helper()
	if f.lacks(name) {
		return
	}
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
