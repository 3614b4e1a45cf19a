package main

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/subquad/subquad/examples/internal/picture"
)

// colors of the methods.
var colors = map[string]color.Color{
	exactly: color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff},
	pooled:  color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff},
	counted: color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff},
	levels:  color.RGBA{R: 0x3a, G: 0x9a, B: 0x5c, A: 0xff},
	blocks:  color.RGBA{R: 0xa8, G: 0x3a, B: 0x8c, A: 0xff},
}

// draw draws the time and the error for each kind of sequences against their
// length.
func draw(path string, results []*result) error {
	charts := []*plot.Plot{chart("time", "seconds")}
	err := lines(charts[0], results, func(r *result) (float64, bool) { return r.seconds, true })
	for i := range kinds {
		c := chart("error, "+kinds[i].name, "|out - exact| / |exact|")
		charts = append(charts, c)
		if err == nil {
			err = lines(c, results, func(r *result) (float64, bool) {
				return mean(r, i), r.method != exactly && r.reports[i] != nil
			})
		}
	}
	if err != nil {
		return err
	}
	charts[0].Legend.Top, charts[0].Legend.Left = true, true
	for _, c := range charts {
		c.Legend.Padding = vg.Points(2)
	}
	return picture.Row(path, 13*vg.Inch, 4*vg.Inch, charts...)
}

// least is the bottom of the charts of errors, a rounding error.
const least = 1e-7

func mean(r *result, kind int) float64 {
	if r.reports[kind] == nil {
		return 0
	}
	return max(r.reports[kind].Mean, least)
}

func chart(title, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "tokens", y
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: 1}, plot.LogTicks{Prec: 1}
	p.X.Padding, p.Y.Padding = 0, 0
	p.Add(plotter.NewGrid())
	return p
}

// lines adds a line for each method that has values above 0.
func lines(p *plot.Plot, results []*result, value func(*result) (float64, bool)) error {
	low, high := 1e300, 0.0
	for _, name := range []string{exactly, pooled, counted, levels, blocks} {
		var xy plotter.XYs
		for _, r := range results {
			if y, ok := value(r); ok && r.method == name && y > 0 {
				xy = append(xy, plotter.XY{X: float64(r.tokens), Y: y})
				low, high = min(low, y), max(high, y)
			}
		}
		if len(xy) == 0 {
			continue
		}
		if err := picture.Line(p, name, xy, colors[name], vg.Points(1.5)); err != nil {
			return err
		}
	}
	first, last := float64(results[0].tokens), float64(results[len(results)-1].tokens)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = first/1.2, last*1.2, low/1.5, high*1.5
	return nil
}
