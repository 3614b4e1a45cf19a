package rope

import (
	"math"

	"github.com/subquad/subquad/internal/check"
)

// MRoPEConfig describes how a vision-language model numbers its tokens.
type MRoPEConfig struct {
	// ImageToken and VideoToken are the ids that stand for patches.
	ImageToken, VideoToken int64
	// Merge is how many patches a token covers on each side (spatial_merge_size); 0 is 2.
	Merge int
	// TokensPerSecond spaces the frames of a video by their time (Qwen2.5-VL:
	// tokens_per_second = 2): frame f stands at floor(f * seconds * TokensPerSecond).
	// With 0 it stands at f (Qwen2-VL).
	TokensPerSecond float64
	// FramesApart makes each frame of a video a block of its own, as Qwen3-VL does,
	// which writes the time between them as text.
	FramesApart bool
}

// MRoPE numbers the tokens of one sequence for M-RoPE (Wang et al. 2024, arXiv
// 2409.12191): three coordinates, of time, height and width. Those of text are
// equal and count on from the largest before; an image or a frame counts its
// rows and columns from there.
//
// It takes a sequence in pieces of any size, a piece may end within an image, and
// goes on in the same way when tokens are generated, so that positions do not
// depend on how a prompt was cut into chunks. It is not safe for concurrent use.
type MRoPE struct {
	// Images and Videos are the grids (frames, height, width), in patches, of those
	// that are still to come, in their order. Seconds has the time from one frame to
	// the next of the videos to come; those without have 1. Append takes them off;
	// more can be added at any time.
	Images, Videos [][3]int
	Seconds        []float64

	cfg    MRoPEConfig
	next   int64 // position of the next text token
	tokens int64 // seen, masked ones too

	// The block that is being read: tokens left, its first position, grid and time.
	grid    [3]int
	index   int
	total   int
	base    int64
	seconds float64
	token   int64
	frames  int // of the same video that are blocks to come
}

// mostPosition bounds where an image may begin, so that no position overflows.
const mostPosition = 1 << 60

// NewMRoPE returns the numbering of a new sequence, or an error that matches ErrConfig.
func NewMRoPE(cfg MRoPEConfig) (*MRoPE, error) {
	cfg.Merge = or(cfg.Merge, 2)
	switch {
	case cfg.Merge < 0:
		return nil, configErrorf("Merge is %d, want more than 0", cfg.Merge)
	case cfg.ImageToken == cfg.VideoToken:
		return nil, configErrorf("ImageToken and VideoToken are both %d", cfg.ImageToken)
	}
	if err := notNegative("TokensPerSecond", cfg.TokensPerSecond); err != nil {
		return nil, err
	}
	return &MRoPE{cfg: cfg}, nil
}

// Delta returns how much farther the next token stands than it has tokens before
// it: a token with n tokens before it, masked ones included, stands at n + Delta on
// all axes, until the next image.
func (m *MRoPE) Delta() int64 { return m.next - m.tokens }

// Append numbers the next tokens: dst is [len(tokens), 3]. visible is nil or has 0
// for tokens that are masked out (padding): those stand at 1 and count for nothing.
// After an error nothing has changed but dst. Errors match ErrShape.
func (m *MRoPE) Append(dst, tokens, visible []int64) error {
	switch {
	case len(dst)%3 != 0 || len(dst)/3 != len(tokens):
		return check.Errorf(ErrShape, "rope: dst has %d elements, want 3 for each of %d tokens", len(dst), len(tokens))
	case visible != nil && len(visible) != len(tokens):
		return check.Errorf(ErrShape, "rope: visible has %d elements, want one for each of %d tokens", len(visible), len(tokens))
	}
	old := *m
	for i, token := range tokens {
		m.tokens++
		at := dst[3*i:][:3]
		if visible != nil && visible[i] == 0 {
			at[0], at[1], at[2] = 1, 1, 1
			continue
		}
		if m.index == m.total && (token == m.cfg.ImageToken || token == m.cfg.VideoToken) {
			if err := m.begin(token); err != nil {
				*m = old
				return err
			}
		}
		if m.index == m.total { // text
			at[0], at[1], at[2] = m.next, m.next, m.next
			m.next++
			continue
		}
		if token != m.token {
			err := callErrorf("token %d of the piece is %d within an image of %d x %d x %d, want %d", i, token, m.grid[0], m.grid[1], m.grid[2], m.token)
			*m = old
			return err
		}
		m.inBlock(at)
	}
	return nil
}

// begin starts a block.
func (m *MRoPE) begin(token int64) error {
	m.token, m.base, m.index, m.seconds = token, m.next, 0, 0
	switch {
	case token == m.cfg.VideoToken && m.frames > 0: // the next frame of a video
		m.frames--
	case token == m.cfg.VideoToken:
		if len(m.Videos) == 0 {
			return callErrorf("more videos than Videos has grids")
		}
		m.grid, m.Videos = m.Videos[0], m.Videos[1:]
		m.seconds = 1
		if len(m.Seconds) > 0 {
			m.seconds, m.Seconds = m.Seconds[0], m.Seconds[1:]
		}
	default:
		if len(m.Images) == 0 {
			return callErrorf("more images than Images has grids")
		}
		m.grid, m.Images = m.Images[0], m.Images[1:]
	}
	g := m.grid
	if g[0] <= 0 || g[1] <= 0 || g[2] <= 0 || g[1]%m.cfg.Merge != 0 || g[2]%m.cfg.Merge != 0 ||
		float64(g[0])*float64(g[1])*float64(g[2]) > math.MaxInt32 {
		return callErrorf("a grid is %d x %d x %d, want sides above 0 that Merge = %d divides, below 2^31 patches", g[0], g[1], g[2], m.cfg.Merge)
	}
	if m.base > mostPosition {
		return callErrorf("an image begins at position %d, want at most 2^60", m.base)
	}
	if !(m.seconds >= 0 && m.seconds*float64(g[0])*m.cfg.TokensPerSecond < 1<<53) {
		return callErrorf("Seconds has the element %v, want a number from 0 on", m.seconds)
	}
	if m.cfg.FramesApart && token == m.cfg.VideoToken && g[0] > 1 {
		m.frames = g[0] - 1
		m.grid[0] = 1
	}
	m.total = m.grid[0] * (g[1] / m.cfg.Merge) * (g[2] / m.cfg.Merge)
	return nil
}

// inBlock numbers the next token of an image or video.
func (m *MRoPE) inBlock(at []int64) {
	rows, cols := m.grid[1]/m.cfg.Merge, m.grid[2]/m.cfg.Merge
	t := int64(m.index / (rows * cols))
	if m.cfg.TokensPerSecond > 0 {
		t = int64(math.Floor(float64(t) * m.seconds * m.cfg.TokensPerSecond))
	}
	at[0] = m.base + t
	at[1] = m.base + int64(m.index/cols%rows)
	at[2] = m.base + int64(m.index%cols)
	m.next = max(m.next, at[0]+1, at[1]+1, at[2]+1)
	m.index++
	if m.index == m.total {
		m.index, m.total = 0, 0
	}
}
