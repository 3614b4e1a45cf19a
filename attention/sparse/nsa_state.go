package sparse

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
)

// NSAStateConfig says how a state keeps tokens, and how many.
type NSAStateConfig struct {
	// MaxTokens is the most tokens that the state will see; 0 for no limit. With a limit
	// the memory is taken at once, unless it is that of Pages.
	MaxTokens int
	// Format is how keys and values of tokens are stored, as in attention.StateConfig:
	// Float16 and BFloat16 take half the memory of Float32, Int8 a quarter. Compressed keys
	// and values stay Float32; they are made of the tokens as they are stored, so that the
	// blocks that are chosen do not depend on how a sequence is cut into steps.
	Format asm.Format
	// Pages takes the tokens' memory from a pool of NewPages, in whose Format they are then
	// stored.
	Pages *attention.Pages
}

// mostTokens bounds the tokens of a state, so that numbers of blocks fit in 32 bits.
const mostTokens = math.MaxInt32

// NSAState is what NSA remembers of the tokens it has seen: all keys and values, and the
// compressed ones. It is not safe for concurrent use.
type NSAState struct {
	op     *NSA
	cfg    NSAStateConfig
	tokens []*attention.State // one for each key head: NSA.one's, position i is token i
	blocks []*attention.State // likewise of compressed keys and values
}

// NewState returns the state before the first token, or an error that matches ErrConfig.
func (a *NSA) NewState(cfg NSAStateConfig) (*NSAState, error) {
	if cfg.MaxTokens < 0 || int64(cfg.MaxTokens) > mostTokens {
		return nil, check.Errorf(ErrConfig, "sparse: MaxTokens is %d, want 0 to 2^31-1", cfg.MaxTokens)
	}
	s := &NSAState{op: a, cfg: cfg}
	tokens, blocks := attention.StateConfig{Format: cfg.Format, Pages: cfg.Pages}, attention.StateConfig{}
	if cfg.Pages == nil {
		tokens.MaxTokens, blocks.MaxTokens = cfg.MaxTokens, a.compressed(cfg.MaxTokens)
	}
	for range a.cfg.KVHeads {
		t, err := a.one.NewState(tokens)
		if err != nil {
			return nil, named(err)
		}
		b, err := a.one.NewState(blocks)
		if err != nil {
			return nil, named(err)
		}
		s.tokens, s.blocks = append(s.tokens, t), append(s.blocks, b)
	}
	s.cfg.Format = s.tokens[0].Config().Format
	return s, nil
}

// NewPages returns a pool of pages for the tokens of the operator's states, a page for one
// key head, or an error that matches ErrConfig. SharedValues and LogWeights are not used.
func (a *NSA) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	return poolOf(a.one, cfg)
}

// poolOf returns a pool for states of an operator of one key head.
func poolOf(one *attention.Attention, cfg attention.PagesConfig) (*attention.Pages, error) {
	if cfg.SharedValues || cfg.LogWeights {
		return nil, check.Errorf(ErrConfig, "sparse: SharedValues or LogWeights of Pages, want neither")
	}
	p, err := one.NewPages(cfg)
	return p, named(err)
}

// named gives an error of package attention this package's name.
func named(err error) error {
	if err == nil {
		return nil
	}
	return check.Named("sparse", err)
}

// Len returns how many tokens the state has seen.
func (s *NSAState) Len() int {
	if s.op == nil { // not made by NewState
		return 0
	}
	return s.tokens[0].Len()
}

// Bytes returns the memory of the state's keys and values; pages count whole, also those
// that are shared.
func (s *NSAState) Bytes() (n int64) {
	for g := range s.tokens {
		n += s.tokens[g].Bytes() + s.blocks[g].Bytes()
	}
	return n
}

// Reset goes back to before the first token; pages go back to their pool, other memory
// stays.
func (s *NSAState) Reset() {
	for g := range s.tokens {
		s.tokens[g].Reset()
		s.blocks[g].Reset()
	}
}

// Clone returns a state that goes its own way from here. Pages are shared until one of the
// two writes to them; other memory is copied.
func (s *NSAState) Clone() *NSAState {
	c := &NSAState{op: s.op, cfg: s.cfg}
	for g := range s.tokens {
		c.tokens, c.blocks = append(c.tokens, s.tokens[g].Clone()), append(c.blocks, s.blocks[g].Clone())
	}
	return c
}

