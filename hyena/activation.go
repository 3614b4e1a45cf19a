package hyena

import (
	"math"

	"github.com/subquad/subquad/asm"
)

// Activation is a function of each element.
type Activation uint8

const (
	Identity    Activation = iota // x
	GELU                          // x Phi(x), exact
	SiLU                          // x / (1 + e^-x), also called swish
	ReLU                          // max(x, 0)
	SquaredReLU                   // max(x, 0)^2
	Tanh                          // tanh(x)
	Sigmoid                       // 1 / (1 + e^-x)
	Softplus                      // ln(1 + e^x)
)

// activate applies the function in place.
func (a Activation) activate(x []float32) {
	switch a {
	case GELU:
		asm.GELU(x, x)
	case SiLU:
		asm.SiLU(x, x)
	case ReLU, SquaredReLU:
		for i, v := range x {
			v = max(v, 0)
			if a == SquaredReLU {
				v *= v
			}
			x[i] = v
		}
	case Tanh:
		for i, v := range x {
			x[i] = float32(math.Tanh(float64(v)))
		}
	case Sigmoid:
		asm.Sigmoid(x, x)
	case Softplus:
		asm.Softplus(x, x)
	}
}
