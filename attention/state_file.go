package attention

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

const stateKind = "sqState\x01"

// hasPositions stands in place of State.high in the file of a state that has forgotten
// tokens: there, each token comes after its position.
const hasPositions = -1

// mostTokens bounds the tokens that a file may tell of, so that sums do not overflow.
const mostTokens = min(MaxPosition, math.MaxInt/2)

// int8Turned stands for Int8 in files: that of keys which may stand turned and which have
// parts. Before there were either, it was Int8 itself.
const int8Turned = int64(asm.Float16) + 1

func storedFormat(format asm.Format) int64 {
	if format == asm.Int8 {
		return int8Turned
	}
	return int64(format)
}

// fingerprint tells operators apart whose states mean something else.
func (a *Attention) fingerprint() []int64 {
	c := &a.cfg
	list := []int64{int64(c.Heads), int64(c.KVHeads), int64(c.HeadDim), int64(c.ValueDim), int64(math.Float32bits(c.Scale)),
		int64(c.Window), int64(math.Float32bits(c.Softcap)), state.Bool(c.ReLU), hashed(fmt.Sprintf("%T", c.Bias))}
	for _, x := range c.Sinks {
		list = append(list, int64(math.Float32bits(x)))
	}
	if c.Fingerprint != 0 {
		list = append(list, int64(c.Fingerprint))
	}
	return list
}

func hashed(s string) int64 {
	h := fnv.New64a()
	io.WriteString(h, s)
	return int64(h.Sum64())
}

// rotationPrint tells ways to rotate keys apart; it is empty without a Rotation.
func (s *State) rotationPrint() (list []int64) {
	if s.schedule == nil {
		return nil
	}
	schedule := *s.schedule // of no tokens
	r, _, _ := schedule.Step(0)
	cfg := r.Config()
	list = append(list, int64(s.cfg.Policy), int64(cfg.Layout), int64(math.Float64bits(r.AttentionFactor())), hashed(fmt.Sprint(cfg.Scheme)))
	for _, f := range r.Frequencies() {
		list = append(list, int64(math.Float64bits(f)))
	}
	if cfg.Offset != 0 {
		list = append(list, int64(cfg.Offset))
	}
	return list
}

// WriteTo writes the tokens that the state holds, as they are stored, with a
// fingerprint of the operator and of the kind of state: io.WriterTo. What is read
// back, by ReadFrom or Attention.ReadState, goes on bit for bit, on any machine
// with the same tier. Errors match ErrState or are those of w.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("attention")
	}
	if err := check.Stream(ErrState, "attention", "writer", w); err != nil {
		return 0, err
	}
	c := &s.cfg
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(storedFormat(c.Format), state.Bool(c.SharedValues), state.Bool(c.LogWeights), int64(c.Window), int64(c.Keep), int64(c.MaxTokens))
	turns := s.rotationPrint()
	f.Ints(int64(len(turns)))
	f.Ints(turns...)
	forgetful := s.floor > 0
	if forgetful {
		f.Ints(int64(s.n), hasPositions, int64(s.reached), int64(s.floor), int64(s.Held()))
	} else {
		f.Ints(int64(s.n), int64(s.high), int64(s.reached))
	}
	buffer := make([]byte, s.op.tokenBytes(c))
	for _, x := range s.spans(nil, 0, s.n) {
		for i := range x.n {
			if forgetful {
				f.Ints(int64(x.at(i)))
			}
			x.b.codeToken(buffer, x.row+i, true)
			f.Bytes(buffer)
		}
	}
	return f.End()
}

// ReadState returns a state as it was written, its configuration included, except
// that one of pages has memory of its own now. A Rotation is not in the file:
// states with one, and those that are to have pages, are made by NewState and
// filled by ReadFrom. Errors match ErrState, or are r's; no more memory is taken
// than a small multiple of the bytes that there are to read.
func (a *Attention) ReadState(r io.Reader) (*State, error) {
	s := &State{op: a}
	if err := s.readAll(state.NewReader(r, "attention", ErrState, stateKind, a.fingerprint()), true); err != nil {
		return nil, err
	}
	return s, nil
}

// ReadRotated is ReadState for a state with a Rotation under a Policy, which are not in
// the file and must be those that it was written with. Errors match ErrConfig or ErrState or
// are those of r.
func (a *Attention) ReadRotated(r io.Reader, rotation *rope.Config, policy rope.Policy) (*State, error) {
	s, err := a.NewState(StateConfig{Rotation: rotation, Policy: policy})
	if err != nil {
		return nil, err
	}
	if err := s.readAll(state.NewReader(r, "attention", ErrState, stateKind, a.fingerprint()), true); err != nil {
		return nil, err
	}
	return s, nil
}

