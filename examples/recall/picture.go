package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/subquad/subquad/examples/internal/picture"
)

// chart is the recall of all methods in a task.
type chart struct {
	title   string
	results []*result
}

// colors of the methods.
var colors = map[string]color.Color{
	vanilla:    color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff},
	deltaRatio: color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff},
	deciMamba:  color.RGBA{R: 0x9c, G: 0xcf, B: 0xa8, A: 0xff},
	longMamba:  color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff},
}

// draw draws recall against length, a chart for each task.
func draw(path string, charts []chart) error {
	var plots []*plot.Plot
	for _, c := range charts {
		p, err := c.plot()
		if err != nil {
			return err
		}
		plots = append(plots, p)
	}
	return picture.Row(path, 11*vg.Inch, 4*vg.Inch, plots...)
}

func (c *chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, "tokens; trained at 128", "recall"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, powers(c.results)
	p.X.Padding, p.Y.Padding = 0, 0
	p.Legend.Padding, p.Legend.Left = vg.Points(2), true
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(6), vg.Points(6)
	p.Add(plotter.NewGrid())
	for k, name := range names {
		var xy plotter.XYs
		for _, r := range c.results {
			xy = append(xy, plotter.XY{X: float64(r.tokens), Y: r.recall[k]})
		}
		width := vg.Points(1.5)
		if name == deciMamba { // seen behind LongMamba's
			width = vg.Points(5)
		}
		if err := picture.Line(p, name, xy, colors[name], width); err != nil {
			return nil, err
		}
	}
	first, last := float64(c.results[0].tokens), float64(c.results[len(c.results)-1].tokens)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = first/1.2, last*1.2, 0, 1.05
	return p, nil
}

// powers are ticks at the lengths.
func powers(results []*result) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, r := range results {
		ticks = append(ticks, plot.Tick{Value: float64(r.tokens), Label: label(r.tokens)})
	}
	return ticks
}

// label writes 2048 as 2k.
func label(n int) string {
	if n >= 1024 {
		return fmt.Sprintf("%dk", n/1024)
	}
	return fmt.Sprint(n)
}
