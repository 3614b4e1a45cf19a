package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/subquad/subquad/examples/internal/language"
)

// TestTogether: answers that are generated at once, and end or are left at different times, are
// those that each is alone.
func TestTogether(t *testing.T) {
	l := small
	l.concurrent, l.queue = 6, 20
	_, alone := newTest(t, small, 0, true)
	s, url := newTest(t, l, 1<<24, true)
	body := func(i int) string {
		return fmt.Sprintf(`{"prompt": "%s", "max_tokens": %d, "temperature": %d, "seed": %d, "logprobs": true}`, []string{"Once upon a time", "Lily", "The dog was", "One day"}[i%4], 10+i*17%90, i%2, i)
	}
	want := make([]chunk, 16)
	for i := range want {
		_, _, text := post(t, alone+"/v1/completions", body(i))
		want[i] = decode(t, text)
	}
	leave := []func(){long(t, url), long(t, url)} // two that do not end by themselves
	if _, _, health := get(t, url+"/health"); !strings.Contains(health, `"running":2`) || !strings.Contains(health, `"together":`) {
		t.Errorf("%q", health)
	}
	texts := make([]string, len(want))
	var wg sync.WaitGroup
	for i := range texts {
		wg.Go(func() {
			r, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body(i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			data, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			texts[i] = string(data)
		})
		if i == 5 {
			leave[0]()
		}
	}
	wg.Wait()
	leave[1]()
	for i, text := range texts {
		got := decode(t, text)
		if fmt.Sprint(got.Choices[0].LogProbs) != fmt.Sprint(want[i].Choices[0].LogProbs) || *got.Choices[0].Text != *want[i].Choices[0].Text {
			t.Errorf("answer %d is %q, alone %q", i, *got.Choices[0].Text, *want[i].Choices[0].Text)
		}
	}
	wait(t, "texts are left", func() bool { return s.batch.Texts() == 0 && len(s.admitted) == 0 })
}

// TestPrefixFile: what is known of prompts is kept from one start to the next; a file that is none
// is an error.
func TestPrefixFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prefixes")
	m, err := language.Stories(language.Options{Workers: 1})
	must(t, err)
	s, err := newServer(m, small, 1<<24, file)
	must(t, err)
	prompt := strings.Repeat("Once upon a time, there was a little girl named Lily. ", 5)
	tokens, err := m.Words.Encode(prompt)
	must(t, err)
	_, known, err := language.Prefill(t.Context(), s.known, tokens)
	must(t, err)
	must(t, s.keep(file))
	must(t, s.keep("")) // which is no file
	again, err := newServer(m, small, 1<<24, file)
	must(t, err)
	if _, now, err := language.Prefill(t.Context(), again.known, tokens); known != 0 || now != len(tokens)-1 || err != nil {
		t.Errorf("%d tokens of %d are known, and %d before: %v", now, len(tokens), known, err)
	}
	must(t, again.keep(file)) // in place of the first
	if list, err := os.ReadDir(filepath.Dir(file)); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	must(t, os.WriteFile(file, []byte("no prefixes"), 0o600))
	if _, err := newServer(m, small, 1<<24, file); err == nil || !strings.Contains(err.Error(), "-prefix-file "+file) {
		t.Errorf("a file that is none: %v", err)
	}
	must(t, s.keep(file))
	small8, err := language.Stories(language.Options{Workers: 1, Format: "int8"})
	must(t, err)
	if _, err := newServer(small8, small, 1<<24, file); err == nil || !strings.Contains(err.Error(), "want a whole file of the same model and -format") {
		t.Errorf("a file of another model: %v", err)
	}
	if err := again.keep(filepath.Join(file, "not", "there")); err == nil {
		t.Error("a folder that is not there")
	}
}
