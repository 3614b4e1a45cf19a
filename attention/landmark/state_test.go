package landmark

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// formats are the storage types and by how much steps may differ from Forward in each.
var formats = map[asm.Format]float64{asm.Float32: 1e-5, asm.Float16: 2e-3, asm.BFloat16: 2e-2, asm.Int8: 3e-2}

// reread returns a state as it comes out of its file, or a copy.
func reread[S attention.Past](t *testing.T, r *rand.Rand, s S, clone func() S, read func(*bytes.Buffer) (S, error)) S {
	t.Helper()
	switch r.IntN(3) {
	case 0:
		return clone()
	case 1:
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		s, err := read(&file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return s
}

// TestFormats has steps of both operators be Forward to what a format loses, with
// memory of the state's own and of pages, for any split.
func TestFormats(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(12) {
			for format, tolerance := range formats {
				r := rand.New(rand.NewPCG(seed, uint64(format)))
				const n, d, heads, kvHeads = 160, 5, 4, 2
				block := 1 + r.IntN(7)
				l := mustLandmark(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Block: block, TopK: n})
				m := mustMeta(t, MetaConfig{Heads: heads, KVHeads: kvHeads, HeadDim: d})
				q, k, v := matrix(seed, n, heads*d), matrix(seed+1, n, kvHeads*d), matrix(seed+2, n, kvHeads*d)
				marks, meta := make([]bool, n), make([]bool, n)
				for i := range n {
					marks[i], meta[i] = l.IsLandmark(int64(i)), r.IntN(3) > 0
				}
				want, got := zeroMatrix(n, heads*d), zeroMatrix(n, heads*d)
				wantMeta, gotMeta := zeroMatrix(n, heads*d), zeroMatrix(n, heads*d)
				for _, err := range []error{l.Forward(want, q, k, v, marks), m.Forward(wantMeta, q, k, v, meta)} {
					if err != nil {
						t.Fatal(err)
					}
				}
				cfg, metaCfg := StateConfig{Format: format}, MetaStateConfig{Format: format}
				if r.IntN(2) == 0 {
					page := attention.PagesConfig{Format: format, PageTokens: []int{block, 1 + r.IntN(9)}[r.IntN(2)]}
					pages, err := l.NewPages(page)
					metaPages, other := m.NewPages(page)
					if err != nil || other != nil {
						t.Fatal(err, other)
					}
					cfg, metaCfg = StateConfig{Pages: pages}, MetaStateConfig{Pages: metaPages}
				}
				s, err := l.NewState(cfg)
				ms, other := m.NewState(metaCfg)
				if err != nil || other != nil || s.cfg.Format != format || ms.cfg.Format != format {
					t.Fatal(err, other, s.cfg.Format, ms.cfg.Format)
				}
				for at := 0; at < n; {
					to := min(at+1+r.IntN([]int{3, 20, 140}[r.IntN(3)]), n)
					x := []blas32.General{part(q, at, to), part(k, at, to), part(v, at, to)}
					if err := l.Step(part(got, at, to), x[0], x[1], x[2], marks[at:to], s); err != nil {
						t.Fatal(err)
					}
					if err := m.Step(part(gotMeta, at, to), x[0], x[1], x[2], meta[at:to], ms); err != nil {
						t.Fatal(err)
					}
					s = reread(t, r, s, s.Clone, func(b *bytes.Buffer) (*State, error) { return l.ReadState(b) })
					ms = reread(t, r, ms, ms.Clone, func(b *bytes.Buffer) (*MetaState, error) { return m.ReadState(b) })
					at = to
				}
				close64(t, "landmarks", got.Data, want.Data, tolerance)
				close64(t, "meta", gotMeta.Data, wantMeta.Data, tolerance)
			}
		}
	})
}

