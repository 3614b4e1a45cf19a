package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// fewTokens is up to how many tokens a state reads what its queries see where it stands,
// one token after the other, and packs nothing.
const fewTokens = 8

// nsaSteps is the working memory of rounds of steps: of each state the next token, of all
// states together. A state's key head is a sequence of its own to package attention.
type nsaSteps struct {
	before []int       // tokens that each state had
	states []*NSAState // of the round
	rows   []int       // their tokens' rows in the call
	closed []int       // of states and key heads, state after state, those with a new compressed key

	q, out, sum blas32.General         // [states*KVHeads, heads of a key head * dim]: queries, one branch, all branches
	memory      [3][]float32           // of q, out, sum
	weights     []float32              // of compressed keys, from the query heads
	sights      []attention.Past       // what a call of package attention looks at
	received    [][]float32            // its Weights
	chosen      []int32                // [states*KVHeads][count]
	count       int                    // of blocks, at the most
	runs        []attention.Selection  // of each row of q
	close       func(worker, task int) // closeTask
	call        attention.Call
}

func (t *nsaSteps) forget() {
	clear(t.states)
	clear(t.sights)
	t.call = attention.Call{}
}

// advanceStates has every state take up its tokens and attends from them: first those that
// get many, one state after the other, then of those that get a few a token of each at a
// time. On an error all states are as they were.
func (r *nsaRun) advanceStates(ctx context.Context) (err error) {
	t, cfg := &r.steps, &r.op.cfg
	t.before = t.before[:0]
	for _, s := range r.layout.States {
		t.before = append(t.before, s.Len())
	}
	defer func() {
		for b, s := range r.layout.States {
			if err != nil {
				s.shorten(t.before[b])
			}
		}
	}()
	for b, x := range r.layout.Segments {
		if x.To-x.From > fewTokens {
			r.seq, r.state, r.past = r.call.part(x.From, x.To, cfg.KVHeads*cfg.TopK), r.layout.States[b], t.before[b]
			if err := r.extend(ctx); err != nil {
				return err
			}
		}
	}
	for round := 0; ; round++ {
		t.states, t.rows = t.states[:0], t.rows[:0]
		for b, x := range r.layout.Segments {
			if x.To-x.From <= fewTokens && x.From+round < x.To {
				t.states, t.rows = append(t.states, r.layout.States[b]), append(t.rows, x.From+round)
			}
		}
		if len(t.states) == 0 {
			return nil
		}
		if err := r.stepRound(ctx); err != nil {
			return err
		}
	}
}

// stepRound does a token of each of the round's states.
func (r *nsaRun) stepRound(ctx context.Context) error {
	t, cfg := &r.steps, &r.op.cfg
	if len(r.work) == 0 {
		r.work = append(r.work, nsaWorker{})
	}
	if err := r.appendRound(ctx); err != nil {
		return err
	}
	kv, heads := cfg.KVHeads, r.op.group()
	rows := len(t.states) * kv
	for i, x := range [...]struct {
		m    *blas32.General
		cols int
	}{{&t.q, heads * cfg.HeadDim}, {&t.out, heads * cfg.ValueDim}, {&t.sum, heads * cfg.ValueDim}} {
		t.memory[i] = scratch.Floats(t.memory[i], rows*x.cols)
		*x.m = mat.Of(t.memory[i], rows, x.cols)
	}
	mat.Clear(t.sum)
	for i, row := range t.rows {
		copy(t.q.Data[i*kv*t.q.Cols:], mat.Row(r.call.q, row))
	}
	gates, g := &r.call.gates, r.call.gates.Compressed
	chooses := mat.Given(gates.Selected) || r.call.blocks != nil
	if mat.Given(g) || chooses {
		if err := r.stepMeans(ctx, chooses); err != nil {
			return err
		}
	}
	if chooses {
		r.stepChoose(&r.work[0])
	}
	if mat.Given(gates.Selected) {
		r.lookAt(true)
		if err := r.stepBranch(ctx, gates.Selected); err != nil {
			return err
		}
	}
	if mat.Given(gates.Window) {
		r.lookAt(false)
		if err := r.stepBranch(ctx, gates.Window); err != nil {
			return err
		}
	}
	for i, row := range t.rows {
		copy(mat.Row(r.call.dst, row), t.sum.Data[i*kv*t.sum.Cols:][:kv*t.sum.Cols])
		if r.call.blocks != nil {
			tell(r.call.blocks[row*kv*cfg.TopK:], t.chosen[i*kv*t.count:][:kv*t.count], cfg.TopK, t.count)
		}
	}
	return nil
}

// appendRound has the round's states take up their tokens and, where these end a compressed
// key, that.
func (r *nsaRun) appendRound(ctx context.Context) error {
	t, cfg := &r.steps, &r.op.cfg
	t.closed = t.closed[:0]
	for i, row := range t.rows {
		s := t.states[i]
		k, v := mat.Rows(r.call.k, row, row+1), mat.Rows(r.call.v, row, row+1)
		for g := range cfg.KVHeads {
			if err := s.tokens[g].Append(mat.Columns(k, g*cfg.HeadDim, cfg.HeadDim), mat.Columns(v, g*cfg.ValueDim, cfg.ValueDim)); err != nil {
				return named(err)
			}
			if r.op.compressed(s.Len()) > s.blocks[g].Len() {
				t.closed = append(t.closed, i*cfg.KVHeads+g)
			}
		}
	}
	n := len(t.closed)
	if n == 0 {
		return nil
	}
	r.newMeans[0], r.newMeans[1] = scratch.Floats(r.newMeans[0], n*cfg.HeadDim), scratch.Floats(r.newMeans[1], n*cfg.ValueDim)
	if t.close == nil {
		t.close = r.closeTask
	}
	if err := r.group.RunAs(ctx, "sparse", 1, n, t.close); err != nil {
		return err
	}
	for i, x := range t.closed {
		k, v := mat.Of(r.newMeans[0][i*cfg.HeadDim:], 1, cfg.HeadDim), mat.Of(r.newMeans[1][i*cfg.ValueDim:], 1, cfg.ValueDim)
		if err := t.states[x/cfg.KVHeads].blocks[x%cfg.KVHeads].Append(k, v); err != nil {
			return named(err)
		}
	}
	return nil
}

