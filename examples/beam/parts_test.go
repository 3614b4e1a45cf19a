package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"gonum.org/v1/gonum/blas/blas32"
)

var (
	smallContext = longContext{Keys: 1100, Shard: 100, Queries: 3, Heads: 4, KVHeads: 2, Dim: 8, Workers: 1}
	smallScans   = []longScan{{"mamba", 1100, 128, 1}, {"delta", 1100, 128, 1}}
)

func init() {
	beam.RegisterDoFn(reflect.TypeFor[faultyAttendFn]())
	beam.RegisterDoFn(reflect.TypeFor[faultySummaryFn]())
	beam.RegisterDoFn(reflect.TypeFor[faultyScanFn]())
}

// The DoFns of the pipelines with faults.
type (
	faultyAttendFn  struct{ attendFn }
	faultySummaryFn struct{ summaryFn }
	faultyScanFn    struct{ scanFn }
)

func (f *faultyAttendFn) ProcessElement(ctx context.Context, shard int64, q Queries, emit func(Piece)) error {
	fault()
	return f.attendFn.ProcessElement(ctx, shard, q, emit)
}

func (f *faultySummaryFn) ProcessElement(ctx context.Context, shard int64, emit func(Piece)) error {
	fault()
	return f.summaryFn.ProcessElement(ctx, shard, emit)
}

func (f *faultyScanFn) ProcessElement(ctx context.Context, s Start) error {
	fault()
	return f.scanFn.ProcessElement(ctx, s)
}

// concatenated keeps the order and the grouping of what it joins, so that a wrong one shows.
func concatenated(left, right []float32) ([]float32, error) {
	return slices.Concat([]float32{-1}, left, right, []float32{-2}), nil
}

// TestPieces: whatever the order and the grouping, the pieces of any number of shards are joined
// in one way; a shard that is there twice or not at all is an error.
func TestPieces(t *testing.T) {
	merge := func(a, b Pieces) (Pieces, error) { return a.and(b, concatenated) }
	add := func(a Pieces, p Piece) (Pieces, error) { return a.with(p, concatenated) }
	for shards := int64(1); shards < 40; shards++ {
		want := must(inOneProcess(shards, concatenated, func(i int64) ([]float32, error) { return []float32{float32(i)}, nil }))(t)
		var in []Piece
		for i := range shards {
			in = append(in, Piece{0, i, []float32{float32(i)}})
		}
		for seed := range uint64(5) {
			all := combined(t, rand.New(rand.NewPCG(seed, 1)), in, add, merge)
			if got := must(all.whole(shards, concatenated))(t); !slices.Equal(got, want) {
				t.Fatalf("%d shards: %v, want %v", shards, got, want)
			}
			if _, err := add(all, in[int(seed)%len(in)]); err == nil {
				t.Error("a shard was counted twice")
			}
			if _, err := all.whole(shards+1, concatenated); err == nil {
				t.Error("a shard was missing")
			}
		}
		if shards > 1 {
			missing := combined(t, rand.New(rand.NewPCG(1, 1)), slices.Delete(in, int(shards/2), int(shards/2)+1), add, merge)
			if _, err := missing.whole(shards, concatenated); err == nil {
				t.Error("a shard was missing")
			}
		}
	}
	if _, err := (Pieces{}).whole(0, concatenated); err == nil {
		t.Error("no error of no shards")
	}
	fails := func(_, _ []float32) ([]float32, error) { return nil, errors.New("no") }
	if _, err := inOneProcess(2, fails, func(int64) ([]float32, error) { return nil, nil }); err == nil {
		t.Error("an error of the joiner is lost")
	}
}

