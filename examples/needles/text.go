package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/needles"
)

// The keys without a model: one key head of 128 features, read by four query heads.
const (
	textDim, textHeads       = 128, 4
	textThreads, textHops    = 4, 4
	textQuestions            = textThreads * textHops
	textBudget               = 2048  // by default
	textWindow               = 32    // queries that look back before a prompt is cut down
	textObserved             = 16384 // the longest text that is attended from at every token
	textKeep, textRecent     = 4, 64
	textChunk                = 256
	manyTokens               = 1 << 17
	needleSurprise, backward = 5, 1 // of SirLLM's importances: needles' and other tokens'
)

// reader is a policy for keys without a model.
type reader struct {
	name string
	cfg  kvcache.Config
	// whole says that every token of the text must be attended from.
	whole bool
	// early asks the questions within the text's last queries, before it is cut down.
	early bool
}

func readers(budget int) []reader {
	base := func(s kvcache.Selector, e kvcache.Evictor) kvcache.Config {
		return kvcache.Config{Keep: textKeep, Recent: textRecent, Chunk: textChunk, Select: s, Evict: e}
	}
	far := base(kvcache.InfLLM{Block: 64, TopK: budget/64 - 4}, nil)
	far.Positions = kvcache.Far
	stream := base(nil, kvcache.StreamingLLM{})
	stream.Recent = budget - textKeep
	return []reader{
		{name: "exact", cfg: base(nil, nil)},
		{name: "Top", cfg: base(kvcache.Top{TopK: budget}, nil)},
		{name: "TokenSelect", cfg: base(kvcache.TokenSelect{TopK: budget}, nil)},
		{name: "Shadow", cfg: base(kvcache.Shadow{}, nil)},
		{name: "Quest", cfg: base(kvcache.Quest{Budget: budget}, nil)},
		{name: "RetroInfer", cfg: base(kvcache.RetroInfer{}, nil)},
		{name: "InfLLM", cfg: far, whole: true},
		{name: "Window", cfg: base(kvcache.Window{}, nil)},
		{name: "StreamingLLM", cfg: stream},
		{name: "SirLLM", cfg: base(nil, kvcache.SirLLM{Tokens: budget - textKeep - textRecent})},
		{name: "H2O", cfg: base(nil, kvcache.H2O{Budget: budget}), whole: true},
		{name: "SnapKV, asked late", cfg: base(nil, kvcache.SnapKV{Budget: budget, Window: textWindow})},
		{name: "SnapKV, asked early", cfg: base(nil, kvcache.SnapKV{Budget: budget, Window: textWindow}), early: true},
		{name: "KeyDiff", cfg: base(nil, kvcache.KeyDiff{Budget: budget})},
		{name: "AdaKV of Knorm", cfg: base(nil, kvcache.AdaKV{Evict: kvcache.Knorm{Budget: budget}})},
	}
}

// task is what is asked of a text.
type task struct {
	name, about string
	change      func(cfg *needles.Config)
}

// tasks are what -tasks may name.
var tasks = []task{
	{"threads", "each needle leads to the next", func(*needles.Config) {}},
	{"single", "one needle", func(cfg *needles.Config) { cfg.Threads, cfg.Hops = 1, 1 }},
	{"forward", "each needle leads to the next, which stands after it", func(cfg *needles.Config) { cfg.Order = needles.Forward }},
	{"backward", "each needle leads to the next, which stands before it", func(cfg *needles.Config) { cfg.Order = needles.Backward }},
	{"multikey", "beside each needle 8 keys like it, which lead elsewhere", func(cfg *needles.Config) { cfg.Distractors, cfg.Likeness = 8, 0.6 }},
	{"sinks", "the first 4 tokens have half of all weight", func(cfg *needles.Config) { cfg.Sinks, cfg.SinkMass = textKeep, 0.5 }},
	{"diffuse", "no needles: the weight is spread, and only the output counts", func(cfg *needles.Config) { cfg.Threads, cfg.RetrievalHeads = 0, 0 }},
}

