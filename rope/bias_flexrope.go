package rope

import (
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// FlexRoPEConfig fixes a FlexRoPE bias.
type FlexRoPEConfig struct {
	// Slopes has the decay per frame of each head, or one for all heads, which is
	// what the released code has; nil is no decay.
	Slopes []float32
	// Frames has the frame of each token, of queries and keys alike, never
	// decreasing; see FAR. It is kept, and must not be changed.
	Frames []int64
	// TokensPerFrame stands for Frames where all frames are of one size: token i
	// belongs to frame i / TokensPerFrame, without end.
	TokensPerFrame int
	// NoMask leaves keys of later frames visible, at the bias of their distance.
	NoMask bool
}

// FlexRoPE is the temporal decay of FAR (Gu et al. 2025, arXiv 2503.19325, first
// version), by which a video model looks at many more frames than it was trained
// with, without training: besides the rotation over three axes,
//
//	logit += slope_h (frame_key - frame_query)   for keys of the same and earlier frames,
//	logit  = -Inf                                for keys of later frames.
//
// Within a frame there is neither decay nor mask.
//
// What is known and what is inferred: the paper's first version names FlexRoPE
// and promises 16 times longer extrapolation; its method section could not be
// read, and later versions dropped the scheme. The released code has this bias,
// with one scalar for all heads that is off by default. That the two are the same
// is an inference from date, name and purpose. Slopes by head are our addition;
// no published value of a slope is known, and later versions of the paper found
// other ways of extrapolating better.
type FlexRoPE struct {
	cfg FlexRoPEConfig
}

// NewFlexRoPE returns the bias, or an error that matches ErrConfig.
func NewFlexRoPE(cfg FlexRoPEConfig) (*FlexRoPE, error) {
	if cfg.Slopes == nil {
		cfg.Slopes = []float32{0}
	}
	if err := checkSlopes("Slopes", cfg.Slopes); err != nil {
		return nil, err
	}
	cfg.Slopes = slices.Clone(cfg.Slopes)
	if (cfg.Frames == nil) == (cfg.TokensPerFrame == 0) {
		return nil, configErrorf("Frames has %d elements and TokensPerFrame is %d, want one of the two", len(cfg.Frames), cfg.TokensPerFrame)
	}
	if cfg.TokensPerFrame < 0 {
		return nil, configErrorf("TokensPerFrame is %d, want more than 0", cfg.TokensPerFrame)
	}
	for i := 1; i < len(cfg.Frames); i++ {
		if cfg.Frames[i] < cfg.Frames[i-1] {
			return nil, configErrorf("Frames[%d] is %d, less than the one before", i, cfg.Frames[i])
		}
	}
	return &FlexRoPE{cfg}, nil
}

// FlexRoPESlope returns the slope at which a key that many frames back weighs eps
// times one of the query's own frame, the logits being equal otherwise:
// -ln(eps) / frames. With frames the number the model was trained with, what lies
// beyond weighs less than eps. It is a rule of this library, not of the paper. Errors match
// ErrConfig.
func FlexRoPESlope(frames int64, eps float64) (float32, error) {
	if frames <= 0 {
		return 0, configErrorf("frames is %d, want more than 0", frames)
	}
	if !(eps > 0 && eps <= 1) {
		return 0, configErrorf("eps is %v, want a number above 0, at most 1", eps)
	}
	return float32(-math.Log(eps) / float64(frames)), nil
}

// Heads returns for how many heads there are slopes; 1 is for any number.
func (f *FlexRoPE) Heads() int { return len(f.cfg.Slopes) }

func (f *FlexRoPE) slope(head int) float32 {
	if len(f.cfg.Slopes) == 1 {
		return f.cfg.Slopes[0]
	}
	return f.cfg.Slopes[head]
}

// frame returns a token's frame.
func (f *FlexRoPE) frame(token int64) int64 {
	size := int64(f.cfg.TokensPerFrame)
	if size == 0 {
		return f.cfg.Frames[token]
	}
	return (token - mod(token, size)) / size
}

// mod is the remainder that is not negative.
func mod(a, m int64) int64 {
	if r := a % m; r < 0 {
		return r + m
	} else {
		return r
	}
}

// outside tells whether tokens from first to last are not all in the table.
func (f *FlexRoPE) outside(first, last int64) bool {
	return f.cfg.TokensPerFrame == 0 && (first < 0 || last >= int64(len(f.cfg.Frames)))
}

// bias is that of a query and a key of two frames.
func (f *FlexRoPE) bias(slope float32, query, key int64) float32 {
	if key > query && !f.cfg.NoMask {
		return float32(math.Inf(-1))
	}
	return -slope * float32(math.Abs(float64(query)-float64(key)))
}

// AddTo implements [Bias]; query and key are indices of tokens. The bias of a
// token for which there is no frame is NaN.
func (f *FlexRoPE) AddTo(s blas32.General, head int, query, key int64) {
	slope := f.slope(head)
	if s.Cols <= 0 {
		return
	}
	missing := f.outside(key, key+int64(s.Cols)-1)
	for i := range s.Rows {
		row := mat.Row(s, i)
		at := query + int64(i)
		if missing || f.outside(at, at) {
			for j := range row {
				row[j] = float32(math.NaN())
			}
			continue
		}
		frame := f.frame(at)
		for j := 0; j < len(row); {
			other := f.frame(key + int64(j))
			b := f.bias(slope, frame, other)
			if size := f.cfg.TokensPerFrame; size > 0 { // the frame's last token without a division for each
				end := j + int(min(int64(size)-mod(key+int64(j), int64(size)), int64(len(row)-j)))
				for ; j < end; j++ {
					row[j] += b
				}
				continue
			}
			for ; j < len(row) && f.cfg.Frames[key+int64(j)] == other; j++ {
				row[j] += b
			}
		}
	}
}

// Most implements [Bias]: the bias of the closest frames, -Inf where all keys are
// of later ones.
func (f *FlexRoPE) Most(head int, query, key int64, queries, keys int) float32 {
	if queries <= 0 || keys <= 0 {
		return float32(math.Inf(-1))
	}
	lastQuery, lastKey := query+int64(queries)-1, key+int64(keys)-1
	if f.outside(query, lastQuery) || f.outside(key, lastKey) {
		return float32(math.Inf(1))
	}
	q0 := f.frame(query)
	q1 := f.frame(lastQuery)
	k0 := f.frame(key)
	k1 := f.frame(lastKey)
	switch {
	case q0 > k1:
		return f.bias(f.slope(head), q0, k1)
	case k0 > q1:
		return f.bias(f.slope(head), q1, k0)
	}
	return 0
}

// Reach implements [Decaying]; the distance is in tokens.
func (f *FlexRoPE) Reach(head int, query int64, spread, eps float64) int64 {
	frames := distanceOf((spread - math.Log(eps)) / float64(f.slope(head)))
	if frames == math.MaxInt64 {
		return frames
	}
	if size := int64(f.cfg.TokensPerFrame); size > 0 {
		if frames > math.MaxInt64/size-1 {
			return math.MaxInt64
		}
		first := f.frame(query)
		return query - (first-frames+1)*size + 1
	}
	if f.outside(query, query) {
		return math.MaxInt64
	}
	own := f.cfg.Frames[query]
	// How many tokens are that many frames back or more.
	n := sort.Search(int(query), func(i int) bool { return own-f.cfg.Frames[i] < frames })
	if n == 0 {
		return math.MaxInt64
	}
	return query - int64(n) + 1
}