// TestCoders: Beam's coders keep every bit of what the pipelines send, -Inf of parts that saw no
// key among it.
func TestCoders(t *testing.T) {
	p := Pieces{[]Piece{{3, 1 << 40, []float32{float32(math.Inf(-1)), float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, math.MaxFloat32}}, {0, 7, nil}}}
	got := coded(t, p)
	if !slices.Equal(got.List[0].Data, p.List[0].Data) || !math.Signbit(float64(got.List[0].Data[1])) || got.List[0].Index != 1<<40 || len(got.List) != 2 {
		t.Errorf("%v, want %v", got, p)
	}
	if nan := coded(t, []float32{float32(math.NaN())}); nan[0] == nan[0] {
		t.Error("NaN is lost")
	}
	s := Stretch{Contig{"a/b.fa", 3, "chr1"}, 1 << 40, []byte("ACGT")}
	if got := coded(t, s); !reflect.DeepEqual(got, s) {
		t.Errorf("%v, want %v", got, s)
	}
}

// tries runs a pipeline that works, one that fails at its third element and then works, and one
// that the runner must divide.
func tries(t *testing.T, build func(s beam.Scope), check func(t *testing.T)) {
	job := func() error { return run(context.Background(), build) }
	for name, f := range map[string]func(){"plain": func() {}, "fails": onceAfter(3), "split": inTwo()} {
		t.Run(name, func(t *testing.T) {
			withFault(t, f)
			if name == "fails" && job() == nil {
				t.Fatal("no error")
			}
			must(0, job())(t)
			check(t)
		})
	}
}

// TestAttention: the pipeline gives the bits of one process with the same shards, and, to rounding,
// what one call over all keys gives.
func TestAttention(t *testing.T) {
	c := smallContext
	path := filepath.Join(t.TempDir(), "attention.f32")
	same, whole, err := c.alone(context.Background())
	must(0, err)(t)
	tries(t, func(s beam.Scope) { attentionPipeline(s, path, c, &faultyAttendFn{attendFn{Context: c}}) }, func(t *testing.T) {
		got := must(readFloats(context.Background(), path))(t)
		must(0, os.Remove(path))(t)
		if !slices.Equal(got, same) {
			t.Error("other bits than one process with the same shards")
		}
		if d := c.difference(got, whole); !(d < 1e-6) {
			t.Errorf("one call over all keys differs by %.1e", d)
		}
	})
}

// TestAttentionRetries does the same in bundles that fail and are run again.
func TestAttentionRetries(t *testing.T) {
	c := smallContext
	same, _, err := c.alone(context.Background())
	must(0, err)(t)
	op, merge := must(c.operator())(t), &mergeFn{c}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		parts := bundles(t, r, upTo(c.shards()), func(shard int64, emit func(Piece)) error {
			return (&attendFn{c, op}).ProcessElement(context.Background(), shard, c.queries(), emit)
		})
		got := must(merge.ExtractOutput(combined(t, r, parts, merge.AddInput, merge.MergeAccumulators)))(t)
		if !slices.Equal(got, same) {
			t.Fatal("other bits than one process with the same shards")
		}
	}
}

// TestAttentionMerge: merging is associative and commutative to rounding, and a part that saw no
// key is its zero.
func TestAttentionMerge(t *testing.T) {
	c := smallContext
	op := must(c.operator())(t)
	part := func(shard int64) []float32 {
		k, v := c.load(shard)
		return must(c.attend(context.Background(), op, c.queries(), []blas32.General{k}, []blas32.General{v}))(t)
	}
	x, y, z := part(0), part(1), part(2)
	j := func(a, b []float32) []float32 { return must(c.join(a, b))(t) }
	for name, d := range map[string]float64{
		"(x y) z and x (y z)": difference(j(j(x, y), z), j(x, j(y, z))),
		"x y and y x":         difference(j(x, y), j(y, x)),
	} {
		if !(d < 1e-6) {
			t.Errorf("%s differ by %.1e", name, d)
		}
	}
	none := must(c.attend(context.Background(), op, c.queries(), nil, nil))(t)
	if !slices.Equal(j(x, none), x) || !slices.Equal(j(none, x), x) {
		t.Error("a part without keys changes the others")
	}
}

