package main

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/text"
)

// request is what a client asks. A field that is not here is an error: what is not done must
// not look as if it were.
type request struct {
	Prompt            string         `json:"prompt"`
	Messages          []text.Message `json:"messages"`
	MaxTokens         *int           `json:"max_tokens"`
	RepetitionPenalty float64        `json:"repetition_penalty"`
	Temperature       *float64       `json:"temperature"`
	TopK              int            `json:"top_k"`
	TopP              float64        `json:"top_p"`
	MinP              float64        `json:"min_p"`
	Seed              *uint64        `json:"seed"`
	Stop              stops          `json:"stop"`
	Stream            bool           `json:"stream"`
	LogProbs          bool           `json:"logprobs"`
	Model             string         `json:"model"` // there is one
	User              string         `json:"user"`

	chat   bool
	config transformer.GenerateConfig
}

// stops is a text or a list of them.
type stops []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *stops) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*s = nil
		if string(data) != "null" {
			*s = stops{one}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(s))
}

const (
	readTime     = 30 * time.Second // for a request
	mostStops    = 16
	longestStop  = 256 // bytes
	fewTokens    = 128 // of an answer that does not say how many
	someHeat     = 0.8
	mostMessages = 1000
)

// read reads and checks a request.
func (s *server) read(w http.ResponseWriter, r *http.Request, chat bool) (*request, error) {
	q := &request{chat: chat}
	// A writer that has no deadlines, as tests have one, has none to keep.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(readTime))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, s.limits.body))
	d.DisallowUnknownFields()
	err := d.Decode(q)
	if err == nil {
		if _, more := d.Token(); more == nil {
			return nil, fail(http.StatusBadRequest, "there is more than one JSON value")
		} else if !errors.Is(more, io.EOF) {
			err = more
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, fail(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", long.Limit)
	case err != nil && r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		return nil, fail(http.StatusBadRequest, "the request is not JSON that is understood: %v", err)
	}
	return q, s.check(q)
}

// check returns an error where a request contradicts itself, or asks for too much.
func (s *server) check(q *request) error {
	bad := func(format string, args ...any) error { return fail(http.StatusBadRequest, format, args...) }
	switch {
	case q.chat && (len(q.Messages) == 0 || q.Prompt != ""):
		return bad("a conversation has messages, and no prompt")
	case !q.chat && q.Messages != nil:
		return bad("a completion has a prompt, and no messages")
	case len(q.Messages) > mostMessages:
		return bad("there are %d messages, want at most %d", len(q.Messages), mostMessages)
	case len(q.Stop) > mostStops:
		return bad("stop has %d texts, want at most %d", len(q.Stop), mostStops)
	}
	for i, stop := range q.Stop {
		if stop == "" || len(stop) > longestStop {
			return bad("stop[%d] has %d bytes, want 1 to %d", i, len(stop), longestStop)
		}
	}
	c := &q.config
	c.MaxTokens = min(fewTokens, s.limits.answer)
	if q.MaxTokens != nil {
		if c.MaxTokens = *q.MaxTokens; c.MaxTokens < 1 || c.MaxTokens > s.limits.answer {
			return bad("max_tokens is %d, want 1 to %d", c.MaxTokens, s.limits.answer)
		}
	}
	c.SampleConfig = transformer.SampleConfig{RepetitionPenalty: q.RepetitionPenalty, Temperature: someHeat, TopK: q.TopK, TopP: q.TopP, MinP: q.MinP, Seed: rand.Uint64()}
	if q.Temperature != nil {
		c.Temperature = *q.Temperature
	}
	if q.Seed != nil {
		c.Seed = *q.Seed
	}
	if _, err := transformer.NewSampler(c.SampleConfig); err != nil {
		return bad("%s", strings.TrimPrefix(err.Error(), "transformer: "))
	}
	c.Words, c.Stop, c.StopText, c.LogProbs = s.model.Words, s.model.Stop, q.Stop, q.LogProbs
	return nil
}

// tokens returns the tokens of a prompt or a conversation.
func (s *server) tokens(q *request) (tokens []int32, err error) {
	if q.chat {
		if tokens, err = s.template.Apply(q.Messages, true); err == nil {
			q.config.Stop = append(append([]int32{}, q.config.Stop...), s.template.Ends()...)
		}
	} else {
		tokens, err = s.model.Words.Encode(q.Prompt)
	}
	switch {
	case err != nil:
		return nil, fail(http.StatusBadRequest, "%v", err)
	case len(tokens) == 0:
		return nil, fail(http.StatusBadRequest, "the prompt is empty")
	case len(tokens) > s.limits.prompt:
		return nil, fail(http.StatusBadRequest, "the prompt has %d tokens, want at most %d", len(tokens), s.limits.prompt)
	}
	return tokens, nil
}
