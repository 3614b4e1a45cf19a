package lm

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/ssm"
)

// Mixer is an operator that lets tokens look at others, with the weights of one layer. It
// is immutable and safe for concurrent use.
type Mixer interface {
	// Mix replaces the inputs of some tokens by the mixer's outputs.
	Mix(ctx context.Context, mix *Mix) error
	// Kind names a kind of mixers that share working memory.
	Kind() string
	// Bytes is the memory of weights and tables.
	Bytes() int64
	// ScratchBytes is the working memory of a call of one sequence.
	ScratchBytes(tokens int) int64
	// Prepare computes what a first call of a length would, and keep.
	Prepare(ctx context.Context, tokens int) error
}

// Streamer is a mixer that can go on from where it stopped. A model can where all of its
// mixers can.
type Streamer interface {
	Mixer
	// Fingerprint tells mixers with other numbers or weights apart.
	Fingerprint() uint64
	// StateBytes is the memory of a state after as many tokens.
	StateBytes(tokens int) int64
	// NewState returns an empty state; Snapshots are the model's.
	NewState(cfg StateConfig) (LayerState, error)
	// ReadState reads what the state's WriteTo wrote, and nothing after that.
	ReadState(r io.Reader) (LayerState, error)
}

// WholeStreamer is a Streamer that is faster with a sequence that is there at once than with
// its pieces, and needs no state for it. A model whose mixers all are runs such sequences
// whole, and not some hundred tokens at a time.
type WholeStreamer interface {
	Streamer
	TakesWhole()
}

// Mix is a call of a mixer: a piece of a model's tokens.
type Mix struct {
	// X [n, D] are the inputs, to be replaced by the outputs.
	X blas32.General
	// Offsets are the first row of each sequence and at last n. States has the state
	// that each goes on from, of the mixer's own, to be brought up to date; it is empty
	// where the model cannot stream, or all mixers are WholeStreamers and the caller has no
	// state, and there is one sequence then, the whole of it.
	Offsets []int
	States  []LayerState
	// Filter is the call's filter of the layer, or nil (Call.Filter).
	Filter ssm.DeltaFilter
	// Workers is how many goroutines may be used.
	Workers int
	// Tree, if not nil, makes the rows, of one state, which is a Brancher, nodes of a tree:
	// the parent of each, an earlier row, and -1 of the first.
	Tree []int
	// Single asks for the bits that the rows of a sequence have one by one, as far as the mixer
	// can: for drafts, of which some will stand.
	Single bool
	// Near has attention over all of a past read a part of it, for drafts; its zero value is
	// all.
	Near Near

	recurrent recurrentCall      // working memory of Recurrent
	hyena     hyena.OperatorCall // of Hyena
	delta     deltaCall          // working memory of Delta
}

// MLP is a layer that takes each token by itself: package dense has some.
type MLP interface {
	// Forward sets dst [n, D] from x [n, D], as part of a task of group g; hidden [n,
	// Hidden()] is working memory.
	Forward(g *parallel.Group, dst, x, hidden blas32.General)
	Hidden() int
	Bytes() int64
	// Fingerprints tell MLPs with other weights apart.
	Fingerprints() (up, down uint64)
}

// Branch is a residual branch of a layer, r = r + Scale Post(F(Norm(r))).
type Branch struct {
	Norm dense.Norm // in front; none leaves r as it is
	// Mixer or MLP is F.
	Mixer Mixer
	MLP   MLP
	Post  dense.Norm // after F, or none
	Scale float32    // 0 for 1
	// Parallel makes the branch read the input that the one before it read, a mixer that is
	// not Parallel, and not what that has made of r. Its own Norm is left out.
	Parallel bool
}

// Layer is what a checkpoint calls a layer or a block: one branch or several.
type Layer []Branch

// Classifier gives a sequence scores of classes: of the mean of its hidden states, or with
// Last of the last token before the first Pad (of the last token, where there is no Pad or
// it comes first).
type Classifier struct {
	Weights *dense.Linear // D -> classes
	Last    bool
	Pad     int32
}

