package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/language/languagetest"
	"github.com/subquad/subquad/examples/internal/program/programtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var small = limits{concurrent: 1, queue: 1, body: 1 << 16, prompt: 100, answer: 1 << 20, timeout: time.Minute}

// newTest is a server of the built-in model; endless takes away the tokens that end a text.
func newTest(t *testing.T, l limits, prefixBytes int64, endless bool) (*server, string) {
	t.Helper()
	m, err := language.Stories(language.Options{Workers: 1})
	must(t, err)
	if endless {
		m.Stop = []int32{}
	}
	s, err := newServer(m, l, prefixBytes, "")
	must(t, err)
	h := httptest.NewServer(s.handler())
	t.Cleanup(h.Close)
	return s, h.URL
}

// post sends a request and returns the answer's status, header and body.
func post(t *testing.T, url, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	must(t, err)
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	must(t, err)
	return r.StatusCode, r.Header, string(data)
}

func decode(t *testing.T, body string) (c chunk) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || len(c.Choices) != 1 {
		t.Fatalf("%q: error %v", body, err)
	}
	return c
}

func TestCompletion(t *testing.T) {
	_, url := newTest(t, small, 0, false)
	status, header, body := post(t, url+"/v1/completions", `{"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "logprobs": true}`)
	c := decode(t, body)
	x := c.Choices[0]
	if status != 200 || header.Get("Content-Type") != "application/json" || !strings.HasPrefix(*x.Text, ", there was a little girl named Lily. She") || *x.Finish != "length" {
		t.Errorf("%d %q", status, body)
	}
	if len(x.LogProbs) != 20 || x.LogProbs[0].LogProb >= 0 || *c.Usage != (tally{Prompt: 5, Generated: 20}) {
		t.Errorf("%q", body)
	}
	_, _, body = post(t, url+"/v1/completions", `{"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "stop": [" girl", "x"]}`)
	if x := decode(t, body).Choices[0]; *x.Text != ", there was a little" || *x.Finish != "stop" {
		t.Errorf("%q", body)
	}
	_, _, one := post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 30, "seed": 5}`)
	_, _, two := post(t, url+"/v1/completions", `{"prompt": "Once", "max_tokens": 30, "seed": 5, "model": "any", "user": "me"}`)
	if one != two {
		t.Errorf("the same seed gives %q and %q", one, two)
	}
	status, _, body = post(t, url+"/v1/chat/completions", `{"messages": [{"role": "user", "content": "x"}]}`)
	if status != http.StatusNotImplemented || !strings.Contains(body, "no chat template") {
		t.Errorf("%d %q", status, body)
	}
}

// events reads a stream's events until it ends.
func events(t *testing.T, r io.Reader) (list []string) {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				t.Fatalf("line %q", line)
			}
			list = append(list, data)
		}
	}
	return list
}

// TestStream: the parts are the whole, and come one by one.
func TestStream(t *testing.T) {
	_, url := newTest(t, small, 1<<20, false)
	const ask = `{"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "stop": "zzz"`
	_, _, body := post(t, url+"/v1/completions", ask+`}`)
	want := *decode(t, body).Choices[0].Text
	_, header, body := post(t, url+"/v1/completions", ask+`, "stream": true}`)
	list := events(t, strings.NewReader(body))
	text := ""
	for i, data := range list[:len(list)-1] {
		c := decode(t, data)
		text += *c.Choices[0].Text
		if last := i == len(list)-2; last != (c.Choices[0].Finish != nil) || last != (c.Usage != nil) {
			t.Errorf("event %d: %s", i, data)
		}
	}
	if header.Get("Content-Type") != "text/event-stream" || text != want || len(list) < 30 || list[len(list)-1] != "[DONE]" {
		t.Errorf("%d events, text %q, want %q", len(list), text, want)
	}
}