// found is what a policy made of a text.
type found struct {
	recall, threads, off float64       // of needles read, threads followed, mean error of outputs
	bytes                float64       // read for a question
	seen, missing        float64       // of the weight: what was read has, and what is not is at most (kvcache.Report), means
	step, index          time.Duration // of a question, and of all tokens before
	held                 int64
}

// readText has every policy answer the questions about a text, and prints what they found.
func readText(ctx context.Context, o *options, x task, tokens int, stdout io.Writer) (map[string]*found, error) {
	cfg := needles.Config{
		Seed: o.seed, Tokens: tokens, Dim: textDim, Group: textHeads, Sigma: 3, Mass: 0.9, Threads: textThreads, Hops: textHops, Width: 1, Topic: o.topic, Segment: 64, RetrievalHeads: o.heads,
	}
	x.change(&cfg)
	text := needles.New(cfg)
	k, v := matrix(tokens+textWindow, textDim), matrix(tokens+textWindow, textDim)
	if err := fill(ctx, text, k, v); err != nil {
		return nil, err
	}
	budget := o.budget
	if budget == 0 {
		budget = textBudget
	}
	questions := make([]blas32.General, cfg.Threads*cfg.Hops)
	if len(questions) == 0 {
		questions = make([]blas32.General, textQuestions)
	}
	for i := range questions {
		questions[i] = matrix(1, textHeads*textDim)
		text.Query(questions[i].Data, i)
	}
	results := map[string]*found{}
	var exact [][]float32
	fmt.Fprintf(stdout, "\n%s: %s; %d keys of %d features, %d questions, %d of %d heads ask; a budget of %d tokens\n",
		x.name, x.about, tokens, textDim, len(questions), cfg.RetrievalHeads, textHeads, budget)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "policy\tneedles\tthreads\terror\tseen\tmissing\tMB read\tms a question\tµs a token\tMB held\t\n")
	for _, p := range readers(budget) {
		if p.whole && tokens > textObserved {
			continue
		}
		o.progress.Add(0)
		if tokens >= manyTokens { // what the policy before held goes before there is more
			debug.FreeOSMemory()
		}
		outs, f, err := p.answer(ctx, o, text, k, v, questions)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if exact == nil {
			exact = outs
		}
		f.score(text, outs, exact)
		results[p.name] = f
		read := fmt.Sprintf("%.2f\t%.2f", f.recall, f.threads)
		if cfg.Threads == 0 {
			read = "-\t-"
		}
		weight := "-\t-" // it does not know, or knows of what it holds alone
		if p.cfg.Evict == nil && f.seen == f.seen {
			weight = fmt.Sprintf("%.2f\t%.2f", f.seen, f.missing)
		}
		fmt.Fprintf(w, "%s\t%s\t%.1e\t%s\t%.2f\t%.3f\t%.2f\t%.1f\t\n", p.name, read, f.off, weight,
			f.bytes/1e6, float64(f.step.Microseconds())/1e3, float64(f.index.Nanoseconds())/1e3/float64(tokens), float64(f.held)/1e6)
	}
	return results, w.Flush()
}

// score compares answers with the codes, and with what reading everything gives.
func (f *found) score(text *needles.Text, outs, exact [][]float32) {
	hops, hopsOf := 0, textHops
	if len(text.Positions) > 0 {
		hopsOf = len(text.Positions[0])
	}
	for i, out := range outs {
		if len(text.Positions) > 0 && text.Decode(out) == text.Code(i)+1 {
			f.recall += 1 / float64(len(outs))
			hops++
		}
		if i%hopsOf == hopsOf-1 {
			if hops == hopsOf {
				f.threads += float64(hopsOf) / float64(len(outs))
			}
			hops = 0
		}
		var diff, norm float64
		for j, x := range exact[i] {
			diff += float64(out[j]-x) * float64(out[j]-x)
			norm += float64(x) * float64(x)
		}
		f.off += math.Sqrt(diff/norm) / float64(len(outs))
	}
}