// Truncate takes back the last tokens, so that n are left, any number of them; another n is
// an error that matches ErrState.
func (s *NSAState) Truncate(n int) error {
	if s.op == nil {
		return check.Unmade("sparse")
	}
	if n < 0 || n > s.Len() {
		return check.Errorf(ErrState, "sparse: a state of %d tokens cannot be truncated to %d", s.Len(), n)
	}
	s.shorten(n)
	return nil
}

// shorten goes back to n tokens, of which some key heads may have taken up more.
func (s *NSAState) shorten(n int) {
	compressed := s.op.compressed(n)
	for g := range s.tokens {
		// Neither can fail: the states are no rings, and all they have seen is held.
		if s.tokens[g].Len() > n {
			s.tokens[g].Truncate(n)
		}
		if s.blocks[g].Len() > compressed {
			s.blocks[g].Truncate(compressed)
		}
	}
}

// Step is Forward for the next tokens, one or many, after those that the state has seen.
// Any split of a sequence gives what Forward gives, up to rounding and to what the state's
// Format loses; where two blocks' scores are as good as equal, that may choose the other.
//
// One token reads the compressed keys and values, TopK Block tokens and Window tokens. On
// an error the state is as before the call. Errors match those of Run.
func (a *NSA) Step(dst, q, k, v blas32.General, gates Gates, st *NSAState) error {
	if st == nil {
		return check.NilState("sparse", "State")
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serveNSA(context.Background(), a, nsaRequest{dst: dst, q: q, k: k, v: v, gates: gates}, pack.Batch[*NSAState]{State: st})
}

// StepBatch is Step for the next token of each of many states: row i of the matrices
// belongs to states[i]. It is Run with States, which also takes several tokens of each. On
// an error all states are as before the call. Errors match those of Run.
func (a *NSA) StepBatch(dst, q, k, v blas32.General, gates Gates, states []*NSAState) error {
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serveNSA(context.Background(), a, nsaRequest{dst: dst, q: q, k: k, v: v, gates: gates}, pack.Batch[*NSAState]{States: pack.EachRow(states)})
}

// checkOwner reports a state that is not one of the operator's.
func (r *nsaRun) checkOwner(name string, s *NSAState) error {
	switch {
	case s == nil:
		return check.NilState("sparse", name)
	case s.op == nil || s.op.print != r.op.print:
		return check.Errorf(ErrState, "sparse: %s is of another operator", name)
	}
	return nil
}

// checkRooms reports a call that its states cannot take up, or that is too long.
func (r *nsaRun) checkRooms() error {
	for b, x := range r.layout.Segments {
		had, most := 0, 0
		if len(r.layout.States) > 0 {
			had, most = r.layout.States[b].Len(), r.layout.States[b].cfg.MaxTokens
		}
		if err := checkRoom(x, had, most); err != nil {
			return err
		}
	}
	return nil
}

// checkRoom reports tokens that a state of had cannot take up, which may have most, or any
// number for 0.
func checkRoom(x pack.Segment, had, most int) error {
	if most == 0 {
		most = mostTokens
	}
	if n := x.To - x.From; n > most-had {
		return check.Errorf(ErrFull, "sparse: %d tokens after %d, want at most %d", n, had, most)
	}
	return nil
}

// extend has a state take up the rows of its sequence, and attends from them. After an error
// it may have taken up some of them.
func (r *nsaRun) extend(ctx context.Context) error {
	s, cfg := r.state, &r.op.cfg
	if err := r.append.to(ctx, s.tokens, r.op.one, r.seq.k, r.seq.v); err != nil {
		return err
	}
	r.made = s.blocks[0].Len()
	workers := r.workersOf(r.seq.q.Rows)
	r.reserveWorkers(workers)
	if err := r.compressNew(ctx, workers); err != nil {
		return err
	}
	if r.newOnes() > 0 {
		for g := range cfg.KVHeads {
			k, v := r.newMeansOf(g)
			if err := s.blocks[g].Append(k, v); err != nil {
				return named(err)
			}
		}
	}
	return r.attendSequence(ctx)
}
