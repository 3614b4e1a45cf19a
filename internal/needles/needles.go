// Package needles makes keys, values and queries of which is known what attention should
// find: a protocol that tells policies for long pasts apart without a language model.
// Keys are normal numbers with a part that neighbours share; among them stand needles,
// whose key is a code and whose value is the code of the next needle of a thread; queries
// ask for codes, as strongly as gives the needle a wanted share of exact attention.
//
// Every number is a function of the seed, a stream and a counter, so that any part can be
// made by itself.
//
// Letters: N tokens, D features, G query heads of the key head, sigma the length of a
// query by sqrt(D), m the share of the weight that a needle is to get.
package needles

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// Config fixes a text of one key head.
type Config struct {
	Seed           uint64
	Tokens, Dim    int // N, D
	Group          int // G, query heads
	Sigma, Mass    float64
	Threads, Hops  int
	Width          int     // equal tokens to a needle
	Topic          float64 // a, the share of a key that its neighbours have, too
	Segment        int     // tokens that have it in common
	RetrievalHeads int     // query heads that ask for the code; the others ask for nothing

	// Distractors are tokens for each needle whose codes have a cosine of Likeness with its
	// own, and whose values are codes of nothing.
	Distractors int
	Likeness    float64
	// Order is how the needles of a thread follow each other.
	Order Order
	// Sinks are first tokens that get a share of SinkMass of every query's weight, by a
	// direction that all queries have in common: then Mass is the needle's share of the rest.
	Sinks    int
	SinkMass float64
}

// Order is how needles follow each other in a text.
type Order uint8

const (
	Shuffled Order = iota
	Forward        // thread by thread, each needle after the one that leads to it
	Backward
)

// Streams of numbers.
const (
	streamKeys = iota + 1
	streamTopics
	streamValues
	streamCodes
	streamPositions
	streamOrder
	streamQueries
)

// No needle stands among the first and the last tokens.
const (
	firstFree = 68
	lastFree  = 256
)

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Uint64 is number i of a stream.
func Uint64(seed, stream, i uint64) uint64 {
	const golden = 0x9E3779B97F4A7C15
	return mix(seed*golden + mix(stream+0x632BE59BD9B4E019) + i*golden)
}

// Uniform is number i of a stream, in (0, 1].
func Uniform(seed, stream, i uint64) float64 {
	return float64(Uint64(seed, stream, i)>>11+1) * 0x1p-53
}

// Normal is number i of a stream, of mean 0 and deviation 1: Box and Muller's pair of
// numbers 2p and 2p+1 of the stream.
func Normal(seed, stream, i uint64) float64 {
	a, b := normals(seed, stream, i/2)
	if i%2 == 0 {
		return a
	}
	return b
}

func normals(seed, stream, pair uint64) (a, b float64) {
	r := math.Sqrt(-2 * math.Log(Uniform(seed, stream, 2*pair)))
	sin, cos := math.Sincos(2 * math.Pi * Uniform(seed, stream, 2*pair+1))
	return r * cos, r * sin
}

// row sets dst to elements from ... of a stream.
func row(dst []float64, seed, stream, from uint64) {
	for i := 0; i < len(dst); {
		at := from + uint64(i)
		a, b := normals(seed, stream, at/2)
		if at%2 == 1 {
			dst[i] = b
			i++
			continue
		}
		dst[i] = a
		if i+1 < len(dst) {
			dst[i+1] = b
		}
		i += 2
	}
}

// Text is the codes and needles of a Config.
type Text struct {
	cfg    Config
	Cosine float64     // between a needle's key and its code
	Codes  [][]float64 // [Threads*(Hops+1)][D], of length 1
	// Positions [Threads][Hops] are the first tokens of needles.
	Positions [][]int
	likes     []distractor // in the order of their positions
	sink      []float64    // what all queries have in common, of length 1; nil for nothing
	at        []int        // of needles in the order of their positions
	of        []int        // which needle stands there
}

