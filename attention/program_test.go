package attention

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestStateProgram steps, takes back, forks, writes and reads at random: after
// each, a state attends as to the tokens that are left.
func TestStateProgram(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		a := must(t, stateOp)
		smallSteps(a)
		pool := tokens(a, 1, 64) // that tokens are drawn from
		ops := 60
		if testing.Short() {
			ops = 20
		}
		for name, cfg := range kinds(t, a) {
			if cfg.Rotation != nil {
				continue
			}
			s := newState(t, a, cfg)
			var past []int // drawn so far
			most := 0
			for op := range ops {
				switch r.IntN(6) {
				case 0: // take back
					n := max(0, len(past)-r.IntN(slack))
					if cfg.Window > 0 && most > cfg.Window {
						n = max(n, most-slack)
					}
					if err := s.Truncate(n); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					past = past[:n]
				case 1:
					fork := s.Clone()
					step(t, a, s, pool.part(0, 9)) // of no consequence to the fork
					s.Reset()
					s = fork
				case 2:
					var file bytes.Buffer
					if _, err := s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					s.Reset()
					if s = newState(t, a, cfg); r.IntN(2) == 0 && cfg.Pages == nil {
						read, err := a.ReadState(&file)
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						s = read
					} else if _, err := s.ReadFrom(&file); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				n := 1 + r.IntN(5)
				if len(past)+n > 290 {
					break
				}
				at := len(past)
				for range n {
					past = append(past, r.IntN(64))
				}
				most = max(most, len(past))
				x := tokens(a, 0, len(past))
				for i, p := range past {
					copy(x.q.Data[i*x.q.Stride:][:x.q.Cols], pool.q.Data[p*x.q.Stride:])
					copy(x.k.Data[i*x.k.Stride:][:x.k.Cols], pool.k.Data[p*x.k.Stride:])
					copy(x.v.Data[i*x.v.Stride:][:x.v.Cols], pool.v.Data[p*x.v.Stride:])
				}
				got := step(t, a, s, x.part(at, at+n))
				want := exact(t, a, x.q, x.k, x.v, cfg.Window, cfg.Keep)
				close64(t, fmt.Sprintf("%s, operation %d, %d tokens", name, op, len(past)), got, want.Data[at*64:], formats[s.cfg.Format])
			}
			s.Reset()
			if cfg.Pages != nil && cfg.Pages.Used() != 0 {
				t.Errorf("%s: %d pages are in use, want 0", name, cfg.Pages.Used())
			}
		}
	})
}
