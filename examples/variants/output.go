package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// print tells what was found.
func (st *stretch) print(w io.Writer, table, picture string) error {
	order := make([]int, len(st.variants))
	mean := 0.0
	for i, s := range st.scores {
		order[i] = i
		mean += s.Ratio() / float64(len(st.scores))
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch d := st.scores[a].Ratio() - st.scores[b].Ratio(); {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return 0
	})
	fmt.Fprintf(w, "%s, bases %d to %d: %d changes of a single base, mean ln ratio %.3f\n", st.contig, st.from, st.from+len(st.text)-1, len(st.variants), mean)
	show := func(title string, list []int) {
		fmt.Fprintf(w, "%s\n", title)
		for _, i := range list {
			v := st.variants[i]
			fmt.Fprintf(w, "%9.3f  %d %s>%s\n", st.scores[i].Ratio(), v.Position, v.Ref, v.Alt)
		}
	}
	n := min(5, len(order))
	show("least likely", order[:n])
	slices.Reverse(order)
	show("most likely", order[:n])
	_, err := fmt.Fprintf(w, "%.0f changes per second\nwrote %s and %s\n", float64(len(st.variants))/st.elapsed.Seconds(), table, picture)
	return err
}

// grid is the heat map's: a column for each base, a row for each that may stand there.
type grid struct {
	*stretch
	ratio map[[2]int]float64
}

func (g grid) Dims() (columns, rows int) { return len(g.text), len(bases) }
func (g grid) X(c int) float64           { return float64(g.from + c) }
func (g grid) Y(r int) float64           { return float64(r) }

// Z is 0 where the base is the genome's own, and NaN where it has none.
func (g grid) Z(c, r int) float64 {
	if v, ok := g.ratio[[2]int{c, r}]; ok {
		return v
	}
	if g.text[c] == bases[r] {
		return 0
	}
	return math.NaN()
}

// rows are the names of the heat map's rows.
type rows struct{}

func (rows) Ticks(_, _ float64) (list []plot.Tick) {
	for i := range bases {
		list = append(list, plot.Tick{Value: float64(i), Label: bases[i : i+1]})
	}
	return list
}

// positions are the marks of whole positions.
type positions struct{}

func (positions) Ticks(low, high float64) []plot.Tick {
	list := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range list {
		if t.Label != "" {
			list[i].Label = fmt.Sprintf("%.0f", t.Value)
		}
	}
	return list
}

// draw writes the heat map.
func (st *stretch) draw(w io.Writer) error {
	g := grid{st, map[[2]int]float64{}}
	largest := 1e-6
	for i, v := range st.variants {
		r := st.scores[i].Ratio()
		g.ratio[[2]int{int(v.Position) - st.from, strings.Index(bases, v.Alt)}] = r
		largest = max(largest, math.Abs(r))
	}
	colors := moreland.SmoothBlueRed()
	colors.SetMin(-1)
	colors.SetMax(1)
	heat := plotter.NewHeatMap(g, colors.Palette(255))
	heat.Min, heat.Max, heat.NaN = -largest, largest, color.Gray{Y: 0x80}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("ln how many times as likely with another base: %s (blue: less, red: more, at most %.1f)", st.contig, largest)
	p.X.Label.Text, p.Y.Label.Text = "position", "base"
	p.X.Tick.Marker, p.Y.Tick.Marker = positions{}, rows{}
	p.Add(heat)
	const most = 16 // inches
	width := min(most, 4+vg.Length(len(st.text))/10)
	canvas, err := p.WriterTo(max(8, width)*vg.Inch, 2.4*vg.Inch, "png")
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(w)
	return err
}