// TestBatch has several sequences in one call be what each is alone, with states and
// without.
func TestBatch(t *testing.T) {
	const d, batch = 4, 3
	l, m := mustLandmark(t, Config{Heads: 2, HeadDim: d, Block: 3, TopK: 2, Rotation: rotation(d)}), mustMeta(t, MetaConfig{Heads: 2, HeadDim: d})
	var alone, together, aloneMeta, togetherMeta []attention.Past
	for range batch {
		for _, list := range []*[]attention.Past{&alone, &together} {
			s, _ := l.NewState(StateConfig{})
			*list = append(*list, s)
		}
		for _, list := range []*[]attention.Past{&aloneMeta, &togetherMeta} {
			s, _ := m.NewState(MetaStateConfig{})
			*list = append(*list, s)
		}
	}
	at := make([]int, batch)
	for round := range 9 {
		offsets := []int{0}
		var marks, meta []bool
		for b := range batch {
			n := []int{1, 7 * b, 100 - b}[round%3]
			for range n {
				marks, meta = append(marks, l.IsLandmark(int64(at[b]))), append(meta, len(meta)%3 > 0)
				at[b]++
			}
			offsets = append(offsets, len(marks))
		}
		n := offsets[batch]
		x := [3]blas32.General{matrix(uint64(round), n, 2*d), matrix(2, n, 2*d), matrix(3, n, 2*d)}
		run := func(op attention.Operator, options func(from, to int) any, from, to int, offsets []int, state attention.Past, states []attention.Past, dst blas32.General) {
			t.Helper()
			err := op.Run(context.Background(), &attention.Call{
				Dst: part(dst, from, to), Q: part(x[0], from, to), K: []blas32.General{part(x[1], from, to)}, V: []blas32.General{part(x[2], from, to)},
				Offsets: offsets, State: state, States: states, Options: options(from, to),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for name, c := range map[string]struct {
			op              attention.Operator
			options         func(from, to int) any
			alone, together []attention.Past
		}{
			"landmarks":                 {l, func(from, to int) any { return &Options{Landmarks: marks[from:to]} }, alone, together},
			"meta":                      {m, func(from, to int) any { return &MetaOptions{Meta: meta[from:to]} }, aloneMeta, togetherMeta},
			"landmarks without a state": {l, func(from, to int) any { return &Options{Landmarks: meta[from:to]} }, make([]attention.Past, batch), nil},
			"meta without a state":      {m, func(from, to int) any { return &MetaOptions{Meta: meta[from:to]} }, make([]attention.Past, batch), nil},
		} {
			want, got := zeroMatrix(n, 2*d), zeroMatrix(n, 2*d)
			for b := range batch {
				run(c.op, c.options, offsets[b], offsets[b+1], nil, c.alone[b], nil, want)
			}
			o := offsets
			if round%3 == 0 && c.together != nil {
				o = nil // one row each
			}
			run(c.op, c.options, 0, n, o, nil, c.together, got)
			sameBits(t, name, got.Data, want.Data)
		}
	}
}

// TestOwners has states go on with another operator of the same Config, with no other,
// and not twice in a call; a pool that runs out leaves them where they were.
func TestOwners(t *testing.T) {
	const d = 4
	cfg, metaCfg := Config{Heads: 2, HeadDim: d, Block: 1, TopK: 2}, MetaConfig{Heads: 2, HeadDim: d}
	l, m := mustLandmark(t, cfg), mustMeta(t, metaCfg)
	pages, _ := l.NewPages(attention.PagesConfig{PageTokens: 1, MaxPages: 2})
	metaPages, _ := m.NewPages(attention.PagesConfig{PageTokens: 1, MaxPages: 4})
	s, err := l.NewState(StateConfig{Pages: pages})
	if err != nil {
		t.Fatal(err)
	}
	ms, err := m.NewState(MetaStateConfig{Pages: metaPages})
	if err != nil {
		t.Fatal(err)
	}
	x, dst, marks, meta := matrix(1, 2, 2*d), zeroMatrix(2, 2*d), []bool{false, true}, []bool{true, true}
	twin, metaTwin := mustLandmark(t, cfg), mustMeta(t, metaCfg)
	for range 2 {
		if err := twin.Step(dst, x, x, x, marks, s); err != nil {
			t.Fatal(err)
		}
		if err := metaTwin.Step(dst, x, x, x, meta, ms); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{"landmarks": l.Step(dst, x, x, x, marks, s), "meta": m.Step(dst, x, x, x, meta, ms)} {
		if !errors.Is(err, attention.ErrFull) {
			t.Errorf("%s: error %v of a full pool", name, err)
		}
	}
	if s.Len() != 4 || ms.Len() != 4 || s.Blocks() != 2 {
		t.Errorf("%d and %d tokens after errors", s.Len(), ms.Len())
	}
	call := func(options any, states ...attention.Past) *attention.Call {
		return &attention.Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, States: states, Options: options}
	}
	ctx := context.Background()
	for name, err := range map[string]error{
		"landmarks twice":   l.Run(ctx, call(&Options{[]bool{false, false}}, s, s)),
		"meta twice":        m.Run(ctx, call(&MetaOptions{meta}, ms, ms)),
		"landmarks of meta": l.Run(ctx, call(&Options{marks}, s, ms)),
		"meta of landmarks": m.Run(ctx, call(&MetaOptions{meta}, s, ms)),
		"landmarks, nil":    l.Run(ctx, call(&Options{marks}, s, (*State)(nil))),
	} {
		if !errors.Is(err, attention.ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"no options":    l.Run(ctx, call(nil, s, s)),
		"other options": m.Run(ctx, call(&Options{marks}, s, s)),
		"no states":     l.Run(ctx, &attention.Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, States: []attention.Past{}, Options: &Options{marks}}),
	} {
		if !errors.Is(err, attention.ErrCall) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := l.NewPages(attention.PagesConfig{LogWeights: true}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
	if _, err := l.NewState(StateConfig{Format: 9}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
}
