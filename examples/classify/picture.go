package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/subquad/subquad/examples/internal/picture"
)

const (
	columns      = 128 // bytes of the passage in a line
	cell         = 7.2 // points of a byte's width
	line         = 11  // and height
	margin       = 8
	chartsHeight = 150
	shown        = 8 // groups with a colour
)

// notes stand above the passage and below it.
var (
	methodNotes = []string{
		"ToMe .25: in each layer a quarter of the tokens merge, each into the one of all others that is most like it. local: into one at",
		"most 16 places away. average of 2: into a neighbour. if it pays: only in layers where merging saves more time than it takes.",
	}
	groupNotes = "The largest of these tokens. In quotes: the three letters that most often end at a byte of it, and how many times."
)

// draw draws the results, if there are any, and below them the passage, every byte
// of the largest groups in the colour of its group, and what these groups hold.
func draw(path string, results []*result, g *groups, verdict string) error {
	above := []string{fmt.Sprintf("A passage of %d bytes, %s.", len(g.text), verdict), fmt.Sprintf("Bytes of one colour ended up in one of its last %d tokens; smaller tokens have no colour.", len(g.sizes)), ""}
	if len(results) > 0 {
		above = append(append(slices.Clone(methodNotes), ""), above...)
	}
	lines := len(above) + (len(g.text)+columns-1)/columns + 2 + (min(shown, len(g.sizes))+1)/2
	width, height := vg.Length(columns*cell+2*margin), vg.Length(lines*line+2*margin)
	if len(results) > 0 {
		height += chartsHeight
	}
	canvas := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(84))
	all := vgdraw.New(canvas)
	if len(results) > 0 {
		top := vgdraw.Crop(all, margin, -margin, height-chartsHeight, -margin/2)
		if err := charts(top, results); err != nil {
			return err
		}
	}
	g.draw(vgdraw.Crop(all, margin, -margin, margin, -(height-vg.Length(lines*line)-margin)), above)
	return picture.Save(path, canvas)
}

// charts draws accuracy, token·layers and time side by side.
func charts(c vgdraw.Canvas, results []*result) error {
	tiles := vgdraw.Tiles{Rows: 1, Cols: 3, PadX: vg.Points(14)}
	for i, chart := range []struct {
		title, format string
		value         func(*result) float64
	}{
		{"accuracy on passages it has not seen", "%.3f", (*result).accuracy},
		{"tokens entering a layer, all layers", "%.0f", func(r *result) float64 { return float64(r.tokens) }},
		{"milliseconds a passage", "%.1f", (*result).milliseconds},
	} {
		p := plot.New()
		p.Title.Text, p.Title.TextStyle.Font.Size = chart.title, 10
		names, values := make([]string, len(results)), make(plotter.Values, len(results))
		for j, r := range results { // the first one on top
			names[len(results)-1-j], values[len(results)-1-j] = r.name, chart.value(r)
		}
		bars, err := plotter.NewBarChart(values, vg.Points(9))
		if err != nil {
			return err
		}
		bars.Horizontal, bars.LineStyle.Width = true, 0
		bars.Color = color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}
		p.Add(plotter.NewGrid(), bars)
		labels := plotter.XYLabels{}
		for j, v := range values {
			labels.XYs, labels.Labels = append(labels.XYs, plotter.XY{X: v, Y: float64(j)}), append(labels.Labels, fmt.Sprintf(" "+chart.format, v))
		}
		ends, err := plotter.NewLabels(labels)
		if err != nil {
			return err
		}
		for j := range ends.TextStyle {
			ends.TextStyle[j].Font.Size, ends.TextStyle[j].YAlign = 8, text.YCenter
		}
		p.Add(ends)
		p.X.Min, p.X.Max = 0, 1.2*slices.Max(values)
		p.NominalY(names...)
		p.Y.Min, p.Y.Max = -.6, float64(len(values))-.4
		p.Y.Tick.Label.Font.Size, p.X.Tick.Label.Font.Size = 8, 8
		p.Draw(tiles.At(c, i, 0))
	}
	return nil
}

// draw draws the text, with lines above it, and its legend.
func (g *groups) draw(c vgdraw.Canvas, above []string) {
	style := text.Style{
		Color: color.Black, XAlign: text.XCenter, YAlign: text.YCenter, Handler: plot.DefaultTextHandler,
		Font: font.Font{Typeface: "Liberation", Variant: "Mono", Size: 8.5},
	}
	// at draws a letter on the colour of a group.
	at := func(column, row int, letter byte, group int) {
		x, y := c.Min.X+vg.Length(column)*cell, c.Max.Y-vg.Length(row+1)*line
		if group < shown {
			c.FillPolygon(colors[group], []vg.Point{{X: x, Y: y}, {X: x + cell, Y: y}, {X: x + cell, Y: y + line}, {X: x, Y: y + line}})
		}
		if letter != ' ' {
			c.FillText(style, vg.Point{X: x + cell/2, Y: y + line/2}, string(letter))
		}
	}
	write := func(column, row int, s string) {
		for i, letter := range []byte(s) {
			at(column+i, row, letter, shown)
		}
	}
	row := 0
	for _, s := range above {
		write(0, row, s)
		row++
	}
	for t := range len(g.text) {
		letter := g.text[t]
		if letter < ' ' || letter > '~' {
			letter = '?'
		}
		at(t%columns, row+t/columns, letter, g.of[t])
	}
	row += (len(g.text)+columns-1)/columns + 1
	write(0, row, groupNotes)
	row++
	for group, size := range g.sizes[:min(shown, len(g.sizes))] {
		column, below := group%2*columns/2, row+group/2
		at(column, below, ' ', group)
		write(column+1, below, fmt.Sprintf("%4d bytes:%s", size, g.frequent(group, 4)))
	}
}

// colors are those of the largest groups; the others have none.
var colors = [shown]color.Color{
	color.RGBA{R: 0xff, G: 0xb3, B: 0x6b, A: 0xff}, color.RGBA{R: 0x8f, G: 0xc1, B: 0xf5, A: 0xff},
	color.RGBA{R: 0x9f, G: 0xde, B: 0x90, A: 0xff}, color.RGBA{R: 0xf2, G: 0x9a, B: 0x9a, A: 0xff},
	color.RGBA{R: 0xcf, G: 0xb0, B: 0xee, A: 0xff}, color.RGBA{R: 0xf5, G: 0xe0, B: 0x70, A: 0xff},
	color.RGBA{R: 0x7f, G: 0xdc, B: 0xd6, A: 0xff}, color.RGBA{R: 0xe6, G: 0xb8, B: 0xcf, A: 0xff},
}
