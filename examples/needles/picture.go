package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/subquad/subquad/examples/internal/picture"
)

// chart is recall against length, a line for each policy.
type chart struct {
	names []string
	lines map[string]plotter.XYs
}

// add adds a point to a line.
func (c *chart) add(name string, tokens int, recall float64) {
	if c.lines == nil {
		c.lines = map[string]plotter.XYs{}
	}
	if !slices.Contains(c.names, name) {
		c.names = append(c.names, name)
	}
	c.lines[name] = append(c.lines[name], plotter.XY{X: float64(tokens), Y: recall})
}

// shown are the lines of the picture; the tables have all.
var shown = [...][]struct {
	name  string
	color color.Color
	wide  bool
}{
	{
		{"tokenselect", picture.PaleGreen, true}, {"infllm", picture.Green, false}, {"window_tokenselect", picture.Blue, false}, {"yarn", picture.Orange, false},
		{"plain", picture.Black, false}, {"h2o", picture.Purple, false}, {"streaming", picture.Red, false}, {"sirllm", picture.Gray, false},
	},
	{
		{"TokenSelect", picture.PaleGreen, true}, {"Shadow", picture.Blue, false}, {"Quest", picture.Orange, false}, {"RetroInfer", picture.Green, false},
		{"StreamingLLM", picture.Red, false}, {"SirLLM", picture.Gray, false}, {"SnapKV, asked early", picture.PaleOrange, true}, {"SnapKV, asked late", picture.Purple, false},
	},
}

// draw draws the charts, above each other, each with its legend.
func draw(path string, charts []chart) error {
	legend := picture.Legend()
	var plots []*plot.Plot
	for i, c := range charts {
		p := plot.New()
		p.Title.Text = [...]string{"a Llama trained to 512 tokens", "needles among keys without a model"}[i]
		p.X.Label.Text, p.Y.Label.Text = "tokens", "recall"
		p.Add(plotter.NewGrid())
		var ticks plot.ConstantTicks
		first, last := 0.0, 0.0
		for _, s := range shown[i] {
			xy := c.lines[s.name]
			if len(xy) == 0 {
				continue
			}
			l := picture.Line{Name: s.name, Color: s.color, Wide: s.wide, Points: !s.wide, XY: xy}
			if err := l.Add(p, legend); err != nil {
				return err
			}
			for _, at := range xy {
				ticks = append(ticks, plot.Tick{Value: at.X, Label: label(int(at.X))})
				if first == 0 || at.X < first {
					first = at.X
				}
				last = max(last, at.X)
			}
		}
		if first == 0 {
			continue
		}
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticks
		p.X.Padding, p.Y.Padding = 0, 0
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = first/1.2, last*1.2, 0, 1.05
		plots = append(plots, p)
	}
	if len(plots) == 0 {
		return nil
	}
	return picture.Row(path, vg.Length(13), vg.Length(5), legend, plots...)
}

// label writes 2048 as 2k.
func label(n int) string {
	if n >= 1024 {
		return fmt.Sprintf("%dk", n/1024)
	}
	return fmt.Sprint(n)
}
