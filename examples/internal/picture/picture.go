// Package picture is what the examples' charts have in common: lines with points, and
// several charts side by side in one file.
package picture

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/subquad/subquad/examples/internal/program"
)

// Line adds a line with a dot at each point, and its name to the legend.
func Line(p *plot.Plot, name string, xy plotter.XYs, c color.Color, width vg.Length) error {
	line, points, err := plotter.NewLinePoints(xy)
	if err != nil {
		return err
	}
	line.Color, line.Width = c, width
	points.Color, points.Shape = c, draw.CircleGlyph{}
	p.Add(line, points)
	p.Legend.Add(name, line, points)
	return nil
}

// Row writes a PNG of charts side by side.
func Row(path string, width, height vg.Length, charts ...*plot.Plot) error {
	canvas := vgimg.New(width, height)
	tiles := draw.Tiles{Rows: 1, Cols: len(charts), PadX: vg.Points(12), PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(12)}
	for i, c := range charts {
		c.Draw(tiles.At(draw.New(canvas), i, 0))
	}
	return Save(path, canvas)
}

// Save writes a PNG of what is drawn.
func Save(path string, canvas *vgimg.Canvas) error {
	return program.WriteFrom(path, vgimg.PngCanvas{Canvas: canvas})
}
