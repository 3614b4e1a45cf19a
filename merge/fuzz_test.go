package merge

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// FuzzMatch makes plans of any kind of metric, and holds them to the laws.
func FuzzMatch(f *testing.F) {
	f.Add(uint8(0), uint8(9), uint8(3), uint8(2), uint8(1), []byte{1, 2, 3})
	f.Add(uint8(3), uint8(40), uint8(5), uint8(20), uint8(7), []byte{0, 255, 128})
	f.Add(uint8(8), uint8(17), uint8(2), uint8(9), uint8(3), []byte{127, 127})
	f.Fuzz(func(t *testing.T, kind, tokens, dim, r, flags uint8, data []byte) {
		n := int(tokens)
		cfg := every()[int(kind)%len(every())]
		if cfg.Method == Grid {
			cfg.Height, cfg.Width = 1+n%5, 1+n/5
			n = cfg.Height * cfg.Width
		}
		cfg.Order, cfg.Window = Order(flags&1), int(flags>>3)
		cfg.ClassToken = cfg.ClassToken && cfg.Method != Grid
		m, err := New(cfg)
		must(t, err)
		metric := mat.New(n, int(dim)%40)
		for i := range metric.Data {
			if len(data) == 0 {
				break
			}
			switch b := data[i%len(data)]; b {
			case 255:
				metric.Data[i] = float32(math.NaN())
			case 254:
				metric.Data[i] = float32(math.Inf(1))
			case 253:
				metric.Data[i] = math.MaxFloat32
			case 252:
				metric.Data[i] = 1e-44
			default:
				metric.Data[i] = float32(int8(b)) * float32(1+i%3)
			}
		}
		var p Plan
		c := Call{Plan: &p, Metric: metric, R: int(r), AtMost: true, Margin: 0.3, Shift: flags&2 != 0 && cfg.Method <= Local && !cfg.ClassToken}
		if cfg.Method == KTh {
			c.R = 0
		}
		if cfg.Method == Given {
			for i := range n {
				switch i % 3 {
				case 0:
					c.Sources = append(c.Sources, n-1-i)
				case 1:
					c.Destinations = append(c.Destinations, i)
				}
			}
			c.Sources = slices.DeleteFunc(c.Sources, func(t int) bool { return slices.Contains(c.Destinations, t) })
		}
		if flags&4 != 0 {
			c.Protect = make([]bool, n)
			for i := range n {
				c.Protect[i] = i%4 == 1
			}
		}
		must(t, m.Run(context.Background(), &c))
		laws(t, &p, random(1, n, 3), sizes(2, n))
	})
}
