package rope

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
)

// FARConfig describes a video of latents to FAR.
type FARConfig struct {
	// Frames, Height and Width are those of the latents.
	Frames, Height, Width int
	// Patch is the side of a token's patch, 0 for 1.
	Patch int
	// Window is how many of the last frames are kept in fine patches; 0 is all. The
	// frames before it make tokens of ContextPatch x ContextPatch.
	Window       int
	ContextPatch int
}

// FAR is the order of tokens in FAR (Gu et al. 2025, arXiv 2503.19325), the long
// context first in coarse patches, then the short one in fine patches; each frame
// by frame, row by row. Positions have three axes: frame, row, column. A coarse
// token stands at the top left of its patch, in units of fine tokens. FAR's
// models rotate 64 features over axes of 16, 24 and 24, interleaved.
//
// Frames serves FlexRoPE, which is the frame-causal mask as well.
type FAR struct {
	// Frames has the frame of each token.
	Frames []int64
	// Positions is [tokens, 3].
	Positions []int64
	// ContextFrames and ContextTokens say how many there are of the long context.
	ContextFrames, ContextTokens int
}

// mostTokens bounds the lists of a FAR, 32 bytes a token.
const mostTokens = 1 << 24

// NewFAR returns the layout, or an error that matches ErrConfig.
func NewFAR(cfg FARConfig) (*FAR, error) {
	cfg.Patch = or(cfg.Patch, 1)
	cfg.Window = or(cfg.Window, cfg.Frames)
	if cfg.Frames < 0 || cfg.Window < 0 || cfg.Height <= 0 || cfg.Width <= 0 {
		return nil, configErrorf("FAR: %d frames of %d x %d, a window of %d", cfg.Frames, cfg.Height, cfg.Width, cfg.Window)
	}
	if check.Product(mostTokens, cfg.Frames, cfg.Height, cfg.Width) < 0 {
		return nil, configErrorf("FAR: %d frames of %d x %d are more than 2^24 tokens", cfg.Frames, cfg.Height, cfg.Width)
	}
	f := &FAR{ContextFrames: max(cfg.Frames-cfg.Window, 0)}
	cfg.ContextPatch = or(cfg.ContextPatch, cfg.Patch)
	for _, p := range []struct {
		name string
		side int
	}{{"Patch", cfg.Patch}, {"ContextPatch", cfg.ContextPatch}} {
		if p.side <= 0 || cfg.Height%p.side != 0 || cfg.Width%p.side != 0 {
			return nil, configErrorf("FAR: %s is %d, want a divisor of Height = %d and Width = %d", p.name, p.side, cfg.Height, cfg.Width)
		}
	}
	if cfg.ContextPatch%cfg.Patch != 0 {
		return nil, configErrorf("FAR: ContextPatch is %d, want a multiple of Patch = %d", cfg.ContextPatch, cfg.Patch)
	}
	f.add(cfg, 0, f.ContextFrames, cfg.ContextPatch)
	f.ContextTokens = len(f.Frames)
	f.add(cfg, f.ContextFrames, cfg.Frames, cfg.Patch)
	return f, nil
}

func (f *FAR) add(cfg FARConfig, from, to, patch int) {
	step := int64(patch / cfg.Patch)
	for t := from; t < to; t++ {
		for h := range int64(cfg.Height / patch) {
			for w := range int64(cfg.Width / patch) {
				f.Frames = append(f.Frames, int64(t))
				f.Positions = append(f.Positions, int64(t), h*step, w*step)
			}
		}
	}
}

// Patches packs latents into tokens: latents is [frames, channels, height, width],
// dst is [frames * height/patch * width/patch, channels * patch * patch], a
// token's features being channel by channel, row by row. Errors match ErrShape.
func Patches(dst blas32.General, latents []float32, frames, channels, height, width, patch int) error {
	return patches(dst, latents, frames, channels, height, width, patch, func(token, latent *float32) { *token = *latent })
}

// Unpatch is the inverse of Patches. Errors match ErrShape.
func Unpatch(latents []float32, src blas32.General, frames, channels, height, width, patch int) error {
	return patches(src, latents, frames, channels, height, width, patch, func(token, latent *float32) { *latent = *token })
}

func patches(tokens blas32.General, latents []float32, frames, channels, height, width, patch int, move func(token, latent *float32)) error {
	if frames < 0 || channels < 0 || height < 0 || width < 0 || patch <= 0 || height%patch != 0 || width%patch != 0 {
		return check.Errorf(ErrShape, "rope: %d frames of %d channels, %d x %d, in patches of %d", frames, channels, height, width, patch)
	}
	n := len(latents)
	if float64(frames)*float64(channels)*float64(height)*float64(width) != float64(n) {
		return check.Errorf(ErrShape, "rope: latents has %d elements, want %d*%d*%d*%d", n, frames, channels, height, width)
	}
	rows, cols := height/patch, width/patch
	if n == 0 { // the products below might not fit
		return nil
	}
	if err := check.Matrix(ErrShape, "rope", "tokens", tokens, frames*rows*cols, channels*patch*patch, "channels*patch*patch"); err != nil {
		return err
	}
	for i := range latents {
		w, rest := i%width, i/width
		h, rest := rest%height, rest/height
		c, t := rest%channels, rest/channels
		row := (t*rows+h/patch)*cols + w/patch
		move(&tokens.Data[row*tokens.Stride+(c*patch+h%patch)*patch+w%patch], &latents[i])
	}
	return nil
}