// ReadFrom fills an empty state from a file that was written by a state of the
// same configuration, MaxTokens and Pages apart: io.ReaderFrom, but it reads no
// further than the file goes. Errors match ErrState, ErrFull where there is no
// room, or are r's; after one the state is empty.
func (s *State) ReadFrom(r io.Reader) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("attention")
	}
	if s.n != 0 {
		return 0, check.Errorf(ErrState, "attention: ReadFrom into a state with %d tokens, want an empty one", s.n)
	}
	f := state.NewReader(r, "attention", ErrState, stateKind, s.op.fingerprint())
	err := s.readAll(f, false)
	if err != nil {
		s.Reset()
	}
	return f.N(), err
}

// readAll fills the state; where the configuration is to be the file's, that too.
func (s *State) readAll(f *state.Reader, own bool) error {
	cfg, err := s.readConfig(f)
	if err != nil {
		return err
	}
	if own {
		cfg.Rotation, cfg.Policy = s.cfg.Rotation, s.cfg.Policy
		s.cfg = cfg
	} else if c := &s.cfg; c.Format != cfg.Format || c.SharedValues != cfg.SharedValues || c.LogWeights != cfg.LogWeights || c.Window != cfg.Window || c.Keep != cfg.Keep {
		f.Fail("it was written by a state of another Format, SharedValues, LogWeights, Window or Keep")
	}
	want := s.rotationPrint()
	turns := f.Int()
	if f.Err() == nil && turns != int64(len(want)) {
		f.Fail("it was written by a state of another Rotation: make one with the same, and use its ReadFrom")
	}
	for _, x := range want {
		if f.Int() != x {
			f.Fail("it was written by a state of another Rotation")
		}
	}
	n, high, reached := f.Int(), f.Int(), f.Int()
	if high == hasPositions {
		if err := s.readPositions(f, n, reached, cfg.MaxTokens); err != nil {
			return err
		}
		return s.endRead(f)
	}
	if f.Err() == nil && (n < 0 || n > high || max(high, reached) > mostTokens) {
		f.Fail("it has %d tokens, of %d, of %d", n, high, reached)
	}
	if f.Err() != nil {
		return f.Err()
	}
	if err := s.checkRead(n, cfg.MaxTokens); err != nil {
		return err
	}
	if c := &s.cfg; c.Window == 0 || high <= int64(s.ringTokens()) {
		high = n // nothing was overwritten
	} else if n < high-slack {
		return check.Errorf(ErrState, "attention: state: a ring that had %d tokens is at %d", high, n)
	}
	s.high, s.reached = int(high), int(reached)
	if err := s.readTokens(f, int(n)); err != nil {
		return err
	}
	return s.endRead(f)
}

// endRead reads the checksum and brings the rotation to where it was.
func (s *State) endRead(f *state.Reader) error {
	if err := f.End(); err != nil {
		return err
	}
	if s.schedule != nil {
		var err error
		if s.rotation, _, err = s.schedule.Step(int64(s.reached)); err != nil {
			return check.Errorf(ErrState, "attention: state: %v", err)
		}
	}
	return nil
}

func (s *State) readConfig(f *state.Reader) (cfg StateConfig, err error) {
	format, shared, weights := f.Int(), f.Int(), f.Int()
	window, keep, most := f.Int(), f.Int(), f.Int()
	if f.Err() == nil && format == int64(asm.Int8) && shared != 0 {
		f.Fail("its keys and values are of one scale, as they are not any more")
	}
	if format == int8Turned {
		format = int64(asm.Int8)
	}
	if f.Err() == nil && (format < 0 || format > int64(asm.Float16) || shared>>1 != 0 || weights>>1 != 0 || min(window, keep, most) < 0 || max(window, keep) > 1<<30 || most > math.MaxInt) {
		f.Fail("it is of Format %d, Window %d, Keep %d and MaxTokens %d", format, window, keep, most)
	}
	if f.Err() != nil {
		return cfg, f.Err()
	}
	cfg = StateConfig{Format: asm.Format(format), SharedValues: shared == 1, LogWeights: weights == 1, Window: int(window), Keep: int(keep), MaxTokens: int(most)}
	with := cfg
	with.Rotation, with.Policy = s.cfg.Rotation, s.cfg.Policy
	if err := s.op.checkStateConfig(&with); err != nil {
		return cfg, check.Errorf(ErrState, "%v", err)
	}
	return cfg, nil
}

// checkRead refuses a file of more tokens than its own MaxTokens, which no state wrote,
// and than the state's.
func (s *State) checkRead(tokens int64, own int) error {
	if own > 0 && tokens > int64(own) {
		return check.Errorf(ErrState, "attention: state: it has %d tokens, of at most MaxTokens = %d", tokens, own)
	}
	if most := s.cfg.MaxTokens; most > 0 && tokens > int64(most) {
		return check.Errorf(ErrFull, "attention: reading a state of %d tokens, want at most MaxTokens = %d", tokens, most)
	}
	return nil
}

