// Package picture is what the examples' pictures have in common: charts side by side, with
// one legend beside them that lies on no line, and lines that can be told apart where one
// lies on another.
package picture

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/subquad/subquad/examples/internal/program"
)

// Colors of lines.
var (
	Black  = color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff}
	Orange = color.RGBA{R: 0xe0, G: 0x8b, B: 0x3a, A: 0xff}
	Blue   = color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}
	Green  = color.RGBA{R: 0x3a, G: 0x9a, B: 0x5c, A: 0xff}
	Purple = color.RGBA{R: 0xa8, G: 0x3a, B: 0x8c, A: 0xff}
	Red    = color.RGBA{R: 0xb0, G: 0x3a, B: 0x3a, A: 0xff}
	Gray   = color.RGBA{R: 0x7a, G: 0x7a, B: 0x7a, A: 0xff}
	// Pale ones, of wide lines that lie under others.
	PaleOrange = color.RGBA{R: 0xf5, G: 0xc8, B: 0x95, A: 0xff}
	PaleGreen  = color.RGBA{R: 0x9c, G: 0xcf, B: 0xa8, A: 0xff}
)

// Line is a line of a chart.
type Line struct {
	Name   string
	Color  color.Color
	Wide   bool // wide, and to be seen where another lies on it
	Dashes bool
	Points bool // with a dot at each point
	XY     plotter.XYs
}

// Add adds a line to a chart and, where legend is not nil, to the legend.
func (l *Line) Add(p *plot.Plot, legend *plot.Legend) error {
	if len(l.XY) == 0 {
		return nil
	}
	line, points, err := plotter.NewLinePoints(l.XY)
	if err != nil {
		return err
	}
	line.Color, line.Width = l.Color, vg.Points(1.5)
	if l.Wide {
		line.Width = vg.Points(5)
	}
	if l.Dashes {
		line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	p.Add(line)
	shown := []plot.Thumbnailer{line}
	if l.Points {
		points.Color, points.Shape, points.Radius = l.Color, draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(points)
		shown = append(shown, points)
	}
	if legend != nil {
		legend.Add(l.Name, shown...)
	}
	return nil
}

// Legend returns an empty legend.
func Legend() *plot.Legend {
	l := plot.NewLegend()
	l.Left, l.Top, l.Padding = true, true, vg.Points(3)
	return &l
}

// LogTicks are ticks of a logarithmic axis, none of them beyond its ends, where their labels
// would take room from the chart.
type LogTicks struct{}

// Ticks implements plot.Ticker.
func (LogTicks) Ticks(low, high float64) []plot.Tick {
	ticks := slices.DeleteFunc(plot.LogTicks{Prec: -1}.Ticks(low, high), func(t plot.Tick) bool {
		return t.Value < low*(1-1e-9) || t.Value > high*(1+1e-9)
	})
	for i, t := range ticks {
		if t.Label == "" {
			continue
		}
		ticks[i].Label = fmt.Sprintf("%.3g", t.Value) // powers of ten, but for rounding
		if t.Value >= 1000 && t.Value < 1e7 {
			ticks[i].Label = fmt.Sprintf("%.0f", t.Value)
		}
	}
	return ticks
}

// Row writes a PNG of charts side by side, with the legend to the right of them; it is so many
// inches wide and high.
func Row(path string, width, height vg.Length, legend *plot.Legend, charts ...*plot.Plot) error {
	canvas := vgimg.New(width*vg.Inch, height*vg.Inch)
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Rectangle.Path())
	const margin = 8
	right := legend.Rectangle(all).Size().X + 3*margin
	tiles := draw.Tiles{Rows: 1, Cols: len(charts), PadX: vg.Points(16), PadTop: margin, PadBottom: margin, PadLeft: margin, PadRight: margin}
	aligned := plot.Align([][]*plot.Plot{charts}, tiles, draw.Crop(all, 0, -right, 0, 0))[0]
	for i, c := range charts {
		c.Draw(aligned[i])
	}
	legend.Draw(draw.Crop(all, width*vg.Inch-right+margin, -margin, 0, -4*margin))
	return Save(path, canvas)
}

// Save writes a PNG of what is drawn.
func Save(path string, canvas *vgimg.Canvas) error {
	return program.WriteFrom(path, vgimg.PngCanvas{Canvas: canvas})
}
