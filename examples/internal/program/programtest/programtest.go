// Package programtest checks what every example promises as a program.
package programtest

import (
	"context"
	"errors"
	"flag"
	"image/png"
	"io"
	"os"
	"strings"
	"testing"
)

// Command is an example's, as its main function runs it.
type Command func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Check wants of a command that -h says what it does and how it is run, that a mistake is one
// line, and, where it writes files, that it looks whether it can before it computes anything.
func Check(t *testing.T, name string, command Command) {
	t.Helper()
	var stdout, stderr strings.Builder
	if err := command(t.Context(), []string{"-h"}, &stdout, &stderr); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: error %v", err)
	}
	help := stderr.String()
	for _, want := range []string{name + " ", "go run ./examples/" + name, "Flags:", "-workers"} {
		if !strings.Contains(help, want) {
			t.Errorf("-h printed %q, want %q in it", help, want)
		}
	}
	stdout.Reset()
	stderr.Reset()
	if err := command(t.Context(), []string{"-nosuch"}, &stdout, &stderr); err == nil || err.Error() != "flag provided but not defined: -nosuch (-h lists the flags)" || stdout.Len()+stderr.Len() > 0 {
		t.Errorf("-nosuch: error %v, printed %q and %q", err, stdout.String(), stderr.String())
	}
	if !strings.Contains(help, "-out name") {
		return
	}
	done, cancel := context.WithCancel(t.Context())
	cancel() // which whatever computes looks at first
	if err := command(done, []string{"-out", "/nosuch/dir/x"}, &stdout, &stderr); !errors.Is(err, os.ErrNotExist) || stdout.Len() > 0 {
		t.Errorf("-out /nosuch/dir/x: error %v, printed %q", err, stdout.String())
	}
}

// Prints wants of what a command has printed that it has every one of some texts.
func Prints(t *testing.T, printed string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(printed, want) {
			t.Errorf("printed %q, want %q in it", printed, want)
		}
	}
}

// Pictures wants files to be pictures that a page can show, PNG.
func Pictures(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if img, err := png.Decode(f); err != nil || img.Bounds().Dx() < 500 {
			t.Errorf("%s: picture %v, error %v", path, img, err)
		}
		f.Close()
	}
}

// Errors wants errors of a command: for each text, its arguments.
func Errors(t *testing.T, command Command, mistakes map[string][]string) {
	t.Helper()
	for want, args := range mistakes {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil || err.Error() != want {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
}