// readPositions reads a state of n tokens, at most that many held, that has forgotten
// some. Memory grows with what is there.
func (s *State) readPositions(f *state.Reader, n, reached int64, most int) error {
	floor, held := f.Int(), f.Int()
	if f.Err() == nil && (s.cfg.Window > 0 || min(n, reached, held) < 0 || floor < 1 || max(floor, held) > n || held < n-floor || max(n, reached) > mostTokens) {
		f.Fail("it has %d of %d tokens, the last forgotten after %d", held, n, floor)
	}
	if f.Err() != nil {
		return f.Err()
	}
	if held == n {
		f.Fail("it has all of %d tokens, of which some before %d were forgotten", n, floor)
		return f.Err()
	}
	if err := s.checkRead(held, most); err != nil {
		return err
	}
	s.list = []int64{}
	bytes, before := int(s.op.tokenBytes(&s.cfg)), int64(-1)
	follows := func(at int64) bool { return at > before && at <= max(before+1, floor) } // without a gap after floor
	for range held {
		at := f.Int()
		if f.Err() == nil && (!follows(at) || at >= n) {
			f.Fail("a token stands at %d, after one at %d, of %d", at, before, n)
		}
		if f.Err() != nil {
			return f.Err()
		}
		s.n, before = int(at), at
		if err := s.makeRoom(1); err != nil {
			return err
		}
		b, row, _ := s.rowPlace(len(s.list))
		b.codeToken(f.Bytes(bytes), row, false)
		s.list = append(s.list, at)
	}
	if !follows(n) {
		f.Fail("the last token stands at %d, of %d", before, n)
	}
	s.n, s.high, s.reached, s.floor = int(n), int(n), int(reached), int(floor)
	if first := n - held; held == 0 || s.list[0] == first { // no gaps
		s.first, s.list = int(first), nil
	}
	return f.Err()
}

// readTokens reads what a state of n tokens holds. Memory grows with what is
// there; a ring that has none yet gets it last.
func (s *State) readTokens(f *state.Reader, n int) error {
	bytes := int(s.op.tokenBytes(&s.cfg))
	read := func(to *State, pos, count int) error {
		for i := range count {
			if to.n = pos + i; to.cfg.Window == 0 {
				if err := to.makeRoom(1); err != nil {
					return err
				}
			}
			b, row, _ := to.place(pos + i)
			b.codeToken(f.Bytes(bytes), row, false)
			if f.Err() != nil {
				return f.Err()
			}
		}
		return nil
	}
	switch {
	case s.cfg.Window == 0:
		if err := read(s, 0, n); err != nil {
			return err
		}
	case len(s.blocks) > 0:
		for _, x := range s.spans(nil, 0, n) {
			if err := read(s, x.pos, x.n); err != nil {
				return err
			}
		}
	default:
		c := &s.cfg
		flat := &State{op: s.op, cfg: StateConfig{Format: c.Format, SharedValues: c.SharedValues, LogWeights: c.LogWeights}}
		held, at := s.spans(nil, 0, n), 0
		for _, x := range held {
			if err := read(flat, at, x.n); err != nil {
				return err
			}
			at += x.n
		}
		if err := s.makeRoom(s.high); err != nil {
			return err
		}
		at = 0
		for _, x := range held {
			s.blocks[0].moveRows(x.row, flat.blocks[0], at, x.n)
			at += x.n
		}
	}
	s.n = n
	return nil
}

// codeToken moves the keys, values and log-weights of a token to bytes, or from them.
func (b *block) codeToken(data []byte, row int, out bool) {
	data = b.k.codeRow(data, row, out)
	if !b.shared {
		data = b.v.codeRow(data, row, out)
	}
	for g := 0; g*b.tokens() < len(b.weights); g++ {
		data = four(data, &b.weights[g*b.tokens()+row], out)
	}
}

func four(data []byte, x *float32, out bool) []byte {
	if out {
		binary.LittleEndian.PutUint32(data, math.Float32bits(*x))
	} else {
		*x = math.Float32frombits(binary.LittleEndian.Uint32(data))
	}
	return data[4:]
}

func (s *store) codeRow(data []byte, row int, out bool) []byte {
	cols := s.heads * s.dim
	switch at := row * s.stride; s.format {
	case asm.Float32:
		for i := range cols {
			data = four(data, &s.float32[at+i], out)
		}
	case asm.Int8:
		for i := range s.int8[at:][:cols] {
			if out {
				data[i] = byte(s.int8[at+i])
			} else {
				s.int8[at+i] = int8(data[i])
			}
		}
		data = data[cols:]
		for h := range s.parts() * s.heads {
			scale := &s.scale[h*s.tokens+row]
			data = four(data, scale, out)
			s.turned = s.turned || !out && *scale < 0
		}
	default:
		for i := range cols {
			if out {
				binary.LittleEndian.PutUint16(data, s.half[at+i])
			} else {
				s.half[at+i] = binary.LittleEndian.Uint16(data)
			}
			data = data[2:]
		}
	}
	return data
}
