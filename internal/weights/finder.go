package weights

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Finder finds the tensors of a checkpoint by the names they have in a package,
// whatever layout the file has, and checks their shapes. Its first error stays, so
// that a caller may look at it once, at the end.
type Finder struct {
	// Tensors are the tensors by their names in the package.
	Tensors map[string]*Tensor
	// Prefix is what stands before a layer's names in the file, for errors.
	Prefix string
	// Err is the first error.
	Err error

	pkg   string
	kind  error
	found bool // a tensor that was looked for is there
}

// NewFinder returns a Finder without tensors, whose errors name pkg and match kind.
func NewFinder(pkg string, kind error) Finder {
	return Finder{Tensors: map[string]*Tensor{}, pkg: pkg, kind: kind}
}

// Add gives a tensor its name in the package.
func (c *Finder) Add(name string, t *Tensor) {
	if old := c.Tensors[name]; old != nil {
		c.Fail("%s and %s are the same tensor", old.Name, t.Name)
	}
	c.Tensors[name] = t
}

// Fail notes an error.
func (c *Finder) Fail(format string, args ...any) {
	if c.Err == nil {
		c.Err = check.Errorf(c.kind, "%s: checkpoint: %s", c.pkg, fmt.Sprintf(format, args...))
	}
}

// find returns a tensor that can be read, or notes that it is missing (as says what
// shape it should have), or what it is.
func (c *Finder) find(name, as string) *Tensor {
	t := c.Tensors[name]
	switch {
	case t == nil:
		c.Fail("no tensor %s%s%s%s", c.Prefix, name, as, c.Others())
		return nil
	case t.what != "":
		c.Fail("tensor %.200s is %s, which is not read", t.Name, t.what)
		return nil
	}
	c.found = true
	return t
}

// Others lists names of the file, if it has had none of those looked for: they may be
// those of another program.
func (c *Finder) Others() string {
	switch {
	case c.found || c.Err != nil:
		return ""
	case len(c.Tensors) == 0:
		return "; the file has no tensors"
	}
	names := make([]string, 0, len(c.Tensors))
	for _, t := range c.Tensors {
		names = append(names, fmt.Sprintf("%.100s", t.Name))
	}
	slices.Sort(names)
	return "; the file has " + listed(names)
}

// Has tells whether there is a tensor, be it one that cannot be read.
func (c *Finder) Has(name string) bool { return c.Tensors[name] != nil }

// Dim returns a dimension of a tensor of two or more, counted from the last where
// at is negative.
func (c *Finder) Dim(name string, at int) int {
	t := c.find(name, " of two dimensions or more")
	if t == nil {
		return 0
	}
	if len(t.Shape) < 2 {
		c.Fail("tensor %s has the shape %v, want two dimensions or more", t.Name, t.Shape)
		return 0
	}
	return t.Shape[(at+len(t.Shape))%len(t.Shape)]
}

// Matrix returns a tensor of rows x cols, taking their product from any shape of
// which those are the first and last dimensions; negative ones may be anything.
func (c *Finder) Matrix(name string, rows, cols int) blas32.General {
	t := c.find(name, "")
	if t == nil {
		return blas32.General{}
	}
	rank := len(t.Shape)
	ok := rank >= 2 && t.Shape[0]*t.Shape[rank-1] == t.Len() && t.Len() > 0
	if ok && rows < 0 {
		rows = t.Shape[0]
	}
	if ok && cols < 0 {
		cols = t.Shape[rank-1]
	}
	if !ok || t.Shape[0] != rows || t.Shape[rank-1] != cols {
		c.Fail("tensor %s has the shape %v, want %s", t.Name, t.Shape, shapeText(rows, cols))
		return blas32.General{}
	}
	return mat.Of(c.elements(t), rows, cols)
}

// Vector returns a tensor of n elements, whatever its dimensions; a negative n
// may be anything.
func (c *Finder) Vector(name string, n int) []float32 {
	t := c.find(name, "")
	switch {
	case t == nil:
		return nil
	case n >= 0 && t.Len() != n:
		c.Fail("tensor %s has the shape %v, want %s", t.Name, t.Shape, shapeText(n))
		return nil
	}
	return c.elements(t)
}

// elements returns those of a tensor, or notes why they cannot be read.
func (c *Finder) elements(t *Tensor) []float32 {
	data, err := t.Float32()
	if err != nil {
		c.Fail("%v", err)
		return make([]float32, t.Len())
	}
	return data
}

// shapeText writes a shape, "any" for what is negative.
func shapeText(dims ...int) string {
	var b strings.Builder
	for _, d := range dims {
		if d < 0 {
			b.WriteString(" any")
		} else {
			fmt.Fprintf(&b, " %d", d)
		}
	}
	return "[" + b.String()[1:] + "]"
}
