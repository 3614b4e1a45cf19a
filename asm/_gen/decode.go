package main

import (
	"fmt"
	"slices"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// Decoding: a few query rows with keys and values that stand in memory as they
// were appended, each read once for all of the rows. What binds is memory, so the
// kernels ask for what comes next while they work, in several streams side by side:
// from next on and from each nextRow after that, in any order to what they read.
// More pages are under way so, and a processor that foresees streams has several.

// decodeValueRows are the numbers of query rows for which there are kernels of values.
var decodeValueRows = []int{4, 2, 1}

// streams are those that a kernel prefetches, none where a machine does not.
type streams struct {
	m    Machine
	rows Rows
}

func newStreams(m Machine, count int) streams {
	if !HasPrefetch(m) {
		return streams{m: m}
	}
	return streams{m, m.Rows(m.Param("next"), m.Param("nextRow"), count)}
}

func (s streams) ask(i int) {
	if s.rows != nil {
		s.m.Prefetch(s.rows.At(i))
	}
}

func (s streams) advance(bytes int) {
	if s.rows != nil {
		s.rows.Advance(bytes)
	}
}

// decodeScores has all products of rows query rows and four keys in registers.
// The rows of q come packed: [dim/Lanes][rows][Lanes].
func decodeScores(rows int, w weight) kernel {
	return func(m Machine) {
		m.Func(fmt.Sprint("decodeScores", rows, w.suffix), "func(dim int, blocks int, q *float32, k *byte, kRow int, next *byte, nextRow int, s *float32, sRow int)",
			fmt.Sprintf("s = q k for %d rows of q, packed [dim/%d][%d][%d], and blocks of %d keys", rows, m.Lanes(), rows, m.Lanes(), decodeKeys))
		k, s := m.Param("k"), m.Param("s")
		next := newStreams(m, decodeKeys)
		m.Loop(m.Param("blocks"), 1, func() {
			var acc []Vec // [rows][keys]
			for range rows * decodeKeys {
				acc = append(acc, m.Zero())
			}
			q, row := m.Param("q"), m.Param("kRow")
			keys := m.Rows(m.CopyGP(k), row, decodeKeys)
			line := 64 / (m.Lanes() * w.bytes) // vectors to a cache line
			step := func(count int) func() {
				return func() {
					for u := range count {
						var x [decodeKeys]Vec
						for j := range x {
							x[j] = w.load(m, keys.At(j).Plus(u*m.Lanes()*w.bytes))
							if u == 0 {
								next.ask(j)
							}
						}
						for i := range rows {
							y := m.Load(At{Base: q, Disp: (u*rows + i) * Bytes(m)}, nil)
							for j := range x {
								m.MulAdd(acc[i*decodeKeys+j], y, x[j])
							}
						}
					}
					m.AddImm(q, count*rows*Bytes(m))
					keys.Advance(count * m.Lanes() * w.bytes)
					next.advance(count * m.Lanes() * w.bytes)
				}
			}
			n := m.Param("dim")
			m.Loop(n, max(line, 1)*m.Lanes(), step(max(line, 1)))
			if line > 1 {
				m.Loop(n, m.Lanes(), step(1))
			}
			out := m.Rows(m.CopyGP(s), m.Param("sRow"), rows)
			perVector := m.Lanes() / decodeKeys
			for i := 0; i < rows; i += perVector {
				n := min(perVector, rows-i)
				sums := m.SumRows(acc[i*decodeKeys : (i+n)*decodeKeys])
				for j := range n {
					m.StoreQuad(out.At(i+j), sums, j)
				}
			}
			for range decodeKeys {
				m.AddGP(k, row)
			}
			m.AddImm(s, 4*decodeKeys)
		})
		m.End()
	}
}

// decodeValues adds up as a sum over keys in their order, begun with what is
// there, so that keys may come in parts.
func decodeValues(rows, part int, w weight) kernel {
	return func(m Machine) {
		if part >= len(sizesOf[m.Tier()].decodeVectors) {
			return
		}
		vectors := sizesOf[m.Tier()].decodeVectors[part]
		m.Func(fmt.Sprint("decodeValues", rows, [...]string{"", "Last"}[part], w.suffix), "func(keys int, p *float32, pRow int, v *byte, vRow int, next *byte, nextRow int, o *float32, oRow int, factor *float32)",
			fmt.Sprintf("o[i] = o[i] * factor[i] + p v for %d rows of p [keys] and up to 64 columns of v", rows))
		out, factor := m.Rows(m.Param("o"), m.Param("oRow"), rows), m.Param("factor")
		var acc [][]Vec
		for i := range rows {
			f := m.SplatAt(At{Base: factor, Disp: 4 * i})
			var row []Vec
			for j := range vectors {
				row = append(row, m.Mul(f, out.At(i).Plus(j*Bytes(m))))
			}
			acc = append(acc, row)
		}
		p, v := m.Rows(m.Param("p"), m.Param("pRow"), rows), m.Param("v")
		next := newStreams(m, max(1, vectors*m.Lanes()*w.bytes/64))
		vRow := m.Param("vRow")
		m.Loop(m.Param("keys"), 1, func() {
			var x []Vec
			for j := range vectors {
				at := j * m.Lanes() * w.bytes
				x = append(x, w.load(m, At{Base: v, Disp: at}))
				if at%64 == 0 {
					next.ask(at / 64)
				}
			}
			for i := range rows {
				y := m.SplatAt(p.At(i))
				for j := range x {
					m.MulAdd(acc[i][j], y, x[j])
				}
			}
			p.Advance(4)
			m.AddGP(v, vRow)
			next.advance(min(64, vectors*m.Lanes()*w.bytes))
		})
		out = m.Rows(m.Param("o"), m.Param("oRow"), rows)
		for i := range rows {
			for j := range vectors {
				m.Store(out.At(i).Plus(j*Bytes(m)), nil, acc[i][j])
			}
		}
		m.End()
	}
}

// decodeKernels lists, for a storage type, scores and values of each number of rows.
func decodeKernels(w weight) (list []kernel) {
	for _, rows := range decodeValueRows {
		list = append(list, func(m Machine) {
			if slices.Contains(sizesOf[m.Tier()].decodeScoreRows, rows) {
				decodeScores(rows, w)(m)
			}
		}, decodeValues(rows, 0, w), decodeValues(rows, 1, w))
	}
	return list
}

// decodeChoices are those among the kernels, by storage type and rows.
func decodeChoices() []choice {
	by := func(name, doc, params string, kernel func(rows int) string) choice {
		c := choice{name: name, doc: doc, by: "format Format, rows int", key: "int(format)<<4 | rows", params: params}
		for _, w := range weights {
			for _, rows := range decodeValueRows {
				c.members = append(c.members, member{key: fmt.Sprintf("int(%s)<<4 | %d", w.suffix, rows), kernel: kernel(rows) + w.suffix})
			}
		}
		return newChoice(c)
	}
	const valueParams = "keys int, p *float32, pRow int, v *byte, vRow int, next *byte, nextRow int, o *float32, oRow int, factor *float32"
	return []choice{
		by("decodeScores", "decodeScoresSIMD gives some query rows their scores with blocks of decodeKeys keys.",
			"dim int, blocks int, q *float32, k *byte, kRow int, next *byte, nextRow int, s *float32, sRow int",
			func(rows int) string { return fmt.Sprint("decodeScores", rows) }),
		by("decodeValues", "decodeValuesSIMD adds weighted values to some rows of o, for decodeCols of their columns.", valueParams,
			func(rows int) string { return fmt.Sprint("decodeValues", rows) }),
		by("decodeValuesLast", "decodeValuesLastSIMD does so for decodeUnit columns, where those are fewer.", valueParams,
			func(rows int) string { return fmt.Sprint("decodeValues", rows, "Last") }),
	}
}
