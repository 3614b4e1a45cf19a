package picture

import (
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// TestRow looks for the colour of a wide line beside that of the one that lies on it, and
// for a legend that lies beside the chart.
func TestRow(t *testing.T) {
	p, legend := plot.New(), Legend()
	xy := plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}
	for _, l := range []Line{{Name: "under", Color: PaleOrange, Wide: true, XY: xy}, {Name: "over", Color: Blue, Dashes: true, Points: true, XY: xy}, {Name: "none"}} {
		if err := l.Add(p, legend); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "x.png")
	if err := Row(path, 5, 3, legend, p, plot.New()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	size := img.Bounds().Size()
	count := func(from, to int, want [3]uint32) (n int) {
		for x := from; x < to; x++ {
			for y := range size.Y {
				if r, g, b, _ := img.At(x, y).RGBA(); [3]uint32{r >> 8, g >> 8, b >> 8} == want {
					n++
				}
			}
		}
		return n
	}
	pale, blue := [3]uint32{0xf5, 0xc8, 0x95}, [3]uint32{0x1f, 0x5f, 0xa8}
	if size != (image.Point{X: 480, Y: 288}) || count(0, 200, pale) < 100 || count(0, 200, blue) < 50 || count(400, 480, pale) < 50 || count(400, 480, blue) < 10 {
		t.Errorf("%v: %d and %d of the chart, %d and %d of the legend", size, count(0, 200, pale), count(0, 200, blue), count(400, 480, pale), count(400, 480, blue))
	}
	if err := Row("/nosuch/dir/x.png", 5, 3, legend, p); err == nil {
		t.Error("no error")
	}
}
