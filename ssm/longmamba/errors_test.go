package longmamba

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
)

// tinyCalibration has a table for each block, of as many channels as it says.
func tinyCalibration(channels ...int) *Calibration {
	c := &Calibration{TrainLength: 4, Lengths: []int{4, 8, 16}}
	for i, n := range channels {
		t := Table{Fingerprint: uint64(i)}
		for j := range n {
			t.LogDecay, t.DtSum = append(t.LogDecay, -float64(j)), append(t.DtSum, float64(j))
		}
		for row := range c.Lengths {
			alpha, threshold := make([]float32, n), make([]float32, n)
			for j := range alpha {
				alpha[j], threshold[j] = 1/float32(row+1), float32(row*(j+1))/8
			}
			t.Alpha, t.Threshold = append(t.Alpha, alpha), append(t.Threshold, threshold)
		}
		c.Tables = append(c.Tables, t)
	}
	return c
}

func TestCalibrationErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for text, change := range map[string]func(c *Calibration){
		"longmamba: the calibration's TrainLength is 0, want 1 to 2147483647":              func(c *Calibration) { c.TrainLength = 0 },
		"longmamba: the calibration has no table":                                          func(c *Calibration) { c.Tables = nil },
		"longmamba: Lengths is empty, want a length":                                       func(c *Calibration) { c.Lengths = nil },
		"longmamba: Lengths[1] is 4, want 1 to 2147483647 and more than the one before it": func(c *Calibration) { c.Lengths[1] = 4 },
		"longmamba: table 1: LogDecay is empty, want a number for each channel":            func(c *Calibration) { c.Tables[1] = Table{} },
		"longmamba: table 0: DtSum has 1 elements, LogDecay 2":                             func(c *Calibration) { c.Tables[0].DtSum = c.Tables[0].DtSum[:1] },
		"longmamba: table 0: Alpha has 2 rows, want one for each of the 3 Lengths":         func(c *Calibration) { c.Tables[0].Alpha = c.Tables[0].Alpha[:2] },
		"longmamba: table 1: Threshold has 4 rows, want one for each of the 3 Lengths":     func(c *Calibration) { c.Tables[1].Threshold = append(c.Tables[1].Threshold, nil) },
		"longmamba: table 1: Threshold[2] has 0 elements, LogDecay 3":                      func(c *Calibration) { c.Tables[1].Threshold[2] = nil },
		"longmamba: table 0: Alpha[1][1] is 1.5, want 0 to 1":                              func(c *Calibration) { c.Tables[0].Alpha[1][1] = 1.5 },
		"longmamba: table 0: Threshold[1][0] is NaN, want 0 to 3.403e+38":                  func(c *Calibration) { c.Tables[0].Threshold[1][0] = float32(nan) },
		"longmamba: table 0: Threshold[1][1] is +Inf, want 0 to 3.403e+38":                 func(c *Calibration) { c.Tables[0].Threshold[1][1] = float32(inf) },
		"longmamba: table 0: LogDecay[1] is NaN, want a number":                            func(c *Calibration) { c.Tables[0].LogDecay[1] = nan },
		"longmamba: table 0: DtSum[0] is -1, want a finite number, 0 or more":              func(c *Calibration) { c.Tables[0].DtSum[0] = -1 },
		"longmamba: the calibration is nil":                                                nil,
		"longmamba: Lengths[0] is 0, want 1 to 2147483647 and more than the one before it": func(c *Calibration) { c.Lengths[0] = 0 },
	} {
		c := tinyCalibration(2, 3)
		if change == nil {
			c = nil
		} else {
			change(c)
		}
		_, err := c.NewFilter(FilterConfig{})
		wants(t, err, ErrCalibration, text)
		if c != nil {
			var b bytes.Buffer
			_, err = c.WriteTo(&b)
			wants(t, err, ErrCalibration, text)
			if b.Len() != 0 {
				t.Errorf("%d bytes were written of what %q", b.Len(), text)
			}
		}
	}
}

