package subquad_test

import (
	"bytes"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/attention/cca"
	"github.com/subquad/subquad/attention/landmark"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/rope"
)

func init() { rooms = append(rooms, attentionRoom, landmarkRoom, approxRoom, mlaRoom) }

// must returns what a constructor made.
func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// Sizes of all attention here.
const (
	heads, kvHeads, headDim, valueDim = 4, 2, 8, 6
)

// attend is a call of attention of any kind: how many rows, packed or not.
func attend(valueDim int) *attention.Call {
	return &attention.Call{
		Dst: matrix(tokens, heads*valueDim), Q: matrix(tokens, heads*headDim),
		K: []blas32.General{matrix(tokens, kvHeads*headDim)}, V: []blas32.General{matrix(tokens, kvHeads*valueDim)},
	}
}

// attends are the calls of an operator of attention; change adds what it has besides.
func (b *builder) attends(o operator, valueDim int, packs, steps, batches bool, change func(*attention.Call)) {
	call := func(more func(c *attention.Call)) func() any {
		return func() any {
			c := attend(valueDim)
			if more != nil {
				more(c)
			}
			if change != nil {
				change(c)
			}
			return c
		}
	}
	o.whole = call(nil)
	if packs {
		o.packed = call(func(c *attention.Call) { c.Offsets = []int{0, 3, 3, tokens} })
	}
	if steps {
		o.step = call(func(c *attention.Call) { c.State = newState(b.t, o.op, 0).(attention.Past) })
	}
	if batches {
		o.batch = call(func(c *attention.Call) {
			for range tokens {
				c.States = append(c.States, newState(b.t, o.op, 0).(attention.Past))
			}
		})
	}
	b.operator(o)
}