// New lays out a text.
func New(cfg Config) *Text {
	x := &Text{cfg: cfg}
	n, d := float64(cfg.Tokens), float64(cfg.Dim)
	beta := math.Log(n) + cfg.Sigma*cfg.Sigma/2 + math.Log(cfg.Mass/(1-cfg.Mass)) - math.Log(float64(cfg.Width))
	x.Cosine = min(beta/(cfg.Sigma*math.Sqrt(d)), 0.98)
	for i := range cfg.Threads * (cfg.Hops + 1) {
		code := make([]float64, cfg.Dim)
		row(code, cfg.Seed, streamCodes, uint64(i*cfg.Dim))
		unit(code)
		x.Codes = append(x.Codes, code)
	}
	needles := cfg.Threads * cfg.Hops
	order := make([]int, needles)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := Uint64(cfg.Seed, streamOrder, uint64(i)), Uint64(cfg.Seed, streamOrder, uint64(j))
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	})
	if cfg.Order != Shuffled {
		slices.Sort(order)
	}
	if cfg.Order == Backward {
		slices.Reverse(order)
	}
	width := float64(cfg.Tokens-lastFree-firstFree-cfg.Width) / float64(needles)
	x.at, x.of = make([]int, needles), make([]int, needles)
	for i := range cfg.Threads {
		x.Positions = append(x.Positions, make([]int, cfg.Hops))
		for j := range cfg.Hops {
			s := order[i*cfg.Hops+j] // the stretch of the text
			p := int(math.Floor(firstFree + (float64(s)+Uniform(cfg.Seed, streamPositions, uint64(s)))*width))
			x.Positions[i][j], x.at[s], x.of[s] = p, p, i*cfg.Hops+j
		}
	}
	x.distract()
	if cfg.Sinks > 0 {
		x.sink = make([]float64, cfg.Dim)
		row(x.sink, cfg.Seed, streamSinks, 0)
		unit(x.sink)
	}
	return x
}

func unit(x []float64) {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	for i := range x {
		x[i] /= math.Sqrt(sum)
	}
}

// Code is the number of the code that a needle has for its key; its value is the next one.
func (x *Text) Code(needle int) int {
	return needle/x.cfg.Hops*(x.cfg.Hops+1) + needle%x.cfg.Hops
}

// Fill sets k and v to the keys and values [rows, D] of the tokens from a position on.
func (x *Text) Fill(k, v blas32.General, from int) {
	cfg := &x.cfg
	d := cfg.Dim
	key, topic, seg := make([]float64, d), make([]float64, d), -1
	own := math.Sqrt(1 - cfg.Topic*cfg.Topic)
	for i := range k.Rows {
		t := from + i
		row(key, cfg.Seed, streamKeys, uint64(t*d))
		if needle := x.needle(t); needle >= 0 {
			code := x.Codes[x.Code(needle)]
			dot := 0.0
			for j := range key {
				dot += key[j] * code[j]
			}
			rest := math.Sqrt(1 - x.Cosine*x.Cosine)
			next := x.Codes[x.Code(needle)+1]
			for j := range key {
				mat.Row(k, i)[j] = float32(x.Cosine*math.Sqrt(float64(d))*code[j] + rest*(key[j]-dot*code[j]))
				mat.Row(v, i)[j] = float32(next[j])
			}
			continue
		}
		if s := t / cfg.Segment; s != seg && cfg.Topic > 0 {
			row(topic, cfg.Seed, streamTopics, uint64(s*d))
			seg = s
		}
		if t < cfg.Sinks {
			x.fillSink(mat.Row(k, i), key)
		} else if d := x.distractor(t); d != nil {
			x.fillLike(mat.Row(k, i), mat.Row(v, i), key, d)
			continue
		} else {
			for j := range key {
				mat.Row(k, i)[j] = float32(own*key[j] + cfg.Topic*topic[j])
			}
		}
		row(key, cfg.Seed, streamValues, uint64(t*d))
		for j := range key {
			mat.Row(v, i)[j] = float32(key[j] / math.Sqrt(float64(d)))
		}
	}
}