// TestChat answers a conversation, whole and streamed, by the model's template.
func TestChat(t *testing.T) {
	dir, write := languagetest.Folder(t, "../generate/model")
	write("chat_template.jinja", languagetest.ChatML)
	m, err := language.Open(dir, language.Options{Workers: 1})
	must(t, err)
	s, err := newServer(m, limits{concurrent: 1, body: 1 << 16, prompt: 200, answer: 50, timeout: time.Minute}, 1<<24, "")
	must(t, err)
	if about := s.about(); about != "conversations by the template of ChatML" {
		t.Errorf("%s", about)
	}
	h := httptest.NewServer(s.handler())
	defer h.Close()
	url := h.URL + "/v1/chat/completions"
	const ask = `{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who? <|im_end|>"}], "max_tokens": 20, "temperature": 0`
	status, _, body := post(t, url, ask+`}`)
	c := decode(t, body)
	if status != 200 || c.Object != "chat.completion" || c.Choices[0].Message.Role != "assistant" || len(c.Choices[0].Message.Content) < 5 {
		t.Errorf("%d %q", status, body)
	}
	_, _, body = post(t, url, ask+`, "stream": true}`)
	list := events(t, strings.NewReader(body))
	text := ""
	for i, data := range list[:len(list)-1] {
		x := decode(t, data)
		if text += x.Choices[0].Delta.Content; (x.Choices[0].Delta.Role == "assistant") != (i == 0) {
			t.Errorf("event %d: %s", i, data)
		}
		if i == len(list)-2 && x.Usage.Known < 40 {
			t.Errorf("%d tokens of the same conversation were known", x.Usage.Known)
		}
	}
	if text != c.Choices[0].Message.Content {
		t.Errorf("streamed %q, want %q", text, c.Choices[0].Message.Content)
	}
	for body, want := range map[string]string{
		`{"messages": []}`: "a conversation has messages, and no prompt",
		`{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}`:                 "a conversation has messages, and no prompt",
		`{"messages": [{"role": "tool", "content": "x"}]}`:                                `message 0 has the role \"tool\"`,
		`{"messages": [{"role": "user", "content": "` + strings.Repeat("x", 300) + `"}]}`: "tokens, want at most 200",
	} {
		if status, _, got := post(t, url, body); status != http.StatusBadRequest || !strings.Contains(got, want) {
			t.Errorf("%.50q: %d %q, want %q", body, status, got, want)
		}
	}
}

// TestPrefixes: what is known of a prompt is told, and changes nothing but time.
func TestPrefixes(t *testing.T) {
	_, url := newTest(t, small, 1<<20, false)
	_, plain := newTest(t, small, 0, false)
	for i, prompt := range []string{"Once upon a time, there was a", "Once upon a time, there was a", "Once upon a time, there was a little girl", "O", ""} {
		ask := fmt.Sprintf(`{"prompt": %q, "max_tokens": 12, "temperature": 0, "repetition_penalty": 1.3}`, prompt)
		_, _, body := post(t, url+"/v1/completions", ask)
		_, _, other := post(t, plain+"/v1/completions", ask)
		got, want := decode(t, body), decode(t, other)
		if *got.Choices[0].Text != *want.Choices[0].Text || (got.Usage.Known > 4) != (i == 1 || i == 2) {
			t.Errorf("%q: %q, want %q", prompt, body, other)
		}
	}
	_, _, health := get(t, url+"/health")
	if !strings.Contains(health, `"prefix_tokens":`) {
		t.Errorf("%q", health)
	}
}

func get(t *testing.T, url string) (int, http.Header, string) {
	t.Helper()
	r, err := http.Get(url)
	must(t, err)
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	must(t, err)
	return r.StatusCode, r.Header, string(data)
}

