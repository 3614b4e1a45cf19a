package rope

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestMRoPEChunks: positions and delta do not depend on how a prompt is cut.
func TestMRoPEChunks(t *testing.T) {
	const image, video = 8, 9
	var tokens, visible []int64
	add := func(token int64, n int) {
		for range n {
			tokens, visible = append(tokens, token), append(visible, 1)
		}
	}
	add(0, 3)
	copy(visible, []int64{0, 0, 0})
	add(1, 2)
	add(image, 1*2*3)
	add(image, 1*1*1) // two images without text between them
	add(2, 1)
	add(video, 3*1*2)
	add(3, 4)
	for _, cfg := range []MRoPEConfig{{}, {TokensPerSecond: 2}, {FramesApart: true}} {
		cfg.ImageToken, cfg.VideoToken = image, video
		fresh := func() *MRoPE {
			m, err := NewMRoPE(cfg)
			must(t, err)
			m.Images, m.Videos, m.Seconds = [][3]int{{1, 4, 6}, {1, 2, 2}}, [][3]int{{3, 2, 4}}, []float64{0.5}
			return m
		}
		whole, want := fresh(), make([]int64, 3*len(tokens))
		must(t, whole.Append(want, tokens, visible))
		last := want[len(want)-3:]
		if last[0] != int64(len(tokens))-1+whole.Delta() || last[1] != last[0] || last[2] != last[0] {
			t.Errorf("%+v: the last of %d tokens stands at %v, delta is %d", cfg, len(tokens), last, whole.Delta())
		}
		r := rand.New(rand.NewPCG(1, 1))
		for range 50 {
			m, got := fresh(), make([]int64, len(want))
			for from := 0; from < len(tokens); {
				to := min(from+r.IntN(6), len(tokens))
				must(t, m.Append(got[3*from:3*to], tokens[from:to], visible[from:to]))
				from = to
			}
			if !slices.Equal(got, want) || m.Delta() != whole.Delta() {
				t.Fatalf("%+v: in pieces %v, delta %d, want %v, delta %d", cfg, got, m.Delta(), want, whole.Delta())
			}
		}
		// A generated token.
		at := make([]int64, 3)
		n, delta := int64(len(tokens)), whole.Delta()
		must(t, whole.Append(at, []int64{5}, nil))
		if at[0] != n+delta || at[0] != at[1] || at[1] != at[2] {
			t.Errorf("%+v: the next token stands at %v, want %d", cfg, at, n+delta)
		}
	}
}