// needle returns which one a token belongs to, or -1.
func (x *Text) needle(t int) int {
	s, found := slices.BinarySearch(x.at, t)
	if !found {
		s--
	}
	if s >= 0 && t < x.at[s]+x.cfg.Width {
		return x.of[s]
	}
	return -1
}

// Query sets q [G*D] to the query for a needle's code.
func (x *Text) Query(q []float32, needle int) {
	cfg := &x.cfg
	d := cfg.Dim
	direction := make([]float64, d)
	for g := range cfg.Group {
		if g < cfg.RetrievalHeads {
			copy(direction, x.Codes[x.Code(needle)])
		} else {
			row(direction, cfg.Seed, streamQueries, uint64((needle*cfg.Group+g)*d))
			unit(direction)
		}
		for j := range direction {
			q[g*d+j] = float32(cfg.Sigma * math.Sqrt(float64(d)) * direction[j])
		}
		x.addSink(q[g*d:][:d])
	}
}

// Decode returns the code that the outputs [G*D] of a query are most like.
func (x *Text) Decode(out []float32) int {
	d := x.cfg.Dim
	best, top := 0, math.Inf(-1)
	for i, code := range x.Codes {
		sum := 0.0
		for g := range x.cfg.RetrievalHeads {
			for j, c := range code {
				sum += float64(out[g*d+j]) * c
			}
		}
		if sum > top {
			best, top = i, sum
		}
	}
	return best
}

// More streams.
const (
	streamLooks = iota + streamQueries + 1
	streamAim
	streamSurprise
	streamLikes
	streamSinks
)

// Looks sets q [rows, G*D] to the queries of the text's own tokens from a position on, which
// look at their topic, half and half with noise; of the 64 tokens after a needle one in
// twenty looks at its code.
func (x *Text) Looks(q blas32.General, from int) {
	cfg := &x.cfg
	d := cfg.Dim
	noise, topic := make([]float64, d), make([]float64, d)
	for i := range q.Rows {
		t := from + i
		row(topic, cfg.Seed, streamTopics, uint64(t/cfg.Segment*d))
		aim := x.lastNeedle(t)
		if Uniform(cfg.Seed, streamAim, uint64(t)) > 0.05 {
			aim = -1
		}
		for g := range cfg.Group {
			row(noise, cfg.Seed, streamLooks, uint64((t*cfg.Group+g)*d))
			if aim >= 0 {
				unit(noise)
				for j, c := range x.Codes[x.Code(aim)] {
					noise[j] = 0.7*c + math.Sqrt(1-0.49)*noise[j]
				}
			} else {
				for j := range noise {
					noise[j] += 0.5 * topic[j]
				}
			}
			unit(noise)
			for j, v := range noise {
				mat.Part(q, i, g*d, d)[j] = float32(cfg.Sigma * math.Sqrt(float64(d)) * v)
			}
			x.addSink(mat.Part(q, i, g*d, d))
		}
	}
}

// lastNeedle returns the needle of the 64 tokens before a token, or -1.
func (x *Text) lastNeedle(t int) int {
	s, found := slices.BinarySearch(x.at, t)
	if !found {
		s--
	}
	if s >= 0 && t > x.at[s] && t-x.at[s] <= 64 {
		return x.of[s]
	}
	return -1
}

// Surprise is how little a token was expected, in nats: exponential with a mean, or for
// needles normal with a mean of needle and a deviation of 1.
func (x *Text) Surprise(t int, needle, mean float64) float32 {
	if x.needle(t) >= 0 {
		return float32(needle + Normal(x.cfg.Seed, streamSurprise, uint64(2*t)))
	}
	return float32(-mean * math.Log(Uniform(x.cfg.Seed, streamSurprise, uint64(2*t))))
}