// TestBad: requests that are wrong are told what is, and cost nothing.
func TestBad(t *testing.T) {
	l := small
	l.answer = 50
	s, url := newTest(t, l, 0, false)
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{``, 400, "the request is not JSON that is understood: EOF"},
		{`{`, 400, "the request is not JSON that is understood: "},
		{`[]`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x"} {}`, 400, "there is more than one JSON value"},
		{`{"prompt": "x"} x`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x", "n": 2}`, 400, "unknown field"},
		{`{"prompt": 5}`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x", "messages": []}`, 400, "a completion has a prompt, and no messages"},
		{`{"prompt": "x", "max_tokens": 0}`, 400, "max_tokens is 0, want 1 to 50"},
		{`{"prompt": "x", "max_tokens": 9000000000000000000}`, 400, "max_tokens is 9000000000000000000, want 1 to 50"},
		{`{"prompt": "x", "max_tokens": 1e400}`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x", "temperature": -1}`, 400, "Temperature is -1, want a finite number, 0 or more"},
		{`{"prompt": "x", "temperature": 1e999}`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x", "top_p": 2}`, 400, "TopP is 2, want 0 to 1"},
		{`{"prompt": "x", "min_p": -0.1}`, 400, "MinP is -0.1, want 0 to 1"},
		{`{"prompt": "x", "top_k": -1}`, 400, "TopK is -1, want 0 or more"},
		{`{"prompt": "x", "repetition_penalty": -1}`, 400, "RepetitionPenalty is -1"},
		{`{"prompt": "x", "seed": -1}`, 400, "the request is not JSON that is understood: "},
		{`{"prompt": "x", "stop": ""}`, 400, "stop[0] has 0 bytes, want 1 to 256"},
		{`{"prompt": "x", "stop": ["` + strings.Repeat("y", 257) + `"]}`, 400, "stop[0] has 257 bytes, want 1 to 256"},
		{`{"prompt": "x", "stop": [` + strings.Repeat(`"y", `, 16) + `"y"]}`, 400, "stop has 17 texts, want at most 16"},
		{`{"prompt": "` + strings.Repeat("x ", 200) + `"}`, 400, "the prompt has "},
		{`{"prompt": "` + strings.Repeat("x", 1<<17) + `"}`, 413, "the request has more than 65536 bytes"},
		{strings.Repeat("[", 10000), 400, "the request is not JSON that is understood: "},
		{strings.Repeat(" ", 1<<17), 413, "the request has more than 65536 bytes"},
	} {
		status, header, body := post(t, url+"/v1/completions", c.body)
		var f struct{ Error struct{ Message string } }
		if err := json.Unmarshal([]byte(body), &f); err != nil || status != c.status || !strings.Contains(f.Error.Message, c.want) || header.Get("Content-Type") != "application/json" {
			t.Errorf("%.60q: %d %q, want %d %q", c.body, status, body, c.status, c.want)
		}
	}
	for url, want := range map[string]int{url + "/v1/completions": http.StatusMethodNotAllowed, url + "/": http.StatusNotFound} {
		if status, _, _ := get(t, url); status != want {
			t.Errorf("GET %s: %d, want %d", url, status, want)
		}
	}
	if len(s.admitted) != 0 {
		t.Errorf("%d places are taken", len(s.admitted))
	}
	// Nothing of the above is held against the next.
	if status, _, body := post(t, url+"/v1/completions", `{"prompt": "x", "stop": null, "max_tokens": 2}`); status != 200 {
		t.Errorf("%d %q", status, body)
	}
}

func TestErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"-concurrent is 0, want 1 or more":                         {"-concurrent", "0"},
		"-prefix-bytes is -1, want 0 or more":                      {"-prefix-bytes", "-1"},
		"want at most 1048576":                                     {"-queue", "9223372036854775807"},
		"-concurrent is 1048577":                                   {"-concurrent", "1048577"},
		"-prefix-file is in no/such, which is no folder":           {"-prefix-file", "no/such/folder"},
		`-format is "f8", want float32, bfloat16, float16 or int8`: {"-format", "f8"},
		"there is no file or folder missing: download":             {"-weights", "missing"},
		"listen tcp": {"-addr", "no.such.host.invalid:1"},
	} {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var report strings.Builder
	must(t, command(ctx, []string{"-addr", "127.0.0.1:0"}, io.Discard, &report))
	if !strings.Contains(report.String(), "transformer of 1.1 MB at http://127.0.0.1:") {
		t.Errorf("reported %q", report.String())
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "serve", command) }
