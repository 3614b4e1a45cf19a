package rope

import (
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
)

type axesCase struct {
	HeadDim         int     `json:"head_dim"`
	Dim             int     `json:"dim"`
	EndX            int     `json:"end_x"`
	EndY            int     `json:"end_y"`
	Theta           float64 `json:"theta"`
	InitTheta       float64 `json:"init_theta"`
	AxesDim         []int   `json:"axes_dim"`
	Heads           int     `json:"heads"`
	Depth           int     `json:"depth"`
	FreqsFor        string  `json:"freqs_for"`
	MaxFreq         float64 `json:"max_freq"`
	Dims            []int   `json:"dims"`
	XPosBase        float64 `json:"xpos_scale_base"`
	Section         []int   `json:"mrope_section"`
	Merge           int     `json:"spatial_merge_size"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	ImageToken      int64   `json:"image_token_id"`
	VideoToken      int64   `json:"video_token_id"`
	VisionStart     int64   `json:"vision_start_token_id"`
	LeftPad         int     `json:"left_pad"`
	Layout, Note    string
	Exponent        string `json:"exponent"`
}

// loose is for what is stored as float32 of a float32 run.
var loose = golden.Tolerance{Abs: 2e-5}

func goldenAxes(t *testing.T, f *golden.File) {
	f.Ignore(func(name string) bool { return strings.HasSuffix(name, "_official_f32") })
	tests := map[string]func(*testing.T, *golden.File, string, axesCase){
		"axial2d": goldenAxial, "flux3d": goldenFlux, "mixed2d": goldenMixed,
		"lucid_axial_pixel": goldenPixel, "lucid_xpos": goldenLucidXPos, "mrope": goldenMRoPE,
	}
	for _, c := range f.Keys("params.") {
		var p axesCase
		f.Config("params."+c, &p)
		test := tests[longest(c, tests)]
		if test == nil {
			t.Fatalf("no test for %q", c)
		}
		test(t, f, c, p)
	}
}

// grid has the column and the row of each token.
func grid(width, height int) (p []int64) {
	for n := range width * height {
		p = append(p, int64(n%width), int64(n/width))
	}
	return p
}

// repeat returns n copies of p, one after the other; an empty list rather than nil.
func repeat[T any](p []T, n int) []T {
	out := []T{}
	for range n {
		out = append(out, p...)
	}
	return out
}

// compareRotated rotates a tensor [batch, heads, tokens, dim] at positions that
// each of the batch has, and compares what the file has of name+suffixes.
func compareRotated(t *testing.T, f *golden.File, r *Rotation, input string, p Positions, outputs ...string) {
	t.Helper()
	if !f.Has(input) {
		return
	}
	shape := f.Shape(input)
	x := tokens(f.Float32(input), shape)
	if p.At != nil {
		p.At = repeat(p.At, shape[0])
	}
	if p.Fractional != nil {
		p.Fractional = repeat(p.Fractional, shape[0])
	}
	got := heads(run(t, r, x, p), shape[0], shape[3])
	for _, name := range outputs {
		switch {
		case !f.Has(name):
		case strings.HasSuffix(name, "_f32"):
			f.Compare(name, got, loose)
		default:
			f.Compare(name, got)
		}
	}
}

func compareTables(t *testing.T, f *golden.File, r *Rotation, p Positions, n int, cosName, sinName string) {
	t.Helper()
	cols := r.heads * r.pairs
	cos, sin := matrix(make([]float32, n*cols), n, cols), matrix(make([]float32, n*cols), n, cols)
	must(t, r.CosSin(cos, sin, p))
	for name, got := range map[string]blas32.General{cosName: cos, sinName: sin} {
		if f.Has(name) {
			f.Compare(name, got.Data)
		}
	}
}

func goldenAxial(t *testing.T, f *golden.File, c string, p axesCase) {
	r := mustNew(t, Config{HeadDim: p.HeadDim, Layout: Interleaved, Base: p.Theta, Axes: []Axis{{Dim: p.HeadDim / 2}, {Dim: p.HeadDim / 2}}})
	at := Positions{At: grid(p.EndX, p.EndY)}
	for _, in := range []string{"q", "k"} {
		compareRotated(t, f, r, c+"."+in, at, c+"."+in+"_rot_f64", c+"."+in+"_rot_f32")
	}
	compareTables(t, f, r, at, p.EndX*p.EndY, c+".cos_f64", c+".sin_f64")
}

func goldenFlux(t *testing.T, f *golden.File, c string, p axesCase) {
	cfg := Config{Layout: Interleaved, Base: p.Theta}
	for _, d := range p.AxesDim {
		cfg.Axes = append(cfg.Axes, Axis{Dim: d})
		cfg.HeadDim += d
	}
	r := mustNew(t, cfg)
	at := Positions{At: f.Int64(c + ".ids")}
	compareRotated(t, f, r, c+".x", at, c+".x_rot_f64", c+".x_rot_f32")
	compareTables(t, f, r, at, f.Shape(c + ".ids")[0], c+".cos_f64", c+".sin_f64")
}

// goldenMixed takes the queries and keys of axial2d, and layer 1 of the frequencies.
func goldenMixed(t *testing.T, f *golden.File, c string, p axesCase) {
	shape, freqs := f.Shape(c+".freqs"), f.Float32(c+".freqs") // [axis, layer, head, pair]
	axes, depth, per := shape[0], shape[1], shape[2]*shape[3]
	layer := func(l int) *Rotation {
		learned := &Learned{Axes: axes, Heads: shape[2]}
		for a := range axes {
			learned.Frequencies = append(learned.Frequencies, freqs[(a*depth+l)*per:][:per]...)
		}
		return mustNew(t, Config{HeadDim: p.HeadDim, Layout: Interleaved, Learned: learned})
	}
	at := Positions{At: grid(p.EndX, p.EndY)}
	for _, in := range []string{"q", "k"} {
		compareRotated(t, f, layer(min(1, depth-1)), "axial2d."+in, at, c+"."+in+"_rot_f64", c+"."+in+"_rot_f32")
	}
	// Tables are [layer, head, token, pair].
	n := p.EndX * p.EndY
	var all [2][]float32
	for l := range depth {
		r := layer(l)
		cols := r.heads * r.pairs
		tables := [2]blas32.General{matrix(make([]float32, n*cols), n, cols), matrix(make([]float32, n*cols), n, cols)}
		must(t, r.CosSin(tables[0], tables[1], at))
		for i := range all {
			all[i] = append(all[i], heads(tables[i], 1, r.pairs)...)
		}
	}
	for i, name := range []string{c + ".cos_f64", c + ".sin_f64"} {
		if f.Has(name) {
			f.Compare(name, all[i])
		}
	}
}

// goldenPixel has axes of Dim features each over a grid of Dims pixels, whose
// coordinates go from -1 to 1.
func goldenPixel(t *testing.T, f *golden.File, c string, p axesCase) {
	in := c + ".x"
	if !f.Has(in) {
		return
	}
	shape := f.Shape(in) // [batch, heads, dims..., features]
	axes, n := len(p.Dims), 1
	for _, d := range p.Dims {
		n *= d
	}
	freq, err := PixelFrequencies(p.Dim/2, p.MaxFreq)
	must(t, err)
	cfg := Config{HeadDim: shape[len(shape)-1], Layout: Interleaved}
	for range axes {
		cfg.Axes = append(cfg.Axes, Axis{Dim: p.Dim, Scheme: Custom{Frequencies: freq}})
	}
	r := mustNew(t, cfg)
	at := []float64{}
	var angles []float32
	for i := range n {
		rest, coordinates := i, make([]float64, axes)
		for a := axes - 1; a >= 0; a-- {
			if d := p.Dims[a]; d > 1 {
				coordinates[a] = -1 + 2*float64(rest%d)/float64(d-1)
			} else {
				coordinates[a] = -1
			}
			rest /= p.Dims[a]
		}
		at = append(at, coordinates...)
		for _, x := range coordinates {
			for _, w := range freq {
				angles = append(angles, float32(x*w), float32(x*w))
			}
		}
	}
	// These are of a float32 run, whose angles of up to pi/2 MaxFreq err.
	x := tokens(f.Float32(in), []int{shape[0], shape[1], n, cfg.HeadDim})
	got := heads(run(t, r, x, Positions{Fractional: repeat(at, shape[0])}), shape[0], cfg.HeadDim)
	if name := c + ".x_rot_f32"; f.Has(name) {
		f.Compare(name, got, golden.Tolerance{Abs: 2e-5 + 1e-6*p.MaxFreq})
	}
	if name := c + ".freqs_f32"; f.Has(name) {
		f.Compare(name, angles, golden.Tolerance{Abs: 2e-5 + 1e-7*p.MaxFreq, Rel: 1e-6})
	}
}

func goldenLucidXPos(t *testing.T, f *golden.File, c string, p axesCase) {
	r := mustNew(t, Config{HeadDim: p.HeadDim, RotaryDim: p.Dim, Base: p.Theta, Layout: Interleaved, XPos: &XPos{ScaleBase: p.XPosBase}})
	for _, in := range []string{"q", "k"} {
		name := c + "." + in
		if !f.Has(name) {
			continue
		}
		shape := f.Shape(name)
		x := tokens(f.Float32(name), shape)
		for b := range shape[0] {
			must(t, r.Run(t.Context(), &Call{X: rows(x, b*shape[2], (b+1)*shape[2]), Keys: in == "k", Center: int64(shape[2] / 2)}))
		}
		if f.Has(name + "_rot_f32") {
			f.Compare(name+"_rot_f32", heads(x, shape[0], shape[3]), golden.Tolerance{Abs: 2e-5, Max: 1e-5})
		}
	}
}

func goldenMRoPE(t *testing.T, f *golden.File, c string, p axesCase) {
	grids := func(name string) (list [][3]int) {
		if !f.Has(c + "." + name) {
			return nil
		}
		v := f.Int64(c + "." + name)
		for i := 0; i < len(v); i += 3 {
			list = append(list, [3]int{int(v[i]), int(v[i+1]), int(v[i+2])})
		}
		return list
	}
	images, videos := grids("image_grid_thw"), grids("video_grid_thw")
	var seconds []float64
	if f.Has(c + ".second_per_grid_ts") {
		seconds = f.Float64(c + ".second_per_grid_ts")
	}
	cfg := MRoPEConfig{ImageToken: p.ImageToken, VideoToken: p.VideoToken, Merge: p.Merge}
	var rotateAt []int64
	for _, v := range []struct {
		suffix, ids  string
		perSecond    float64
		framesApart  bool
		maskedTokens bool
	}{
		{"qwen2", "input_ids", 0, false, true},
		{"qwen25", "input_ids", p.TokensPerSecond, false, true},
		{"qwen3", "input_ids_qwen3", 0, true, false},
	} {
		ids := c + "." + v.ids
		if !f.Has(ids) {
			continue
		}
		shape, all := f.Shape(ids), f.Int64(ids)
		var mask []int64
		if name := c + ".attention_mask"; v.maskedTokens && f.Has(name) {
			mask = f.Int64(name)
		}
		cfg.TokensPerSecond, cfg.FramesApart = v.perSecond, v.framesApart
		n := shape[1]
		at, deltas := make([]int64, len(all)*3), []int64{}
		imagesLeft, videosLeft, secondsLeft := images, videos, seconds
		for b := range shape[0] {
			m, err := NewMRoPE(cfg)
			must(t, err)
			m.Images, m.Videos, m.Seconds = imagesLeft, videosLeft, secondsLeft
			var visible []int64
			if mask != nil {
				visible = mask[b*n:][:n]
			}
			must(t, m.Append(at[b*n*3:][:3*n], all[b*n:][:n], visible))
			deltas = append(deltas, m.Delta())
			imagesLeft, videosLeft, secondsLeft = m.Images, m.Videos, m.Seconds
		}
		if name := c + ".pos_" + v.suffix; f.Has(name) { // [3, batch, tokens]
			var axisMajor []int64
			for axis := range 3 {
				for i := range all {
					axisMajor = append(axisMajor, at[3*i+axis])
				}
			}
			f.CompareInts(name, axisMajor)
		}
		if name := c + ".delta_" + v.suffix; f.Has(name) {
			f.CompareInts(name, deltas)
		}
		if v.suffix == "qwen25" {
			rotateAt = at[:3*n]
		}
	}
	if rotateAt == nil {
		return
	}
	for suffix, interleaved := range map[string]bool{"_chunked": false, "_interleaved": true} {
		r := mustNew(t, Config{HeadDim: p.HeadDim, Base: p.Theta, Sections: p.Section, SectionsInterleaved: interleaved})
		for _, in := range []string{"q", "k"} {
			compareRotated(t, f, r, c+"."+in, Positions{At: rotateAt}, c+"."+in+"_rot"+suffix+"_f64", c+"."+in+"_rot"+suffix+"_f32")
		}
		compareTables(t, f, r, Positions{At: rotateAt}, len(rotateAt)/3, c+".cos"+suffix+"_f64", c+".sin"+suffix+"_f64")
	}
}
