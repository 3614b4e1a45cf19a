package attention

import (
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// LandmarkStateConfig says in advance what a state will hold.
type LandmarkStateConfig struct {
	// MaxBlocks is the most blocks that the state holds: the oldest are forgotten. 0
	// is no limit.
	MaxBlocks int
}

// LandmarkState is what Landmark.Step remembers of the tokens it has seen: the
// keys and values of whole blocks, and the tokens since the last landmark. It is
// not safe for concurrent use. There is no Truncate: keys of whole blocks are
// held rotated within their block.
type LandmarkState struct {
	op     *Landmark
	cfg    LandmarkStateConfig
	length int64
	blocks queue // whole blocks, each rotated as if it began at position 0
	tail   queue // tokens after the last landmark, not rotated
}

// NewState returns the state before the first token, or an error that matches
// ErrConfig.
func (l *Landmark) NewState(cfg LandmarkStateConfig) (*LandmarkState, error) {
	if cfg.MaxBlocks < 0 {
		return nil, check.Errorf(ErrConfig, "attention: MaxBlocks is %d, want 0 or more", cfg.MaxBlocks)
	}
	s := &LandmarkState{op: l, cfg: cfg}
	kCols, vCols := l.cfg.KVHeads*l.cfg.HeadDim, l.cfg.KVHeads*l.cfg.ValueDim
	s.blocks, s.tail = newQueue(kCols, vCols), newQueue(kCols, vCols)
	return s, nil
}

// Len returns how many tokens the state has seen, landmarks among them.
func (s *LandmarkState) Len() int { return int(s.length) }

// Blocks returns how many whole blocks the state holds.
func (s *LandmarkState) Blocks() int { return s.blocks.rows / s.op.period() }

// Bytes returns the memory that the state holds.
func (s *LandmarkState) Bytes() int64 { return s.blocks.bytes() + s.tail.bytes() }

// Reset goes back to before the first token and keeps the memory.
func (s *LandmarkState) Reset() {
	s.length = 0
	s.blocks.clear()
	s.tail.clear()
}

// Clone returns a copy that shares nothing with s.
func (s *LandmarkState) Clone() *LandmarkState {
	c := *s
	c.blocks, c.tail = s.blocks.clone(), s.tail.clone()
	return &c
}

// start returns the position of the next token.
func (s *LandmarkState) start() int64 {
	period := int64(s.op.period())
	return min(s.length/period, int64(s.op.cfg.TopK)+1)*period + int64(s.tail.rows)
}

// commit takes up the tokens of a call.
func (s *LandmarkState) commit(r *landmarkRun) error {
	c, period := &r.call, s.op.period()
	whole := (s.tail.rows + c.K.Rows) / period
	at := s.blocks.rows
	if whole > 0 {
		from := whole*period - s.tail.rows // of the call's tokens, those in no whole block
		s.blocks.append(s.tail.K(), s.tail.V())
		s.blocks.append(mat.Rows(c.K, 0, from), mat.Rows(c.V, 0, from))
		if rotation := s.op.cfg.Rotation; rotation != nil {
			for b := range whole {
				m := mat.Rows(s.blocks.K(), at+b*period, at+(b+1)*period)
				if err := rotation.Rotate(m, 0); err != nil {
					s.blocks.truncate(s.blocks.first + int64(at))
					return err
				}
			}
		}
		s.tail.clear()
		s.tail.append(mat.Rows(c.K, from, c.K.Rows), mat.Rows(c.V, from, c.V.Rows))
	} else {
		s.tail.append(c.K, c.V)
	}
	s.length += int64(c.K.Rows)
	if most := s.cfg.MaxBlocks; most > 0 && s.Blocks() > most {
		s.blocks.drop(s.blocks.end() - int64(most*period))
	}
	return nil
}

// block returns the rows of a block, the oldest being 0.
func (s *LandmarkState) block(b int) (k, v blas32.General) {
	period := s.op.period()
	return mat.Rows(s.blocks.K(), b*period, (b+1)*period), mat.Rows(s.blocks.V(), b*period, (b+1)*period)
}

const landmarkKind = "sqLandm\x01"

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
func (s *LandmarkState) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, landmarkKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxBlocks), s.length)
	s.blocks.writeTo(f)
	s.tail.first = 0
	s.tail.writeTo(f)
	return f.End()
}

// ReadState reads what WriteTo wrote. Errors match ErrState, or are r's. No more
// memory is taken than there are bytes to read.
func (l *Landmark) ReadState(r io.Reader) (*LandmarkState, error) {
	f := state.NewReader(r, "attention", ErrState, landmarkKind, l.fingerprint())
	s, err := l.NewState(LandmarkStateConfig{})
	if err != nil {
		return nil, err
	}
	most := f.Int()
	s.length = f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt32 || s.length < 0 || s.length > maxPosition) {
		f.Fail("it has %d tokens and MaxBlocks %d", s.length, most)
	}
	s.cfg.MaxBlocks = int(most)
	period := int64(l.period())
	tail := s.length % period
	s.blocks.readFrom(f, s.length-tail, s.length-tail)
	s.tail.readFrom(f, 0, tail)
	if f.Err() == nil && s.blocks.first%period != 0 {
		f.Fail("its first block begins at %d", s.blocks.first)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
