package sparse

import (
	"context"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// MoBAStateConfig says how a state keeps tokens, and how many.
type MoBAStateConfig struct {
	// MaxTokens is the most tokens that the state will see; 0 for no limit. With a limit the
	// memory is taken at once, unless it is that of Pages.
	MaxTokens int
	// Format is how keys and values of tokens are stored, as in attention.StateConfig:
	// Float16 and BFloat16 take half the memory of Float32, Int8 a quarter. Means of blocks stay
	// Float32; they are made of the keys as they are stored, so that the blocks that are chosen do
	// not depend on how a sequence is cut into steps.
	Format asm.Format
	// Pages takes the tokens' memory from a pool of NewPages, in whose Format they are then
	// stored.
	Pages *attention.Pages
}

// MoBAState is what MoBA remembers of the tokens it has seen: all keys and values, and the
// means of the keys of whole blocks. It is not safe for concurrent use.
type MoBAState struct {
	op     *MoBA
	cfg    MoBAStateConfig
	tokens []*attention.State // one for each key head: MoBA.one's, position i is token i
	means  []float32          // [whole blocks][KVHeads*HeadDim]
}

// NewState returns the state before the first token, or an error that matches ErrConfig.
func (m *MoBA) NewState(cfg MoBAStateConfig) (*MoBAState, error) {
	if cfg.MaxTokens < 0 || int64(cfg.MaxTokens) > mostTokens {
		return nil, check.Errorf(ErrConfig, "sparse: MaxTokens is %d, want 0 to 2^31-1", cfg.MaxTokens)
	}
	tokens := attention.StateConfig{Format: cfg.Format, Pages: cfg.Pages}
	if cfg.Pages == nil {
		tokens.MaxTokens = cfg.MaxTokens
	}
	s := &MoBAState{op: m, cfg: cfg}
	for range m.cfg.KVHeads {
		t, err := m.one.NewState(tokens)
		if err != nil {
			return nil, named(err)
		}
		s.tokens = append(s.tokens, t)
	}
	if cfg.Pages == nil {
		n := check.Product(math.MaxInt/4, cfg.MaxTokens/m.cfg.Block, m.cfg.KVHeads, m.cfg.HeadDim)
		if n < 0 {
			return nil, check.Errorf(ErrConfig, "sparse: MaxTokens is %d, whose blocks have more means than memory can hold", cfg.MaxTokens)
		}
		s.means = make([]float32, 0, n)
	}
	s.cfg.Format = s.tokens[0].Config().Format
	return s, nil
}

// NewPages returns a pool of pages for the tokens of the operator's states, a page for one
// key head, or an error that matches ErrConfig. SharedValues and LogWeights are not used.
func (m *MoBA) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	return poolOf(m.one, cfg)
}

// Len returns how many tokens the state has seen.
func (s *MoBAState) Len() int {
	if s.op == nil { // not made by NewState
		return 0
	}
	return s.tokens[0].Len()
}

// Bytes returns the memory of the state's keys, values and means; pages count whole, also those
// that are shared.
func (s *MoBAState) Bytes() int64 {
	n := 4 * int64(cap(s.means))
	for _, t := range s.tokens {
		n += t.Bytes()
	}
	return n
}

// Reset goes back to before the first token; pages go back to their pool, other memory stays.
func (s *MoBAState) Reset() {
	for _, t := range s.tokens {
		t.Reset()
	}
	s.means = s.means[:0]
}

// Clone returns a state that goes its own way from here. Pages are shared until one of the
// two writes to them; other memory is copied.
func (s *MoBAState) Clone() *MoBAState {
	c := &MoBAState{op: s.op, cfg: s.cfg, means: append(make([]float32, 0, cap(s.means)), s.means...)}
	for _, t := range s.tokens {
		c.tokens = append(c.tokens, t.Clone())
	}
	return c
}

// Truncate takes back the last tokens, so that n are left, any number of them; another n is an
// error that matches ErrState.
func (s *MoBAState) Truncate(n int) error {
	if s.op == nil {
		return check.Unmade("sparse")
	}
	if n < 0 || n > s.Len() {
		return check.Errorf(ErrState, "sparse: a state of %d tokens cannot be truncated to %d", s.Len(), n)
	}
	return s.shorten(n)
}

// shorten goes back to n tokens, of which some key heads may have taken up more. It can only
// fail of a state from a file that another program made.
func (s *MoBAState) shorten(n int) error {
	for _, t := range s.tokens {
		if t.Len() > n {
			if err := t.Truncate(n); err != nil {
				return named(err)
			}
		}
	}
	m := s.op
	s.means = s.means[:min(len(s.means), n/m.cfg.Block*m.cfg.KVHeads*m.cfg.HeadDim)]
	return nil
}

// take takes up tokens, and the means of the blocks that become whole. After an error some of
// it may have been done.
func (s *MoBAState) take(ctx context.Context, a *appends, memory *[]float32, k, v blas32.General) error {
	if err := a.to(ctx, s.tokens, s.op.one, k, v); err != nil {
		return err
	}
	return s.average(ctx, memory)
}

// average makes the means that are missing.
func (s *MoBAState) average(ctx context.Context, memory *[]float32) error {
	const atOnce = 1024
	cfg := &s.op.cfg
	d := cfg.HeadDim
	for b := len(s.means) / (cfg.KVHeads * d); b < s.Len()/cfg.Block; b++ {
		at := len(s.means)
		for range cfg.KVHeads * d {
			s.means = append(s.means, 0)
		}
		for g, t := range s.tokens {
			mean := s.means[at+g*d:][:d]
			for from, end := b*cfg.Block, (b+1)*cfg.Block; from < end; from += atOnce {
				if err := ctx.Err(); err != nil {
					s.means = s.means[:at]
					return err
				}
				k, _ := heldRows(memory, t, from, min(from+atOnce, end), d, cfg.ValueDim)
				addRows(mean, k)
			}
			asm.Scale(mean, 1/float32(cfg.Block), mean)
		}
	}
	return nil
}

// A state's file is a head, with the fingerprint and the numbers, then for each key head the
// file of the attention.State of its tokens. Means are made anew of the keys.
const mobaKind = "sqMoBA\x00\x01"

// fingerprint tells operators apart whose states differ.
func (m *MoBA) fingerprint() []int64 {
	cfg := &m.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)), int64(cfg.Block), int64(cfg.TopK)}
}

// WriteTo writes the state, for a ReadState of an operator of the same configuration, on any
// machine: io.WriterTo. Errors match ErrState or are those of w.
func (s *MoBAState) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("sparse")
	}
	if err := check.Stream(ErrState, "sparse", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, mobaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), int64(s.Len()), int64(s.cfg.Format))
	var parts []io.WriterTo
	for _, t := range s.tokens {
		parts = append(parts, t)
	}
	return f.End(parts...)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was one of
// pages. Errors match ErrState, or are r's. No more memory is taken than a small multiple of
// the bytes that there are to read.
func (m *MoBA) ReadState(r io.Reader) (*MoBAState, error) {
	most, length, format, err := readHead(r, mobaKind, m.fingerprint())
	if err != nil {
		return nil, err
	}
	s, err := m.NewState(MoBAStateConfig{Format: format}) // without memory for tokens that may not be there
	if err != nil {
		return nil, err
	}
	s.cfg.MaxTokens = most
	for _, t := range s.tokens {
		if err := readWhole(t, r, length); err != nil {
			return nil, err
		}
	}
	var memory []float32
	return s, s.average(context.Background(), &memory)
}
