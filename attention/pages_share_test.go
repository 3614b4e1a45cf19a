package attention

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/rope"
)

// TestPageJoin joins states of the pages of others, of every format, and goes on from them.
func TestPageJoin(t *testing.T) {
	a, err := New(Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true})
	if err != nil {
		t.Fatal(err)
	}
	const n, page = 50, 16
	k, v := matrix(1, n, 32), matrix(2, n, 32)
	q, k1, v1 := matrix(3, 3, 64), matrix(4, 3, 32), matrix(5, 3, 32)
	for _, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Int8, asm.Float16} {
		for _, collected := range []bool{false, true} {
			p, err := a.NewPages(PagesConfig{PageTokens: page, Format: format, Collected: collected})
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			check(err)
			turned := StateConfig{Rotation: &rope.Config{HeadDim: 16}}
			for _, own := range []bool{true, false} {
				cfg := turned
				if cfg.Format = format; own {
					cfg.Pages = p
				}
				s, err := a.NewState(cfg)
				check(err)
				check(s.Append(k, v))
				for _, to := range []int{0, 1, 16, 33, 48, 50} {
					var list []*Page
					for at := 0; at < to; at += page {
						g, err := p.Take(s, at, min(page, n-at))
						check(err)
						list = append(list, g)
					}
					x, err := p.Join(turned, list, to)
					check(err)
					want := s.Clone()
					check(want.Truncate(to))
					got, exact := matrix(6, 3, 64), matrix(7, 3, 64)
					check(a.Step(got, q, k1, v1, x))
					check(a.Step(exact, q, k1, v1, want))
					for i, y := range exact.Data {
						if got.Data[i] != y {
							t.Fatalf("%v, %d tokens: element %d is %v, want %v", format, to, i, got.Data[i], y)
						}
					}
					if collected && (x.Table() != nil || p.Used() != 0 || p.Bytes() != 0) {
						t.Errorf("pages that are collected have numbers or are counted")
					}
					if to == 50 {
						var file bytes.Buffer
						_, err := list[3].WriteTo(&file)
						check(err)
						g, err := p.ReadPage(bytes.NewReader(file.Bytes()), turned)
						check(err)
						if list[3] = g; g.Tokens() != 2 {
							t.Errorf("a page of %d tokens is read, want 2", g.Tokens())
						}
						y, err := p.Join(turned, list, to)
						check(err)
						check(a.Step(got, q, k1, v1, y))
						for i, z := range exact.Data {
							if got.Data[i] != z {
								t.Fatalf("%v: a page that was read: other bits", format)
							}
						}
						if _, err := p.Join(StateConfig{}, list, to); !errors.Is(err, ErrState) {
							t.Errorf("keys that are rotated otherwise: %v", err)
						}
						if _, err := p.Join(turned, list, 40); !errors.Is(err, ErrState) {
							t.Errorf("too many pages: %v", err)
						}
						if _, err := p.Join(turned, append(list[:3:3], nil), to); !errors.Is(err, ErrState) {
							t.Errorf("no page: %v", err)
						}
						for n := range file.Len() {
							if _, err := p.ReadPage(bytes.NewReader(file.Bytes()[:n]), turned); !errors.Is(err, ErrState) {
								t.Fatalf("%d bytes of a page: %v", n, err)
							}
						}
						if !collected {
							list[3].Release()
							y.Reset()
						}
					}
					if !collected {
						x.Reset()
						want.Reset()
						for _, g := range list[:min(len(list), 3)] {
							g.Release()
						}
						if to == 50 && own {
							if p.Used() != 4 {
								t.Errorf("%d pages are in use, want 4", p.Used())
							}
						}
					}
				}
			}
		}
	}
}