func TestCalibratorErrors(t *testing.T) {
	op := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: 2, HeadDim: 1, States: 1}, ssm.SSDWeights{A: []float32{-1, -2}}))
	for text, cfg := range map[string]CalibrationConfig{
		"longmamba: TrainLength is 0, want 1 to 16777216":                                  {},
		"longmamba: Clamp is 1, want 0 or more and less than 1":                            {TrainLength: 2, Clamp: 1},
		"longmamba: Clamp is NaN, want 0 or more and less than 1":                          {TrainLength: 2, Clamp: math.NaN()},
		"longmamba: Workers is -1, want 0 to 65536":                                        {TrainLength: 2, Workers: -1},
		"longmamba: Lengths is empty, want a length":                                       {TrainLength: 2, Lengths: []int{}},
		"longmamba: Lengths[1] is 2, want 1 to 2147483647 and more than the one before it": {TrainLength: 2, Lengths: []int{2, 2}},
	} {
		_, err := NewCalibrator(op, cfg)
		wants(t, err, ErrConfig, text)
	}
	_, err := NewCalibrator(value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: 2, HeadDim: 1, States: 1}, ssm.SSDWeights{})), CalibrationConfig{TrainLength: 1})
	wants(t, err, ErrConfig, "longmamba: a calibration of an SSD of 2 heads of 1 channels in 1 groups with 1 states without A")

	c := value[*Calibrator](t)(NewCalibrator(op, CalibrationConfig{TrainLength: 3}))
	_, err = c.Calibration()
	wants(t, err, ErrCalibration, "longmamba: a calibration of no sequences")
	sequence := func(n int, change func(at int, dt []float32)) error {
		for at := range n {
			dt := []float32{1, 2}
			if change != nil {
				change(at, dt)
			}
			c.Record(at, 0, dt)
		}
		return c.Next()
	}
	wants(t, sequence(2, nil), ErrCalibration, "longmamba: a sequence has 2 tokens, want TrainLength = 3")
	wants(t, sequence(5, nil), ErrCalibration, "longmamba: a sequence has at least 5 tokens, want TrainLength = 3")
	for v, text := range map[float64]string{math.NaN(): "NaN", math.Inf(1): "+Inf", -1: "-1"} {
		wants(t, sequence(3, func(at int, dt []float32) {
			if at == 1 {
				dt[1] = float32(v)
			}
		}), ErrCalibration, "longmamba: the step of token 1 in channel 1 is "+text+", want a finite number, 0 or more")
	}
	c.Record(0, 1, []float32{1, 2})
	wants(t, c.Next(), ErrCalibration, "longmamba: the recorded steps are not those of a "+op.Identity().Name)
	// What failed does not count, nor stand in the way.
	must(t, sequence(3, nil))
	if got := value[*Calibration](t)(c.Calibration()).Tables[0].DtSum; !slices.Equal(got, []float64{3, 6}) {
		t.Errorf("sums %v", got)
	}
}

func TestFilterErrors(t *testing.T) {
	c := tinyCalibration(2, 3)
	for text, cfg := range map[string]FilterConfig{
		"longmamba: Method is 9, want less than 9":                    {Method: methods},
		"longmamba: Threshold is -1, want a finite number, 0 or more": {Threshold: -1},
		"longmamba: Scale is NaN, want a finite number, 0 or more":    {Scale: math.NaN()},
		"longmamba: Ratio is +Inf, want a finite number, 0 or more":   {Ratio: math.Inf(1)},
		"longmamba: TopK is -1, want 0 or more":                       {TopK: -1},
		"longmamba: From is -2, want 0 or more":                       {From: -2},
		"longmamba: Response is -3, want 0 or more":                   {Response: -3},
	} {
		_, err := c.NewFilter(cfg)
		wants(t, err, ErrConfig, text)
	}
	f, whole := newFilter(t, c, FilterConfig{}), newFilter(t, c, FilterConfig{Method: ByBound})
	for text, err := range map[string]error{
		"longmamba: block is 2, want 0 to 1":                                                                                           second(f.Delta(2, 9)),
		"longmamba: block is -1, want 0 to 1":                                                                                          second(f.Block(-1)),
		"longmamba: Prompt is -1, want 0 to 2147483647":                                                                                second(f.Delta(0, -1)),
		"longmamba: Prompt is 0, want the tokens of the whole prompt, or a filter that decodes":                                        second(f.Delta(0, 0)),
		"longmamba: threshold is 1, want more than 0 and less than 1":                                                                  second(c.ReceptiveFields(0, 1)),
		"longmamba: the method ByBound looks at a whole prompt: it runs by Filter.Apply, or a model's Prefill, and not token by token": second(whole.Delta(0, 9)),
	} {
		wants(t, err, ErrConfig, text)
	}
	wants(t, f.Apply(0, zeros(3, 3)), ErrShape, "longmamba: dt has 3 columns, want the table's channels = 2")

	// States.
	op := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: 3, HeadDim: 1, States: 1}, ssm.SSDWeights{A: decays(1, 3)}))
	one := value[*Filter](t)(newFilter(t, tinyCalibration(3), FilterConfig{}).Block(0)) // of no fingerprint
	state := func(f *Filter, prompt int) error {
		return second(op.NewState(ssm.StateConfig{Filter: f, Prompt: prompt}))
	}
	name := op.Identity().Name
	must(t, state(one, 9))
	must(t, state(nil, 0))
	wants(t, state(f, 9), ErrConfig, "longmamba: Filter is of 2 blocks, want 1: that of Filter.Block")
	wants(t, state(value[*Filter](t)(f.Block(0)), 9), ErrCalibration, "longmamba: the calibration is of 2 channels, a "+name+" has 3")
	wants(t, state(value[*Filter](t)(f.Block(1)), 9), ErrCalibration, "longmamba: the calibration is of another operator than this "+name+", or of other weights")

	// A table of one operator is refused by others, of the same shape too.
	for _, s := range filtered(t) {
		f := newFilter(t, table(t, s), FilterConfig{All: true})
		for _, other := range append(filtered(t), testOther(t)) {
			st, err := other.newState(ssm.StateConfig{Filter: f, Prompt: 99})
			if other.name() == s.name() {
				must(t, err)
				wants(t, st.SetFilter(f, 0), ErrConfig, "longmamba: Prompt is 0, want the tokens of the whole prompt, or a filter that decodes")
				if !st.Filtered() {
					t.Errorf("%s: an error took the filter", s.name())
				}
			} else if !errors.Is(err, ErrCalibration) {
				t.Errorf("%s takes the table of %s: error %v", other.name(), s.name(), err)
			}
		}
	}
}

