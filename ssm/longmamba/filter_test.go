package longmamba

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
)

// trained is the length that the tests' tables are for.
const trained = 24

// table returns a calibration of an operator, by the steps that it sees.
func table(t testing.TB, s stepper) *Calibration {
	t.Helper()
	x := random(99, trained, s.in, 1, 0)
	c := value[*Calibrator](t)(NewCalibrator(s.op, CalibrationConfig{TrainLength: trained, Lengths: []int{24, 48, 100, 300, 1000}, Workers: 2}))
	must(t, s.run(t.Context(), zeros(trained, s.out), x, batch{}, c.Record, 2))
	must(t, c.Next())
	return value[*Calibration](t)(c.Calibration())
}

func newFilter(t testing.TB, c *Calibration, cfg FilterConfig) *Filter {
	t.Helper()
	return value[*Filter](t)(c.NewFilter(cfg))
}

// TestFilterSplits: a prompt in pieces, its total declared, gives what it gives whole,
// packed with others or not, and so do tokens after it.
func TestFilterSplits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, s := range filtered(t) {
			c := table(t, s)
			configs, n, prompt := []FilterConfig{{All: true, Decode: true, Scale: 1.5}, {All: true}, {All: true, Method: DeltaRatio}, {All: true, Response: 9}}, 330, 300
			if testing.Short() {
				configs, n, prompt = configs[:1], 110, 100
			}
			for _, cfg := range configs {
				f := newFilter(t, c, cfg)
				x := random(7, n, s.in, 1, 0)
				state := func() *ssm.State { return value[*ssm.State](t)(s.newState(ssm.StateConfig{Filter: f, Prompt: prompt})) }
				want, got, vanilla := zeros(n, s.out), zeros(n, s.out), s.forward(t, x)
				must(t, s.run(t.Context(), want, x, batch{state: state()}, nil, 3))
				if slices.Equal(want.Data, vanilla.Data) {
					t.Fatalf("%s: the filter has changed nothing", s.name())
				}
				st := state()
				for from := 0; from < n; {
					to := min(from+[]int{1, 1 + r.IntN(10), 1 + r.IntN(n)}[r.IntN(3)], n)
					must(t, s.run(t.Context(), mat.Rows(got, from, to), mat.Rows(x, from, to), batch{state: st}, nil, 1))
					if r.IntN(2) == 0 {
						st = st.Clone()
					}
					from = to
				}
				s.compare(t, "a filtered prompt in pieces", got.Data, want.Data)
				packed := zeros(2*n, s.out)
				both := zeros(2*n, s.in)
				copy(both.Data, x.Data)
				copy(both.Data[n*s.in:], x.Data)
				bare := value[*ssm.State](t)(s.newState(ssm.StateConfig{}))
				must(t, s.run(t.Context(), packed, both, batch{offsets: []int{0, n, 2 * n}, states: []*ssm.State{bare, state()}}, nil, 2))
				same(t, s.name()+": packed, without a filter", packed.Data[:n*s.out], vanilla.Data)
				same(t, s.name()+": packed, with one", packed.Data[n*s.out:], want.Data)
			}
		}
	})
}

// TestFilterChangesNothing where thresholds are 0, where no channel is global, and up
// to the training's length.
func TestFilterChangesNothing(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range filtered(t) {
			c := table(t, s)
			x := random(7, 90, s.in, 1, 0)
			run := func(c *Calibration, cfg FilterConfig, n int) {
				t.Helper()
				st := value[*ssm.State](t)(s.newState(ssm.StateConfig{Filter: newFilter(t, c, cfg), Prompt: n}))
				got := zeros(n, s.out)
				must(t, s.run(t.Context(), got, mat.Rows(x, 0, n), batch{state: st}, nil, 1))
				same(t, s.name(), got.Data, s.forward(t, mat.Rows(x, 0, n)).Data)
			}
			for _, m := range []Method{ByThreshold, DeltaRatio, Silence} {
				run(c, FilterConfig{All: true, Method: m}, trained)
				run(c, FilterConfig{All: true, Method: m, From: 91}, 90)
				run(c, FilterConfig{Threshold: 2, Method: m}, 90)
			}
			zero := *c
			zero.Tables = []Table{c.Tables[0]}
			zero.Tables[0].Threshold = make([][]float32, len(c.Lengths))
			for i := range c.Lengths {
				zero.Tables[0].Threshold[i] = make([]float32, len(c.Tables[0].LogDecay))
			}
			run(&zero, FilterConfig{All: true}, 90)
		}
	})
}

