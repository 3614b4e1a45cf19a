package main

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

// longScan is one recurrence over a sequence in shards.
type longScan struct {
	Rule          string // mamba or delta
	Tokens, Shard int    // tokens in all, and to a shard
	Workers       int    // goroutines of a call, 0 for all processors
}

var (
	scanFlags longScan
	inOrder   = flags.Bool("inorder", false, "scan: run the shards one after the other, with states handed over")
)

func init() {
	f := &scanFlags
	flags.StringVar(&f.Rule, "rule", "mamba", "scan: the `recurrence`, mamba or delta")
	flags.IntVar(&f.Tokens, "tokens", 1<<17, "scan: tokens of the sequence")
	flags.IntVar(&f.Shard, "shard-tokens", 1<<13, "scan: tokens to a shard, a multiple of 64")
}

func (c longScan) checked() (longScan, error) {
	switch {
	case c.Rule != "mamba" && c.Rule != "delta":
		return c, fmt.Errorf("-rule is %q, want mamba or delta", c.Rule)
	case c.Shard%64 != 0:
		return c, fmt.Errorf("-shard-tokens is %d, want a multiple of 64", c.Shard)
	}
	return c, checkShards("tokens", c.Tokens, c.Shard)
}

func (c longScan) shards() int64 { return shardsOf(c.Tokens, c.Shard) }

// size is how many tokens a shard has.
func (c longScan) size(shard int64) int { return min(c.Shard, c.Tokens-int(shard)*c.Shard) }

// outputs is the file of a shard's outputs. It says of how many, so that those of an earlier scan in
// the same folder are not taken for this one's.
func (c longScan) outputs(folder string, shard int64) string {
	return join(folder, fmt.Sprintf("scan-%05d-of-%05d.f32", shard, c.shards()))
}

func (c longScan) rule() (rule, error) {
	if c.Rule == "delta" {
		return newDeltaRule(c)
	}
	return newMambaRule(c)
}

// A rule is a recurrence that is linear in its state: over a shard the state S becomes T S + W,
// where T and W depend on the shard's tokens alone. (T, W) is the shard's summary. Two shards
// in a row have one too, T = T2 T1 and W = T2 W1 + W2: exact, but for rounding.
type rule interface {
	zero() []float32 // the state that a sequence begins with
	summary(ctx context.Context, shard int64) ([]float32, error)
	join(left, right []float32) ([]float32, error)
	after(state, summary []float32) []float32                                               // T S + W
	run(ctx context.Context, shard int64, state []float32) (out, next []float32, err error) // the scan itself
	written(summary []float32) []float32                                                    // W
}

// Start is the state that a shard begins with.
type Start struct {
	Shard int64
	State []float32
}

func init() {
	beam.RegisterType(reflect.TypeFor[Start]())
	beam.RegisterDoFn(reflect.TypeFor[summaryFn]())
	beam.RegisterDoFn(reflect.TypeFor[startFn]())
	beam.RegisterDoFn(reflect.TypeFor[scanFn]())
	beam.RegisterDoFn(reflect.TypeFor[inOrderFn]())
	beam.RegisterDoFn(reflect.TypeFor[composeFn]())
}

const finalState = "scan-state.f32"

// scanPipeline reads each shard twice, at once with all others: for its summary, and, when the
// state that it begins with follows from the summaries before, for its outputs. The final state
// is a CombineFn of the summaries.
func scanPipeline(s beam.Scope, folder string, c longScan, summary, scan any) {
	shards := beam.Reshuffle(s, beam.CreateList(s, upTo(c.shards())))
	summaries := beam.ParDo(s, summary, shards)
	beam.ParDo0(s, &floatsFn{join(folder, finalState)}, beam.Combine(s, &composeFn{Scan: c}, summaries))
	starts := beam.ParDo(s, &startFn{Scan: c}, beam.GroupByKey(s, beam.AddFixedKey(s, summaries)))
	beam.ParDo0(s, scan, beam.Reshuffle(s, starts))
}

// inOrderPipeline hands the states over from shard to shard: bit for bit what one process does,
// whatever the recurrence, at the speed of one worker for each sequence.
func inOrderPipeline(s beam.Scope, folder string, c longScan) {
	shards := beam.CreateList(s, upTo(c.shards()))
	beam.ParDo0(s, &inOrderFn{folder, c}, beam.GroupByKey(s, beam.AddFixedKey(s, shards)))
}

// summaryFn summarises a shard.
type summaryFn struct {
	Scan longScan
	rule rule
}

func (f *summaryFn) Setup() (err error) {
	f.rule, err = f.Scan.rule()
	return err
}

func (f *summaryFn) ProcessElement(ctx context.Context, shard int64, emit func(Piece)) error {
	data, err := f.rule.summary(ctx, shard)
	if err == nil {
		emit(Piece{0, shard, data})
	}
	return err
}

// composeFn is the CombineFn: the state behind all shards from their summaries.
type composeFn struct {
	Scan longScan
	rule rule
}

