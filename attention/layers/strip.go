package layers

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// StripConfig fixes a Strip. Dim and Side are needed.
type StripConfig struct {
	// Dim is C, the channels, a multiple of 8, or of 4 where it is one of 80.
	Dim int
	// Side is S, the height and width of an image; the weights belong to it.
	Side int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// BatchNorm are the weights and the statistics of training of a batch norm, with an eps of
// 1e-5: (x - Mean) / sqrt(Variance + eps) Weight + Bias.
type BatchNorm struct{ Weight, Bias, Mean, Variance []float32 }

// StripMixWeights are those of the block that mixes along strips; in brackets the published
// names. G, the groups, are C/4 where C is a multiple of 80 and C/8 otherwise.
type StripMixWeights struct {
	// MLP is [C, C] with a bias [C] and a norm [mlp.0, mlp.1].
	MLP     blas32.General
	MLPBias []float32
	MLPNorm BatchNorm
	// PosH and PosW are [2S+1, C/2], by column minus line [relate_pos_h.embeddings_table, …].
	PosH, PosW blas32.General
	// ProjH and ProjW are [G S, 3 S], a checkpoint's [G S, S, 1, 3], with biases [G S]
	// [proj_h, proj_w].
	ProjH, ProjW         blas32.General
	ProjHBias, ProjWBias []float32
	// FuseH and FuseW are [C/2, C], Norm is [C/2] [fuse_h, fuse_w, BN].
	FuseH, FuseW blas32.General
	Norm         BatchNorm
	// LocalH is [C/2, 21], kernels of 3 x 7, and LocalW of 7 x 3 [fc_h, fc_w].
	LocalH, LocalW blas32.General
	// Reweight1 is [any, C/2] and Reweight2 [3 C/2, any], with biases [reweight.fc1, …].
	Reweight1, Reweight2         blas32.General
	Reweight1Bias, Reweight2Bias []float32
	// Fuse is [C, C] [fuse].
	Fuse blas32.General
}

// StripWeights are those of a Strip; in brackets the published names.
type StripWeights struct {
	// Norm and Conv, [C, 9], stand before Mix [token_mixing.dwsc.conv_merge].
	Norm BatchNorm
	Conv blas32.General
	// Mix is the block [token_mixing.smlp_block].
	Mix StripMixWeights
	// Conv7 is [C, 49], LayerNorm [C] with an eps of 1e-5 [channel_mixing.conv_77,
	// channel_mixing.layer_norm].
	Conv7                    blas32.General
	LayerNorm, LayerNormBias []float32
	// Up is [E, C] and Down [C, E], with biases, E being 3 C as published; Gamma and Beta, of
	// the response norm, are [E] [channel_mixing.fc1, channel_mixing.grn.gamma, …].
	Up, Down         blas32.General
	UpBias, DownBias []float32
	Gamma, Beta      []float32
}

// Strip is the layer of Strip-MLP (Cao et al., ICCV 2023, arXiv 2307.11458), an image network
// without attention: every pixel takes part of its line and its column through one weight
// matrix for strips of three lines,
//
//	x' = x + mix(conv3x3(gelu(batchnorm(x))))
//	y  = x' + fc2(grn(gelu(fc1(layernorm(conv7x7(x'))))))
//
// where mix splits the channels of gelu(batchnorm(mlp(x))) into halves: one goes along the
// lines and then along the columns, with tables of relative positions; the other through two
// small convolutions that a gate of the whole image weighs. grn is the global response norm:
// channel c times 1 + gamma n_c, with n_c its length over the image by the mean of all.
//
// A Strip is immutable and safe for concurrent use.
type Strip struct {
	cfg     StripConfig
	before  affine
	conv    *dense.Depthwise
	mix     stripMix
	conv7   *dense.Depthwise
	norm    dense.Norm
	fc1     *dense.Linear
	fc2     *dense.Linear
	gamma   []float32
	beta    []float32
	scratch scratch.List[stripRun]
}

// NewStrip returns a layer, or an error that matches ErrConfig.
func NewStrip(cfg StripConfig, weights StripWeights) (*Strip, error) {
	if err := sizes(size{"StripConfig.Dim", cfg.Dim}, size{"StripConfig.Side", cfg.Side}); err != nil {
		return nil, err
	}
	if half := 2 * partsOf(cfg.Dim); cfg.Dim%half != 0 {
		return nil, check.Errorf(ErrConfig, "layers: StripConfig.Dim is %d, want a multiple of %d", cfg.Dim, half)
	}
	const mostSide = 1 << 10
	if cfg.Side > mostSide {
		return nil, check.Errorf(ErrConfig, "layers: StripConfig.Side is %d, want at most %d", cfg.Side, mostSide)
	}
	if err := check.Workers(ErrConfig, "layers", cfg.Workers); err != nil {
		return nil, err
	}
	w := dense.Packer{Package: "layers", Eps: batchEps}
	s := &Strip{cfg: cfg, before: packAffine(&w, "Norm", weights.Norm, cfg.Dim), conv: packConv(&w, "Conv", weights.Conv, cfg.Dim, 3, 3)}
	w.Within = "Mix."
	s.mix = packMix(&w, cfg, &weights.Mix)
	w.Within = ""
	s.conv7 = packConv(&w, "Conv7", weights.Conv7, cfg.Dim, 7, 7)
	s.norm = w.Norm("LayerNorm", weights.LayerNorm, weights.LayerNormBias, cfg.Dim, false)
	if w.Err == nil {
		w.Err = sizes(size{"the rows of Up", weights.Up.Rows})
	}
	s.fc1 = w.Linear("Up", weights.Up, weights.UpBias, weights.Up.Rows, cfg.Dim)
	s.fc2 = w.Linear("Down", weights.Down, weights.DownBias, cfg.Dim, weights.Up.Rows)
	s.gamma, s.beta = w.Vector("Gamma", weights.Gamma, weights.Up.Rows, false), w.Vector("Beta", weights.Beta, weights.Up.Rows, false)
	if w.Err != nil {
		return nil, w.Err
	}
	if check.Product(math.MaxInt32/8, cfg.Side*cfg.Side, s.rowFloats()) < 0 {
		return nil, check.Errorf(ErrConfig, "layers: images of %d x %d with %d channels are too large", cfg.Side, cfg.Side, cfg.Dim)
	}
	return s, nil
}

// batchEps is the eps of all norms.
const batchEps = 1e-5

// partsOf is in how many parts the channels of a half share the weights of a group.
func partsOf(dim int) int {
	if dim%80 == 0 {
		return 2
	}
	return 4
}

// affine is a batch norm: scale x + shift.
type affine struct{ scale, shift []float32 }

func packAffine(w *dense.Packer, name string, n BatchNorm, channels int) affine {
	a := affine{w.Vector(name+".Weight", n.Weight, channels, false), w.Vector(name+".Bias", n.Bias, channels, false)}
	mean, variance := w.Vector(name+".Mean", n.Mean, channels, false), w.Vector(name+".Variance", n.Variance, channels, false)
	if w.Err != nil {
		return a
	}
	for c := range a.scale {
		scale := float64(a.scale[c]) / math.Sqrt(float64(variance[c])+batchEps)
		a.scale[c], a.shift[c] = float32(scale), float32(float64(a.shift[c])-float64(mean[c])*scale)
	}
	return a
}

// into returns a layer of weight m [out, in] and bias [out] or nil with the norm after it, in
// one.
func (a *affine) into(w *dense.Packer, name string, m blas32.General, bias []float32, out, in int) *dense.Linear {
	w.Matrix(name, m, out, in)
	bias = w.Vector(name+"Bias", bias, out, true)
	if w.Err != nil {
		return nil
	}
	scaled, shift := mat.New(out, in), append([]float32(nil), a.shift...)
	for o := range out {
		asm.Scale(mat.Row(scaled, o), a.scale[o], mat.Row(m, o))
		if bias != nil {
			shift[o] += a.scale[o] * bias[o]
		}
	}
	return dense.NewLinear(asm.Float32, scaled, shift)
}

func packConv(w *dense.Packer, name string, m blas32.General, channels, height, width int) *dense.Depthwise {
	w.Matrix(name, m, channels, height*width)
	if w.Err != nil {
		return nil
	}
	return dense.NewDepthwise(m, nil, height, width)
}

// StripCall is a call of a Strip.
type StripCall struct {
	// Dst and X are [images S S, C], the pixels of an image line after line. Dst may be X,
	// and shares no element with it otherwise.
	Dst, X blas32.General
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Forward sets dst from x, both [images S S, C]; dst may be x. It costs about
// C (3 S + 20 C + 150) multiply-adds a pixel where E is 3 C. Images run side by side. After
// the first call nothing is allocated. Errors match ErrShape.
func (s *Strip) Forward(dst, x blas32.General) error {
	return s.Run(context.Background(), &StripCall{Dst: dst, X: x})
}

// Run is Forward with everything optional. A done ctx ends it with ctx.Err(), and Dst
// unspecified. Errors match ErrShape or ErrCall.
func (s *Strip) Run(ctx context.Context, call *StripCall) error {
	if err := check.Call("layers", ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "layers", "X", call.X, -1, s.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if n := s.cfg.Side * s.cfg.Side; call.X.Rows%n != 0 {
		return check.Errorf(ErrShape, "layers: X has %d rows, want a multiple of %d x %d", call.X.Rows, s.cfg.Side, s.cfg.Side)
	}
	if err := check.Output(ErrShape, "layers", call.Dst, call.X.Rows, s.cfg.Dim, "Dim", call.X, true); err != nil {
		return err
	}
	if err := check.Workers(ErrCall, "layers", call.Workers); err != nil {
		return err
	}
	r := s.scratch.Get()
	defer s.scratch.Put(r)
	return r.images(ctx, s, call)
}

// Bytes returns the memory of the weights.
func (s *Strip) Bytes() int64 {
	bytes := s.conv.Bytes() + s.mix.bytes() + s.conv7.Bytes() + s.norm.Bytes() + int64(s.fc1.Bytes()) + int64(s.fc2.Bytes())
	return bytes + 4*int64(2*len(s.before.scale)+2*len(s.gamma))
}

// rowFloats bounds the working memory of a pixel in float32.
func (s *Strip) rowFloats() int {
	wide, _ := s.fc2.Dims()
	return 8*s.cfg.Dim + wide + 32
}

// ScratchBytes returns the working memory that a call of any number of images holds, at the
// most, besides its arguments.
func (s *Strip) ScratchBytes() int64 {
	return 4 * int64(parallel.Workers(s.cfg.Workers)) * s.floats()
}

// floats is the working memory of a worker.
func (s *Strip) floats() int64 {
	n := int64(s.cfg.Side) * int64(s.cfg.Side)
	wide, _ := s.fc2.Dims()
	hidden, _ := s.mix.reweight2.Dims()
	lines := int64(partsOf(s.cfg.Dim)) * int64(s.cfg.Side) * 4 * int64(s.cfg.Side)
	conv := int64(max(s.conv.Floats(s.cfg.Side), s.conv7.Floats(s.cfg.Side), s.mix.localH.Floats(s.cfg.Side)+s.mix.localW.Floats(s.cfg.Side)))
	return n*int64(5*s.cfg.Dim+wide) + lines + conv + int64(4*s.cfg.Dim+wide+hidden) + 64
}