// TestScan: outputs and final state are those of one process, to rounding where summaries are
// composed, and to the bit where states are handed over.
func TestScan(t *testing.T) {
	for _, c := range smallScans {
		t.Run(c.Rule, func(t *testing.T) {
			folder := t.TempDir()
			near := func(most float64) func(t *testing.T) {
				return func(t *testing.T) {
					outputs, state, err := c.compare(context.Background(), folder)
					must(0, err)(t)
					if !(outputs <= most && state <= most) {
						t.Errorf("outputs differ by %.1e, the state by %.1e", outputs, state)
					}
					list := must(filepath.Glob(filepath.Join(folder, "*")))(t)
					if len(list) != int(c.shards())+1 {
						t.Errorf("%d files, want %d: %q", len(list), c.shards()+1, list)
					}
					for _, file := range list {
						must(0, os.Remove(file))(t)
					}
				}
			}
			tries(t, func(s beam.Scope) {
				scanPipeline(s, folder, c, &faultySummaryFn{summaryFn{Scan: c}}, &faultyScanFn{scanFn{Folder: folder, Scan: c}})
			}, near(1e-5))
			must(0, run(context.Background(), func(s beam.Scope) { inOrderPipeline(s, folder, c) }))(t)
			near(0)(t)
		})
	}
}

// TestScanRetries composes summaries from bundles that fail and are run again.
func TestScanRetries(t *testing.T) {
	for _, c := range smallScans {
		compose, start := &composeFn{Scan: c}, &startFn{Scan: c}
		must(0, errors.Join(compose.Setup(), start.Setup()))(t)
		want := must(c.alone(context.Background(), func(int64, []float32) error { return nil }))(t)
		var first []float32
		for seed := range uint64(5) {
			r := rand.New(rand.NewPCG(seed, 3))
			summaries := bundles(t, r, upTo(c.shards()), func(shard int64, emit func(Piece)) error {
				return (&summaryFn{c, compose.rule}).ProcessElement(context.Background(), shard, emit)
			})
			got := must(compose.ExtractOutput(combined(t, r, summaries, compose.AddInput, compose.MergeAccumulators)))(t)
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Errorf("%s: other bits than composed otherwise", c.Rule)
			}
			if d := difference(got, want); !(d < 1e-5) {
				t.Errorf("%s: the state differs by %.1e", c.Rule, d)
			}
			starts := 0
			must(0, start.ProcessElement(context.Background(), 0, each(summaries), func(Start) { starts++ }))(t)
			summaries = append(summaries, summaries[0])
			if err := start.ProcessElement(context.Background(), 0, each(summaries), func(Start) {}); err == nil || starts != int(c.shards()) {
				t.Errorf("%s: %d starts; a shard twice: error %v", c.Rule, starts, err)
			}
		}
	}
}

// TestSummaries: the summary of two shards is that of one shard of their tokens, whatever
// state comes in, and composing is associative.
func TestSummaries(t *testing.T) {
	for _, c := range smallScans {
		r := must(c.rule())(t)
		s := make([][]float32, 3)
		for i := range s {
			s[i] = must(r.summary(context.Background(), int64(i)))(t)
		}
		j := func(a, b []float32) []float32 { return must(r.join(a, b))(t) }
		if d := difference(j(j(s[0], s[1]), s[2]), j(s[0], j(s[1], s[2]))); !(d < 1e-5) {
			t.Errorf("%s: groupings differ by %.1e", c.Rule, d)
		}
		state := drawn(99, 1, len(r.zero()), -1, 1).Data
		_, next, err := r.run(context.Background(), 0, state)
		must(0, err)(t)
		_, next, err = r.run(context.Background(), 1, next)
		must(0, err)(t)
		if d := difference(r.after(state, j(s[0], s[1])), next); !(d < 1e-5) {
			t.Errorf("%s: a state behind two shards differs by %.1e", c.Rule, d)
		}
		// The transition is not lost in what was written: without it the state is another.
		if d := difference(r.after(r.zero(), j(s[0], s[1])), next); d < 1e-3 {
			t.Errorf("%s: the state before does not count", c.Rule)
		}
	}
}

