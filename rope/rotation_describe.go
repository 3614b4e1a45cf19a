package rope

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/subquad/subquad/internal/check"
)

// Pair is what a rotation does to one pair of features.
type Pair struct {
	// Axis is the coordinate of the position that turns it.
	Axis int
	// Frequency is in radians per position, Wavelength in positions per turn.
	Frequency, Wavelength float64
	// Stretch is the wavelength in units of what it would be without a scheme: 1 for
	// a pair whose frequency is kept, more for one that is interpolated, +Inf for one
	// that does not rotate.
	Stretch float64
}

// Pairs returns all pairs, in their order. For learned frequencies it has those of
// every head and axis, [heads, axes, RotaryDim/2], without a Stretch.
func (r *Rotation) Pairs() []Pair {
	list := make([]Pair, len(r.freq))
	for i, f := range r.freq {
		p := Pair{Frequency: f, Wavelength: 2 * math.Pi / math.Abs(f)}
		if r.axis != nil {
			p.Axis = r.axis[i]
			p.Stretch = r.plain[i] / f
		} else {
			p.Axis = i / r.pairs % r.axes
		}
		list[i] = p
	}
	return list
}

// Describe writes the rotation in words and a line for each pair: frequency,
// wavelength, and whether it is kept, stretched or left alone. Errors match ErrCall or are
// those of w.
func (r *Rotation) Describe(w io.Writer) error {
	if err := check.Stream(ErrCall, "rope", "writer", w); err != nil {
		return err
	}
	fmt.Fprintln(w, r)
	fmt.Fprintf(w, "attention factor %.6g\n", r.factor)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "pair\taxis\tradians\twavelength\t")
	for i, p := range r.Pairs() {
		what := "kept"
		switch {
		case r.axis == nil:
			what = fmt.Sprintf("learned, head %d", i/(r.pairs*r.terms))
		case p.Frequency == 0:
			what = "not rotated"
		case math.Abs(p.Stretch-1) > 1e-6:
			what = fmt.Sprintf("stretched %.4g times", p.Stretch)
		}
		fmt.Fprintf(t, "%d\t%d\t%.6g\t%.6g\t  %s\n", i%r.pairs, p.Axis, p.Frequency, p.Wavelength, what)
	}
	return t.Flush()
}
