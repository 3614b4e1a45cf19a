// Package programtest checks what every example promises as a program.
package programtest

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// Check wants of a command that -h says what it does and how it is run, that a mistake is one
// line, and, where it writes files, that it looks whether it can before it computes anything.
func Check(t *testing.T, name string, command func(ctx context.Context, args []string, stdout, stderr io.Writer) error) {
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
	begin := time.Now()
	err := command(t.Context(), []string{"-out", "/nosuch/dir/x"}, &stdout, &stderr)
	if !errors.Is(err, os.ErrNotExist) || stdout.Len() > 0 || time.Since(begin) > time.Second {
		t.Errorf("-out /nosuch/dir/x: error %v after %v, printed %q", err, time.Since(begin), stdout.String())
	}
}
