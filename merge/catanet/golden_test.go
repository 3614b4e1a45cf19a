package catanet

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "merge/catanet", map[string]func(*testing.T, *golden.File){
		"merge.catanet_tab":     goldenTAB,
		"merge.catanet_lrsa":    goldenLRSA,
		"merge.catanet_centers": goldenCenters,
	})
}

// weight reads a tensor [out, in, …] as a matrix.
func weight(f *golden.File, name string) blas32.General {
	s := f.Shape(name)
	cols := 1
	for _, d := range s[1:] {
		cols *= d
	}
	return mat.Of(f.Float32(name), s[0], cols)
}

// bias reads a vector that a file may lack.
func bias(f *golden.File, name string) []float32 {
	if !f.Has(name) {
		return nil
	}
	return f.Float32(name)
}

func ffnWeights(f *golden.File, prefix string) ConvFFNWeights {
	return ConvFFNWeights{
		Norm: f.Float32(prefix + "norm.weight"), NormBias: f.Float32(prefix + "norm.bias"),
		Up: weight(f, prefix+"fn.fc1.weight"), UpBias: bias(f, prefix+"fn.fc1.bias"),
		Down: weight(f, prefix+"fn.fc2.weight"), DownBias: bias(f, prefix+"fn.fc2.bias"),
		Conv:     weight(f, prefix+"fn.dwconv.depthwise_conv.0.weight"),
		ConvBias: bias(f, prefix+"fn.dwconv.depthwise_conv.0.bias"),
	}
}

// pixels turns [batch, channels, height, width] into rows of channels, and back.
func pixels(data []float32, images, channels, area int) blas32.General {
	m := mat.New(images*area, channels)
	for b := range images {
		for c := range channels {
			for i := range area {
				m.Data[(b*area+i)*channels+c] = data[(b*channels+c)*area+i]
			}
		}
	}
	return m
}

func planes(m blas32.General, images int) []float32 {
	if m.Rows == 0 {
		return nil
	}
	return pixels(m.Data, images, m.Rows/images, m.Cols).Data
}

func goldenTAB(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		cfg := TABConfig{Dim: e.Int("dim", 0), QKDim: e.Int("qk_dim", 0), Inner: e.Int("mlp_dim", 0), Heads: e.Int("heads", 0),
			Centers: e.Int("num_tokens", 0), GroupSize: e.Int("group_size", 0)}
		w := TABWeights{
			Norm: f.Float32(p + "norm.weight"), NormBias: f.Float32(p + "norm.bias"),
			CenterK: weight(f, p+"irca_attn.to_k.weight"), CenterV: weight(f, p+"irca_attn.to_v.weight"),
			Q: weight(f, p+"iasa_attn.to_q.weight"), K: weight(f, p+"iasa_attn.to_k.weight"), V: weight(f, p+"iasa_attn.to_v.weight"),
			Out: weight(f, p+"iasa_attn.proj.weight"), Conv: weight(f, p+"conv1x1.weight"),
			FFN: ffnWeights(f, p+"mlp."),
		}
		if e.Bool("initted") {
			w.Means = weight(f, p+"means")
		} else { // what the buffer holds is not looked at
			f.Ignore(func(name string) bool { return name == p+"means" })
		}
		s := f.Shape(p + "x")
		e.Sizes(map[string]int{"B": s[0], "h": s[2], "w": s[3]})
		e.Done("seed", "f32err")
		op, err := NewTAB(cfg, w)
		must(t, err)
		images, height, width := s[0], s[2], s[3]
		x := pixels(f.Float32(p+"x"), images, s[1], height*width)
		out := mat.New(x.Rows, x.Cols)
		must(t, op.Forward(out, x, height, width))
		res := golden.NewResults(f, p+"expected.")
		res.Add("out", mat.Of(planes(out, images), x.Rows, x.Cols))

		// What stands between: by the steps of another call.
		var r tabRun
		must(t, r.aggregate(context.Background(), op, &ImageCall{Dst: out, X: x, Height: height, Width: width}))
		c := &r.own
		if op.centers.means.Rows > 0 {
			c = &op.centers
		}
		var g groupRun
		mixed := mat.New(x.Rows, x.Cols)
		must(t, g.regroup(context.Background(), op.attention, &GroupCall{Dst: mixed, Q: r.q, K: r.k, V: r.v, Bucket: r.bucket, CenterK: c.keys, CenterV: c.values, Offsets: r.offsets}))
		projected := mat.New(x.Rows, x.Cols)
		op.projections.proj.Forward(projected, mixed)
		res.Add("iasa_out", projected)
		var order []int64
		for i := range images {
			for place := range height * width {
				order = append(order, int64(g.token(i, place)-i*height*width))
			}
		}
		res.AddInts("sort_idx", order)
		res.Add("k_global", byHead(c.keys, cfg.Heads))
		res.Add("v_global", byHead(c.values, cfg.Heads))
		res.Compare()
	}
}

// byHead turns [rows, heads*dim] into [heads, rows, dim].
func byHead(m blas32.General, heads int) blas32.General {
	dim := m.Cols / heads
	out := mat.New(heads*m.Rows, dim)
	for h := range heads {
		for i := range m.Rows {
			copy(mat.Row(out, h*m.Rows+i), mat.Row(m, i)[h*dim:])
		}
	}
	return out
}

func goldenLRSA(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		cfg := LRSAConfig{Dim: e.Int("dim", 0), QKDim: e.Int("qk", 0), Inner: e.Int("mlp", 0), Heads: e.Int("heads", 0), Window: e.Int("ps", 0), Step: e.Int("step", 0)}
		s := f.Shape(p + "x")
		e.Sizes(map[string]int{"B": s[0], "h": s[2], "w": s[3]})
		e.Done("seed", "f32err")
		attn := p + "layer.0."
		op, err := NewLRSA(cfg, LRSAWeights{
			Norm: f.Float32(attn + "norm.weight"), NormBias: f.Float32(attn + "norm.bias"),
			Q: weight(f, attn+"fn.to_q.weight"), K: weight(f, attn+"fn.to_k.weight"), V: weight(f, attn+"fn.to_v.weight"),
			Out: weight(f, attn+"fn.proj.weight"), FFN: ffnWeights(f, p+"layer.1."),
		})
		must(t, err)
		x := pixels(f.Float32(p+"x"), s[0], s[1], s[2]*s[3])
		out := mat.New(x.Rows, x.Cols)
		must(t, op.Forward(out, x, s[2], s[3]))
		res := golden.NewResults(f, p)
		res.Add("out", mat.Of(planes(out, s[0]), x.Rows, x.Cols))
		res.Compare()
	}
}

func goldenCenters(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		s := f.Shape(p + "x")
		e.Sizes(map[string]int{"B": s[0], "L": s[1], "D": s[2], "K": f.Shape(p + "means")[0]})
		e.Done("seed")
		x, means := mat.Of(f.Float32(p+"x"), s[0]*s[1], s[2]), weight(f, p+"means")
		res := golden.NewResults(f, p)
		bucket := make([]int32, x.Rows)
		must(t, AssignCenters(bucket, x, means))
		var list []int64
		for _, b := range bucket {
			list = append(list, int64(b))
		}
		res.AddInts("buckets", list)
		fitted := mat.New(means.Rows, means.Cols)
		must(t, FitCenters(fitted, x, means, 1))
		res.Add("means1", fitted)
		must(t, FitCenters(fitted, x, means, 3))
		res.Add("means3", fitted)
		must(t, MoveCenters(means, fitted, 0.999))
		res.Add("ema", means)
		res.Compare()
	}
}
