package dna

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// everything asks for all outputs of a call.
func everything(m *Model, tokens []int32) *Call {
	n := len(tokens)
	return &Call{
		Tokens: tokens, Hidden: zeros(n, m.cfg.Dim), Logits: zeros(n, m.cfg.Vocab),
		LogLikelihood: make([]float32, max(n-1, 0)), Pooled: make([]float32, m.cfg.Dim),
	}
}

func (c *Call) outputs() []float32 {
	return slices.Concat(c.Hidden.Data, c.Logits.Data, c.LogLikelihood, c.Pooled, c.Classes)
}

var same = mattest.SameBits

func near(t *testing.T, name string, got, want []float32, tol float64) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tol) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], want[i])
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWorkers: the bits are the same for any number of workers, alone or in a batch.
func TestWorkers(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		s := small.random(1)
		one := s.model(t, Config{MaxLen: 4000, Workers: 1})
		lengths := []int{0, 1, 2, 191, 192, 193, 650, 3000}
		var alone []*Call
		for i, n := range lengths {
			alone = append(alone, everything(one, bases(uint64(i), n)))
			must(t, one.Run(t.Context(), alone[i]))
		}
		for _, workers := range []int{2, 3, 8} {
			m := s.model(t, Config{MaxLen: 4000, Workers: workers})
			var batch []*Call
			for i := range lengths {
				c := everything(m, alone[i].Tokens)
				must(t, m.Run(t.Context(), c))
				same(t, "alone", c.outputs(), alone[i].outputs())
				batch = append(batch, everything(m, alone[i].Tokens))
			}
			must(t, m.RunBatch(t.Context(), batch))
			for i := range lengths {
				same(t, "in a batch", batch[i].outputs(), alone[i].outputs())
			}
		}
	})
}

// TestScratchBytes compares what a first call leaves in memory, beside filters and
// spectra, with what was said before.
func TestScratchBytes(t *testing.T) {
	for _, n := range []int{1, 100, 193, 3000} {
		m := small.random(1).model(t, Config{MaxLen: 3000, Workers: 3})
		must(t, m.Prepare(t.Context(), n))
		c := everything(m, bases(1, n))
		before := m.Bytes()
		held := heap()
		must(t, m.Run(t.Context(), c))
		held = heap() - held
		if said := m.ScratchBytes(n); held > said || m.Bytes() != before {
			t.Errorf("%d tokens take %d bytes, said %d; Bytes went from %d to %d", n, held, said, before, m.Bytes())
		}
	}
	m := small.random(1).model(t, Config{MaxLen: 3000})
	if err := m.Prepare(t.Context(), 3001); !errors.Is(err, ErrTooLong) {
		t.Errorf("error %v", err)
	}
}

// TestMemory: what a model holds, beside its weights, is what Bytes and ScratchBytes say, at
// several lengths one after the other and with budgets that have room for all, for rows
// alone, for some layers and for nothing; and the bits are the same.
func TestMemory(t *testing.T) {
	d := dims{dim: 24, layers: 4, inner: 24, vocab: 16, maxLen: 20000, order: 3, hidden: 8}
	s := d.random(1)
	lengths := []int{2500, 9000, 20, 20000, 9000}
	var want []uint64 // sums of the bits, for each length
	for _, budget := range []int64{0, 24 << 20, 5 << 20, 1} {
		before := heap()
		m := s.model(t, Config{MaxLen: d.maxLen, Workers: 2, SpectraBytes: budget})
		weights := m.Bytes()
		built := heap() - before
		for i, n := range lengths {
			said := m.ScratchBytes(n) // before the call
			if i == 1 {
				must(t, m.Prepare(t.Context(), n))
			}
			c := &Call{Tokens: bases(1, n), Hidden: zeros(n, d.dim)}
			prepared := m.Bytes()
			must(t, m.Run(t.Context(), c))
			if i == 1 && m.Bytes() != prepared {
				t.Errorf("budget %d, %d tokens: Bytes is %d, after Prepare it was %d", budget, n, m.Bytes(), prepared)
			}
			sum := fnv.New64a()
			must(t, binary.Write(sum, binary.LittleEndian, c.Hidden.Data))
			if i == len(want) {
				want = append(want, sum.Sum64())
			} else if sum.Sum64() != want[i] {
				t.Errorf("budget %d, %d tokens: other bits than with room for all", budget, n)
			}
			kept := m.Bytes() - weights
			if budget > 0 && kept > budget+4<<20 { // and the tables
				t.Errorf("budget %d, %d tokens: keeps %d bytes", budget, n, kept)
			}
			most := said
			for _, n := range lengths[:i] {
				most = max(most, m.ScratchBytes(n))
			}
			c.Hidden.Data, c.Tokens = nil, nil
			held := heap() - before - built
			const pages = 128 << 10 // that the runtime rounds some dozen pieces up to
			if held > kept+most+pages {
				t.Errorf("budget %d, %d tokens: holds %d bytes, said %d + %d", budget, n, held, kept, most)
			}
		}
		runtime.KeepAlive(m)
	}
}

// heap returns the bytes in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one frees of pools
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// TestCausal: a change of one token leaves what stands before it unchanged, up to
// the rounding of the transforms.
func TestCausal(t *testing.T) {
	m := small.random(2).model(t, small.config())
	tokens := bases(1, 300)
	before := everything(m, tokens)
	must(t, m.Run(t.Context(), before))
	changed := slices.Clone(tokens)
	changed[200] = 11
	after := everything(m, changed)
	must(t, m.Run(t.Context(), after))
	near(t, "before the change", after.Hidden.Data[:200*m.cfg.Dim], before.Hidden.Data[:200*m.cfg.Dim], 2e-5)
	prefix := everything(m, tokens[:200])
	must(t, m.Run(t.Context(), prefix))
	near(t, "a prefix", prefix.Hidden.Data, before.Hidden.Data[:200*m.cfg.Dim], 2e-5)
	moved := 0.0
	for i := 200 * m.cfg.Dim; i < len(after.Hidden.Data); i++ {
		moved = math.Max(moved, math.Abs(float64(after.Hidden.Data[i]-before.Hidden.Data[i])))
	}
	if moved < 1e-2 {
		t.Errorf("what follows the change moved by %v only", moved)
	}
}