// answer gives a policy the text and asks it.
func (p *reader) answer(ctx context.Context, o *options, text *needles.Text, k, v blas32.General, questions []blas32.General) ([][]float32, *found, error) {
	cfg := p.cfg
	cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.Workers = textHeads, 1, textDim, o.workers
	tokens := k.Rows - textWindow
	a, err := kvcache.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	pages, err := a.NewPages(attention.PagesConfig{PageTokens: 256}) // so that what is forgotten gives memory back
	if err != nil {
		return nil, nil, err
	}
	st, err := a.NewState(kvcache.StateConfig{Pages: pages})
	if err != nil {
		return nil, nil, err
	}
	queries, at, start := 0, 0, time.Now()
	if p.whole {
		queries = tokens
	}
	if _, ok := cfg.Evict.(kvcache.SnapKV); ok {
		queries = textWindow
	}
	for at < tokens-queries {
		to := min(at+textChunk, tokens-queries)
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if err := st.Append(mat.Rows(k, at, to), mat.Rows(v, at, to)); err != nil {
			return nil, nil, err
		}
		if _, ok := cfg.Evict.(kvcache.SirLLM); ok {
			if err := st.SetImportance(surprises(text, at, to)); err != nil {
				return nil, nil, err
			}
		}
		at = to
	}
	for at < tokens {
		n := min(textChunk, tokens-at)
		q := matrix(n, textHeads*textDim)
		text.Looks(q, at)
		for i := range questions {
			if row := at + n - len(questions) + i - (tokens - (at + n)); p.early && at+n == tokens && row >= at {
				copy(mat.Row(q, row-at), questions[i].Data)
			}
		}
		call := &attention.Call{Dst: matrix(n, textHeads*textDim), Q: q, K: []blas32.General{mat.Rows(k, at, at+n)}, V: []blas32.General{mat.Rows(v, at, at+n)}, State: st}
		if err := a.Run(ctx, call); err != nil {
			return nil, nil, err
		}
		at += n
	}
	if cfg.Evict != nil {
		switch cfg.Evict.(type) {
		case kvcache.StreamingLLM, kvcache.SirLLM, kvcache.H2O:
		default:
			if err := st.Compact(0); err != nil {
				return nil, nil, err
			}
		}
	}
	f := &found{held: st.Bytes(), step: math.MaxInt64, index: time.Since(start)}
	var outs [][]float32
	for i, q := range questions {
		// Each question is the next token: what comes of it is taken back.
		mark := new(kvcache.Mark)
		st.Save(mark)
		out := matrix(1, textHeads*textDim)
		var report kvcache.Report
		call := &attention.Call{Dst: out, Q: q, K: []blas32.General{mat.Rows(k, tokens, tokens+1)}, V: []blas32.General{mat.Rows(v, tokens, tokens+1)}, State: st, Options: &kvcache.Options{Report: &report}}
		began := time.Now()
		if err := a.Run(ctx, call); err != nil {
			return nil, nil, err
		}
		if i > 0 || len(questions) == 1 { // the first makes room
			f.step = min(f.step, time.Since(began))
		}
		if err := st.Restore(mark); err != nil {
			return nil, nil, err
		}
		f.bytes += float64(report.Bytes+report.Index) / float64(len(questions))
		f.seen += report.Seen / float64(len(questions))
		f.missing += report.Missing / float64(len(questions))
		outs = append(outs, out.Data)
	}
	if len(outs) == 0 {
		return nil, nil, errors.New("no questions")
	}
	return outs, f, nil
}

// fill makes a text's keys and values, some thousand tokens at a time on every processor.
func fill(ctx context.Context, text *needles.Text, k, v blas32.General) error {
	const piece = 4096
	var next atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for ctx.Err() == nil {
				from := int(next.Add(piece)) - piece
				if from >= k.Rows {
					return
				}
				to := min(from+piece, k.Rows)
				text.Fill(mat.Rows(k, from, to), mat.Rows(v, from, to), from)
			}
		})
	}
	group.Wait()
	return ctx.Err()
}

// surprises are those of tokens: needles surprise.
func surprises(text *needles.Text, from, to int) []float32 {
	x := make([]float32, to-from)
	for i := range x {
		x[i] = text.Surprise(from+i, needleSurprise, backward)
	}
	return x
}
