package transformer

import "math"

// mxBlock is how many numbers of MXFP4 share a scale (OCP Microscaling Formats, 2023).
const mxBlock = 32

// fp4 are the numbers of four bits: a sign, two bits of exponent, one of fraction.
var fp4 = [16]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6}

// decodeMXFP4 sets dst to the numbers of blocks of 16 bytes with a scale each: byte b of a
// block has number 2b in its low bits and 2b+1 in its high bits, in units of 2^(scale-127).
// A scale of 255 is NaN.
func decodeMXFP4(dst []float32, blocks, scales []byte) {
	for i := range len(dst) / mxBlock {
		unit := float32(math.Ldexp(1, int(scales[i])-127))
		if scales[i] == 255 {
			unit = float32(math.NaN())
		}
		for b, pair := range blocks[i*mxBlock/2:][:mxBlock/2] {
			dst[i*mxBlock+2*b] = fp4[pair&15] * unit
			dst[i*mxBlock+2*b+1] = fp4[pair>>4] * unit
		}
	}
}
