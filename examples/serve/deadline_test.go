package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// watched notes writes that a client may take any time to read.
type watched struct {
	*httptest.ResponseRecorder
	deadline time.Time
	late     int // writes without a deadline
}

func (w *watched) SetReadDeadline(time.Time) error    { return nil }
func (w *watched) SetWriteDeadline(t time.Time) error { w.deadline = t; return nil }

func (w *watched) Write(p []byte) (int, error) {
	if !w.deadline.After(time.Now()) {
		w.late++
	}
	return w.ResponseRecorder.Write(p)
}

// TestWriteDeadlines: whatever is answered has a time within which it must be read: a client that
// does not read must not keep the place of its answer.
func TestWriteDeadlines(t *testing.T) {
	s, _ := newTest(t, small, 1<<20, false)
	for _, body := range []string{`{"prompt": "Once", "max_tokens": 3}`, `{"prompt": "Once", "max_tokens": 3, "stream": true}`, `{`} {
		w := &watched{ResponseRecorder: httptest.NewRecorder()}
		s.handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body)))
		if w.Body.Len() == 0 || w.late > 0 {
			t.Errorf("%s: %d writes without a deadline, of %q", body, w.late, w.Body)
		}
	}
}

// TestEnding: who waits for an answer that the service's end cuts off is told so.
func TestEnding(t *testing.T) {
	s, url, cancel, ended := serving(t, 0)
	defer cancel()
	answers := make(chan string)
	for range 2 { // one runs, one waits
		go func() {
			r, err := http.Post(url+"/v1/completions", "", strings.NewReader(`{"prompt": "Once", "max_tokens": 1000000}`))
			if err != nil {
				answers <- err.Error()
				return
			}
			defer r.Body.Close()
			data, _ := io.ReadAll(r.Body)
			answers <- r.Status + " " + string(data)
		}()
	}
	wait(t, "they do not run and wait", func() bool { return len(s.admitted) == 2 })
	cancel()
	for range 2 {
		if a := <-answers; !strings.HasPrefix(a, "503") || !strings.Contains(a, "the service is ending") {
			t.Errorf("%q", a)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