// TestFilterDecode: what comes after a prompt is filtered only where Decode says so,
// and then by the row for the tokens so far.
func TestFilterDecode(t *testing.T) {
	s := testScan(t, 3, 4, 1)
	c := table(t, s)
	const n, prompt = 400, 60
	x, steps := random(7, n, s.in, 1, 0), [2]blas32.General{}
	vanilla := zeros(n, 3)
	must(t, s.run(t.Context(), zeros(n, 3), x, batch{}, ssm.RecordSteps(vanilla), 1))
	for i, decode := range []bool{false, true} {
		f := newFilter(t, c, FilterConfig{All: true, Decode: decode, Response: 5})
		st := value[*ssm.State](t)(s.newState(ssm.StateConfig{Filter: f, Prompt: prompt}))
		steps[i] = zeros(n, 3)
		must(t, s.run(t.Context(), zeros(n, 3), x, batch{state: st}, ssm.RecordSteps(steps[i]), 1))
		for token := range n {
			row := c.row(max(token+1, prompt))
			for channel := range 3 {
				want := vanilla.Data[token*3+channel]
				if (token < prompt-5 || token >= prompt && decode) && want <= c.Tables[0].Threshold[row][channel] {
					want = 0
				}
				if got := steps[i].Data[token*3+channel]; got != want {
					t.Fatalf("decode %v: token %d, channel %d has the step %v, want %v", decode, token, channel, got, want)
				}
			}
		}
	}
	// Without a prompt, by the tokens so far.
	f := newFilter(t, c, FilterConfig{All: true, Decode: true})
	delta := value[ssm.DeltaFilter](t)(f.Delta(0, 0))
	for _, at := range []int{trained - 1, 40, 200} {
		dt := []float32{0, 1e-30, 1e30}
		delta(at, 0, dt)
		if want := at < trained; (dt[1] != 0) != want || dt[2] != 1e30 {
			t.Errorf("token %d: steps %v", at, dt)
		}
	}
}

// TestLogDecay compares receptive fields with products of decays, in float64, and
// where those underflow to 0.
func TestLogDecay(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const channels, states = 5, 7
		for _, scale := range []float64{1e-3, 1, 30} {
			a := mat.Of(decays(1, channels*states), channels, states)
			op := value[*ssm.Scan](t)(ssm.NewScan(ssm.ScanConfig{Channels: channels, States: states, Softplus: true}, ssm.ScanWeights{A: a}))
			c := value[*Calibrator](t)(NewCalibrator(op, CalibrationConfig{TrainLength: 60, Clamp: 0.1}))
			dt := random(2, 60, channels, 1, math.Log(scale))
			bc, x, steps := zeros(60, states), zeros(60, channels), zeros(60, channels)
			must(t, op.Run(t.Context(), &ssm.ScanCall{Dst: x, X: x, Dt: dt, B: bc, C: bc, Filter: ssm.ChainFilters(ssm.RecordSteps(steps), c.Record)}))
			must(t, c.Next())
			cal := value[*Calibration](t)(c.Calibration())
			reports := value[[]ChannelReport](t)(Report(op, steps, steps))
			for channel := range channels {
				var list []float64
				for t := range 60 {
					list = append(list, float64(steps.Data[t*channels+channel]))
				}
				most := sorted(list)[5] // of 6
				var clamped, plain float64
				for _, v := range list {
					decay := func(dt float64) float64 {
						var mean float64
						for _, rate := range a.Data[channel*states:][:states] {
							mean += math.Exp(dt*float64(rate)) / states
						}
						return math.Log(mean)
					}
					clamped += decay(min(v, most))
					plain += decay(v)
				}
				if got := cal.Tables[0].LogDecay[channel]; !(math.Abs(got-clamped) <= 1e-5*math.Abs(clamped)) {
					t.Errorf("steps of %g: channel %d decays by %v, want %v", scale, channel, got, clamped)
				}
				if r := reports[channel]; !(math.Abs(r.Before-plain) <= 1e-5*math.Abs(plain)) || r.After != r.Before || r.Kept != 1 ||
					!(math.Abs(r.ReceptiveField-60*math.Log(0.05)/plain) < 1e-4*r.ReceptiveField) {
					t.Errorf("steps of %g: channel %d: %+v, want %v", scale, channel, r, plain)
				}
			}
		}
	})
	// Logarithms of numbers far below the smallest float64.
	c := &Calibration{TrainLength: 10, Lengths: []int{20}, Tables: []Table{{
		LogDecay: []float64{-650, -750, -1e5, math.Inf(-1), 0}, DtSum: make([]float64, 5),
		Alpha: [][]float32{make([]float32, 5)}, Threshold: [][]float32{make([]float32, 5)},
	}}}
	f := newFilter(t, c, FilterConfig{Threshold: 1e-300})
	if got := value[[]bool](t)(f.Global(0)); !slices.Equal(got, []bool{true, false, false, false, true}) {
		t.Errorf("global channels %v", got)
	}
	fields := value[[]float64](t)(c.ReceptiveFields(0, math.Exp(-65)))
	if !(math.Abs(fields[0]-1) < 1e-9) || fields[3] != 0 || !math.IsInf(fields[4], 1) {
		t.Errorf("receptive fields %v", fields)
	}
}

