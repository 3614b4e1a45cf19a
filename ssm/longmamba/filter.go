package longmamba

import (
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/ssm"
)

// Method says how a Filter changes steps dt. Those from ByRank on look at all tokens
// of a prompt before they choose, so that they run by Filter.Apply (or a model's
// Prefill) and not in a State.
type Method uint8

const (
	// ByThreshold is LongMamba: a step is kept if it is above the table's Threshold,
	// times Scale, for the prompt's length. It looks at each token by itself.
	ByThreshold Method = iota
	// DeltaRatio multiplies all steps by Ratio. It looks at no token.
	DeltaRatio
	// Silence keeps none: the official code's with a b of 0.
	Silence
	// ByRank keeps a prompt's largest steps, the fraction Alpha times Scale of them
	// (alpha).
	ByRank
	// ByOwnThreshold keeps the steps that are no less than the first one that ByRank
	// drops (offline).
	ByOwnThreshold
	// ByBound keeps the largest steps whose sum is at most DtSum times Scale (bound).
	ByBound
	// Normalized multiplies all steps by the factor that makes their sum DtSum times Scale
	// (norm).
	Normalized
	// TopTokens keeps each channel's steps that are above its quantile 1 - TopK/n
	// (channelwise_topk).
	TopTokens
	// TopNormTokens keeps the same TopK tokens in all channels: those whose steps in the
	// filtered channels have the largest Euclidean norm (all_topk).
	TopNormTokens
	methods
)

// String returns the method's name.
func (m Method) String() string {
	if m >= methods {
		return "no method"
	}
	return [...]string{"ByThreshold", "DeltaRatio", "Silence", "ByRank", "ByOwnThreshold", "ByBound", "Normalized", "TopTokens", "TopNormTokens"}[m]
}

// causal tells whether a method looks at a token at a time.
func (m Method) causal() bool { return m < ByRank }

// FilterConfig says what a filter does. Its zero value is LongMamba with the official
// settings for Mamba-2.
type FilterConfig struct {
	// Method says how steps are changed; 0 is ByThreshold.
	Method Method
	// Threshold is c: a channel is global, and filtered, if more than this remains of
	// its state after TrainLength tokens. 0 is 0.05, the official code's for Mamba-2;
	// settings reported of the paper are 1e-30 for a Mamba of 1.4 billion parameters
	// and 1e-5 for Zamba2.
	Threshold float64
	// All filters all channels, whatever remains.
	All bool
	// Scale is b, which multiplies what the tables say; 0 is 1.
	Scale float64
	// Ratio is DeltaRatio's; 0 is TrainLength over the prompt's length.
	Ratio float64
	// TopK is how many tokens TopTokens and TopNormTokens keep; 0 is 2000.
	TopK int
	// From is the least length of a prompt that is filtered; TrainLength + 1 where it is
	// less. (The official code's is 3000, for a TrainLength of 2000.)
	From int
	// Response is how many tokens at a prompt's end are kept as they are; 0 is none.
	Response int
	// Decode filters tokens after the prompt too, by the row for the tokens so far;
	// the published method does not. With it, a state that knows no prompt filters by
	// the tokens so far from the first one on.
	Decode bool
}

// Filter is a configured filter of a model's blocks, or of one. It is immutable and
// safe for concurrent use.
//
// A global channel, whose receptive field reaches beyond TrainLength, is trained to
// sum up as many steps as that and no more. In longer sequences LongMamba (2025, arXiv
// 2504.16053) has it pass over tokens of small steps, so that the sum, and with it
// the decay, stays what it was in training:
//
//	dt = dt if dt > Scale Threshold, else 0
//
// A dt of 0 leaves the state as it is, decay 1 and nothing written; the token still
// reads it. It costs a comparison for each token and channel.
type Filter struct {
	cfg    FilterConfig
	cal    *Calibration // its tables are those of blocks
	blocks []blockFilter
}

// blockFilter is a filter's part for one block.
type blockFilter struct {
	global     []bool      // [channels]: those that are filtered
	any        bool        // there are global ones
	thresholds [][]float32 // [lengths][channels], of ByThreshold; -Inf keeps all
}

// NewFilter returns a filter. Errors match ErrCalibration or ErrConfig.
func (c *Calibration) NewFilter(cfg FilterConfig) (*Filter, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := cfg.complete(c); err != nil {
		return nil, err
	}
	f := &Filter{cfg: cfg, cal: c}
	for i := range c.Tables {
		f.blocks = append(f.blocks, f.prepareBlock(&c.Tables[i]))
	}
	return f, nil
}

