package main

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/subquad/subquad/examples/internal/picture"
)

// styles of the results, in their order. Paged keys take as much memory as others of their
// type, so that the wide line is seen under the dashed one.
var styles = []struct {
	color        color.Color
	wide, dashes bool
}{
	{picture.Blue, false, false}, {picture.PaleOrange, true, false}, {picture.Gray, false, true},
	{picture.Green, false, false}, {picture.Red, false, false},
	{picture.Purple, false, false}, {picture.Purple, false, true}, {picture.Orange, false, false}, {picture.Black, false, false}, {picture.Red, false, true},
}

// draw draws tokens per second and memory against the length of the context, side
// by side.
func draw(path string, results []*result) error {
	legend := picture.Legend()
	speed, err := panel("One more token: tokens per second", "tokens/s", legend, results, (*point).rate)
	if err != nil {
		return err
	}
	memory, err := panel("The past it looks at: megabytes", "MB", nil, results, func(p *point) float64 { return float64(p.bytes) / 1e6 })
	if err != nil {
		return err
	}
	return picture.Row(path, 11, 4, legend, speed, memory)
}

func panel(title, label string, legend *plot.Legend, results []*result, value func(*point) float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "tokens of context", label
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, picture.LogTicks{}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, picture.LogTicks{}
	for i, r := range results {
		s := styles[i%len(styles)]
		l := picture.Line{Name: r.name, Color: s.color, Wide: s.wide, Dashes: s.dashes, Points: !s.wide, XY: make(plotter.XYs, len(r.points))}
		for j := range r.points {
			l.XY[j] = plotter.XY{X: float64(r.points[j].tokens), Y: value(&r.points[j])}
		}
		if err := l.Add(p, legend); err != nil {
			return nil, err
		}
	}
	return p, nil
}
