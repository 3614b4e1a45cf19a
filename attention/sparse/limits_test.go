package sparse

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state/statetest"
)

// looksOf is how often a call looks at its context; one that ends at any of a few of these
// moments gives the context's error.
func looksOf(t *testing.T, name string, call func(context.Context) error) int {
	t.Helper()
	never := &statetest.Ending{Context: context.Background(), Left: 1 << 30}
	if err := call(never); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	looks := never.Asked()
	for _, left := range []int{0, looks / 3, looks - 1} {
		ctx := &statetest.Ending{Context: context.Background(), Left: left}
		if err := call(ctx); err != context.Canceled || ctx.Asked() > left+4 {
			t.Errorf("%s: ended after %d looks of %d: error %v after %d", name, left, looks, err, ctx.Asked())
		}
	}
	return looks
}

// TestLooks counts the looks at the context in work of every kind that is long with blocks of
// an extreme size: one for some milliseconds' work of a machine
// without vectors.
func TestLooks(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		one := func(m blas32.General) blas32.General { return mat.Rows(m, 0, 1) }
		atLeast := func(name string, want int, call func(context.Context) error) {
			t.Helper()
			if looks := looksOf(t, name, call); looks < want {
				t.Errorf("%s: %d looks at the context, want %d", name, looks, want)
			}
		}

		const n = 1 << 13
		x := matrix(1, n, 4)
		narrow := mustBlocks(t, BlocksConfig{Heads: 4, HeadDim: 1, QueryBlock: 1 << 6, KeyBlock: 1, Workers: 1})
		var all Choice
		atLeast("Choose", 4*n>>6, func(ctx context.Context) error {
			all.Reset()
			return narrow.ChooseBy(ctx, &all, Pattern{Share: 1}, x, x)
		})
		all.Reset()
		if err := narrow.Choose(&all, Pattern{Share: 1}, n, n); err != nil {
			t.Fatal(err)
		}
		check := func(ctx context.Context) error {
			return all.check(ctx, 4, 4, 1, func(int) int { return n >> 6 }, func(int) int { return n })
		}
		atLeast("checking lists", len(all.Blocks)>>17, check)
		var r blocksRun
		r.op, r.choice, r.q, r.k = narrow, &all, x, x
		r.open(&narrow.engine, 4, 4, n, n)
		r.nextHeads()
		atLeast("marking blocks", r.heads*min(n, narrow.engine.perRound)*(n>>6)>>17, func(ctx context.Context) error {
			r.last, r.first, r.blocks = false, 0, 0
			r.nextRound()
			return r.find(ctx)
		})

		wide := mustBlocks(t, BlocksConfig{Heads: 1, HeadDim: 64, QueryBlock: 64, KeyBlock: 1 << 29, Workers: 1})
		y := matrix(2, n, 64)
		var c Choice
		atLeast("means", 2, func(ctx context.Context) error {
			_, err := blockMeans(ctx, y, n)
			return err
		})
		if err := wide.Choose(&c, Pattern{Keep: 1}, 1, n); err != nil {
			t.Fatal(err)
		}
		dst := mat.New(64, 64)
		atLeast("packing a large block", 2*n/256, func(ctx context.Context) error {
			return wide.Run(ctx, &attention.Call{Dst: one(dst), Q: one(y), K: []blas32.General{y}, V: []blas32.General{y}, Options: &c})
		})

		m := mustMoBA(t, MoBAConfig{Heads: 2, KVHeads: 1, HeadDim: 32, ValueDim: 1, Block: 1, TopK: 2, Workers: 1})
		long, err := mustMoBA(t, MoBAConfig{Heads: 1, HeadDim: 32, ValueDim: 1, Block: 1 << 20}).NewState(MoBAStateConfig{})
		if err != nil {
			t.Fatal(err)
		}
		keys, values := matrix(3, 2*n, 32), matrix(4, 2*n, 1)
		atLeast("taking up tokens", 2*n*32>>17, func(ctx context.Context) error {
			long.Reset()
			return long.take(ctx, new(appends), new([]float32), keys, values)
		})
		var g gates
		var w gateWork
		var group parallel.Group
		atLeast("packing means", 2*n*32>>18, func(ctx context.Context) error {
			return g.pack(ctx, &m.engine, 1, 1, keys)
		})
		atLeast("choosing", 64*2*n>>16, func(ctx context.Context) error {
			return group.Run(ctx, 1, 1, func(_, _ int) {
				g.choose(&group, &w, mat.Rows(keys, 0, 64), 0, make([]int32, 64), func(int) int { return 2 * n })
			})
		})

		for name, cfg := range map[string]NSAConfig{
			"a wide window": {Heads: 1, HeadDim: 64, Window: n, Block: 256, Workers: 1},
			"large blocks":  {Heads: 1, HeadDim: 64, Block: 1 << 12, Workers: 1},
		} {
			a := mustNSA(t, cfg)
			gate := matrix(5, n, 1)
			past := mustNSAState(t, a, NSAStateConfig{})
			if err := a.Step(mat.New(n/2, 64), mat.Rows(y, 0, n/2), mat.Rows(y, 0, n/2), mat.Rows(y, 0, n/2), Gates{Compressed: mat.Rows(gate, 0, n/2)}, past); err != nil {
				t.Fatal(err)
			}
			atLeast(name, n/2/256, func(ctx context.Context) error {
				s := past.Clone()
				q := mat.Rows(y, 0, 64)
				o := &NSAOptions{Gates: Gates{Window: mat.Rows(gate, 0, 64)}}
				if cfg.Window == 0 {
					o.Gates = Gates{Selected: o.Gates.Window}
				}
				return a.Run(ctx, &attention.Call{Dst: dst, Q: q, K: []blas32.General{q}, V: []blas32.General{q}, State: s, Options: o})
			})
		}
	})
}