// closeTask makes one compressed key of a state.
func (r *nsaRun) closeTask(worker, task int) {
	t, cfg := &r.steps, &r.op.cfg
	x := t.closed[task]
	s, g := t.states[x/cfg.KVHeads], x%cfg.KVHeads
	to := s.Len()
	k, v := r.work[worker].held(s.tokens[g], to-cfg.Compress, to, cfg.HeadDim, cfg.ValueDim)
	cfg.compressBlock(r.newMeans[0][task*cfg.HeadDim:][:cfg.HeadDim], r.newMeans[1][task*cfg.ValueDim:][:cfg.ValueDim], k, v, g)
}

// stepMeans attends to the compressed keys that the states have; with chooses it keeps
// their weights.
func (r *nsaRun) stepMeans(ctx context.Context, chooses bool) error {
	t, heads := &r.steps, r.op.group()
	size := 0
	for _, s := range t.states {
		size += len(s.blocks) * s.blocks[0].Len() * heads
	}
	t.weights = scratch.Floats(t.weights, size)
	t.sights, t.received = t.sights[:0], t.received[:0]
	at := 0
	for _, s := range t.states {
		for _, b := range s.blocks {
			n := b.Len() * heads
			t.sights, t.received = append(t.sights, b), append(t.received, t.weights[at:][:n:n])
			at += n
		}
	}
	t.call = attention.Call{States: t.sights, Dst: t.out, Q: t.q, Workers: r.call.workers}
	if chooses {
		t.call.Weights = t.received
	}
	return r.stepBranch(ctx, r.call.gates.Compressed)
}

// stepBranch runs the call that is prepared, and adds its result, times its gate, to the
// sum.
func (r *nsaRun) stepBranch(ctx context.Context, gate blas32.General) error {
	t, cfg, heads := &r.steps, &r.op.cfg, r.op.group()
	if err := r.op.one.Run(ctx, &t.call); err != nil {
		return named(err)
	}
	if !mat.Given(gate) {
		return nil
	}
	for i := range t.out.Rows {
		state, g := i/cfg.KVHeads, i%cfg.KVHeads
		share := mat.Row(gate, t.rows[state])[g*heads:][:heads]
		for h, x := range share {
			at := h * cfg.ValueDim
			asm.Axpy(mat.Part(t.sum, i, at, cfg.ValueDim), x, mat.Part(t.out, i, at, cfg.ValueDim))
		}
	}
	return nil
}

// stepChoose chooses blocks by the weights that compressed keys got.
func (r *nsaRun) stepChoose(w *nsaWorker) {
	t, cfg, heads := &r.steps, &r.op.cfg, r.op.group()
	t.count = 0
	for _, s := range t.states {
		t.count = max(t.count, min(cfg.TopK, ceil(s.Len(), cfg.Block)))
	}
	t.chosen = scratch.Sized(t.chosen, t.q.Rows*t.count)
	for i := range t.q.Rows {
		s, list := t.states[i/cfg.KVHeads], t.chosen[i*t.count:][:t.count]
		own := (s.Len() - 1) / cfg.Block
		if own < cfg.TopK {
			pickAll(list, own)
			continue
		}
		visible := s.blocks[0].Len()
		w.scores = scratch.Sized(w.scores, visible+own)
		clear(w.scores)
		for c := range visible {
			for _, x := range t.received[i][c*heads:][:heads] {
				w.scores[c] += x
			}
		}
		scores := cfg.spread(w.scores, visible, own)
		if w.pick(cfg, list, own, scores) < faint {
			keys, _ := w.held(s.blocks[i%cfg.KVHeads], 0, visible, cfg.HeadDim, cfg.ValueDim)
			w.faint.clearUp(cfg, scores, mat.Of(mat.Row(t.q, i), heads, cfg.HeadDim), cfg.Scale, keys)
			w.pick(cfg, list, own, scores)
		}
	}
}

// lookAt prepares a call that looks at tokens of the states: those of chosen blocks, or of
// the window.
func (r *nsaRun) lookAt(chosen bool) {
	t, cfg := &r.steps, &r.op.cfg
	t.sights = t.sights[:0]
	for len(t.runs) < t.q.Rows {
		t.runs = append(t.runs, nil)
	}
	for i := range t.q.Rows {
		s := t.states[i/cfg.KVHeads]
		t.sights = append(t.sights, s.tokens[i%cfg.KVHeads])
		n, list := s.Len(), t.runs[i][:0]
		if !chosen {
			t.runs[i] = append(list, attention.Run{From: max(0, n-cfg.Window), To: n})
			continue
		}
		for _, b := range t.chosen[i*t.count:][:t.count] {
			if b < 0 {
				break
			}
			list = append(list, attention.Run{From: int(b) * cfg.Block, To: min((int(b)+1)*cfg.Block, n)})
		}
		t.runs[i] = list
	}
	t.call = attention.Call{States: t.sights, Dst: t.out, Q: t.q, Select: t.runs[:t.q.Rows], Workers: r.call.workers}
}
