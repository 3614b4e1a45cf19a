package layers

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// TokensConfig fixes a Tokens. All but Frequencies and Workers are needed.
type TokensConfig struct {
	// FeatureDim is the width of a feature (768 as published), Dim that of a token (768),
	// Inner that of the layers between (512), MaxInteractions the most interactions of an
	// image (30).
	FeatureDim, Dim, Inner, MaxInteractions int
	// Frequencies is how many sines and cosines a coordinate of a box gets, 0 for 8.
	Frequencies int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// TokensMLP are three linear layers with SiLU between, matrices [out, in] with their biases;
// in brackets the published names.
type TokensMLP struct {
	First, Second, Third             blas32.General // [0.weight, 2.weight, 4.weight]
	FirstBias, SecondBias, ThirdBias []float32
}

// TokensWeights are those of a Tokens; in brackets the published names.
type TokensWeights struct {
	// Things is the MLP of subjects and objects, Actions that of actions: from FeatureDim +
	// 8 Frequencies to Inner, Inner and Dim [linears, linear_action].
	Things, Actions TokensMLP
	// NullThing and NullAction, [FeatureDim], stand for the features of masked subjects and
	// objects, and of masked actions; NullBox, [8 Frequencies], for all their boxes
	// [null_positive_feature, null_action_feature, null_position_feature].
	NullThing, NullAction, NullBox []float32
	// Interactions is [MaxInteractions, Dim], added to the tokens of each interaction; Roles
	// is [3, Dim], added to those of subjects, objects and actions, in that order
	// [interaction_embedding.emb.weight, position_embedding.emb.weight].
	Interactions, Roles blas32.General
}

// Tokens makes the grounding tokens of InteractDiffusion (2023, arXiv 2312.05849): for every
// interaction (subject, action, object) of an image three tokens, of features (of their
// words, say) and boxes,
//
//	token = MLP([feature; fourier(box)]) + interactions[i] + roles[role]
//	fourier(box) = for i < Frequencies: sin(f_i box), cos(f_i box), with f_i = 100^(i/Frequencies)
//
// The box of an action is what lies between: the two middle ones of the four x of subject and
// object, and of the four y. Gated takes them up.
//
// A Tokens is immutable and safe for concurrent use.
type Tokens struct {
	cfg                            TokensConfig
	things, actions                tokensMLP
	nullThing, nullAction, nullBox []float32
	interactions, roles            blas32.General
	frequencies                    []float64
	scratch                        scratch.List[tokensRun]
}

type tokensMLP struct{ first, second, third *dense.Linear }

// boxSides are x and y of two corners.
const boxSides = 4

// NewTokens returns a layer, or an error that matches ErrConfig.
func NewTokens(cfg TokensConfig, weights TokensWeights) (*Tokens, error) {
	if cfg.Frequencies == 0 {
		cfg.Frequencies = 8
	}
	if err := sizes(size{"TokensConfig.FeatureDim", cfg.FeatureDim}, size{"TokensConfig.Dim", cfg.Dim}, size{"TokensConfig.Inner", cfg.Inner},
		size{"TokensConfig.MaxInteractions", cfg.MaxInteractions}, size{"TokensConfig.Frequencies", cfg.Frequencies}); err != nil {
		return nil, err
	}
	if err := check.Workers(ErrConfig, "layers", cfg.Workers); err != nil {
		return nil, err
	}
	box := 2 * boxSides * cfg.Frequencies
	w := dense.Packer{Package: "layers"}
	mlp := func(name string, m TokensMLP) tokensMLP {
		return tokensMLP{w.Linear(name+".First", m.First, m.FirstBias, cfg.Inner, cfg.FeatureDim+box),
			w.Linear(name+".Second", m.Second, m.SecondBias, cfg.Inner, cfg.Inner), w.Linear(name+".Third", m.Third, m.ThirdBias, cfg.Dim, cfg.Inner)}
	}
	l := &Tokens{cfg: cfg, things: mlp("Things", weights.Things), actions: mlp("Actions", weights.Actions),
		nullThing: w.Vector("NullThing", weights.NullThing, cfg.FeatureDim, false), nullAction: w.Vector("NullAction", weights.NullAction, cfg.FeatureDim, false),
		nullBox: w.Vector("NullBox", weights.NullBox, box, false)}
	w.Matrix("Interactions", weights.Interactions, cfg.MaxInteractions, cfg.Dim)
	w.Matrix("Roles", weights.Roles, 3, cfg.Dim)
	if w.Err != nil {
		return nil, w.Err
	}
	l.interactions, l.roles = mat.New(cfg.MaxInteractions, cfg.Dim), mat.New(3, cfg.Dim)
	mat.Copy(l.interactions, weights.Interactions)
	mat.Copy(l.roles, weights.Roles)
	for i := range cfg.Frequencies {
		l.frequencies = append(l.frequencies, math.Pow(100, float64(i)/float64(cfg.Frequencies)))
	}
	return l, nil
}

// TokensCall is a call of a Tokens. n are the interactions of an image.
type TokensCall struct {
	// Dst is [3 images n, Dim]: of each image the subjects, then the actions, then the
	// objects. It shares no elements with the rest.
	Dst blas32.General
	// Subjects, Actions and Objects are features, [images n, FeatureDim].
	Subjects, Actions, Objects blas32.General
	// SubjectBoxes and ObjectBoxes are [images n, 4]: x and y of the upper left corner and
	// of the lower right one, from 0 to 1.
	SubjectBoxes, ObjectBoxes blas32.General
	// Masked says, of [images n], which interactions are none; nil for no one. They give
	// the tokens of learned nulls.
	Masked []bool
	// Interactions is n, at most MaxInteractions.
	Interactions int
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Run sets the tokens of a call, which cost 2 Inner (FeatureDim + 8 Frequencies + Inner +
// Dim) flop each. A done ctx ends it with ctx.Err(), and Dst unspecified. After the first
// call of a size nothing is allocated. Errors match ErrShape or ErrCall.
func (l *Tokens) Run(ctx context.Context, call *TokensCall) error {
	if err := check.Call("layers", ctx, call != nil); err != nil {
		return err
	}
	if err := l.checkCall(call); err != nil {
		return err
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.embed(ctx, l, call)
}

func (l *Tokens) checkCall(c *TokensCall) error {
	n := c.Interactions
	if n <= 0 || n > l.cfg.MaxInteractions {
		return check.Errorf(ErrCall, "layers: Interactions is %d, want 1 to MaxInteractions = %d", n, l.cfg.MaxInteractions)
	}
	rows := c.Subjects.Rows
	if rows%n != 0 || rows > maxTokens {
		return check.Errorf(ErrShape, "layers: Subjects has %d rows, want a multiple of Interactions = %d, at most %d", rows, n, maxTokens)
	}
	for _, in := range []struct {
		name string
		m    blas32.General
		cols int
		what string
	}{{"Subjects", c.Subjects, l.cfg.FeatureDim, "FeatureDim"}, {"Actions", c.Actions, l.cfg.FeatureDim, "FeatureDim"}, {"Objects", c.Objects, l.cfg.FeatureDim, "FeatureDim"},
		{"SubjectBoxes", c.SubjectBoxes, boxSides, "a box"}, {"ObjectBoxes", c.ObjectBoxes, boxSides, "a box"}} {
		if err := check.Matrix(ErrShape, "layers", in.name, in.m, rows, in.cols, in.what); err != nil {
			return err
		}
	}
	if c.Masked != nil && len(c.Masked) != rows {
		return check.Errorf(ErrShape, "layers: Masked has %d elements, want the rows of Subjects = %d", len(c.Masked), rows)
	}
	if err := check.Outputs("layers", []check.Out{{Name: "Dst", M: c.Dst, Rows: 3 * rows, Cols: l.cfg.Dim, What: "Dim", Needed: true}},
		c.Subjects, c.Actions, c.Objects, c.SubjectBoxes, c.ObjectBoxes); err != nil {
		return err
	}
	return check.Workers(ErrCall, "layers", c.Workers)
}

// Bytes returns the memory of the weights.
func (l *Tokens) Bytes() int64 {
	bytes := 4 * int64(len(l.nullThing)+len(l.nullAction)+len(l.nullBox)+len(l.interactions.Data)+len(l.roles.Data))
	for _, m := range []tokensMLP{l.things, l.actions} {
		bytes += int64(m.first.Bytes()) + int64(m.second.Bytes()) + int64(m.third.Bytes())
	}
	return bytes
}

// ScratchBytes returns the working memory that a call holds, at the most, besides its
// arguments, whatever its size.
func (l *Tokens) ScratchBytes() int64 {
	return int64(parallel.Workers(l.cfg.Workers)) * 4 * (int64(l.cfg.MaxInteractions)*int64(l.floats()) + 64)
}

// floats is the working memory of an interaction: what an MLP takes, and its two hidden layers.
func (l *Tokens) floats() int { return l.cfg.FeatureDim + len(l.nullBox) + 2*l.cfg.Inner }

// role is what a token is, in the order of Roles.
const (
	subject = iota
	object
	action
)

// order is that of an image's tokens.
var order = [3]int{subject, action, object}

// tokensRun is one call of a Tokens, and the memory that calls share.
type tokensRun struct {
	layer   *Tokens
	call    TokensCall
	workers parallel.Group
	work    [][]float32 // of each worker
	part    func(worker, i int)
}

func (r *tokensRun) embed(ctx context.Context, l *Tokens, call *TokensCall) error {
	r.layer, r.call = l, *call
	defer func() { r.call = TokensCall{} }()
	if r.part == nil {
		r.part = r.embedRole
	}
	workers := parallel.Choose(l.cfg.Workers, call.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	return r.workers.RunAs(ctx, "layers", workers, call.Dst.Rows/call.Interactions, r.part)
}

// embedRole makes all tokens of one role of an image.
func (r *tokensRun) embedRole(worker, i int) {
	l, c, n := r.layer, &r.call, r.call.Interactions
	role, first := order[i%len(order)], i/len(order)*n
	features, mlp, null := c.Subjects, &l.things, l.nullThing
	switch role {
	case object:
		features = c.Objects
	case action:
		features, mlp, null = c.Actions, &l.actions, l.nullAction
	}
	w := &r.work[worker]
	*w = scratch.Floats(*w, n*l.floats())
	in := mat.Of(*w, n, l.floats()-2*l.cfg.Inner)
	a, b := mat.Of((*w)[n*in.Cols:], n, l.cfg.Inner), mat.Of((*w)[n*(in.Cols+l.cfg.Inner):], n, l.cfg.Inner)
	for t := range n {
		feature, box := mat.Part(in, t, 0, l.cfg.FeatureDim), mat.Part(in, t, l.cfg.FeatureDim, len(l.nullBox))
		if c.Masked != nil && c.Masked[first+t] {
			copy(feature, null)
			copy(box, l.nullBox)
			continue
		}
		copy(feature, mat.Row(features, first+t))
		l.fourier(box, boxOf(role, mat.Row(c.SubjectBoxes, first+t), mat.Row(c.ObjectBoxes, first+t)))
	}
	mlp.first.ForwardIn(&r.workers, a, in)
	asm.SiLU(a.Data, a.Data)
	mlp.second.ForwardIn(&r.workers, b, a)
	asm.SiLU(b.Data, b.Data)
	dst := mat.Rows(c.Dst, i*n, (i+1)*n)
	mlp.third.ForwardIn(&r.workers, dst, b)
	for t := range n {
		row := mat.Row(dst, t)
		asm.Add(row, row, mat.Row(l.interactions, t))
		asm.Add(row, row, mat.Row(l.roles, role))
	}
}

// boxOf returns the box of a role.
func boxOf(role int, subjects, objects []float32) [boxSides]float32 {
	switch role {
	case subject:
		return [boxSides]float32(subjects)
	case object:
		return [boxSides]float32(objects)
	}
	x := [...]float32{subjects[0], subjects[2], objects[0], objects[2]}
	y := [...]float32{subjects[1], subjects[3], objects[1], objects[3]}
	slices.Sort(x[:])
	slices.Sort(y[:])
	return [boxSides]float32{x[1], y[1], x[2], y[2]}
}

// fourier sets dst [8 Frequencies].
func (l *Tokens) fourier(dst []float32, box [boxSides]float32) {
	for i, f := range l.frequencies {
		part := dst[2*boxSides*i:]
		for j, v := range box {
			sin, cos := math.Sincos(f * float64(v))
			part[j], part[boxSides+j] = float32(sin), float32(cos)
		}
	}
}