// TestLogLikelihood compares with the softmax of the logits in float64.
func TestLogLikelihood(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m := small.random(3).model(t, small.config())
		tokens := bases(1, 400)
		c := everything(m, tokens)
		must(t, m.Run(t.Context(), c))
		oracle := func(at int, target int32) float64 {
			var sum float64
			for _, v := range mat.Row(c.Logits, at) {
				sum += math.Exp(float64(v))
			}
			return float64(mat.Row(c.Logits, at)[target]) - math.Log(sum)
		}
		for i, got := range c.LogLikelihood {
			if want := oracle(i, tokens[i+1]); math.Abs(float64(got)-want) > 2e-6*(1+math.Abs(want)) {
				t.Fatalf("token %d: %v, want %v", i, got, want)
			}
		}
		// Targets of one's own, one left out, fewer than tokens, without other outputs.
		targets := append(bases(2, 249), -1)
		own := &Call{Tokens: tokens, Targets: targets, LogLikelihood: make([]float32, 250)}
		must(t, m.Run(t.Context(), own))
		for i, got := range own.LogLikelihood[:249] {
			if want := oracle(i, targets[i]); math.Abs(float64(got)-want) > 2e-6*(1+math.Abs(want)) {
				t.Fatalf("target %d: %v, want %v", i, got, want)
			}
		}
		if own.LogLikelihood[249] != 0 {
			t.Errorf("a target that is left out has %v", own.LogLikelihood[249])
		}
	})
}

func TestFormats(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		s := small.random(6)
		exact := everything(s.model(t, small.config()), bases(1, 200))
		must(t, s.model(t, small.config()).Run(t.Context(), exact))
		for format, tol := range map[asm.Format]float64{asm.BFloat16: 0.08, asm.Float16: 0.01, asm.Int8: 0.2} {
			m := s.model(t, Config{MaxLen: small.maxLen, Format: format})
			c := everything(m, exact.Tokens)
			must(t, m.Run(t.Context(), c))
			var diff, size float64
			for i, v := range exact.Hidden.Data {
				diff += math.Pow(float64(c.Hidden.Data[i]-v), 2)
				size += math.Pow(float64(v), 2)
			}
			if e := math.Sqrt(diff / size); !(e > 0 && e < tol) {
				t.Errorf("%v: relative error %v", format, e)
			}
		}
	})
}

func TestOrders(t *testing.T) {
	d := small
	d.order = 3
	s := d.random(7)
	m := s.model(t, d.config())
	c := everything(m, bases(1, 100))
	must(t, m.Run(t.Context(), c))
	if m.Config().Order != 3 {
		t.Errorf("order %d", m.Config().Order)
	}
	other := s.model(t, Config{MaxLen: d.maxLen, ChannelMajor: true})
	o := everything(other, c.Tokens)
	must(t, other.Run(t.Context(), o))
	if slices.Equal(o.Hidden.Data, c.Hidden.Data) {
		t.Error("the layout of the channels makes no difference")
	}
}

func TestAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			m := small.random(8).model(t, Config{MaxLen: small.maxLen, Workers: workers})
			c := everything(m, bases(1, 500))
			text := m.Tokenizer(NoSpecial).Decode(c.Tokens)
			for name, f := range map[string]func(){
				"Run":       func() { must(t, m.Run(context.Background(), c)) },
				"Forward":   func() { must(t, m.Forward(c.Hidden, c.Tokens)) },
				"EmbedInto": func() { must(t, m.EmbedInto(context.Background(), c.Pooled, text)) },
			} {
				if n := isatest.Allocations(f); n != 0 {
					t.Errorf("%d workers, %s: %v allocations", workers, name, n)
				}
			}
		}
	})
}

// TestConcurrent runs one model from many goroutines, some of them cancelled.
func TestConcurrent(t *testing.T) {
	m := small.random(9).model(t, Config{MaxLen: small.maxLen, Workers: 2})
	want := everything(m, bases(1, 300))
	must(t, m.Run(t.Context(), want))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 6 {
				c := everything(m, want.Tokens)
				if i%3 == 2 {
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					if err := m.Run(ctx, c); !errors.Is(err, context.Canceled) {
						t.Errorf("error %v", err)
					}
					continue
				}
				if err := m.Run(context.Background(), c); err != nil {
					t.Error(err)
				}
				if !slices.Equal(c.outputs(), want.outputs()) {
					t.Error("another result")
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEmbed(b *testing.B) {
	d := dims{dim: 128, layers: 2, inner: 512, vocab: 16, maxLen: 1026, order: 2, hidden: 64}
	b.Run("tiny-1k/n=1024", func(b *testing.B) {
		m := d.random(1).model(b, d.config())
		tokens, dst := bases(1, 1024), zeros(1024, d.dim)
		must(b, m.Forward(dst, tokens))
		b.ReportAllocs()
		for b.Loop() {
			must(b, m.Forward(dst, tokens))
		}
		perSecond := float64(b.N) / b.Elapsed().Seconds()
		flop := 2 * 1024 * float64(d.layers) * float64(4*d.dim*d.dim+2*d.dim*d.inner)
		b.ReportMetric(flop*perSecond/1e9, "GFLOP/s")
		b.ReportMetric(1024*perSecond, "tokens/s")
	})
}
