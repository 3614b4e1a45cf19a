package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestBytes ends a word that the prompt cuts, with the likeliest bytes.
func TestBytes(t *testing.T) {
	var out, log bytes.Buffer
	if err := command(t.Context(), []string{"-weights", "stories", "-bytes", "-greedy", "-n", "20", "-prompt", "One day, a litt"}, &out, &log); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "One day, a little girl") || !strings.Contains(log.String(), "20 bytes") {
		t.Errorf("printed %q, and %q", out.String(), log.String())
	}
}

// TestDraft: with a draft the text is that without, greedy or not.
func TestDraft(t *testing.T) {
	for _, sample := range []string{"-greedy", "-top-k=5"} {
		want := ""
		for _, draft := range []string{"", "stories", "near", "lookup"} {
			var out, log bytes.Buffer
			if err := command(t.Context(), []string{"-weights", "stories", sample, "-n", "40", "-draft", draft, "-stop", "no such text"}, &out, &log); err != nil {
				t.Fatal(err)
			}
			if draft == "" {
				want = out.String()
			}
			if out.String() != want || len(want) < 60 {
				t.Errorf("%s, draft %q: %q, want %q", sample, draft, out.String(), want)
			}
			// One call for the prompt, and one for each draft of five and what follows it.
			if (draft == "near" || draft == "stories") && sample == "-greedy" && !strings.Contains(log.String(), "40 tokens in 8 calls: 32 had been drafted") {
				t.Errorf("draft %q: %q", draft, log.String())
			}
		}
	}
	for want, args := range map[string][]string{
		"-bytes goes with neither":  {"-draft", "stories", "-bytes", "-greedy"},
		"does not go with -score":   {"-draft", "stories", "-score", "x"},
		"no file or folder no/such": {"-draft", "no/such/file"},
		"-draft bible: it has 256":  {"-weights", "stories", "-draft", "bible"},
	} {
		if err := command(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
}

func TestDrawn(t *testing.T) {
	p := []float64{0.1, 0.6, 0.3}
	for i, c := range []struct {
		temperature, topP, random float64
		want                      int
	}{{0, 0, 0.99, 1}, {1, 0, 0.59, 1}, {1, 0, 0.65, 2}, {1, 0, 0.95, 0}, {1, 0.7, 0.95, 2}, {1, 0.5, 0.95, 1}} {
		if got := drawn(p, c.temperature, c.topP, c.random); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
}