// TestOtherProcess runs the pipelines with their worker in another process: it knows what the
// elements are, and gives the same bits.
func TestOtherProcess(t *testing.T) {
	_, files := genomes(t)
	folder := t.TempDir()
	must(0, runScore(t.TempDir(), files[:1], &scoreFn{Scoring: small}))(t) // starts the runner in this process
	inOtherProcess(t)
	loads := models.loads
	must(0, runScore(folder, files, &scoreFn{Scoring: small}))(t)
	if models.loads != loads {
		t.Error("the model was loaded in this process")
	}
	checkScores(t, folder, files, small)
	path := filepath.Join(folder, "attention.f32")
	must(0, run(context.Background(), func(s beam.Scope) {
		attentionPipeline(s, path, smallContext, &attendFn{Context: smallContext})
	}))(t)
	same, _, err := smallContext.alone(context.Background())
	must(0, err)(t)
	if !slices.Equal(must(readFloats(context.Background(), path))(t), same) {
		t.Error("attention: other bits than one process")
	}
	for _, c := range smallScans {
		must(0, run(context.Background(), func(s beam.Scope) {
			scanPipeline(s, folder, c, &summaryFn{Scan: c}, &scanFn{Folder: folder, Scan: c})
		}))(t)
		outputs, state, err := c.compare(context.Background(), folder)
		must(0, err)(t)
		if !(outputs < 1e-5 && state < 1e-5) {
			t.Errorf("%s: outputs differ by %.1e, the state by %.1e", c.Rule, outputs, state)
		}
	}
}

// TestBytesMoved holds the README to what it says of the bytes that elements take.
func TestBytesMoved(t *testing.T) {
	size := func(x any) float64 {
		var b bytes.Buffer
		must(0, beam.NewElementEncoder(reflect.TypeOf(x)).Encode(x, &b))(t)
		return float64(b.Len())
	}
	cfg := must(scoring{Window: 16384, Bin: 100}.checked(16384))(t)
	stretch := Stretch{Contig{"genome.fa", 1, "chr1"}, 1 << 20, make([]byte, cfg.Stretch+1)}
	nats := make([]float32, len(stretch.Bases))
	for i := range nats {
		nats[i] = -1.35
	}
	c, mamba, gated := contextFlags, must(newMambaRule(scanFlags))(t), must(newDeltaRule(scanFlags))(t)
	for _, moved := range []struct {
		what        string
		bytes, most float64 // a token
	}{
		{"stretch", size(stretch) / float64(cfg.Stretch), 1.01},
		{"score", size(stretch.count(nats, 100)) / float64(cfg.Stretch), 0.07},
		{"partial attention", size(Piece{0, 9, make([]float32, c.Queries*c.Heads*(c.Dim+1))}) / float64(c.Shard), 0.51},
		{"summary and state of mamba", size(Piece{0, 9, make([]float32, 2*len(mamba.zero()))})/8192 + size(Start{9, mamba.zero()})/8192, 1.6},
		{"summary and state of delta", size(Piece{0, 9, make([]float32, 2*32*96)})/8192 + size(Start{9, gated.zero()})/8192, 5.1},
	} {
		t.Logf("%s: %.3f bytes a token", moved.what, moved.bytes)
		if moved.bytes > moved.most {
			t.Errorf("%s: %.3f bytes a token, want at most %.2f", moved.what, moved.bytes, moved.most)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []longContext{{Shard: 1, Queries: 1}, {Keys: 1, Queries: 1}, {Keys: 1, Shard: 1}} {
		if _, err := c.checked(); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	for _, c := range []longScan{{"x", 1, 64, 0}, {"mamba", 0, 64, 0}, {"delta", 1, 65, 0}, {"delta", 1, 0, 0}} {
		if _, err := c.checked(); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}