func attentionRoom(b *builder) {
	cfg := func() attention.Config {
		return attention.Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Window: 5, LookAhead: new(1), Scale: 0.3, Softcap: 9, Sinks: vector(heads), Skip: 0.01}
	}
	b.add("attention.New", attention.New, func() []any { return []any{cfg()} })
	causal := attention.Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Causal: true}
	op, other := must(attention.New(causal)), must(attention.New(attention.Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Window: 3, Causal: true}))
	self := func() any { return op }
	b.attends(operator{op: op, other: other}, valueDim, true, true, true, nil)
	options := func(c *attention.Call) {
		c.LSE, c.Entropy, c.Mass, c.LogWeights = matrix(tokens, heads), matrix(tokens, heads), matrix(tokens, heads), matrix(tokens, kvHeads)
		c.Mask, c.Bias = attention.MatrixMask{Queries: tokens, Keys: tokens, Seen: make([]bool, tokens*tokens)}, must(rope.NewALiBi(rope.ALiBiSlopes(heads)))
		c.Visible = func(query int64) (int64, int64) { return 0, query + 1 }
		c.QueryPos, c.KeyPos = []int64{0}, []int64{0}
		c.Extra = []attention.Extra{{
			K: []blas32.General{matrix(3, kvHeads*headDim)}, V: []blas32.General{matrix(3, kvHeads*valueDim)}, LogWeights: matrix(3, 1), Offsets: []int{0, 3},
			Visible: func(int64) (int64, int64) { return 0, 2 },
		}}
	}
	run := b.on(self, "Run", func() []any {
		c := attend(valueDim)
		options(c)
		c.Stats = new(attention.Stats)
		return []any{nowhere, c}
	})
	run.call, run.free, run.foreign = "options", []string{"call.LogWeights.Cols", "call.Extra.[0].LogWeights.Cols"}, func() any { return newState(b.t, other, 0) }
	chosen := b.on(self, "Run", func() []any {
		c := attend(valueDim)
		c.State, c.Read = newState(b.t, op, 0).(attention.Past), new(attention.Read)
		c.Select, c.Weights = []attention.Selection{{{From: 0, To: 2}, {From: 3, To: 5}}}, [][]float32{vector(4 * heads)}
		return []any{nowhere, c}
	})
	chosen.call, chosen.foreign = "chosen", run.foreign
	b.on(self, "ScratchBytesWith", func() []any { return []any{3, 3, 2, []int{4}} })
	b.on(self, "NewPages", func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} })
	pool := must(op.NewPages(attention.PagesConfig{PageTokens: 4, Collected: true}))
	joined := func() *attention.State { return must(op.NewState(attention.StateConfig{})) }
	full := func() *attention.State {
		st := joined()
		must(0, st.Append(matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim)))
		return st
	}
	page := must(pool.Take(full(), 0, 4))
	var written bytes.Buffer
	must(page.WriteTo(&written))
	b.on(func() any { return pool }, "Take", func() []any { return []any{full(), 1, 3} }).foreign = func() any { return newState(b.t, other, 0) }
	b.on(func() any { return pool }, "Join", func() []any { return []any{attention.StateConfig{MaxTokens: 20}, []*attention.Page{page}, 3} }).free = []string{"cfg.Tokens", "cfg.Format"}
	b.on(func() any { return must(op.NewPages(attention.PagesConfig{PageTokens: 4})) }, "Close", func() []any { return nil })
	b.on(func() any { return pool }, "ReadPage", func() []any { return []any{bytes.NewReader(written.Bytes()), attention.StateConfig{}} })
	b.on(func() any { return page }, "WriteTo", func() []any { return []any{new(bytes.Buffer)} })
	pages := b.on(self, "NewState", func() []any {
		return []any{attention.StateConfig{MaxTokens: 20, Pages: must(op.NewPages(attention.PagesConfig{PageTokens: 4, MaxPages: 8})), Format: asm.Float32}}
	})
	pages.call = "pages"
	ring := b.on(self, "NewState", func() []any {
		return []any{attention.StateConfig{Window: 5, Keep: 2, Format: asm.Int8, LogWeights: true, Rotation: &rope.Config{HeadDim: headDim}}}
	})
	ring.call = "ring"
	b.add("attention.Call.Honor", (*attention.Call).Honor, func() []any { return []any{attend(valueDim), "attention", attention.Uses(0)} })
	b.add("attention.Call.One", (*attention.Call).One, func() []any { return []any{attend(valueDim), "attention"} })
	for _, r := range b.rows[len(b.rows)-2:] {
		r.method = true
	}
	b.attentionStates(op)
	b.add("attention.Merge", attention.Merge, func() []any {
		p := func() attention.Partial {
			return attention.Partial{Out: matrix(tokens, heads*valueDim), LSE: matrix(tokens, heads)}
		}
		return []any{p(), vector(heads), []attention.Partial{p(), p()}}
	})
	reporter := attention.ReporterConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Rows: 4}
	b.add("attention.NewReporter", attention.NewReporter, func() []any { return []any{reporter} })
	rep := must(attention.NewReporter(reporter))
	b.on(func() any { return rep }, "Compare", func() []any {
		return []any{nowhere, op, attend(valueDim), func(q int64) (int64, int64) { return 0, q + 1 }}
	})
	b.on(func() any { return rep }, "Report", func() []any {
		c := attend(valueDim)
		return []any{nowhere, &attention.ReportCall{Out: c.Dst, Q: c.Q, K: c.K, V: c.V, Visible: func(q int64) (int64, int64) { return 0, q + 1 }}}
	})
}