// TestLargeQueryBlock: a block of queries that is larger than the sequence has no more tiles than
// the sequence.
func TestLargeQueryBlock(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 4, HeadDim: 1, QueryBlock: 1 << 29, Workers: 1})
	x := matrix(1, 5, 4)
	c := &Choice{Heads: 1, Offsets: []int{0, 1}, Blocks: []int32{0}}
	call := &attention.Call{Dst: mat.New(5, 4), Q: x, K: []blas32.General{x}, V: []blas32.General{x}, Options: c}
	if looks := looksOf(t, "Run", func(ctx context.Context) error { return b.Run(ctx, call) }); looks > 100 {
		t.Errorf("%d looks at the context for five queries of four heads", looks)
	}
}

// TestSmallBlocksMemory: keys of blocks that are no panels take no more memory at a time than
// those of others.
func TestSmallBlocksMemory(t *testing.T) {
	bytes := func(block int) int64 {
		b := mustBlocks(t, BlocksConfig{Heads: 1, HeadDim: 64, KeyBlock: block, Workers: 1})
		return b.ScratchBytes(1, 1<<20)
	}
	for _, block := range []int{1, 3, 63, 65, 300} {
		if small, usual := bytes(block), bytes(64); small > usual*5/4 {
			t.Errorf("blocks of %d: %d bytes, those of 64 %d", block, small, usual)
		}
	}
}

// TestChoiceAfterError: a choice is as it was after an error, and can be used.
func TestChoiceAfterError(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 4})
	x := matrix(1, 40, 8)
	var c Choice
	for round := range 2 {
		for left := range 8 {
			ctx := &statetest.Ending{Context: context.Background(), Left: left}
			if err := b.ChooseBy(ctx, &c, Pattern{TopK: 2}, x, x); err != context.Canceled {
				t.Fatalf("after %d looks: %v", left, err)
			}
			if c.Lists() != 20*round || round == 0 && c.Heads != 0 {
				t.Fatalf("after %d looks: %d lists, Heads %d", left, c.Lists(), c.Heads)
			}
		}
		if err := b.ChooseBy(context.Background(), &c, Pattern{TopK: 2}, x, x); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShare: no more than the share, where its product with the blocks is a whole number.
func TestShare(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 1, HeadDim: 4, QueryBlock: 1, KeyBlock: 1})
	for percent := range 101 {
		var c Choice
		if err := b.Choose(&c, Pattern{Share: float64(percent) / 100}, 1, 100); err != nil {
			t.Fatal(err)
		}
		if len(c.Blocks) != percent {
			t.Errorf("%d percent of 100 blocks are %d", percent, len(c.Blocks))
		}
	}
}

