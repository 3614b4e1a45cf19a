package main

import (
	"bufio"
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/subquad/subquad/asm"
)

// print writes the table.
func (rep *report) print(w io.Writer, name string, window int) error {
	bases := 0
	for _, r := range rep.records {
		bases += r.bases
	}
	fmt.Fprintf(w, "%s: %d bases, windows of %d, kernels for %s\n", name, bases, window, asm.Active())
	if c := rep.composition; c.Lower+c.N+c.IUPAC+c.Uracil+c.Gap+c.Masked > 0 {
		fmt.Fprintf(w, "not A, C, G or T: %d N, %d other codes, %d U (read as T), %d gaps, %d that are no code (read as N); %d in lower case, read as upper\n",
			c.N, c.IUPAC, c.Uracil, c.Gap, c.Masked, c.Lower)
	}
	fmt.Fprintf(w, "\nbits per base (%d bases that are A, C, G or T)\n%9.5f  the genome\n%9.5f  its reverse complement\n%9.5f  a shuffled copy\n\n",
		rep.forward.count, rep.forward.value(), rep.reverse.value(), rep.shuffled.value())
	scored := rep.forward.count + rep.reverse.count + rep.shuffled.count
	_, err := fmt.Fprintf(w, "%.0f bases per second\n", float64(scored)/rep.elapsed.Seconds())
	return err
}

// bedGraph writes the surprise of the given strand, a mean for each bin.
func (rep *report) bedGraph(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "track type=bedGraph name=\"surprise\" description=\"bits per base, means of %d bases\"\n", binBases)
	for _, r := range rep.records {
		for i, m := range r.forward {
			if m.count > 0 {
				fmt.Fprintf(b, "%s\t%d\t%d\t%.4f\n", r.name, i*binBases, min((i+1)*binBases, r.bases), m.value())
			}
		}
	}
	return b.Flush()
}

// points is how many points a line of the picture has, about.
const points = 80

// draw writes the picture: the surprise of both strands along the genome, the
// records one after the other.
func (rep *report) draw(w io.Writer, name string) error {
	p := plot.New()
	p.Title.Text = "Where a genome model is surprised: " + name
	p.X.Label.Text, p.Y.Label.Text = "position, kb", "bits per base"
	total := 0
	for _, r := range rep.records {
		total += r.bases
	}
	smooth := max(total/binBases/points, 1)
	for _, s := range []struct {
		label string
		color color.Color
		bins  func(*record) []mean
	}{
		{"reverse strand", color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff}, func(r *record) []mean { return r.reverse }},
		{"forward strand", color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}, func(r *record) []mean { return r.forward }},
	} {
		at, label := 0, s.label
		for _, r := range rep.records {
			xy := track(s.bins(r), at, smooth)
			at += r.bases
			if len(xy) == 0 {
				continue
			}
			line, err := plotter.NewLine(xy)
			if err != nil {
				return err
			}
			line.Color, line.Width = s.color, vg.Points(1.2)
			p.Add(line)
			if label != "" {
				p.Legend.Add(label, line)
				label = ""
			}
		}
	}
	uniform, err := plotter.NewLine(plotter.XYs{{X: 0, Y: 2}, {X: float64(total) / 1000, Y: 2}})
	if err != nil {
		return err
	}
	uniform.Color, uniform.Dashes = color.Gray{Y: 0x80}, []vg.Length{vg.Points(4), vg.Points(3)}
	p.Add(uniform)
	p.Legend.Add("a uniform guess", uniform)
	p.Legend.Top = false
	p.Legend.Left = true
	p.Legend.Padding = vg.Points(2)
	canvas, err := p.WriterTo(9*vg.Inch, 3.5*vg.Inch, "png")
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(w)
	return err
}

// track returns the points of a record that begins at base at: means of smooth bins.
func track(bins []mean, at, smooth int) (xy plotter.XYs) {
	for i := 0; i < len(bins); i += smooth {
		var m mean
		end := min(i+smooth, len(bins))
		for _, b := range bins[i:end] {
			m.sum, m.count = m.sum+b.sum, m.count+b.count
		}
		if m.count > 0 {
			xy = append(xy, plotter.XY{X: (float64(at) + float64(i+end)/2*binBases) / 1000, Y: m.value()})
		}
	}
	return xy
}
