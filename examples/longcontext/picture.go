package main

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/subquad/subquad/examples/internal/picture"
)

// styles of the methods, those that others may lie on first.
var styles = []struct {
	name         string
	color        color.Color
	wide, dashes bool
}{
	{exactly, picture.Black, false, false},
	{pooled, picture.PaleOrange, true, false},
	{counted, picture.Blue, false, true},
	{levels, picture.Green, false, false},
	{blocks, picture.Purple, false, false},
	{window, picture.Gray, false, true},
	{chosen, picture.Red, false, false},
	{slashes, picture.Orange, false, true},
	{means, picture.PaleGreen, true, false},
	{mixed, picture.Purple, false, true},
}

// draw draws the time and the error for each kind of sequences against their
// length.
func draw(path string, results []*result) error {
	legend := picture.Legend()
	charts := []*plot.Plot{chart("time", "seconds")}
	err := lines(charts[0], legend, results, func(r *result) (float64, bool) { return r.seconds, true })
	for i := range kinds {
		c := chart(kinds[i].name+": |out - exact| / |exact|, at least 1e-07", "error")
		charts = append(charts, c)
		if err == nil {
			err = lines(c, nil, results, func(r *result) (float64, bool) {
				return mean(r, i), r.method != exactly && r.reports[i] != nil
			})
		}
	}
	if err != nil {
		return err
	}
	return picture.Row(path, 15, 4, legend, charts...)
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
	p.X.Tick.Marker, p.Y.Tick.Marker = picture.LogTicks{}, picture.LogTicks{}
	p.X.Padding, p.Y.Padding = 0, 0
	p.Add(plotter.NewGrid())
	return p
}

// lines adds a line for each method that has values above 0.
func lines(p *plot.Plot, legend *plot.Legend, results []*result, value func(*result) (float64, bool)) error {
	low, high := 1e300, 0.0
	for _, s := range styles {
		l := picture.Line{Name: s.name, Color: s.color, Wide: s.wide, Dashes: s.dashes, Points: !s.wide}
		for _, r := range results {
			if y, ok := value(r); ok && r.method == s.name && y > 0 {
				l.XY = append(l.XY, plotter.XY{X: float64(r.tokens), Y: y})
				low, high = min(low, y), max(high, y)
			}
		}
		if err := l.Add(p, legend); err != nil {
			return err
		}
	}
	first, last := float64(results[0].tokens), float64(results[len(results)-1].tokens)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = first/1.2, last*1.2, low/1.5, high*1.5
	return nil
}
