package lm

import (
	"context"
	"iter"
	"math"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
)

// GenerateConfig says how a text goes on.
type GenerateConfig struct {
	SampleConfig
	// MaxTokens is how many tokens to generate at the most; 0 is no limit.
	MaxTokens int
	// Stop are tokens that end the text, and are not part of it.
	Stop []int32
	// Words, if given, turns tokens into text: package text has tokenizers. No token is
	// generated that it does not have, though a model may have rows for more: none from Size on,
	// and none that a method Missing(n int) []int32 tells, the numbers below n that are no tokens.
	Words Words
	// StopText are texts that end the text, and are not part of it: found wherever they
	// begin and end in tokens. They need Words.
	StopText []string
	// Seen are tokens before the prompt that RepetitionPenalty counts too: a state does
	// not know which tokens it has seen.
	Seen []int32
	// LogProbs makes Stream tell each token's Piece.LogProb.
	LogProbs bool
	// Draft, if given, proposes tokens, at most Drafts at a time (0 for 5), which the model
	// then looks at in one call instead of one for each. The text is what it is without.
	Draft  Drafter
	Drafts int
	// Batch, if given, is one of the model's NewBatch, by which texts are generated together.
	Batch *Batch
}

// Words turns tokens into text, one after the other.
type Words interface {
	// AppendText appends the text of a token that comes after the token before, which is
	// negative where a text begins. It may end within a character.
	AppendText(dst []byte, before, token int32) []byte
	// Size is one more than the largest token.
	Size() int
}

// Piece is what Stream yields: one for each token, and a last one that tells why the text
// ended.
type Piece struct {
	// Token is the token, -1 in the last piece.
	Token int32
	// LogProb is the natural logarithm of the token's probability by the model, of softmax
	// over all V logits as they are: before penalty, temperature and filters, where
	// Call.LogLikelihood has the same. It is 0 without GenerateConfig.LogProbs.
	LogProb float32
	// Text is what can be told of the text now, valid until the loop goes on: whole
	// characters, and nothing that might yet turn out to be the beginning of a StopText. All
	// Texts one after the other are the text, without the one of StopText that ended it.
	Text []byte
	// Drafted says that the token had been drafted: it took no call of the model's own.
	Drafted bool
	// End is why the text ended, in the last piece; Going in others.
	End End
}

// End is why a text ended.
type End uint8

const (
	Going     End = iota // it has not
	AtLimit              // MaxTokens
	AtToken              // a token of Stop
	AtText               // one of StopText
	AtLongest            // the model's longest sequence
)

// String returns a word for it.
func (e End) String() string {
	return [...]string{"going", "limit", "token", "text", "longest", "unknown"}[min(e, 5)]
}

// Generate continues a prompt after what the state has seen, and yields the tokens one by
// one. The prompt is not yielded. It must have a token, for what follows is predicted from
// its last one. When the loop ends, the state has seen the prompt and the yielded tokens,
// of which the last one only where a token of Stop came after it: another turn begins with
// what the state has not seen. Tokens that a StopText is made of are yielded.
//
// It ends after MaxTokens, at a token of Stop or a text of StopText, or with an error: of
// the arguments, matching ErrShape, ErrCall, ErrState or ErrConfig, or ctx.Err() once ctx
// is done.
func (m *Model) Generate(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig) iter.Seq2[int32, error] {
	return func(yield func(int32, error) bool) {
		err := m.generate(ctx, prompt, st, cfg, func(p Piece) bool { return p.End != Going || yield(p.Token, nil) })
		if err != nil {
			yield(0, err)
		}
	}
}

// Stream is Generate with what there is to tell of each token: its text, and how likely it
// was. A text of StopText that ends the text is cut off, and the state has then seen all
// tokens but the last.
func (m *Model) Stream(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		if err := m.generate(ctx, prompt, st, cfg, func(p Piece) bool { return yield(p, nil) }); err != nil {
			yield(Piece{Token: -1}, err)
		}
	}
}

// check returns an error where a configuration contradicts itself.
func (cfg *GenerateConfig) check(pkg string) error {
	if cfg.MaxTokens < 0 {
		return check.Errorf(subquad.ErrConfig, "%s: MaxTokens is %d, want 0 or more", pkg, cfg.MaxTokens)
	}
	if len(cfg.StopText) > 0 && cfg.Words == nil {
		return check.Errorf(subquad.ErrConfig, "%s: StopText is given without Words", pkg)
	}
	if cfg.Words != nil && cfg.Words.Size() < 1 {
		return check.Errorf(subquad.ErrConfig, "%s: Words has no tokens: is it nil?", pkg)
	}
	for i, s := range cfg.StopText {
		if s == "" {
			return check.Errorf(subquad.ErrConfig, "%s: StopText[%d] is empty", pkg, i)
		}
	}
	return nil
}