func (cfg *FilterConfig) complete(c *Calibration) error {
	if cfg.Method >= methods {
		return check.Errorf(ErrConfig, "longmamba: Method is %d, want less than %d", cfg.Method, methods)
	}
	for _, v := range []struct {
		name    string
		value   *float64
		without float64
	}{{"Threshold", &cfg.Threshold, 0.05}, {"Scale", &cfg.Scale, 1}, {"Ratio", &cfg.Ratio, 0}} {
		if !(*v.value >= 0) || math.IsInf(*v.value, 0) {
			return check.Errorf(ErrConfig, "longmamba: %s is %v, want a finite number, 0 or more", v.name, *v.value)
		}
		if *v.value == 0 {
			*v.value = v.without
		}
	}
	for _, v := range []struct {
		name  string
		value int
	}{{"TopK", cfg.TopK}, {"From", cfg.From}, {"Response", cfg.Response}} {
		if v.value < 0 {
			return check.Errorf(ErrConfig, "longmamba: %s is %d, want 0 or more", v.name, v.value)
		}
	}
	if cfg.TopK == 0 {
		cfg.TopK = 2000
	}
	cfg.From = max(cfg.From, c.TrainLength+1)
	return nil
}

// prepareBlock makes the part for a block.
func (f *Filter) prepareBlock(t *Table) blockFilter {
	b := blockFilter{global: make([]bool, len(t.LogDecay))}
	for i, v := range t.LogDecay {
		b.global[i] = f.cfg.All || v > math.Log(f.cfg.Threshold)
		b.any = b.any || b.global[i]
	}
	if f.cfg.Method != ByThreshold {
		return b
	}
	for _, row := range t.Threshold {
		scaled := make([]float32, len(row))
		for i, v := range row {
			scaled[i] = float32(math.Inf(-1))
			if b.global[i] && v > 0 {
				scaled[i] = float32(min(float64(v)*f.cfg.Scale, math.MaxFloat32))
			}
		}
		b.thresholds = append(b.thresholds, scaled)
	}
	return b
}

// Global tells which channels of a block are global: those that are filtered. Errors match
// ErrConfig.
func (f *Filter) Global(block int) ([]bool, error) {
	if err := f.cal.checkBlock(block); err != nil {
		return nil, err
	}
	return append([]bool{}, f.blocks[block].global...), nil
}

// Delta returns the filter of a block's steps as a call takes it, for a prompt of that
// many tokens, the call's and any before and after it: nil if it changes none. Which
// model the block is of is not checked, as ssm.StateConfig.Filter does. Errors match
// ErrConfig: of a method that cannot run token by token, or a block that is not there.
func (f *Filter) Delta(block, prompt int) (ssm.DeltaFilter, error) {
	if err := f.cal.checkBlock(block); err != nil {
		return nil, err
	}
	if err := f.checkPrompt(prompt); err != nil {
		return nil, err
	}
	b := &f.blocks[block]
	if !b.any || prompt < f.cfg.From && !f.cfg.Decode {
		return nil, nil
	}
	row := f.cal.row(prompt)
	return func(position, first int, dt []float32) {
		n, row := prompt, row
		switch {
		case position >= prompt: // decoding
			if !f.cfg.Decode {
				return
			}
			n = position + 1
			row = f.cal.row(n)
		case position >= prompt-f.cfg.Response:
			return
		}
		if n >= f.cfg.From {
			f.changeToken(b, row, n, first, dt)
		}
	}, nil
}

func (f *Filter) checkPrompt(prompt int) error {
	switch {
	case !f.cfg.Method.causal():
		return check.Errorf(ErrConfig, "longmamba: the method %v looks at a whole prompt: it runs by Filter.Apply, or a model's Prefill, and not token by token", f.cfg.Method)
	case prompt < 0 || prompt > maxLength:
		return check.Errorf(ErrConfig, "longmamba: Prompt is %d, want 0 to %d", prompt, maxLength)
	case prompt == 0 && !f.cfg.Decode:
		return check.Errorf(ErrConfig, "longmamba: Prompt is 0, want the tokens of the whole prompt, or a filter that decodes")
	}
	return nil
}

// changeToken filters the steps of a token, of channels from first on.
func (f *Filter) changeToken(b *blockFilter, row, n, first int, dt []float32) {
	switch f.cfg.Method {
	case ByThreshold:
		kernel.KeepAbove(dt, dt, b.thresholds[row][first:][:len(dt)])
	case DeltaRatio:
		ratio := f.ratio(n)
		for i := range dt {
			if b.global[first+i] {
				dt[i] *= ratio
			}
		}
	case Silence:
		for i := range dt {
			if b.global[first+i] {
				dt[i] = 0
			}
		}
	}
}

func (f *Filter) ratio(n int) float32 {
	if f.cfg.Ratio != 0 {
		return float32(f.cfg.Ratio)
	}
	return float32(float64(f.cal.TrainLength) / float64(n))
}
