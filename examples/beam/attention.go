package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
)

// longContext is a context whose keys and values lie in shards, and queries behind it.
type longContext struct {
	Keys, Shard         int // keys in all, and to a shard
	Queries             int
	Heads, KVHeads, Dim int
	Workers             int // goroutines of a call, 0 for all processors
}

var contextFlags longContext

func init() {
	f := &contextFlags
	flags.IntVar(&f.Keys, "keys", 1<<20, "attention: keys of the context")
	flags.IntVar(&f.Shard, "shard-keys", 1<<16, "attention: keys to a shard")
	flags.IntVar(&f.Queries, "queries", 16, "attention: queries")
	f.Heads, f.KVHeads, f.Dim = 8, 1, 64
}

func (c longContext) checked() (longContext, error) {
	if c.Queries < 1 || c.Queries > maxQueries {
		return c, fmt.Errorf("-queries is %d, want 1 to %d", c.Queries, maxQueries)
	}
	return c, checkShards("keys", c.Keys, c.Shard)
}

// maxQueries bounds an element, which has the results of all queries: 34 MB.
const maxQueries = 1 << 14

func (c longContext) shards() int64 { return shardsOf(c.Keys, c.Shard) }

// load returns the keys and values of a shard. Here they are drawn; a service would read them
// from the file where prefill left them.
func (c longContext) load(shard int64) (k, v blas32.General) {
	n := min(c.Shard, c.Keys-int(shard)*c.Shard)
	return drawn(2*uint64(shard), n, c.KVHeads*c.Dim, -3, 3), drawn(2*uint64(shard)+1, n, c.KVHeads*c.Dim, -3, 3)
}

// queries are the queries, which go to all workers.
func (c longContext) queries() Queries {
	return Queries{drawn(1<<63, c.Queries, c.Heads*c.Dim, -1, 1).Data}
}

func (c longContext) operator() (*attention.Attention, error) {
	return attention.New(attention.Config{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.Dim, Workers: c.Workers})
}

// attend is attention to keys and values that are a part of all: outputs [Queries, Heads Dim] and,
// behind them, the logarithms of the softmax's sums [Queries, Heads].
func (c longContext) attend(ctx context.Context, op *attention.Attention, q Queries, k, v []blas32.General) ([]float32, error) {
	data := make([]float32, c.Queries*c.Heads*(c.Dim+1))
	p := c.partial(data)
	err := op.Run(ctx, &attention.Call{
		Dst: p.Out, LSE: p.LSE, Q: matrix(q.Rows, c.Queries, c.Heads*c.Dim), K: k, V: v, Partial: true,
	})
	return data, err
}

// partial is a part's result as package attention has it.
func (c longContext) partial(data []float32) attention.Partial {
	cut := c.Queries * c.Heads * c.Dim
	return attention.Partial{Out: matrix(data[:cut], c.Queries, c.Heads*c.Dim), LSE: matrix(data[cut:], c.Queries, c.Heads)}
}

// join merges the results of two parts, exactly but for rounding.
func (c longContext) join(left, right []float32) ([]float32, error) {
	data := make([]float32, len(left))
	return data, attention.Merge(c.partial(data), nil, c.partial(left), c.partial(right))
}

// difference is that of the outputs or that of the log-sum-exps, whichever is larger: each as a part
// of its own largest, for log-sum-exps are far larger than outputs.
func (c longContext) difference(a, b []float32) float64 {
	if want := c.Queries * c.Heads * (c.Dim + 1); len(a) != want || len(b) != want {
		return math.NaN()
	}
	p, q := c.partial(a), c.partial(b)
	return max(difference(p.Out.Data, q.Out.Data), difference(p.LSE.Data, q.LSE.Data))
}

// Queries are rows of queries.
type Queries struct{ Rows []float32 }

func init() {
	beam.RegisterType(reflect.TypeFor[Piece]())
	beam.RegisterType(reflect.TypeFor[Pieces]())
	beam.RegisterType(reflect.TypeFor[Queries]())
	beam.RegisterDoFn(reflect.TypeFor[attendFn]())
	beam.RegisterDoFn(reflect.TypeFor[mergeFn]())
	beam.RegisterDoFn(reflect.TypeFor[floatsFn]())
}

