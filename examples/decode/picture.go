package main

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/subquad/subquad/examples/internal/picture"
)

var colors = []color.Color{
	color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}, color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff},
	color.RGBA{R: 0x7a, G: 0x7a, B: 0x7a, A: 0xff}, color.RGBA{R: 0x3a, G: 0x8f, B: 0x4f, A: 0xff},
	color.RGBA{R: 0xb0, G: 0x3a, B: 0x3a, A: 0xff},
}

// draw draws tokens per second and memory against the length of the context, side
// by side.
func draw(path string, results []*result) error {
	speed, err := panel("One more token", "tokens per second", results, (*point).rate)
	if err != nil {
		return err
	}
	memory, err := panel("The past it looks at", "MB", results, func(p *point) float64 { return float64(p.bytes) / 1e6 })
	if err != nil {
		return err
	}
	memory.Legend.Left = true
	canvas := vgimg.New(10*vg.Inch, 4*vg.Inch)
	tiles := vgdraw.Tiles{Rows: 1, Cols: 2, PadX: vg.Points(12), PadRight: vg.Points(8)}
	plots := [][]*plot.Plot{{speed, memory}}
	for i, c := range plot.Align(plots, tiles, vgdraw.New(canvas))[0] {
		plots[0][i].Draw(c)
	}
	return picture.Save(path, canvas)
}

func panel(title, label string, results []*result, value func(*point) float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "tokens of context", label
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	for i, r := range results {
		xy := make(plotter.XYs, len(r.points))
		for j := range r.points {
			xy[j] = plotter.XY{X: float64(r.points[j].tokens), Y: value(&r.points[j])}
		}
		line, points, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colors[i%len(colors)], vg.Points(1.5)
		points.Color, points.Radius = line.Color, vg.Points(2)
		p.Add(line, points)
		p.Legend.Add(r.name, line)
	}
	p.Legend.Top, p.Legend.Padding = true, vg.Points(2)
	return p, nil
}
