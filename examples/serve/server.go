package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/text"
)

// limits are what requests may cost.
type limits struct {
	concurrent, queue int
	body              int64
	prompt, answer    int // tokens
	timeout           time.Duration
}

// server answers requests with a model.
type server struct {
	model    *language.Model
	template *text.Template // nil where there is none
	noChat   error          // why there is none
	known    *transformer.Prefixes
	batch    *transformer.Batch // takes answers through the model together; nil where it does not
	limits   limits

	admitted chan struct{} // a place for each request that runs or waits
	slots    chan struct{} // and for each that runs
	draining atomic.Bool
}

// newServer returns a server. Prefixes may come from a file that keep has written, "" for none.
func newServer(m *language.Model, l limits, prefixBytes int64, prefixFile string) (*server, error) {
	s := &server{model: m, limits: l, admitted: make(chan struct{}, l.concurrent+l.queue), slots: make(chan struct{}, l.concurrent)}
	s.template, s.noChat = m.Template(text.TemplateConfig{})
	var err error
	if prefixBytes > 0 {
		if s.known, err = openPrefixes(m, prefixBytes, prefixFile); err != nil && !errors.Is(err, language.ErrNoState) {
			return nil, err
		}
	}
	if s.batch, err = m.NewBatch(l.concurrent); err != nil && !errors.Is(err, language.ErrNoState) {
		return nil, err
	}
	return s, nil
}

// about tells what the server can do.
func (s *server) about() string {
	chat := fmt.Sprintf("no conversations (%v)", s.noChat)
	if s.template != nil {
		chat = "conversations by the template of " + s.template.Family()
	}
	if s.known == nil {
		return chat + "; prompts are not kept"
	}
	return chat
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, false) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, true) })
	return mux
}

// health tells whether the service takes requests, and how busy it is.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	running := len(s.slots)
	together := 0
	if s.batch != nil {
		together = s.batch.Texts()
	}
	h := map[string]any{"status": "ok", "room": s.model.Room, "weights": program.Size(s.model.Bytes()), "running": running, "together": together, "waiting": max(0, len(s.admitted)-running)}
	if s.known != nil {
		h["prefix_tokens"], h["prefix_bytes"] = s.known.Len(), s.known.Bytes()
	}
	status := http.StatusOK
	if s.draining.Load() {
		h["status"], status = "ending", http.StatusServiceUnavailable
	}
	writeJSON(w, status, h)
}

// models tells clients that ask that there is one.
func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []map[string]string{{"id": s.model.Name(), "object": "model", "owned_by": "subquad"}}})
}

// failure is an error with its status.
type failure struct {
	status  int
	message string
}

func (f *failure) Error() string { return f.message }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Sprintf(format, args...)}
}

// answer takes a request, waits for its turn, and answers it.
func (s *server) answer(w http.ResponseWriter, r *http.Request, chat bool) {
	err := s.tryAnswer(w, r, chat)
	if err == nil {
		return
	}
	var f *failure
	switch {
	case errors.As(err, &f):
	case errors.Is(err, context.DeadlineExceeded):
		f = &failure{http.StatusServiceUnavailable, fmt.Sprintf("the answer took longer than %v", s.limits.timeout)}
	case r.Context().Err() != nil && !s.draining.Load():
		return // nobody is there to be told
	case r.Context().Err() != nil:
		f = &failure{http.StatusServiceUnavailable, ending}
	default:
		f = &failure{http.StatusInternalServerError, err.Error()}
	}
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter()))
	}
	writeJSON(w, f.status, errorOf(f.message))
}

// retryAfter is in how many seconds there may be a place: it grows with the queue.
func (s *server) retryAfter() int { return 1 + len(s.admitted)/max(1, s.limits.concurrent) }

// ending is what is told of requests that come too late, or are cut off.
const ending = "the service is ending"

func (s *server) tryAnswer(w http.ResponseWriter, r *http.Request, chat bool) error {
	if s.draining.Load() {
		return fail(http.StatusServiceUnavailable, ending)
	}
	if chat && s.template == nil {
		return fail(http.StatusNotImplemented, "this model does not converse: %v", s.noChat)
	}
	q, err := s.read(w, r, chat)
	if err != nil {
		return err
	}
	select {
	case s.admitted <- struct{}{}:
		defer func() { <-s.admitted }()
	default:
		return fail(http.StatusServiceUnavailable, "%d requests are running and %d waiting: try later", s.limits.concurrent, s.limits.queue)
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.generate(ctx, w, q)
}

// writeJSON answers with a value, which must be read within writeTime.
func writeJSON(w http.ResponseWriter, status int, v any) {
	// A writer that has no deadlines, as tests have one, has none to keep.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has left is no error of ours
}

func errorOf(message string) map[string]any {
	return map[string]any{"error": map[string]string{"message": message}}
}
