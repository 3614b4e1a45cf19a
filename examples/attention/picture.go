package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// least is the bottom of the picture: weights below it are drawn there.
const least = 1e-7

// draw draws the last frame's weights with and without decay.
func draw(path string, trained int, results []*result) error {
	p := plot.New()
	p.Title.Text = "Where the last frame of a long video looks"
	p.X.Label.Text, p.Y.Label.Text = "frames back", "share of its weight"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 1}
	p.Y.Min, p.Y.Max = least, 1
	frames := len(results[0].weights)
	area, err := plotter.NewPolygon(plotter.XYs{{X: 0, Y: least}, {X: 0, Y: 1}, {X: float64(trained), Y: 1}, {X: float64(trained), Y: least}})
	if err != nil {
		return err
	}
	area.Color, area.LineStyle.Width = color.RGBA{R: 0xe8, G: 0xee, B: 0xd8, A: 0xff}, 0
	p.Add(area)
	p.Legend.Add(fmt.Sprintf("the %d frames of training", trained), area)
	colors := []color.Color{color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff}, color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}}
	for i, c := range colors {
		xy := make(plotter.XYs, frames)
		for back := range xy {
			xy[back] = plotter.XY{X: float64(back), Y: max(results[i].weights[frames-1-back], least)}
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return err
		}
		line.Color, line.Width = c, vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(results[i].name, line)
	}
	p.Legend.Top, p.Legend.Padding = true, vg.Points(2)
	return p.Save(9*vg.Inch, 3.5*vg.Inch, path)
}