// TestBudget: the steps above a threshold have the sum that they had in training, to
// one step, and none is dropped up to the training's length.
func TestBudget(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 1 + r.IntN(200)
		steps := make([]float32, n)
		for i := range steps {
			steps[i] = float32(math.Exp(3 * r.NormFloat64()))
		}
		slices.SortFunc(steps, func(a, b float32) int { return int(math.Copysign(1, float64(b-a))) })
		var sum float64
		for _, v := range steps {
			sum += float64(v)
		}
		for _, times := range []float64{0.5, 1, 1.3, 2, 7.7, 50} {
			length := int(times * float64(n))
			alpha, threshold := budget(steps, sum, length)
			if length <= n {
				if alpha != 1 || threshold != 0 {
					t.Fatalf("%d of %d tokens: %v and %v", length, n, alpha, threshold)
				}
				continue
			}
			// A sequence of that length, by linear interpolation of the sorted steps.
			k := int(math.Round(alpha * float64(length)))
			var above, least int
			var first, most float64 // sums of the largest k and k-1
			for i := range length {
				pos := max((float64(i)+0.5)*float64(n)/float64(length)-0.5, 0)
				i0 := int(pos)
				v := float64(steps[i0]) + (pos-float64(i0))*(float64(steps[min(i0+1, n-1)])-float64(steps[i0]))
				if v > threshold*(1+1e-9) {
					above++
				}
				if v >= threshold*(1-1e-9) {
					least++
				}
				if i < k {
					first = most
					most += v
				}
			}
			if above > k || least <= k || most <= sum*(1-1e-9) || first > sum*(1+1e-9) {
				t.Errorf("%d of %d tokens: %d kept, threshold %v, which %d are above and %d no less; sums %v and %v, want %v between", length, n, k, threshold, above, least, first, most, sum)
			}
		}
	}
	if alpha, threshold := budget(make([]float32, 10), 0, 20); alpha != 1 || threshold != 0 {
		t.Errorf("steps of 0: %v and %v", alpha, threshold)
	}
}

// TestCalibrationAggregates: the mean of sequences and the largest, by any number of
// workers, and the order of sequences has no part.
func TestCalibrationAggregates(t *testing.T) {
	op := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: 3, HeadDim: 2, States: 2}, ssm.SSDWeights{A: decays(3, 3)}))
	run := func(largest bool, workers int, seeds ...uint64) Table {
		c := value[*Calibrator](t)(NewCalibrator(op, CalibrationConfig{TrainLength: 30, Max: largest, Workers: workers}))
		for _, seed := range seeds {
			dt := random(seed, 30, 3, 0.1, 1)
			for at := range 30 {
				c.Record(at, 0, dt.Data[at*3:][:3])
			}
			must(t, c.Next())
		}
		cal := value[*Calibration](t)(c.Calibration())
		if want := []int{30, 45, 60}; !slices.Equal(cal.Lengths[:3], want) || cal.Lengths[len(cal.Lengths)-1] != 96*30 {
			t.Fatalf("lengths %v", cal.Lengths)
		}
		return cal.Tables[0]
	}
	one, two, mean, most := run(false, 1, 1), run(false, 1, 2), run(false, 1, 1, 2), run(true, 4, 2, 1)
	again := run(false, 4, 2, 1)
	for h := range 3 {
		a, b := one.Threshold[4][h], two.Threshold[4][h]
		if got, want := float64(mean.Threshold[4][h]), (float64(a)+float64(b))/2; math.Abs(got-want) > 1e-7 {
			t.Errorf("head %d: the mean of %v and %v is %v", h, a, b, got)
		}
		if got := most.Threshold[4][h]; got != max(a, b) {
			t.Errorf("head %d: the larger of %v and %v is %v", h, a, b, got)
		}
		want := math.Log((math.Exp(one.LogDecay[h]) + math.Exp(two.LogDecay[h])) / 2)
		if math.Abs(mean.LogDecay[h]-want) > 1e-12*math.Abs(want) || most.LogDecay[h] != max(one.LogDecay[h], two.LogDecay[h]) {
			t.Errorf("head %d: decays %v and %v: mean %v, most %v", h, one.LogDecay[h], two.LogDecay[h], mean.LogDecay[h], most.LogDecay[h])
		}
		if math.Abs(again.LogDecay[h]-mean.LogDecay[h]) > 1e-12 || again.Threshold[4][h] != mean.Threshold[4][h] {
			t.Errorf("head %d: %v in another order, %v", h, again.LogDecay[h], mean.LogDecay[h])
		}
	}
}

// TestFilterAllocations: a filter allocates nothing.
func TestFilterAllocations(t *testing.T) {
	for _, s := range filtered(t) {
		f := newFilter(t, table(t, s), FilterConfig{All: true, Decode: true})
		for _, workers := range []int{1, 4} {
			st := value[*ssm.State](t)(s.newState(ssm.StateConfig{Filter: f, Prompt: 130}))
			x, dst := random(1, 130, s.in, 1, 0), zeros(130, s.out)
			if n := isatest.Allocations(func() {
				st.Reset()
				must(t, s.run(context.Background(), dst, x, batch{state: st}, nil, workers))
				must(t, s.run(context.Background(), mat.Rows(dst, 0, 1), mat.Rows(x, 0, 1), batch{state: st}, nil, workers))
			}); n != 0 {
				t.Errorf("%s with %d workers: %v allocations", s.name(), workers, n)
			}
		}
	}
}