// testOther is a scan of a shape among filtered's, with other weights.
func testOther(t testing.TB) stepper {
	op := value[*ssm.Scan](t)(ssm.NewScan(ssm.ScanConfig{Channels: 40, States: 8}, ssm.ScanWeights{A: random(9, 40, 8, 1, 0)}))
	return stepper{op: op, newState: op.NewState}
}

func TestStoredCalibration(t *testing.T) {
	want := tinyCalibration(2, 3, 1)
	want.Tables[0].LogDecay[1] = math.Inf(-1)
	want.Tables[2].Fingerprint = math.MaxUint64
	var b bytes.Buffer
	n, err := want.WriteTo(&b)
	must(t, err)
	if n != int64(b.Len()) {
		t.Errorf("%d bytes, said to be %d", b.Len(), n)
	}
	got := value[*Calibration](t)(ReadCalibration(bytes.NewReader(b.Bytes())))
	if got.TrainLength != want.TrainLength || !slices.Equal(got.Lengths, want.Lengths) || len(got.Tables) != 3 {
		t.Fatalf("read %+v", got)
	}
	for i, w := range want.Tables {
		g := got.Tables[i]
		if g.Fingerprint != w.Fingerprint || !slices.Equal(g.LogDecay, w.LogDecay) || !slices.Equal(g.DtSum, w.DtSum) ||
			!slices.EqualFunc(g.Alpha, w.Alpha, slices.Equal) || !slices.EqualFunc(g.Threshold, w.Threshold, slices.Equal) {
			t.Errorf("table %d: read %+v, want %+v", i, g, w)
		}
	}
	read := func(p []byte) error { return second(ReadCalibration(bytes.NewReader(p))) }
	for at := range b.Len() {
		if err := read(b.Bytes()[:at]); !errors.Is(err, ErrCalibration) || !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("the first %d bytes: error %v", at, err)
		}
		damaged := bytes.Clone(b.Bytes())
		damaged[at] ^= 1
		if err := read(damaged); !errors.Is(err, ErrCalibration) || !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("byte %d damaged: error %v", at, err)
		}
	}
	// A table that lacks a length: its tensor, or its row.
	text := b.String()
	wants(t, read([]byte(strings.Replace(text, `"layers.1.alpha"`, `"layers.1.omega"`, 1))), ErrCalibration, "longmamba: the stored calibration: no tensor layers.1.alpha")
	wants(t, read([]byte(strings.Replace(text, `"shape":[3,1]`, `"shape":[1,3]`, 1))), ErrCalibration, "longmamba: table 2: Alpha has 1 rows, want one for each of the 3 Lengths")
	failing := errors.New("no more")
	if err := second(ReadCalibration(io.MultiReader(bytes.NewReader(b.Bytes()[:9]), failingReader{failing}))); !errors.Is(err, failing) {
		t.Errorf("error %v", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// FuzzReadCalibration: there is an error or a calibration that a filter can be made of.
func FuzzReadCalibration(f *testing.F) {
	var b bytes.Buffer
	_, err := tinyCalibration(2, 1).WriteTo(&b)
	must(f, err)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := ReadCalibration(bytes.NewReader(p))
		if err != nil {
			return
		}
		for m := range methods {
			f := newFilter(t, c, FilterConfig{Method: m})
			must(t, f.Apply(0, zeros(20, len(c.Tables[0].LogDecay))))
		}
	})
}

