package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// Depthwise is a convolution of an image's channels, each with a kernel of its own, of odd
// sides and 0 outside the image. Pixels are rows, line after line.
type Depthwise struct {
	taps []blas32.General // of each line of the kernel, [width, C]
	bias []float32        // [C], or none
}

// NewDepthwise packs a weight [C, height*width], a checkpoint's [C, 1, height, width], with a
// bias [C] or nil.
func NewDepthwise(weight blas32.General, bias []float32, height, width int) *Depthwise {
	d := &Depthwise{bias: bias}
	for y := range height {
		taps := mat.New(width, weight.Rows)
		for x := range width {
			row := mat.Row(taps, x)
			for c := range row {
				row[c] = mat.Row(weight, c)[y*width+x]
			}
		}
		d.taps = append(d.taps, taps)
	}
	return d
}

// margin is how far the kernel reaches to each side.
func (d *Depthwise) margin() int { return d.taps[0].Rows / 2 }

// Floats returns the working memory of Line for a line of so many pixels.
func (d *Depthwise) Floats(width int) int {
	return 3 * (width + 2*d.margin()) * d.taps[0].Cols
}

// Line returns line y of the convolution of an image x [height*width, C], in work.
func (d *Depthwise) Line(x blas32.General, y, height, width int, work []float32) blas32.General {
	margin, channels := d.margin(), d.taps[0].Cols
	long := width + 2*margin
	padded, part, sum := mat.Of(work, long, channels), mat.Of(work[long*channels:], long, channels), mat.Of(work[2*long*channels:], long, channels)
	for t := range long {
		clear(mat.Row(sum, t))
		copy(mat.Row(sum, t), d.bias)
	}
	clear(padded.Data)
	for i, taps := range d.taps {
		line := y + i - len(d.taps)/2
		if line < 0 || line >= height {
			continue
		}
		for t := range width {
			copy(mat.Row(padded, t+margin), mat.Row(x, line*width+t))
		}
		asm.DepthwiseConv(part, padded, taps, nil, blas32.General{})
		asm.Add(sum.Data, sum.Data, part.Data)
	}
	// DepthwiseConv is causal: token t's result stands 2 margins after it.
	return mat.Rows(sum, 2*margin, long)
}

// Bytes returns the memory of the weights.
func (d *Depthwise) Bytes() int64 {
	return 4 * int64(len(d.taps)*d.taps[0].Rows*d.taps[0].Cols+len(d.bias))
}