// attentionStates has the methods of attention.State besides those of all states.
func (b *builder) attentionStates(op *attention.Attention) {
	seen := func() any {
		s := must(op.NewState(attention.StateConfig{}))
		must(0, s.Append(matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim)))
		return s
	}
	b.on(seen, "Skip", func() []any { return []any{2} })
	b.on(seen, "Append", func() []any {
		return []any{matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim)}
	})
	b.on(seen, "CopyFrom", func() []any { return []any{seen()} }).foreign = func() any {
		return newState(b.t, must(attention.New(attention.Config{Heads: heads, HeadDim: headDim, Causal: true})), 0)
	}
	b.on(func() any { return op }, "ReadRotated", func() []any {
		s := must(op.NewState(attention.StateConfig{Rotation: &rope.Config{HeadDim: headDim}}))
		return []any{fileOf(s), &rope.Config{HeadDim: headDim}, rope.Fixed}
	})
	b.on(seen, "Keep", func() []any { return []any{[]int32{0, 3, 5}} })
	b.on(seen, "SetValues", func() []any { return []any{[]int32{0, 3}, matrix(2, kvHeads*valueDim)} })
	b.on(seen, "Forget", func() []any { return []any{3} })
	b.on(seen, "Accept", func() []any { return []any{3, []int{0, 2}} })
	b.on(func() any { return newState(b.t, op, 0) }, "ReadFrom", func() []any { return []any{fileOf(seen())} })
	segment := func() any {
		g, _ := seen().(*attention.State).Segment(0)
		return g
	}
	b.on(segment, "Keys", func() []any { return []any{matrix(tokens, headDim), 1, 0} }).free = []string{"dst.Rows"}
	b.on(segment, "Values", func() []any { return []any{matrix(tokens, valueDim), 1, 0} }).free = []string{"dst.Rows"}
	b.on(segment, "LogWeights", func() []any { return []any{vector(tokens), 1, 0} }).free = []string{"dst."}
	b.on(func() any { return new(attention.View) }, "Of", func() []any {
		return []any{op, matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim), int64(3)}
	})
}

func landmarkRoom(b *builder) {
	cfg := cca.Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, GroupSize: 2, Window: 3, Levels: 1}
	b.add("cca.New", cca.New, func() []any { return []any{cfg} })
	op := must(cca.New(cfg))
	cfg.Window = 2
	other := must(cca.New(cfg))
	b.attends(operator{op: op, other: other}, valueDim, true, true, true, func(c *attention.Call) { c.LSE = matrix(tokens, heads) })
	pages := func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} }
	b.on(func() any { return op }, "NewPages", pages)
	rows, k, v := op.CoreShape(tokens)
	b.on(func() any { return op }, "CoreShape", func() []any { return []any{tokens} })
	opt := b.on(func() any { return op }, "Run", func() []any {
		c := attend(valueDim)
		c.Options = &cca.Options{CoreK: matrix(rows, k), CoreV: matrix(rows, v), Weights: matrix(rows, heads*2),
			Blocks: []cca.Block{{K: matrix(2, kvHeads*headDim), V: matrix(2, kvHeads*valueDim)}}}
		return []any{nowhere, c}
	})
	opt.call, opt.never = "options", true

	lc := landmark.Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Block: tokens - 1, TopK: 2}
	b.add("landmark.New", landmark.New, func() []any { return []any{lc} })
	l := must(landmark.New(lc))
	lc.Block = 2
	is := func(one bool) []bool { return []bool{tokens - 1: one} } // of one sequence a landmark ends it; first tokens of many are none
	b.attends(operator{op: l, other: must(landmark.New(lc)), args: map[string]func(any) any{"landmarks": func(c any) any { return is(c.(*attention.Call).States == nil) }}}, valueDim, false, true, true,
		func(c *attention.Call) { c.Options = &landmark.Options{Landmarks: is(c.States == nil)} })
	b.on(func() any { return l }, "NewPages", pages)
	mc := landmark.MetaConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim}
	b.add("landmark.NewMeta", landmark.NewMeta, func() []any { return []any{mc} })
	m := must(landmark.NewMeta(mc))
	b.on(func() any { return m }, "NewPages", pages)
	mc.Scale = 2
	b.attends(operator{op: m, endless: true, other: must(landmark.NewMeta(mc)), args: map[string]func(any) any{"meta": func(any) any { return is(true) }}}, valueDim, false, true, true,
		func(c *attention.Call) { c.Options = &landmark.MetaOptions{Meta: is(true)} })
}

