package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/subquad/subquad/examples/internal/picture"
)

// chart is the recall of all methods in a task.
type chart struct {
	title   string
	results []*result
}

// colors of the methods.
var colors = map[string]color.Color{
	vanilla: picture.Black, deltaRatio: picture.Orange, deciMamba: picture.PaleGreen, longMamba: picture.Blue,
}

// draw draws recall against length, a chart for each task.
func draw(path string, charts []chart) error {
	legend := picture.Legend()
	var plots []*plot.Plot
	for i, c := range charts {
		l := legend
		if i > 0 {
			l = nil // the same lines
		}
		p, err := c.plot(l)
		if err != nil {
			return err
		}
		plots = append(plots, p)
	}
	return picture.Row(path, 12, 4, legend, plots...)
}

func (c *chart) plot(legend *plot.Legend) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, "tokens; trained at 128", "recall"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, powers(c.results)
	p.X.Padding, p.Y.Padding = 0, 0
	p.Add(plotter.NewGrid())
	for k, name := range names {
		wide := name == deciMamba // seen under LongMamba's
		l := picture.Line{Name: name, Color: colors[name], Wide: wide, Points: !wide}
		for _, r := range c.results {
			l.XY = append(l.XY, plotter.XY{X: float64(r.tokens), Y: r.recall[k]})
		}
		if err := l.Add(p, legend); err != nil {
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
