package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// The portable form of IntegerTile, which says what the kernels do.

func integerScoresGeneric(s blas32.General, q *IntegerQueries, k Strided, scales []float32) {
	for i := range s.Rows {
		whole := q.whole[i*q.dim:][:q.dim]
		for j, scale := range scales {
			sum := int32(0)
			for d, x := range k.Int8[j*k.Stride:][:q.dim] {
				sum += whole[d] * int32(x)
			}
			s.Data[i*s.Stride+j] = float32(float32(sum)*q.factor[i]) * scale
		}
	}
}

func integerQueriesGeneric(whole []int32, x blas32.General, inside []float32) {
	for i := range x.Rows {
		for d, v := range x.Data[i*x.Stride:][:x.Cols] {
			n := int32(0)
			if inside[i] > 0 {
				n = int32(math.RoundToEven(float64(float32(v * inside[i]))))
			}
			whole[i*x.Cols+d] = n
		}
	}
}

// integerPeaksGeneric takes no scales as ones.
func integerPeaksGeneric(peaks []float32, p blas32.General, scales []float32) {
	for i := range peaks {
		peaks[i] = 0
		for j, x := range p.Data[i*p.Stride:][:p.Cols] {
			if scales != nil {
				x = float32(x * scales[j])
			}
			peaks[i] = max(peaks[i], float32(math.Abs(float64(x)))) // keeps NaN
		}
	}
}

func integerPlanesGeneric(planes []uint8, p blas32.General, scales, inside []float32) {
	for i := range p.Rows {
		to := planes[2*i*IntegerKeys:]
		for j, x := range p.Data[i*p.Stride:][:p.Cols] {
			n := 0
			if y := float32(float32(x*scales[j]) * inside[i]); y > 0 {
				n = int(math.RoundToEven(float64(y)))
			}
			to[j], to[IntegerKeys+j] = uint8(n>>7), uint8(n&127)
		}
	}
}

func integerValuesGeneric(sums []int32, w *IntegerWeights, at int, v Strided) {
	width := IntegerColumns(v.Cols)
	for i := range w.rows {
		high := w.planes[2*i*IntegerKeys+at:]
		low, to := high[IntegerKeys:], sums[i*width:]
		for j := range v.Rows {
			weight := int32(high[j])<<7 + int32(low[j])
			for c, x := range v.Int8[j*v.Stride:][:v.Cols] {
				to[c] += weight * int32(x)
			}
		}
	}
}

func integerAddGeneric(o blas32.General, w *IntegerWeights, sums []int32, factor []float32) {
	width := IntegerColumns(o.Cols)
	for i := range o.Rows {
		row := o.Data[i*o.Stride:][:o.Cols]
		for c, sum := range sums[i*width:][:o.Cols] {
			row[c] = float32(factor[i]*row[c]) + float32(float32(sum)*w.units[i])
		}
	}
}