func approxRoom(b *builder) {
	b.add("approx.NewLinear", approx.NewLinear, func() []any {
		return []any{approx.LinearConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Causal: true}}
	})
	linear := func(causal bool) *approx.Linear {
		return must(approx.NewLinear(approx.LinearConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Causal: causal}))
	}
	narrow := must(approx.NewLinear(approx.LinearConfig{Heads: heads, HeadDim: headDim, ValueDim: valueDim, Causal: true}))
	b.attends(operator{op: linear(true), other: narrow}, valueDim, true, true, true, nil)
	valid := func(c *attention.Call) { c.Options = &approx.Options{Valid: make([]bool, tokens)} }
	ec := approx.EfficientConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim}
	b.add("approx.NewEfficient", approx.NewEfficient, func() []any { return []any{ec} })
	b.attends(operator{op: must(approx.NewEfficient(ec))}, valueDim, true, false, false, valid)
	xc := approx.XCAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, Temperature: vector(heads)}
	b.add("approx.NewXCA", approx.NewXCA, func() []any { return []any{xc} })
	b.attends(operator{op: must(approx.NewXCA(xc))}, headDim, true, false, false, nil)
	pc := approx.PerformerConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Causal: true, Projection: matrix(5, headDim), Stabilizer: new(float32)}
	b.add("approx.NewPerformer", approx.NewPerformer, func() []any { return []any{pc} })
	performer := must(approx.NewPerformer(pc))
	pc.Eps = 1
	b.attends(operator{op: performer, other: must(approx.NewPerformer(pc))}, valueDim, true, true, true, nil)
	fc := approx.LinformerConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, E: matrix(3*kvHeads, tokens)}
	b.add("approx.NewLinformer", approx.NewLinformer, func() []any { return []any{fc} }).free = []string{"cfg.E.Cols"}
	b.attends(operator{op: must(approx.NewLinformer(fc))}, valueDim, true, false, false, valid)
	ac := approx.MRA2Config{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Block: 2}
	b.add("approx.NewMRA2", approx.NewMRA2, func() []any { return []any{ac} })
	b.attends(operator{op: must(approx.NewMRA2(ac))}, valueDim, true, false, false, nil)
	bc := approx.BasedConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim}
	b.add("approx.NewBased", approx.NewBased, func() []any { return []any{bc} })
	based := must(approx.NewBased(bc))
	bc.Eps = 1
	b.attends(operator{op: based, other: must(approx.NewBased(bc))}, valueDim, true, true, true, nil)
	nc := approx.NystromConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Landmarks: 3, Conv: matrix(heads, 3)}
	b.add("approx.NewNystrom", approx.NewNystrom, func() []any { return []any{nc} }).free = []string{"cfg.Conv.Cols"}
	b.attends(operator{op: must(approx.NewNystrom(nc))}, valueDim, true, false, false, nil)
}

func mlaRoom(b *builder) {
	const hidden, rank, kv, nope, turned = 10, 5, 6, 4, 2
	cfg := mla.Config{Dim: hidden, Heads: heads, QRank: rank, KVRank: kv, NopeDim: nope, RopeDim: turned, ValueDim: valueDim}
	weights := func() mla.Weights {
		return mla.Weights{
			QA: matrix(rank, hidden), QB: matrix(heads*(nope+turned), rank), KVA: matrix(kv+turned, hidden), KVB: matrix(heads*(nope+valueDim), kv),
			Out: matrix(hidden, heads*valueDim), QANorm: vector(rank), KVANorm: vector(kv),
		}
	}
	b.add("mla.New", mla.New, func() []any { return []any{cfg, weights()} })
	op := must(mla.New(cfg, weights()))
	w := weights()
	w.KVANorm[0]++
	self := func() any { return op }
	call := func() *mla.Call { return &mla.Call{Dst: matrix(tokens, hidden), X: matrix(tokens, hidden)} }
	b.operator(operator{
		op: op, other: must(mla.New(cfg, w)),
		whole:  func() any { return call() },
		packed: func() any { c := call(); c.Offsets = []int{0, 3, 3, tokens}; return c },
		step:   func() any { c := call(); c.State = newState(b.t, op, 0).(*attention.State); return c },
		batch: func() any {
			c := call()
			for range tokens {
				c.States = append(c.States, newState(b.t, op, 0).(*attention.State))
			}
			return c
		},
	})
	b.on(self, "NewPages", func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} })
	b.on(self, "WithLength", func() []any { return []any{int64(3)} })
}
