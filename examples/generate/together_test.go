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

// TestDraft: with a draft the text is that without.
func TestDraft(t *testing.T) {
	texts := map[string]string{}
	for name, args := range map[string][]string{"alone": nil, "with a draft": {"-draft", "stories"}} {
		var out, log bytes.Buffer
		if err := command(t.Context(), append([]string{"-weights", "stories", "-greedy", "-n", "40"}, args...), &out, &log); err != nil {
			t.Fatal(err)
		}
		texts[name] = strings.TrimSpace(out.String())
		if args != nil && !strings.Contains(log.String(), "was called 7 times, the draft was wrong 0 times") {
			t.Errorf("%q", log.String())
		}
	}
	if texts["alone"] != texts["with a draft"] || len(texts["alone"]) < 60 {
		t.Errorf("%q", texts)
	}
	for want, args := range map[string][]string{
		"it needs -greedy":        {"-draft", "stories"},
		"neither with each other": {"-draft", "stories", "-bytes", "-greedy"},
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
