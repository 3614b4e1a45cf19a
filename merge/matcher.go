package merge

import (
	"cmp"
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/scratch"
)

// Method is how a Matcher divides the tokens into sources and destinations, and which
// destinations a source may merge into. Each source has one: the most similar by the
// cosine of their rows of the metric, the first of those that are equally so.
type Method int

const (
	// ToMe: even tokens are sources, odd ones destinations, and the R sources that are
	// most similar to theirs merge (bipartite soft matching; Bolya et al. 2023).
	ToMe Method = iota
	// Local is ToMe with destinations less than Window pairs away (Götz et al. 2025). A
	// window of 1, token 2i with 2i+1 and no other, is causal and costs O(n).
	Local
	// KTh: the last of every Every tokens is a destination and all others merge. What is
	// left over after the last whole group stays as it is; ToMe's code drops it.
	KTh
	// Grid: of an image's tokens, row after row, the first of every cell is a
	// destination and the others are sources (ToMe for Stable Diffusion, Bolya and
	// Hoffman 2023). Incomplete cells at the right and at the bottom have none.
	Grid
	// Given: sources and destinations are those of the call, in its order.
	Given
	// PiToMe: the 2R tokens of the highest energy, those in the largest groups of
	// similar ones, are in turn sources and destinations, and all R sources merge (Tran
	// et al. 2024, as the vision models of its code have it).
	PiToMe
	// PiToMeText: the R tokens of the highest energy merge into the next R, with the
	// Gaussian energy of the text models.
	PiToMeText
	// PiToMeBSM: all tokens in the order of their energy are in turn sources and
	// destinations, and the R most similar pairs merge.
	PiToMeBSM
)

// String returns the method's name.
func (m Method) String() string {
	if m < ToMe || m > PiToMeBSM {
		return "unknown method"
	}
	return [...]string{"ToMe", "Local", "KTh", "Grid", "Given", "PiToMe", "PiToMeText", "PiToMeBSM"}[m]
}

// Order is how the tokens that are left stand.
type Order int

const (
	// Preserve leaves them in the order of the tokens whose places they take, the
	// destinations: what causal attention, rotary positions and recurrences need.
	Preserve Order = iota
	// Published is the order of each method's own code: the sources that were not merged,
	// the most similar first, and then all destinations. With ClassToken those sources
	// keep their order. PiToMe puts the tokens that it protects first, by energy.
	Published
)

// Config fixes a Matcher.
type Config struct {
	// Method is ToMe by default.
	Method Method
	// Order is Preserve by default.
	Order Order
	// ClassToken says that the first token of every sequence is one that never merges
	// and stays the first; DistillToken that the second is one too (ToMe only).
	ClassToken, DistillToken bool
	// Window, of Local, is how many pairs around its own a source looks at on either
	// side, itself included: source 2i may merge into 2j+1 where |i-j| < Window. 0
	// stands for 1.
	Window int
	// Every, of KTh, is the length of a group; 0 stands for 2, and 1 merges nothing.
	Every int
	// Height and Width, of Grid, are those of the image in tokens; CellHeight and
	// CellWidth those of a cell, 0 standing for 2.
	Height, Width         int
	CellHeight, CellWidth int
	// Alpha, of PiToMe and PiToMeBSM, is that of the ELU in the energy; 0 stands for 1.
	Alpha float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Matcher makes plans. It is immutable and safe for concurrent use.
type Matcher struct {
	cfg     Config
	tile    kernel.AttentionTile
	scratch scratch.List[matchRun]
}

// New returns a Matcher, or an error that matches ErrConfig.
func New(cfg Config) (*Matcher, error) {
	fail := func(format string, args ...any) (*Matcher, error) {
		return nil, check.Errorf(ErrConfig, "merge: "+format, args...)
	}
	cfg.Window, cfg.Every = cmp.Or(cfg.Window, 1), cmp.Or(cfg.Every, 2)
	cfg.CellHeight, cfg.CellWidth = cmp.Or(cfg.CellHeight, 2), cmp.Or(cfg.CellWidth, 2)
	cfg.Alpha = cmp.Or(cfg.Alpha, 1)
	switch {
	case cfg.Method < ToMe || cfg.Method > PiToMeBSM:
		return fail("Method is %d, want ToMe to PiToMeBSM", cfg.Method)
	case cfg.Order != Preserve && cfg.Order != Published:
		return fail("Order is %d, want Preserve or Published", cfg.Order)
	case cfg.DistillToken && cfg.Method != ToMe:
		return fail("DistillToken together with Method %v, want ToMe", cfg.Method)
	case cfg.ClassToken && cfg.Method == Given:
		return fail("ClassToken together with Method Given, whose Sources and Destinations say what merges")
	case cfg.Window < 0:
		return fail("Window is %d, want 0 or more", cfg.Window)
	case cfg.Every < 0:
		return fail("Every is %d, want 0 or more", cfg.Every)
	case cfg.Method == Grid && (cfg.Height <= 0 || cfg.Width <= 0 || cfg.Height > maxTokens/cfg.Width):
		return fail("Height is %d and Width %d, want 1 or more and at most %d tokens", cfg.Height, cfg.Width, maxTokens)
	case cfg.CellHeight < 0 || cfg.CellWidth < 0:
		return fail("CellHeight is %d and CellWidth %d, want 0 or more", cfg.CellHeight, cfg.CellWidth)
	case math.IsNaN(float64(cfg.Alpha)) || math.IsInf(float64(cfg.Alpha), 0):
		return fail("Alpha is %v, want a finite number", cfg.Alpha)
	}
	if err := check.Workers(ErrConfig, "merge", cfg.Workers); err != nil {
		return nil, err
	}
	return &Matcher{cfg: cfg, tile: kernel.NewAttentionTile()}, nil
}

// Match makes plan the one that merges r tokens of one sequence away, by the metric
// [tokens, dims], whose rows' lengths do not matter. Errors match ErrShape or ErrCall,
// and leave the plan as it was. After the first call of a shape nothing is allocated.
func (m *Matcher) Match(plan *Plan, metric blas32.General, r int) error {
	return m.Run(context.Background(), &Call{Plan: plan, Metric: metric, R: r})
}

// Run is Match with everything optional. When ctx is done it returns ctx.Err(), and leaves
// the plan as it was. Errors match ErrShape or ErrCall.
func (m *Matcher) Run(ctx context.Context, call *Call) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.match(ctx, m, call)
}
