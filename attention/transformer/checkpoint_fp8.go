package transformer

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// readQuantization reads how the weights of a file are quantized.
func (s *Shape) readQuantization(f section) {
	switch method := f.text("quant_method", ""); {
	case (method == "mxfp4" || method == "") && s.ModelType == "gpt_oss":
	case method == "":
		f.fail("quantization_config: no quant_method")
	case method == "fp8":
		if format := f.text("fmt", "e4m3"); format != "e4m3" && format != "float8_e4m3fn" {
			f.fail("quantization_config: weights of fp8 in the format %.100q are not read", format)
		}
		s.fp8 = []int{0, 0}
		if f.has("weight_block_size") {
			if s.fp8 = f.counts("weight_block_size", math.MaxInt32); len(s.fp8) != 2 || slices.Min(s.fp8) < 1 {
				f.fail("quantization_config: weight_block_size is %v, want two numbers of 1 or more", s.fp8)
				s.fp8 = nil
			}
		}
	default:
		f.fail("quantization_config: weights quantized by %.100q are not read", method)
	}
}

// scale multiplies a matrix of numbers of 8 bits by the scales of its blocks:
//
//	w[i,j] = w[i,j] scale[i/rows, j/cols]
//
// where there is one for each, of fp8's rows and columns, or one for all. Of a tensor with a
// matrix for each expert it is that of one, else expert is -1.
func (c *checkpoint) scale(name string, w blas32.General, expert int) {
	t := c.Tensors[name]
	if c.shape.fp8 == nil || c.Err != nil || t.Type != "F8_E4M3" && t.Type != "F8_E5M2" {
		return
	}
	scales := name + "_scale_inv"
	c.read[scales] = true
	rows, cols := c.shape.fp8[0], c.shape.fp8[1]
	if rows == 0 || cols == 0 {
		rows, cols = w.Rows, w.Cols
	}
	down, across := (w.Rows-1)/rows+1, (w.Cols-1)/cols+1
	shape := []int{down, across}
	if expert >= 0 {
		shape = []int{c.shape.Experts.Count, down, across}
	}
	s := c.Tensors[scales]
	switch {
	case s == nil:
		c.Fail("no tensor %s%s: %s has 8 bits", c.Prefix, scales, t.Name)
		return
	case s.Len() == 1 && down*across == 1 && expert < 0: // of any shape
	case !slices.Equal(s.Shape, shape):
		c.Fail("tensor %s has the shape %v, want %v", s.Name, s.Shape, shape)
		return
	}
	if expert >= 0 {
		s = s.Part(expert)
	}
	by, err := s.Float32()
	if err != nil {
		c.Fail("%v", err)
		return
	}
	for i := range w.Rows {
		row := mat.Row(w, i)
		for j := range across {
			part := row[j*cols : min((j+1)*cols, len(row))]
			asm.Scale(part, by[i/rows*across+j], part)
		}
	}
}
