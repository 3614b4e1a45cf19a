package main

import (
	"bytes"
	"fmt"
	"go/format"
	"math"

	"github.com/subquad/subquad/asm/_gen/simd"
)

// The polynomials of the elementary functions, each with the same
// coefficients in every tier. All are minimax fits with float32 coefficients
// (Sollya's fpminimax); the relative error given is the polynomial's own,
// before rounding. The same numbers are written to internal/kernel/scalar/coefficients.go for the
// portable bodies.

type coefficient struct {
	name  string
	value float64
	doc   string
}

var coefficients = []coefficient{
	// Rounding to the nearest integer n by adding and taking away 1.5 * 2^23;
	// n is left in the low bits of the sum.
	{"roundMagic", 12582912, "adding it rounds to the nearest integer, left in the low bits"},

	// exp(x) = 2^n exp(r), r = x - n ln 2 in [-0.347, 0.347],
	// exp(r) = 1 + r + r^2 (exp2 + r (exp3 + ... r exp6)); 9.6e-9.
	{"log2E", 1.44269502162933349609375, "1 / ln 2"},
	{"ln2Hi", 0.693145751953125, "ln 2 to 16 bits, so that n*ln2Hi is exact"},
	{"ln2Lo", 1.428606765330187045037746429443359375e-6, "ln 2 - ln2Hi"},
	{"exp2", 0.5, ""},
	{"exp3", 0.16666577756404876708984375, ""},
	{"exp4", 4.1666708886623382568359375e-2, ""},
	{"exp5", 8.3631016314029693603515625e-3, ""},
	{"exp6", 1.39107718132436275482177734375e-3, ""},
	{"expOverflow", 88.72283172607421875, "the largest x with a finite float32 exp"},
	{"expUnderflow", -87.33654022216796875, "below it exp is less than the smallest normal number, and flushed to 0"},

	// For softmax weights, exp(x) of x <= 0, which need no relative accuracy far
	// down: exp(x) = 2^n 2^-g, g = n - x/ln 2 in [-0.5, 0.5],
	// 2^-g = 1 + g (pow1 + ... g pow5); 9.3e-8 (a weighted least squares fit
	// driven to the minimax, one coefficient rounded after the other).
	{"pow1", -0.6931470036506653, ""},
	{"pow2", 0.24022246897220612, ""},
	{"pow3", -0.0555071122944355, ""},
	{"pow4", 0.009671294130384922, ""},
	{"pow5", -0.0013269406044855714, ""},

	// sin(x) = (-1)^n sin(r), r = x - n pi in [-pi/2, pi/2],
	// sin(r) = r + r^3 (sin3 + r^2 (sin5 + ... r^2 sin11)); 2.3e-9.
	{"invPi", 0.318309886183790671537767526745, "1 / pi"},
	{"piHi", 3.1415927410125732421875, "pi = piHi + piMid + piLo"},
	{"piMid", -8.74227765734758577309548854827880859e-8, ""},
	{"piLo", -3.430249020011763745607868969500486855e-15, ""},
	{"sin3", -0.16666667163372039794921875, ""},
	{"sin5", 8.333359844982624053955078125e-3, ""},
	{"sin7", -1.98450419702567160129547119140625e-4, ""},
	{"sin9", 2.775034545265953056514263153076171875e-6, ""},
	{"sin11", -2.79342895481704545090906322002410888671875e-8, ""},
	{"sinLimit", 32768, "beyond it the reduction by three parts of pi is not accurate"},

	// log(1+e) for e in [0, 1] = 2 atanh(s), s = e / (2 + e) in [0, 1/3],
	// 2 atanh(s) = 2s + s^3 (log3 + s^2 (log5 + ... s^2 log11)); 2.9e-10.
	{"log3", 0.666666686534881591796875, ""},
	{"log5", 0.3999954164028167724609375, ""},
	{"log7", 0.285978138446807861328125, ""},
	{"log9", 0.21639974415302276611328125, ""},
	{"log11", 0.2349441349506378173828125, ""},

	// The normal distribution's tail: with t = 1 / (1 + tailScale a) and u = 1 - t,
	// Phi(-a) = exp(-a^2/2) t (1/2 + u (tail1 + u (tail2 + ... u tail10))), for a
	// in [0, 13.6]; 1.9e-8. At 0, where it matters most, only t is rounded.
	{"tailScale", 0.3125, ""},
	{"tail1", -0.7766153216362, ""},
	{"tail2", 0.5067718029022217, ""},
	{"tail3", -0.007418790832161903, ""},
	{"tail4", -0.12227144092321396, ""},
	{"tail5", -0.01819743774831295, ""},
	{"tail6", 0.04729168117046356, ""},
	{"tail7", -0.013463491573929787, ""},
	{"tail8", 0.04308240860700607, ""},
	{"tail9", -0.05191567540168762, ""},
	{"tail10", 0.017423806712031364, ""},
	{"normalLimit", 16, "beyond it the tail is 0 in float32"},

	// The sine and cosine of x in [-pi/4, pi/4]: x + x^3 (turnSin3 + x^2 (turnSin5 +
	// x^2 turnSin7)) and 1 - x^2/2 + x^4 (turnCos4 + x^2 (turnCos6 + x^2 turnCos8)),
	// the coefficients of Cephes' sinf and cosf (Moshier 1989).
	{"quarterTurn", 1.4629180792671596e-9, "pi/2 * 2^-30, radians in 2^-32 turns"},
	{"turnSin3", -1.6666654611e-1, ""},
	{"turnSin5", 8.3321608736e-3, ""},
	{"turnSin7", -1.9515295891e-4, ""},
	{"turnCos4", 4.166664568298827e-2, ""},
	{"turnCos6", -1.388731625493765e-3, ""},
	{"turnCos8", 2.443315711809948e-5, ""},

	// GELU's tanh form: x / (1 + exp(-x (gelu1 + gelu3 x^2))), gelu1 = 2 sqrt(2/pi).
	{"gelu1", 1.5957691216057307117597842397375, ""},
	{"gelu3", 0.07135481627159536, "0.044715 * gelu1"},
	{"siluLimit", 128, "exp(siluLimit) overflows, so that silu(-siluLimit) is already -0"},

	// tanh(a) = a + a^3 (tanh3 + a^2 (tanh5 + ... a^2 tanh11)) for a below tanhLimit
	// (Cephes, tanhf), and (1 - e) / (1 + e), e = exp(-2a), above.
	{"tanhLimit", 0.625, ""},
	{"tanh3", -3.33332819422e-1, ""},
	{"tanh5", 1.33314422036e-1, ""},
	{"tanh7", -5.37397155531e-2, ""},
	{"tanh9", 2.06390887954e-2, ""},
	{"tanh11", -5.70498872745e-3, ""},

	// The decays of scans, whose exponents are given in base 2: 2^f = 2^-g, g = -f.
	{"exp2Least", -126, "2^exp2Least is the smallest normal number"},
	{"exp2Most", 128, "from it on 2^x is +Inf"},
	{"tiny", 9.8607613152626475676466e-32, "2^-103: states below it are flushed to 0, long before they become subnormal"},
}

// c returns a coefficient by name as a vector constant.
func c(name string) simd.Const {
	for _, k := range coefficients {
		if k.name == name {
			return float(float32(k.value))
		}
	}
	panic("no coefficient " + name)
}

// float returns a float32 as a vector constant.
func float(f float32) simd.Const { return simd.Const(math.Float32bits(f)) }

const signBit, magnitude = simd.Const(0x80000000), simd.Const(0x7fffffff)

func coefficientsFile() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("// Code generated by asm/_gen. DO NOT EDIT.\n\npackage scalar\n\n// Coefficients of the elementary functions; asm/_gen/coefficients.go tells how they are used.\nconst (\n")
	for _, k := range coefficients {
		fmt.Fprintf(&b, "%s = float32(%x)", k.name, float32(k.value))
		if k.doc != "" {
			b.WriteString(" // " + k.doc)
		}
		b.WriteByte('\n')
	}
	b.WriteString(")\n")
	return format.Source(b.Bytes())
}
