package landmark

import (
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/queue"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig says in advance what a state will hold.
type StateConfig struct {
	// MaxBlocks is the most blocks that the state holds: the oldest are forgotten. 0
	// is no limit.
	MaxBlocks int
}

// State is what Landmark.Step remembers of the tokens it has seen: the
// keys and values of whole blocks, and the tokens since the last landmark. It is
// not safe for concurrent use.
type State struct {
	op     *Landmark
	cfg    StateConfig
	length int64
	blocks queue.Queue // whole blocks, each rotated as if it began at position 0
	tail   queue.Queue // tokens after the last landmark, not rotated
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (l *Landmark) NewState(cfg StateConfig) (*State, error) {
	if cfg.MaxBlocks < 0 {
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxBlocks is %d, want 0 or more", cfg.MaxBlocks)
	}
	s := &State{op: l, cfg: cfg}
	kCols, vCols := l.cfg.KVHeads*l.cfg.HeadDim, l.cfg.KVHeads*l.cfg.ValueDim
	s.blocks, s.tail = queue.New(kCols, vCols), queue.New(kCols, vCols)
	return s, nil
}

// Len returns how many tokens the state has seen, landmarks among them.
func (s *State) Len() int { return int(s.length) }

// Blocks returns how many whole blocks the state holds.
func (s *State) Blocks() int { return s.blocks.Rows / s.op.period() }

// Bytes returns the memory that the state holds.
func (s *State) Bytes() int64 { return s.blocks.Bytes() + s.tail.Bytes() }

// Reset goes back to before the first token and keeps the memory.
func (s *State) Reset() {
	s.length = 0
	s.blocks.Clear()
	s.tail.Clear()
}

// Truncate takes back the last tokens, so that n are left. It can go back no further
// than the last landmark, keys of whole blocks being held rotated within their block,
// or all the way to 0; otherwise it returns an error that matches ErrState and changes
// nothing.
func (s *State) Truncate(n int) error {
	back := s.length - int64(n)
	switch {
	case n < 0 || back < 0 || back > int64(s.tail.Rows) && n > 0:
		return check.Errorf(attention.ErrState, "landmark: a state of %d tokens cannot be truncated to %d, want 0 or at least %d", s.length, n, s.length-int64(s.tail.Rows))
	case n == 0:
		s.Reset()
	default:
		s.tail.Truncate(s.tail.End() - back)
		s.length -= back
	}
	return nil
}

// Clone returns a copy that shares nothing with s.
func (s *State) Clone() *State {
	c := *s
	c.blocks, c.tail = s.blocks.Clone(), s.tail.Clone()
	return &c
}

// start returns the position of the next token.
func (s *State) start() int64 {
	period := int64(s.op.period())
	return min(s.length/period, int64(s.op.cfg.TopK)+1)*period + int64(s.tail.Rows)
}

// commit takes up the tokens of a call.
func (s *State) commit(r *run) error {
	c, period := &r.call, s.op.period()
	whole := (s.tail.Rows + c.K.Rows) / period
	at := s.blocks.Rows
	if whole > 0 {
		from := whole*period - s.tail.Rows // of the call's tokens, those in no whole block
		s.blocks.Append(s.tail.K(), s.tail.V())
		s.blocks.Append(mat.Rows(c.K, 0, from), mat.Rows(c.V, 0, from))
		if rotation := s.op.cfg.Rotation; rotation != nil {
			for b := range whole {
				m := mat.Rows(s.blocks.K(), at+b*period, at+(b+1)*period)
				if err := rotation.Rotate(m, 0); err != nil {
					s.blocks.Truncate(s.blocks.First + int64(at))
					return err
				}
			}
		}
		s.tail.Clear()
		s.tail.Append(mat.Rows(c.K, from, c.K.Rows), mat.Rows(c.V, from, c.V.Rows))
	} else {
		s.tail.Append(c.K, c.V)
	}
	s.length += int64(c.K.Rows)
	if most := s.cfg.MaxBlocks; most > 0 && s.Blocks() > most {
		s.blocks.Drop(s.blocks.End() - int64(most*period))
	}
	return nil
}

// block returns the rows of a block, the oldest being 0.
func (s *State) block(b int) (k, v blas32.General) {
	period := s.op.period()
	return mat.Rows(s.blocks.K(), b*period, (b+1)*period), mat.Rows(s.blocks.V(), b*period, (b+1)*period)
}

const stateKind = "sqLandm\x01"

func (l *Landmark) fingerprint() []int64 {
	cfg := &l.cfg
	list := []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)),
		int64(cfg.Block), int64(cfg.TopK), int64(cfg.Selection)}
	if r := cfg.Rotation; r != nil {
		list = append(list, int64(r.Config().Layout), int64(math.Float64bits(r.AttentionFactor())))
		for _, f := range r.Frequencies() {
			list = append(list, int64(math.Float64bits(f)))
		}
	}
	return list
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxBlocks), s.length)
	s.blocks.WriteTo(f)
	s.tail.First = 0
	s.tail.WriteTo(f)
	return f.End()
}

// ReadState reads what WriteTo wrote. Errors match attention.ErrState, or are r's. No more
// memory is taken than there are bytes to read.
func (l *Landmark) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "landmark", attention.ErrState, stateKind, l.fingerprint())
	s, err := l.NewState(StateConfig{})
	if err != nil {
		return nil, err
	}
	most := f.Int()
	s.length = f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt32 || s.length < 0 || s.length > attention.MaxPosition) {
		f.Fail("it has %d tokens and MaxBlocks %d", s.length, most)
	}
	s.cfg.MaxBlocks = int(most)
	period := int64(l.period())
	tail := s.length % period
	s.blocks.ReadFrom(f, s.length-tail, s.length-tail)
	s.tail.ReadFrom(f, 0, tail)
	if f.Err() == nil && s.blocks.First%period != 0 {
		f.Fail("its first block begins at %d", s.blocks.First)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
