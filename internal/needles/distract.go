package needles

import (
	"math"
	"slices"
)

// distractor is a token whose key is like a needle's.
type distractor struct{ at, needle, number int }

// distract finds places for distractors: anywhere that needles might stand and none does.
func (x *Text) distract() {
	cfg := &x.cfg
	free := cfg.Tokens - lastFree - firstFree
	if free <= 0 {
		return
	}
	for i := range len(x.at) * cfg.Distractors {
		at := firstFree + int(Uint64(cfg.Seed, streamLikes, uint64(i))%uint64(free))
		if x.needle(at) < 0 {
			x.likes = append(x.likes, distractor{at, i / cfg.Distractors, i})
		}
	}
	slices.SortStableFunc(x.likes, func(a, b distractor) int { return a.at - b.at })
	x.likes = slices.CompactFunc(x.likes, func(a, b distractor) bool { return a.at == b.at })
}

// distractor returns that of a token, or nil.
func (x *Text) distractor(t int) *distractor {
	i, found := slices.BinarySearchFunc(x.likes, t, func(d distractor, t int) int { return d.at - t })
	if !found {
		return nil
	}
	return &x.likes[i]
}

// fillLike sets a distractor's key, from the token's own noise, and value.
func (x *Text) fillLike(k, v []float32, noise []float64, d *distractor) {
	cfg := &x.cfg
	// A code of its own, like the needle's by its part along that.
	code := make([]float64, cfg.Dim)
	row(code, cfg.Seed, streamLikes, uint64((2*d.number+2)*cfg.Dim))
	asked := x.Codes[x.Code(d.needle)]
	along(code, asked)
	unit(code)
	rest := math.Sqrt(1 - cfg.Likeness*cfg.Likeness)
	for j := range code {
		code[j] = cfg.Likeness*asked[j] + rest*code[j]
	}
	along(noise, code)
	size := math.Sqrt(float64(cfg.Dim))
	rest = math.Sqrt(1 - x.Cosine*x.Cosine)
	for j := range code {
		k[j] = float32(x.Cosine*size*code[j] + rest*noise[j])
	}
	row(code, cfg.Seed, streamLikes, uint64((2*d.number+3)*cfg.Dim))
	unit(code)
	for j := range code {
		v[j] = float32(code[j])
	}
}

// along takes from x its part along a vector of length 1.
func along(x, unit []float64) {
	dot := 0.0
	for j, u := range unit {
		dot += x[j] * u
	}
	for j, u := range unit {
		x[j] -= dot * u
	}
}

// fillSink sets the key of a sink, from a tenth of the token's own noise. Queries have sqrt(D)
// of the common direction, so that its logit is what the key has of it. On the other keys they
// have logits of variance sigma^2 + 1, and the needle that is asked for, if any, gets Mass.
func (x *Text) fillSink(k []float32, noise []float64) {
	cfg := &x.cfg
	along(noise, x.sink)
	logit := math.Log(float64(cfg.Tokens)) + (cfg.Sigma*cfg.Sigma+1)/2 + math.Log(cfg.SinkMass/(1-cfg.SinkMass)) - math.Log(float64(cfg.Sinks))
	if len(x.at) > 0 && cfg.RetrievalHeads > 0 {
		logit -= math.Log(1 - cfg.Mass)
	}
	for j := range k {
		k[j] = float32(logit*x.sink[j] + noise[j]/10)
	}
}

// addSink gives a query what all have in common.
func (x *Text) addSink(q []float32) {
	dot := 0.0
	for j, u := range x.sink {
		dot += float64(q[j]) * u
	}
	for j, u := range x.sink {
		q[j] += float32((math.Sqrt(float64(x.cfg.Dim)) - dot) * u)
	}
}