// attentionPipeline attends to all shards, and writes the outputs to a file.
func attentionPipeline(s beam.Scope, path string, c longContext, attend any) {
	shards := beam.Reshuffle(s, beam.CreateList(s, upTo(c.shards())))
	parts := beam.ParDo(s, attend, shards, beam.SideInput{Input: beam.Create(s, c.queries())})
	beam.ParDo0(s, &floatsFn{path}, beam.Combine(s, &mergeFn{c}, parts))
}

// attendFn attends to a shard.
type attendFn struct {
	Context longContext
	op      *attention.Attention
}

func (f *attendFn) Setup() (err error) {
	f.op, err = f.Context.operator()
	return err
}

func (f *attendFn) ProcessElement(ctx context.Context, shard int64, q Queries, emit func(Piece)) error {
	k, v := f.Context.load(shard)
	data, err := f.Context.attend(ctx, f.op, q, []blas32.General{k}, []blas32.General{v})
	if err == nil {
		emit(Piece{0, shard, data})
	}
	return err
}

// mergeFn is the CombineFn: attention to all keys from the results of all shards.
type mergeFn struct{ Context longContext }

func (f *mergeFn) AddInput(a Pieces, p Piece) (Pieces, error) { return a.with(p, f.Context.join) }

func (f *mergeFn) MergeAccumulators(a, b Pieces) (Pieces, error) { return a.and(b, f.Context.join) }

func (f *mergeFn) ExtractOutput(a Pieces) ([]float32, error) {
	return a.whole(f.Context.shards(), f.Context.join)
}

// floatsFn writes numbers to a file.
type floatsFn struct{ Path string }

func (f *floatsFn) ProcessElement(ctx context.Context, x []float32) error {
	return writeFloats(ctx, f.Path, x)
}

// attentionCommand runs the pipeline, and compares it with one process: to the bit with one that
// takes the shards one by one, and with a single call over all keys.
func attentionCommand(ctx context.Context, stdout io.Writer) error {
	c, err := contextFlags.checked()
	if err != nil {
		return err
	}
	c.Workers = *workers
	if _, err := c.operator(); err != nil {
		return err
	}
	if err := writable(ctx, *outDir); err != nil {
		return err
	}
	path := join(*outDir, "attention.f32")
	if err := run(ctx, func(s beam.Scope) { attentionPipeline(s, path, c, &attendFn{Context: c}) }); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d queries to %d keys in %d shards: %s\n", c.Queries, c.Keys, c.shards(), path)
	if !*check {
		return nil
	}
	got, err := readFloats(ctx, path)
	if err != nil {
		return err
	}
	same, whole, err := c.alone(ctx)
	if err != nil {
		return err
	}
	apart := c.difference(got, whole)
	fmt.Fprintf(stdout, "the same shards in one process: %s\none call over all keys: results differ by %.1e of the largest\n",
		c.bitsOf(got, same), apart)
	if err := within(c.difference(got, same), 1e-6); err != nil { // 0 where workers' processors are of one kind
		return err
	}
	return within(apart, callRounding)
}

// callRounding is what results may differ from one call's by, as a part of the largest output, which is
// itself the smaller the more keys there are, for the values drawn have mean 0: a million keys differ
// by 2e-6, four by 6e-6.
const callRounding = 1e-4

// alone computes in this process what the pipeline does, and a single call over all keys.
func (c longContext) alone(ctx context.Context) (same, whole []float32, err error) {
	op, err := c.operator()
	if err != nil {
		return nil, nil, err
	}
	var k, v []blas32.General
	same, err = inOneProcess(c.shards(), c.join, func(shard int64) ([]float32, error) {
		ks, vs := c.load(shard)
		k, v = append(k, ks), append(v, vs)
		return c.attend(ctx, op, c.queries(), []blas32.General{ks}, []blas32.General{vs})
	})
	if err != nil {
		return nil, nil, err
	}
	whole, err = c.attend(ctx, op, c.queries(), k, v)
	return same, whole, err
}

// bitsOf says whether two results are the same to the bit.
func (c longContext) bitsOf(a, b []float32) string {
	if slices.Equal(a, b) {
		return "the same bits"
	}
	return fmt.Sprintf("other bits, which differ by %.1e of the largest", c.difference(a, b))
}