func TestMRoPEErrors(t *testing.T) {
	for want, cfg := range map[string]MRoPEConfig{
		"Merge is -1":           {Merge: -1, VideoToken: 1},
		"TokensPerSecond is -1": {TokensPerSecond: -1, VideoToken: 1},
		"are both 7":            {ImageToken: 7, VideoToken: 7},
	} {
		if _, err := NewMRoPE(cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	for _, c := range []struct {
		images, videos [][3]int
		seconds        []float64
		tokens         []int64
		dst            int
		want           string
	}{
		{nil, nil, nil, []int64{0}, 2, "dst has 2 elements"},
		{nil, nil, nil, []int64{8}, 3, "more images than Images has grids"},
		{nil, nil, nil, []int64{9}, 3, "more videos than Videos has grids"},
		{[][3]int{{1, 3, 2}}, nil, nil, []int64{8}, 3, "a grid is 1 x 3 x 2"},
		{[][3]int{{math.MaxInt32, 1 << 20, 1 << 20}}, nil, nil, []int64{8}, 3, "below 2^31 patches"},
		{[][3]int{{1, 4, 4}}, nil, nil, []int64{8, 0}, 6, "token 1 of the piece is 0 within an image of 1 x 4 x 4, want 8"},
		{nil, [][3]int{{1, 2, 2}}, []float64{math.NaN()}, []int64{9}, 3, "Seconds has the element NaN"},
	} {
		m, err := NewMRoPE(MRoPEConfig{ImageToken: 8, VideoToken: 9, TokensPerSecond: 2})
		must(t, err)
		m.Images, m.Videos, m.Seconds = c.images, c.videos, c.seconds
		if err := m.Append(make([]int64, c.dst), c.tokens, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
		if m.Delta() != 0 || len(m.Images) != len(c.images) || len(m.Videos) != len(c.videos) {
			t.Errorf("%s: the state changed", c.want)
		}
	}
}

// TestSchedule follows sequences that grow and are cut back.
func TestSchedule(t *testing.T) {
	first := func(r *Rotation) float64 { f := r.Frequencies(); return f[len(f)-1] }
	at := func(cfg Config, length int64) float64 { cfg.Length = length; return first(mustNew(t, cfg)) }
	dynamic := Config{HeadDim: 8, Scheme: DynamicNTK{Factor: 2, MaxPosition: 100}}
	long := Config{HeadDim: 8, Scheme: LongRoPE{Short: []float64{1, 1, 1, 1}, Long: []float64{1, 2, 3, 4}, Original: 100, Factor: 4}}
	for _, c := range []struct {
		cfg    Config
		policy Policy
		steps  []int64 // lengths
		as     []int64 // whose frequencies are wanted
		from   []bool
	}{
		{dynamic, EachStep, []int64{10, 100, 101, 150, 120, 90}, []int64{0, 100, 101, 150, 150, 0}, make([]bool, 6)},
		{dynamic, Rerotate, []int64{10, 100, 101, 150, 120, 90}, []int64{0, 100, 101, 150, 150, 0}, []bool{false, false, true, true, false, true}},
		{dynamic, Fixed, []int64{10, 1000}, []int64{0, 0}, make([]bool, 2)},
		{long, Rerotate, []int64{10, 100, 101, 5000, 100}, []int64{0, 0, 101, 101, 0}, []bool{false, false, true, false, true}},
		{Config{HeadDim: 8, Scheme: Linear{Factor: 2}}, Rerotate, []int64{10, 1e6}, []int64{0, 0}, make([]bool, 2)},
		{Config{HeadDim: 12, Axes: []Axis{{Dim: 4}, {Dim: 8}}, Scheme: dynamic.Scheme}, EachStep, []int64{10, 300}, []int64{0, 300}, make([]bool, 2)},
	} {
		s, err := NewSchedule(c.cfg, c.policy)
		must(t, err)
		var old *Rotation
		for i, length := range c.steps {
			r, from, err := s.Step(length)
			must(t, err)
			if got, want := first(r), at(c.cfg, c.as[i]); got != want {
				t.Errorf("%v, policy %d, at %d: frequency %v, want %v", c.cfg.Scheme, c.policy, length, got, want)
			}
			if (from != nil) != c.from[i] || from != nil && from != old {
				t.Errorf("%v, policy %d, at %d: from %v", c.cfg.Scheme, c.policy, length, from)
			}
			old = r
		}
	}
	if _, err := NewSchedule(dynamic, 7); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	s, err := NewSchedule(dynamic, EachStep)
	must(t, err)
	if _, _, err := s.Step(-1); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{HeadDim: 8, Scheme: YaRN{Factor: 4, Original: 64}}, []string{
			"rope: 8 of 8 features, half, base 10000, YaRN, factor 4, original 64, beta 32 and 1, exact",
			"attention factor 1.13863", "kept", "stretched 4 times", "6.28319"}},
		{Config{HeadDim: 8, Scheme: Proportional{Fraction: 0.5}}, []string{"not rotated", "+Inf"}},
		{Config{HeadDim: 4, Learned: &Learned{Axes: 2, Heads: 2, Frequencies: random(1, 8)}}, []string{"learned, head 1"}},
	} {
		r := mustNew(t, c.cfg)
		var b bytes.Buffer
		must(t, r.Describe(&b))
		for _, want := range c.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
	}
	pairs := mustNew(t, Config{HeadDim: 8, Scheme: Linear{Factor: 4}}).Pairs()
	if len(pairs) != 4 || pairs[0].Stretch != 4 || math.Abs(pairs[0].Wavelength-8*math.Pi) > 1e-12 {
		t.Errorf("%+v", pairs)
	}
}
