package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
)

// chunk is a part of an answer, or the whole.
type chunk struct {
	Object  string   `json:"object"`
	Choices []choice `json:"choices"`
	Usage   *tally   `json:"usage,omitempty"`
}

type choice struct {
	Index    int            `json:"index"`
	Text     *string        `json:"text,omitempty"`    // of a completion
	Message  *message       `json:"message,omitempty"` // of a conversation
	Delta    *message       `json:"delta,omitempty"`   // of a conversation, streamed
	LogProbs []tokenLogProb `json:"logprobs,omitempty"`
	Finish   *string        `json:"finish_reason"`
}

type message struct {
	Role    string `json:"role,omitempty"`
	Content string `json:"content"`
}

type tokenLogProb struct {
	Token   int32   `json:"id"`
	LogProb float32 `json:"logprob"`
}

// tally counts tokens.
type tally struct {
	Prompt    int `json:"prompt_tokens"`
	Known     int `json:"cached_tokens"` // of the prompt, that were not computed again
	Generated int `json:"completion_tokens"`
}

// writeTime is how long a client may take to read a part of an answer.
const writeTime = 30 * time.Second

// answering is an answer on its way.
type answering struct {
	q      *request
	w      http.ResponseWriter
	rc     *http.ResponseController
	begun  bool
	text   []byte
	likely []tokenLogProb
	usage  tally
}

// generate answers a request whose turn it is.
func (s *server) generate(ctx context.Context, w http.ResponseWriter, q *request) error {
	tokens, err := s.tokens(q)
	if err != nil {
		return err
	}
	a := &answering{q: q, w: w, rc: http.NewResponseController(w), usage: tally{Prompt: len(tokens)}}
	st, prompt, err := s.begin(ctx, a, tokens)
	if err != nil {
		return err
	}
	q.config.Batch = s.batch
	seen := tokens
	for p, err := range s.model.Stream(ctx, prompt, st, q.config) {
		if err == nil {
			if p.End == transformer.Going {
				seen = append(seen, p.Token)
			}
			err = a.take(p)
		}
		if err != nil {
			return a.broken(err)
		}
	}
	if s.known != nil {
		return s.known.Insert(seen[:st.Len()], st)
	}
	return nil
}

// begin returns a state to go on from, and what it has not seen of a prompt: its last token,
// where what is known of prompts is kept.
func (s *server) begin(ctx context.Context, a *answering, tokens []int32) (st *transformer.State, prompt []int32, err error) {
	if s.known == nil {
		if st, err = s.model.NewState(); errors.Is(err, language.ErrNoState) {
			err = nil
		}
		return st, tokens, err
	}
	last := len(tokens) - 1
	st, a.usage.Known, err = language.Prefill(ctx, s.known, tokens)
	a.q.config.Seen = tokens[:last]
	return st, tokens[last:], err
}

// take tells a piece, or gathers it where the answer is not streamed.
func (a *answering) take(p transformer.Piece) error {
	if p.End == transformer.Going {
		a.usage.Generated++
		if a.q.LogProbs {
			a.likely = append(a.likely, tokenLogProb{p.Token, p.LogProb})
		}
	}
	a.text = append(a.text, p.Text...)
	var finish *string
	if p.End != transformer.Going {
		reason := "stop"
		if p.End == transformer.AtLimit || p.End != transformer.AtToken && p.End != transformer.AtText {
			reason = "length"
		}
		finish = &reason
	}
	switch {
	case !a.q.Stream && finish != nil:
		writeJSON(a.w, http.StatusOK, a.whole(finish))
	case a.q.Stream && (len(a.text) > 0 || len(a.likely) > 0 || finish != nil):
		err := a.send(a.part(finish))
		a.text, a.likely = a.text[:0], a.likely[:0]
		if err == nil && finish != nil {
			err = a.event([]byte("[DONE]"))
		}
		return err
	}
	return nil
}

// whole is an answer in one.
func (a *answering) whole(finish *string) chunk {
	text := string(a.text)
	c := choice{Finish: finish, LogProbs: a.likely}
	object := "text_completion"
	if a.q.chat {
		object, c.Message = "chat.completion", &message{"assistant", text}
	} else {
		c.Text = &text
	}
	return chunk{object, []choice{c}, &a.usage}
}

// part is a part of an answer.
func (a *answering) part(finish *string) chunk {
	text := string(a.text)
	c := choice{Finish: finish, LogProbs: a.likely}
	object := "text_completion"
	if a.q.chat {
		object, c.Delta = "chat.completion.chunk", &message{Content: text}
		if !a.begun {
			c.Delta.Role = "assistant"
		}
	} else {
		c.Text = &text
	}
	out := chunk{object, []choice{c}, nil}
	if finish != nil {
		out.Usage = &a.usage
	}
	return out
}

// send sends a value as an event.
func (a *answering) send(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.event(data)
}

// event sends an event, at once.
func (a *answering) event(data []byte) error {
	if !a.begun {
		h := a.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // proxies should pass it on as it comes
		a.begun = true
	}
	// A writer that has no deadlines, as tests have one, has none to keep.
	if err := a.rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := fmt.Fprintf(a.w, "data: %s\n\n", data); err != nil {
		return err
	}
	return a.rc.Flush()
}

// broken tells of an error in an answer that has begun, and returns one where it has not.
func (a *answering) broken(err error) error {
	if !a.begun {
		return err
	}
	message := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		message = "the answer took too long"
	case errors.Is(err, context.Canceled): // or the client has left
		message = ending
	}
	_ = a.send(errorOf(message)) // a client that has left will not read it
	return nil
}