// Config is what a model consists of.
type Config struct {
	// Package is the name of the model's package, for errors, and Name says which model
	// it is, in fingerprints.
	Package, Name string
	Embedding     dense.Embedding
	Layers        []Layer
	Norm          dense.Norm
	// Head is without Weights where a checkpoint has none; logits are then an error.
	Head       dense.Head
	Classifier *Classifier // or nil
	// Words is how many of the V tokens may be generated, the first; 0 is all.
	Words int
	// MaxLen is the most tokens of a sequence, 0 for any number, and TooLong what the
	// error about more of them matches.
	MaxLen  int
	TooLong error
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Model is a language model. It is immutable and safe for concurrent use.
type Model struct {
	cfg         Config
	dim, vocab  int
	program     []step
	mixers      []int // where the mixers stand in program
	streamers   []Streamer
	streams     bool // all mixers are streamers
	whole       bool // all of them are WholeStreamers
	hidden      int  // the largest of the MLPs' Hidden
	fingerprint uint64
	valid       func(name string, st *State) error // checkState, as a value that is made once
	scratch     scratch.List[run]
}

// step is a branch in the order in which they run.
type step struct {
	*Branch
	layer int
	first bool // of its layer
}

// New returns a model of parts that fit each other. Errors match ErrConfig.
func New(cfg Config) (*Model, error) {
	m := &Model{cfg: cfg, streams: true, whole: true}
	m.vocab, m.dim = cfg.Embedding.Dims()
	if m.cfg.Words == 0 {
		m.cfg.Words = m.vocab
	}
	if err := m.checkEnds(); err != nil {
		return nil, err
	}
	m.valid = m.checkState
	for l, layer := range cfg.Layers {
		if len(layer) == 0 {
			return nil, check.Errorf(subquad.ErrConfig, "%s: layer %d has no branches", cfg.Package, l)
		}
		for i := range layer {
			b := &layer[i]
			switch {
			case (b.Mixer == nil) == (b.MLP == nil):
				return nil, check.Errorf(subquad.ErrConfig, "%s: branch %d of layer %d is not one of Mixer and MLP", cfg.Package, i, l)
			case b.Parallel && (i == 0 || layer[i-1].Mixer == nil || layer[i-1].Parallel):
				return nil, check.Errorf(subquad.ErrConfig, "%s: branch %d of layer %d is Parallel, but not after a mixer that is not", cfg.Package, i, l)
			}
			if b.Mixer != nil {
				m.mixers = append(m.mixers, len(m.program))
				s, streams := b.Mixer.(Streamer)
				_, whole := b.Mixer.(WholeStreamer)
				m.streams, m.whole = m.streams && streams, m.whole && whole
				m.streamers = append(m.streamers, s)
			} else {
				m.hidden = max(m.hidden, b.MLP.Hidden())
			}
			m.program = append(m.program, step{b, l, i == 0})
		}
	}
	m.whole = m.whole && len(m.mixers) > 0
	if m.streams {
		m.fingerprint = m.sum()
	}
	return m, nil
}

// checkEnds returns an error unless the ends of the model have the embedding's sizes.
func (m *Model) checkEnds() error {
	pkg, norm := m.cfg.Package, &m.cfg.Norm
	if norm.Given() && len(norm.Weight) != m.dim {
		return check.Errorf(subquad.ErrConfig, "%s: the last norm has %d weights, want Dim = %d", pkg, len(norm.Weight), m.dim)
	}
	if m.cfg.Words < 0 || m.cfg.Words > m.vocab {
		return check.Errorf(subquad.ErrConfig, "%s: Words is %d, want 0 to Vocab = %d", pkg, m.cfg.Words, m.vocab)
	}
	for _, l := range []struct {
		name    string
		weights *dense.Linear
		out     int
	}{{"the head", m.cfg.Head.Weights, m.vocab}, {"the classifier", m.classifierWeights(), m.Classes()}} {
		if l.weights == nil {
			continue
		}
		if in, out := l.weights.Dims(); in != m.dim || out != l.out {
			return check.Errorf(subquad.ErrConfig, "%s: %s is of %d inputs and %d outputs, want %d and %d", pkg, l.name, in, out, m.dim, l.out)
		}
	}
	return nil
}

func (m *Model) classifierWeights() *dense.Linear {
	if m.cfg.Classifier == nil {
		return nil
	}
	return m.cfg.Classifier.Weights
}

// sum returns the fingerprint of all that a state depends on.
func (m *Model) sum() uint64 {
	f := state.NewFingerprint(m.cfg.Name, int64(m.vocab), int64(m.dim), int64(len(m.program)))
	if e := &m.cfg.Embedding; e.Tied != nil {
		f.Add(e.Tied.Fingerprint())
	} else {
		f.Matrices(e.Table)
	}
	norm := func(n *dense.Norm) {
		f.Floats(n.Weight, n.Bias, []float32{n.Eps, float32(state.Bool(n.RMS) + 2*state.Bool(n.EpsOutside))})
	}
	f.Floats([]float32{m.cfg.Embedding.Scale})
	mixer := 0
	for _, s := range m.program {
		norm(&s.Norm)
		norm(&s.Post)
		f.Floats([]float32{s.Scale, float32(state.Bool(s.Parallel))})
		if s.MLP != nil {
			up, down := s.MLP.Fingerprints()
			f.Add(up)
			f.Add(down)
			continue
		}
		f.Add(m.streamers[mixer].Fingerprint())
		mixer++
	}
	return uint64(f) | 1 // 0 is that of a state that no model made
}

// Prepare computes what a first call of that many tokens would compute and keep (filters,
// spectra, tables), so that no request waits for it. Bytes counts it. It returns ctx.Err()
// itself once ctx is done.
func (m *Model) Prepare(ctx context.Context, tokens int) error {
	if err := check.Call(m.cfg.Package, ctx, true); err != nil {
		return err
	}
	if tokens < 0 {
		return check.Errorf(subquad.ErrCall, "%s: tokens is %d, want 0 or more", m.cfg.Package, tokens)
	}
	if err := m.checkLength("a sequence", tokens); err != nil {
		return err
	}
	for _, at := range m.mixers {
		if err := m.program[at].Mixer.Prepare(ctx, tokens); err != nil {
			return check.Wrap(ctx, m.cfg.Package, err)
		}
	}
	return ctx.Err()
}

// Mixer returns a mixer, by its number.
func (m *Model) Mixer(i int) Mixer { return m.program[m.mixers[i]].Mixer }

// layout is a call's sequences and their states.
type layout = pack.Layout[*State]
