package program

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	f := Flags("x", "Does things.", "\tgo run ./examples/x -n 3")
	n := f.Int("n", 1, "how `many` things")
	var out bytes.Buffer
	if err := Parse(f, []string{"-h"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v", err)
	}
	if want := "Does things.\n\n\tgo run ./examples/x -n 3\n\nFlags:\n  -n many\n    \thow many things (default 1)\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	if err := Parse(f, []string{"-n", "3"}, &out); err != nil || *n != 3 {
		t.Errorf("%d, error %v", *n, err)
	}
	for want, args := range map[string][]string{
		`unexpected argument "y"`:                                         {"y"},
		"flag provided but not defined: -m (-h lists the flags)":          {"-m"},
		`invalid value "y" for flag -n: parse error (-h lists the flags)`: {"-n", "y"},
	} {
		if err := Parse(f, args, &out); err == nil || err.Error() != want || out.Len() > 0 {
			t.Errorf("%q: error %v, printed %q", args, err, out.String())
		}
	}
}

func TestWritable(t *testing.T) {
	dir := t.TempDir()
	there, missing := filepath.Join(dir, "there"), filepath.Join(dir, "missing")
	if err := os.WriteFile(there, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Writable(there, missing); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(there); err != nil || string(text) != "text" {
		t.Errorf("%q, error %v", text, err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "no", "such")} {
		if err := Writable(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

// TestProgress shows nothing in the first second, and then rates that are means since the
// beginning.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(1000, 0)
	p := &Progress{w: &out, unit: "bases", now: func() time.Time { return clock }}
	p.Begin("lambda", 10000)
	clock = clock.Add(500 * time.Millisecond)
	p.Add(1000)
	if out.Len() > 0 {
		t.Errorf("shown after half a second: %q", out.String())
	}
	clock = clock.Add(1500 * time.Millisecond)
	p.Add(3000)
	if !strings.Contains(out.String(), "lambda  2000 bases/s  3s left") || !strings.Contains(out.String(), "40%") {
		t.Errorf("after two seconds: %q", out.String())
	}
	p.Begin("next", 100)
	clock = clock.Add(4 * time.Second)
	p.Add(1)
	if !strings.Contains(out.String(), "next  0.25 bases/s  6m36s left") {
		t.Errorf("of the next: %q", out.String())
	}
	p.End()
	quiet := NewProgress(io.Discard, "bases")
	quiet.Begin("a", 1)
	quiet.Add(1)
	quiet.End()
	new(Progress).Add(1)
	var none *Progress
	none.Begin("a", 1)
	none.Add(1)
	none.End()
}