// generation is a text that goes on.
type generation struct {
	cfg     *GenerateConfig
	sampler *Sampler
	logits  []float32
	words   int // tokens that may be chosen
	missing []int32
	saved   []float32 // the logits of missing, meanwhile
	work    []float32
	text    held
}

func (m *Model) begin(cfg *GenerateConfig, prompt []int32) (*generation, error) {
	pkg := m.cfg.Package
	sampler, err := NewSampler(pkg, cfg.SampleConfig)
	if err != nil {
		return nil, err
	}
	if err := cfg.check(pkg); err != nil {
		return nil, err
	}
	if err := cfg.checkDrafts(pkg, m.streams); err != nil {
		return nil, err
	}
	if len(prompt) == 0 {
		return nil, check.Errorf(subquad.ErrShape, "%s: the prompt is empty, want a token", pkg)
	}
	g := &generation{cfg: cfg, sampler: sampler, logits: make([]float32, m.vocab), words: m.cfg.Words}
	if cfg.Words != nil {
		g.words = max(0, min(g.words, cfg.Words.Size()))
		if w, ok := cfg.Words.(interface{ Missing(n int) []int32 }); ok {
			g.missing = w.Missing(g.words)
			g.saved = make([]float32, len(g.missing))
		}
		for _, stop := range cfg.StopText {
			g.text.stops = append(g.text.stops, []byte(stop))
		}
	}
	if cfg.LogProbs {
		g.work = make([]float32, m.vocab)
	}
	sampler.See(cfg.Seen...)
	sampler.See(prompt...)
	return g, nil
}

// choose samples a token after another, and takes it into the text. end is AtToken or
// AtText where the text ends with it.
func (g *generation) choose(before int32) (p Piece, end End, err error) {
	for i, id := range g.missing {
		g.saved[i], g.logits[id] = g.logits[id], float32(math.Inf(-1))
	}
	id, err := g.sampler.Sample(g.logits[:g.words])
	for i, id := range g.missing {
		g.logits[id] = g.saved[i]
	}
	if err != nil {
		return p, Going, err
	}
	if slices.Contains(g.cfg.Stop, id) {
		return p, AtToken, nil
	}
	g.sampler.See(id)
	p.Token = id
	if g.cfg.LogProbs {
		p.LogProb = dense.LogSoftmaxAt(g.logits, int(id), g.work)
	}
	if g.cfg.Words != nil && g.text.add(g.cfg.Words, before, id) {
		end = AtText
	}
	p.Text = g.text.ready()
	return p, end, nil
}

func (m *Model) generate(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig, yield func(Piece) bool) error {
	g, err := m.begin(&cfg, prompt)
	if err != nil {
		return err
	}
	switch b := cfg.Batch; {
	case b != nil && b.m != m:
		return check.Errorf(subquad.ErrConfig, "%s: Batch is one of another model", m.cfg.Package)
	case b != nil && cfg.Draft != nil:
		return check.Errorf(subquad.ErrConfig, "%s: Batch together with Draft", m.cfg.Package)
	}
	call := Call{Tokens: prompt, State: st, Last: mat.Of(g.logits, 1, m.vocab)}
	var whole []int32 // of a model that cannot go on from a state
	if m.streams {
		if err := m.checkState("State", st); err != nil {
			return err
		}
	} else if whole = slices.Clone(prompt); cfg.MaxTokens > 0 {
		whole = slices.Grow(whole, min(cfg.MaxTokens, 1<<16))
	}
	if cfg.Draft != nil {
		return m.speculate(ctx, prompt, st, g, yield)
	}
	step := m.Run
	if b := cfg.Batch; b != nil {
		place := &seat{state: st, logits: g.logits, told: make(chan outcome, 1)}
		defer b.leave(place)
		step = func(ctx context.Context, call *Call) error { return b.take(ctx, call, place) }
	}
	next, before := make([]int32, 1), prompt[len(prompt)-1]
	for n := 0; ; n++ {
		if cfg.MaxTokens > 0 && n == cfg.MaxTokens {
			yield(Piece{Token: -1, Text: g.text.rest(), End: AtLimit})
			return nil
		}
		seen := len(whole)
		if m.streams {
			seen = st.Len() + len(call.Tokens)
		}
		if n > 0 && m.cfg.MaxLen > 0 && seen > m.cfg.MaxLen {
			yield(Piece{Token: -1, Text: g.text.rest(), End: AtLongest})
			return nil
		}
		if err := step(ctx, &call); err != nil {
			return err
		}
		p, end, err := g.choose(before)
		if err != nil {
			return err
		}
		if end != AtToken && !yield(p) {
			return nil
		}
		if end != Going {
			yield(Piece{Token: -1, Text: g.text.rest(), End: end})
			return nil
		}
		before, next[0] = p.Token, p.Token
		if call.Tokens = next; !m.streams {
			whole = append(whole, p.Token)
			call.Tokens = whole
		}
	}
}