func (f *composeFn) Setup() (err error) {
	f.rule, err = f.Scan.rule()
	return err
}

func (f *composeFn) AddInput(a Pieces, p Piece) (Pieces, error) { return a.with(p, f.rule.join) }

func (f *composeFn) MergeAccumulators(a, b Pieces) (Pieces, error) { return a.and(b, f.rule.join) }

func (f *composeFn) ExtractOutput(a Pieces) ([]float32, error) {
	data, err := a.whole(f.Scan.shards(), f.rule.join)
	if err != nil {
		return nil, err
	}
	return f.rule.written(data), nil
}

// startFn goes over the summaries in order, a small part of the work, for the state that each
// shard begins with.
type startFn struct {
	Scan longScan
	rule rule
}

func (f *startFn) Setup() (err error) {
	f.rule, err = f.Scan.rule()
	return err
}

func (f *startFn) ProcessElement(_ context.Context, _ int, summaries func(*Piece) bool, emit func(Start)) error {
	list := make([][]float32, f.Scan.shards())
	for p := (Piece{}); summaries(&p); p = (Piece{}) {
		if list[p.Index] != nil {
			return fmt.Errorf("shard %d counts twice", p.Index)
		}
		list[p.Index] = p.Data
	}
	state := f.rule.zero()
	for i, summary := range list {
		if summary == nil {
			return fmt.Errorf("shard %d is missing", i)
		}
		emit(Start{int64(i), state})
		state = f.rule.after(state, summary)
	}
	return nil
}

// scanFn runs a shard from where it begins, and writes its outputs to a file.
type scanFn struct {
	Folder string
	Scan   longScan
	rule   rule
}

func (f *scanFn) Setup() (err error) {
	f.rule, err = f.Scan.rule()
	return err
}

func (f *scanFn) ProcessElement(ctx context.Context, s Start) error {
	out, _, err := f.rule.run(ctx, s.Shard, s.State)
	if err != nil {
		return err
	}
	return writeFloats(ctx, f.Scan.outputs(f.Folder, s.Shard), out)
}

// inOrderFn runs all shards of a sequence.
type inOrderFn struct {
	Folder string
	Scan   longScan
}

func (f *inOrderFn) ProcessElement(ctx context.Context, _ int, shards func(*int64) bool) error {
	var list []int64
	for shard := int64(0); shards(&shard); {
		list = append(list, shard)
	}
	slices.Sort(list)
	if !slices.Equal(list, upTo(f.Scan.shards())) {
		return fmt.Errorf("shards %v, want each of %d once", list, f.Scan.shards())
	}
	state, err := f.Scan.alone(ctx, func(shard int64, out []float32) error {
		return writeFloats(ctx, f.Scan.outputs(f.Folder, shard), out)
	})
	if err != nil {
		return err
	}
	return writeFloats(ctx, join(f.Folder, finalState), state)
}

// alone scans the whole sequence in this process, each shard from the state that the one before
// left, and returns the last.
func (c longScan) alone(ctx context.Context, each func(shard int64, out []float32) error) ([]float32, error) {
	r, err := c.rule()
	if err != nil {
		return nil, err
	}
	state := r.zero()
	for shard := range c.shards() {
		out, next, err := r.run(ctx, shard, state)
		if err == nil {
			err = each(shard, out)
		}
		if err != nil {
			return nil, err
		}
		state = next
	}
	return state, nil
}

// scanCommand runs a pipeline, and compares it with one process.
func scanCommand(ctx context.Context, stdout io.Writer) error {
	c, err := scanFlags.checked()
	if err != nil {
		return err
	}
	c.Workers = *workers
	if _, err := c.rule(); err != nil {
		return err
	}
	if err := writable(ctx, *outDir); err != nil {
		return err
	}
	err = run(ctx, func(s beam.Scope) {
		if *inOrder {
			inOrderPipeline(s, *outDir, c)
			return
		}
		scanPipeline(s, *outDir, c, &summaryFn{Scan: c}, &scanFn{Folder: *outDir, Scan: c})
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %d tokens in %d shards: %s and the like, %s\n", c.Rule, c.Tokens, c.shards(), c.outputs(*outDir, 0), join(*outDir, finalState))
	if !*check {
		return nil
	}
	outputs, state, err := c.compare(ctx, *outDir)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "from one process outputs differ by %.1e of a shard's largest, the final state by %.1e\n", outputs, state)
	if *inOrder {
		return within(max(outputs, state), 0)
	}
	return within(max(outputs, state), scanRounding)
}

// scanRounding is what results of composed summaries may differ from a scan's by.
const scanRounding = 1e-5

// compare tells how far the results in a folder are from those of one process.
func (c longScan) compare(ctx context.Context, folder string) (outputs, state float64, err error) {
	last, err := c.alone(ctx, func(shard int64, out []float32) error {
		got, err := readFloats(ctx, c.outputs(folder, shard))
		outputs = max(outputs, difference(got, out))
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	got, err := readFloats(ctx, join(folder, finalState))
	return outputs, difference(got, last), err
}
