package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/subquad/subquad/examples/internal/picture"
)

const (
	// least is the bottom of the picture: a line of smaller weights leaves it there.
	least = 1e-7
	// none stands for weights of 0, which have no logarithm: far below the bottom.
	none = 1e-300
)

// draw draws the last frame's weights with and without decay.
func draw(path string, trained int, results []*result) error {
	p, legend := plot.New(), picture.Legend()
	p.Title.Text = "Where the last frame of a long video looks: its weight on each frame, above 1e-07"
	p.X.Label.Text, p.Y.Label.Text = "frames back", "share of weight"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, picture.LogTicks{}
	frames := len(results[0].weights)
	area, err := plotter.NewPolygon(plotter.XYs{{X: 0, Y: least}, {X: 0, Y: 1}, {X: float64(trained), Y: 1}, {X: float64(trained), Y: least}})
	if err != nil {
		return err
	}
	area.Color, area.LineStyle.Width = color.RGBA{R: 0xe8, G: 0xee, B: 0xd8, A: 0xff}, 0
	p.Add(area)
	legend.Add(fmt.Sprintf("the %d frames of training", trained), area)
	for i, c := range []color.Color{picture.Orange, picture.Blue} {
		l := picture.Line{Name: results[i].name, Color: c, XY: make(plotter.XYs, frames)}
		for back := range l.XY {
			l.XY[back] = plotter.XY{X: float64(back), Y: max(results[i].weights[frames-1-back], none)}
		}
		if err := l.Add(p, legend); err != nil {
			return err
		}
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, float64(max(frames-1, 1)), least, 1
	p.X.Padding, p.Y.Padding = 0, 0
	return picture.Row(path, 10, 3.5, legend, p)
}
