package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/subquad/subquad/examples/internal/language"
)

// long begins an answer that does not end, and returns once it has begun.
func long(t *testing.T, url string) (cancel func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt": "Once", "max_tokens": 1000000, "stream": true}`))
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	if _, err := bufio.NewReader(answer.Body).ReadString('\n'); err != nil || answer.StatusCode != 200 {
		t.Fatalf("%d, error %v", answer.StatusCode, err)
	}
	return func() { stop(); answer.Body.Close() }
}

// wait waits until something is so.
func wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 3000 {
		if so() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(what)
}

// TestOverload: one runs, one waits, and more are told to come later; a client that leaves
// gives its place back, running or waiting.
func TestOverload(t *testing.T) {
	s, url := newTest(t, small, 1<<20, true)
	first := long(t, url)
	second := make(chan string)
	go func() {
		_, _, body := post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 3}`)
		second <- body
	}()
	wait(t, "the second does not wait", func() bool { return len(s.admitted) == 2 })
	status, header, body := post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 3}`)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "3" || !strings.Contains(body, "1 requests are running and 1 waiting: try later") {
		t.Errorf("%d, Retry-After %q, %q", status, header.Get("Retry-After"), body)
	}
	_, _, health := get(t, url+"/health")
	if !strings.Contains(health, `"running":1`) || !strings.Contains(health, `"waiting":1`) {
		t.Errorf("%q", health)
	}
	first()
	if c := decode(t, <-second); c.Usage.Generated != 3 {
		t.Errorf("%+v", c)
	}
	wait(t, "places are not given back", func() bool { return len(s.admitted) == 0 && len(s.slots) == 0 })
	// One that leaves while it waits.
	first = long(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt": "Once"}`))
		_, err := http.DefaultClient.Do(r)
		left <- err
	}()
	wait(t, "the next does not wait", func() bool { return len(s.admitted) == 2 })
	cancel()
	if err := <-left; err == nil {
		t.Error("a request that was cancelled is answered")
	}
	wait(t, "the place of one that waited is not given back", func() bool { return len(s.admitted) == 1 })
	first()
	wait(t, "the last place is not given back", func() bool { return len(s.admitted) == 0 && len(s.slots) == 0 })
}

// TestTimeout: an answer that takes too long is an error, before it has begun or in it.
func TestTimeout(t *testing.T) {
	l := small
	l.timeout = 100 * time.Millisecond
	s, url := newTest(t, l, 0, true)
	status, header, body := post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 1000000}`)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(body, "the answer took longer than 100ms") {
		t.Errorf("%d %q", status, body)
	}
	_, _, body = post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 1000000, "stream": true}`)
	if list := events(t, strings.NewReader(body)); !strings.Contains(list[len(list)-1], "the answer took too long") {
		t.Errorf("%q", list[len(list)-1])
	}
	wait(t, "a place is not given back", func() bool { return len(s.admitted) == 0 })
}

// serving starts a service of stories without ends, at a url, until cancel; how it ended is
// sent then.
func serving(t *testing.T, grace time.Duration) (s *server, url string, cancel func(), ended chan error) {
	t.Helper()
	m, err := language.Stories(language.Options{Workers: 1})
	must(t, err)
	m.Stop = []int32{}
	s, err = newServer(m, small, 0, "")
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error)
	go func() { ended <- serve(ctx, s, l, grace) }()
	return s, "http://" + l.Addr().String(), cancel, ended
}

// TestShutdown: an interrupt lets running answers end, or ends them after a while.
func TestShutdown(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		_, url, cancel, ended := serving(t, grace)
		defer cancel()
		tokens := 300
		if grace == 0 {
			tokens = 1000000
		}
		r, err := http.Post(url+"/v1/completions", "", strings.NewReader(fmt.Sprintf(`{"prompt": "Once", "max_tokens": %d, "stream": true}`, tokens)))
		must(t, err)
		defer r.Body.Close()
		lines := bufio.NewReader(r.Body)
		_, err = lines.ReadString('\n')
		must(t, err)
		cancel()
		rest, _ := io.ReadAll(lines)
		if whole := bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")); whole != (grace > 0) {
			t.Errorf("grace %v: the answer ends with %q", grace, rest[max(0, len(rest)-80):])
		}
		if err := <-ended; err != nil {
			t.Errorf("grace %v: error %v", grace, err)
		}
		if _, err := http.Get(url + "/health"); err == nil {
			t.Error("the service still answers")
		}
	}
	s, url := newTest(t, small, 0, false)
	if status, _, body := get(t, url+"/v1/models"); status != http.StatusOK || !strings.Contains(body, `"id":"built-in"`) {
		t.Errorf("%d %q", status, body)
	}
	s.draining.Store(true)
	if status, _, body := get(t, url+"/health"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"ending"`) {
		t.Errorf("%d %q", status, body)
	}
	if status, header, _ := post(t, url+"/v1/completions", `{"prompt": "x"}`); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("%d", status)
	}
}