// TestRules: what each rule promises, for prompts down to no token, a response longer
// than the prompt, and NaN, which every rule keeps.
func TestRules(t *testing.T) {
	c := tinyCalibration(3)
	c.TrainLength = 1
	for m := range methods {
		for _, n := range []int{0, 1, 2, 9, 40} {
			for _, response := range []int{0, 3, 100} {
				f := newFilter(t, c, FilterConfig{Method: m, All: true, TopK: 4, Response: response})
				dt := zeros(n, 3)
				for i, v := range normal(uint64(n), 1, 0, 3*n) {
					dt.Data[i] = float32(math.Abs(float64(v)))
				}
				before := slices.Clone(dt.Data)
				nan := 5
				if n > 2 && m != Silence {
					dt.Data[nan] = float32(math.NaN())
				}
				must(t, f.Apply(0, dt))
				for i, v := range dt.Data {
					row := i / 3
					switch {
					case row >= max(n-response, 0) && i != nan && v != before[i]:
						t.Fatalf("%v, %d tokens: the response's step %d is %v, was %v", m, n, i, v, before[i])
					case n > 2 && i == nan && m != Silence && v == v:
						t.Fatalf("%v, %d tokens: NaN has become %v", m, n, v)
					case m != DeltaRatio && m != Normalized && v != 0 && v == v && v != before[i]:
						t.Fatalf("%v, %d tokens: step %d is %v, was %v", m, n, i, v, before[i])
					}
				}
			}
		}
		if strings.Contains(m.String(), "no method") {
			t.Errorf("method %d has no name", m)
		}
	}
	if got := methods.String(); got != "no method" {
		t.Errorf("named %q", got)
	}
	dt := blas32.General{Rows: 10, Cols: 1, Stride: 1, Data: []float32{5, 1, 4, 2, 3, 9, 8, 7, 6, 0.5}}
	apply := func(cfg FilterConfig, alpha float32, sum float64) []float32 {
		t := Table{LogDecay: []float64{0}, DtSum: []float64{sum}, Alpha: [][]float32{{alpha}}, Threshold: [][]float32{{4.5}}}
		c := &Calibration{TrainLength: 2, Lengths: []int{10}, Tables: []Table{t}}
		m := blas32.General{Rows: 10, Cols: 1, Stride: 1, Data: slices.Clone(dt.Data)}
		if err := second(c.NewFilter(cfg)); err != nil {
			return nil
		}
		f, _ := c.NewFilter(cfg)
		if err := f.Apply(0, m); err != nil {
			return nil
		}
		return m.Data
	}
	for _, x := range []struct {
		cfg   FilterConfig
		alpha float32
		sum   float64
		want  []float32
	}{
		{FilterConfig{}, 0, 0, []float32{5, 0, 0, 0, 0, 9, 8, 7, 6, 0}},
		{FilterConfig{Scale: 1.5}, 0, 0, []float32{0, 0, 0, 0, 0, 9, 8, 7, 0, 0}},
		{FilterConfig{Method: DeltaRatio}, 0, 0, []float32{1, 0.2, 0.8, 0.4, 0.6, 1.8, 1.6, 1.4, 1.2, 0.1}},
		{FilterConfig{Method: DeltaRatio, Ratio: 2}, 0, 0, []float32{10, 2, 8, 4, 6, 18, 16, 14, 12, 1}},
		{FilterConfig{Method: Silence}, 0, 0, make([]float32, 10)},
		{FilterConfig{Method: ByRank}, 0.25, 0, []float32{0, 0, 0, 0, 0, 9, 8, 7, 0, 0}}, // ranks below 2.5
		{FilterConfig{Method: ByOwnThreshold}, 0.25, 0, []float32{0, 0, 0, 0, 0, 9, 8, 7, 0, 0}},
		{FilterConfig{Method: ByBound}, 0, 17.5, []float32{0, 0, 0, 0, 0, 9, 8, 0, 0, 0}},
		{FilterConfig{Method: ByBound, Scale: 2}, 0, 17.5, []float32{5, 0, 0, 0, 0, 9, 8, 7, 6, 0}},
		{FilterConfig{Method: Normalized}, 0, 4.55, []float32{0.5, 0.1, 0.4, 0.2, 0.3, 0.9, 0.8, 0.7, 0.6, 0.05}},
		{FilterConfig{Method: TopTokens, TopK: 3}, 0, 0, []float32{0, 0, 0, 0, 0, 9, 8, 7, 0, 0}},
		{FilterConfig{Method: TopNormTokens, TopK: 2, Response: 1}, 0, 0, []float32{0, 0, 0, 0, 0, 9, 8, 0, 0, 0.5}},
	} {
		got := apply(x.cfg, x.alpha, x.sum)
		near(t, x.cfg.Method.String(), got, x.want, 1e-6)
	}
}