// TestPagedRoom: a limit takes no memory for a state whose tokens are in pages.
func TestPagedRoom(t *testing.T) {
	m := mustMoBA(t, MoBAConfig{Heads: 8, HeadDim: 128, Block: 1})
	pages, err := m.NewPages(attention.PagesConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewState(MoBAStateConfig{MaxTokens: 1 << 20, Pages: pages})
	if err != nil || s.Bytes() != 0 {
		t.Errorf("MoBA: error %v, %d bytes", err, s.Bytes())
	}
	a := mustNSA(t, NSAConfig{Heads: 8, HeadDim: 128, Compress: 1})
	pages, err = a.NewPages(attention.PagesConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if s := mustNSAState(t, a, NSAStateConfig{MaxTokens: 1 << 20, Pages: pages}); s.Bytes() != 0 {
		t.Errorf("NSA: %d bytes", s.Bytes())
	}
}

// TestCloneRoom: a clone has the memory for MaxTokens, too.
func TestCloneRoom(t *testing.T) {
	m := mustMoBA(t, MoBAConfig{Heads: 1, HeadDim: 4, Block: 1})
	s, err := m.NewState(MoBAStateConfig{MaxTokens: 100})
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Clone(); c.Bytes() != s.Bytes() {
		t.Errorf("a clone of %d bytes has %d", s.Bytes(), c.Bytes())
	}
}

// forgetful makes of the file of a state of exact attention that of one that has all its n
// tokens, of so many bytes each, and yet says that it has forgotten some before the last.
func forgetful(file []byte, n, size int) []byte {
	at := len(file) - 4 - n*size
	out := slices.Clone(file[:at-24])
	for _, x := range []int64{int64(n), -1, int64(n), int64(n), int64(n)} {
		out = binary.LittleEndian.AppendUint64(out, uint64(x))
	}
	for i := range n {
		out = binary.LittleEndian.AppendUint64(out, uint64(i))
		out = append(out, file[at+i*size:][:size]...)
	}
	sealed, _ := io.ReadAll(statetest.Sealed(out))
	return sealed
}

// TestForgetfulFile: a state whose key heads cannot all be truncated alike is not read.
func TestForgetfulFile(t *testing.T) {
	const n, d = 6, 4
	m := mustMoBA(t, MoBAConfig{Heads: 2, HeadDim: d, Block: 2})
	s, err := m.NewState(MoBAStateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(1, n, 2*d)
	if err := m.Step(mat.New(n, 2*d), x, x, x, s); err != nil {
		t.Fatal(err)
	}
	var all, first, second bytes.Buffer
	for w, from := range map[*bytes.Buffer]io.WriterTo{&all: s, &first: s.tokens[0], &second: s.tokens[1]} {
		if _, err := from.WriteTo(w); err != nil {
			t.Fatal(err)
		}
	}
	good := slices.Concat(all.Bytes()[:all.Len()-first.Len()-second.Len()], first.Bytes())
	if _, err := m.ReadState(bytes.NewReader(slices.Concat(good, second.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadState(bytes.NewReader(slices.Concat(good, forgetful(second.Bytes(), n, 8*d)))); !errors.Is(err, ErrState) {
		t.Errorf("error %v of a file whose second key head has forgotten what it has", err)
	}
}

// TestHostileHead: numbers that no state has are errors of the file.
func TestHostileHead(t *testing.T) {
	m, a := mustMoBA(t, MoBAConfig{Heads: 1, HeadDim: 2, Block: 2}), mustNSA(t, NSAConfig{Heads: 1, HeadDim: 2, Block: 2})
	s, err := m.NewState(MoBAStateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		file io.WriterTo
		head int // bytes
		read func(io.Reader) error
	}{
		"MoBA": {s, 8 * (2 + len(m.fingerprint()) + 3), func(r io.Reader) error { _, err := m.ReadState(r); return err }},
		"NSA":  {mustNSAState(t, a, NSAStateConfig{}), 8 * (2 + len(a.fingerprint()) + 3), func(r io.Reader) error { _, err := a.ReadState(r); return err }},
	} {
		var file bytes.Buffer
		if _, err := x.file.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read := func(most, tokens, format int64) error {
			head := slices.Clone(file.Bytes()[:x.head-24])
			for _, n := range []int64{most, tokens, format} {
				head = binary.LittleEndian.AppendUint64(head, uint64(n))
			}
			return x.read(io.MultiReader(statetest.Sealed(head), bytes.NewReader(file.Bytes()[x.head+4:])))
		}
		if err := read(5, 0, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, n := range [][3]int64{{-1, 0, 0}, {1 << 31, 0, 0}, {0, -1, 0}, {0, 1 << 31, 0}, {0, 1, 0}, {2, 3, 0}, {0, 0, -1}, {0, 0, 4}, {0, 0, 1}} {
			if err := read(n[0], n[1], n[2]); !errors.Is(err, ErrState) {
				t.Errorf("%s: MaxTokens %d, %d tokens, Format %d: error %v", name, n[0], n[1], n[2], err)
			}
		}
	}
}

// TestFull: a state takes up as many tokens as MaxTokens says, whatever holds them, and one too
// many is an error before anything is written.
func TestFull(t *testing.T) {
	const most, d = 6, 4
	x, gate := matrix(1, 8, d), matrix(2, 8, 1)
	m, a := mustMoBA(t, MoBAConfig{Heads: 1, HeadDim: d, Block: 2}), mustNSA(t, NSAConfig{Heads: 1, HeadDim: d, Block: 2})
	for _, source := range []string{"memory", "pages", "a file"} {
		var mPages, aPages *attention.Pages
		var err1, err2 error
		if source == "pages" {
			mPages, err1 = m.NewPages(attention.PagesConfig{})
			aPages, err2 = a.NewPages(attention.PagesConfig{})
		}
		ms, err3 := m.NewState(MoBAStateConfig{MaxTokens: most, Pages: mPages})
		as := mustNSAState(t, a, NSAStateConfig{MaxTokens: most, Pages: aPages})
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if source == "a file" {
			var mFile, aFile bytes.Buffer
			ms.WriteTo(&mFile)
			as.WriteTo(&aFile)
			ms, err1 = m.ReadState(&mFile)
			as, err2 = a.ReadState(&aFile)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
		}
		for name, step := range map[string]func(dst blas32.General) error{
			"MoBA": func(dst blas32.General) error {
				p := mat.Rows(x, 0, dst.Rows)
				return m.Step(dst, p, p, p, ms)
			},
			"NSA": func(dst blas32.General) error {
				p, g := mat.Rows(x, 0, dst.Rows), mat.Rows(gate, 0, dst.Rows)
				return a.Step(dst, p, p, p, Gates{g, g, g}, as)
			},
		} {
			for i, n := range []int{2, 5, 4, 1} {
				dst := mat.New(n, d)
				for j := range dst.Data {
					dst.Data[j] = nan
				}
				err := step(dst)
				if i%2 == 0 && err != nil || i%2 == 1 && (!errors.Is(err, ErrFull) || dst.Data[0] == dst.Data[0]) {
					t.Errorf("%s in %s: %d tokens at step %d: error %v, dst %v", name, source, n, i, err, dst.Data[0])
				}
			}
		}
		if ms.Len() != most || as.Len() != most {
			t.Errorf("%d and %d tokens, want %d", ms.Len(), as.Len(), most)
		}
	}
}
